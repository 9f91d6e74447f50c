const dark = window.matchMedia("(prefers-color-scheme: dark)").matches;
for (const place of document.querySelectorAll(".chart")) {
  const spec = JSON.parse(place.querySelector("script").textContent);
  vegaEmbed(place, spec, {actions: false, renderer: "svg", tooltip: {theme: dark ? "dark" : "light"}})
    .catch((error) => console.error(error));
}

"""Draws what RESULTS.md and README.md show of the comparisons in this folder: their tables, and a picture of each.

    python results/draw.py

A comparison is the `comparison.json` that `scripts/compare.py` or `make demo` left. In a text its table is the code
block below a line `<!--results/NAME.json-->`, which is written anew; its picture is `results/NAME.svg`.

Learning curves, `curves/NAME.json`, are what `collect_curves.py` writes; their picture is `curves/NAME.svg`.
"""

import json
import pathlib
import re

from keras_tkd.reports.comparison import read_comparison
from keras_tkd.reports.comparison_tables import describe_comparison, format_comparison_table

ROOT = pathlib.Path(__file__).resolve().parent.parent
TEXTS = ("README.md", "RESULTS.md")
_BLOCK = re.compile(r"(?ms)(?<=<!--results/)(?P<name>\w+)(?P<head>\.json-->\n+```\n)(?P<table>.*?)(?=^```)")
_GREY = "#7d8590"  # readable on white and on black
_WIDTH = 720  # pixels, of which the names of methods take some
# Where the picture is shown, fonts may be wider than where it was drawn.
_PADDING = {"left": 30, "right": 10, "top": 5, "bottom": 5}


def read_all():
    """Returns a dict from the name of each comparison in this folder to the `Comparison`."""
    return {path.stem: read_comparison(path) for path in sorted((ROOT / "results").glob("*.json"))}


def format_table(comparison):
    """Returns a comparison's table, with what it shows below."""
    return "\n".join([format_comparison_table(comparison), "", *describe_comparison(comparison)])


def fill(text, comparisons):
    """Returns a text with the tables of all comparisons that it names.

    Raises:
        KeyError: one that is not in this folder.
    """
    return _BLOCK.sub(lambda block: f"{block['name']}{block['head']}{format_table(comparisons[block['name']])}\n", text)


def draw(comparison):
    """Returns a picture of a comparison's accuracies as SVG, readable on white and on black."""
    import vl_convert

    from keras_tkd.reports.page.sections import chart_accuracies

    spec = chart_accuracies(comparison).spec | {"width": _WIDTH, "padding": _PADDING}
    # A picture inherits no colour from the page that shows it.
    return vl_convert.vegalite_to_svg(spec).replace("currentColor", _GREY)


def read_curves():
    """Returns a dict from the name of each file of learning curves to what it holds."""
    return {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "results" / "curves").glob("*.json"))}


def draw_curves(curves):
    """Returns a picture of learning curves as SVG: our methods as lines, what others have published as points."""
    import altair
    import vl_convert

    rows = [
        {"method": method, "epoch": epoch, "accuracy": accuracy}
        for method, accuracies in curves.items()
        if method != "published"
        for epoch, accuracy in enumerate(accuracies, 1)
    ]
    published = curves.get("published", {})
    points = [{"method": "published", "epoch": int(epoch), "accuracy": value} for epoch, value in published.items()]
    palette = iter(("#4c86c6", "#ee854a", "#3fa35a", "#d65f5f", "#9270ca"))
    colors = [_GREY if method == "published" else next(palette) for method in curves]
    lines = altair.Chart(altair.Data(values=rows)).mark_line(strokeWidth=1.6)
    chart = lines + altair.Chart(altair.Data(values=points)).mark_point(filled=True, opacity=1, size=60)
    chart = chart.encode(
        x=altair.X("epoch:Q", scale=altair.Scale(nice=False, domainMin=0)),
        y=altair.Y("accuracy:Q", title="test accuracy", scale=altair.Scale(zero=False), axis=altair.Axis(format="~%")),
        color=altair.Color(
            "method:N",
            scale=altair.Scale(domain=list(curves), range=colors),
            legend=altair.Legend(orient="bottom", title=None, columns=3, labelLimit=0),
        ),
    )
    colored = {f"{part}Color": _GREY for part in ("label", "title", "grid", "domain", "tick")}
    chart = (
        chart.properties(width=_WIDTH, height=260, padding=_PADDING)
        .configure(background="transparent", font="system-ui, sans-serif")
        .configure_axis(**colored, gridOpacity=0.25, labelFontSize=12, titleFontSize=12, titleFontWeight="normal")
        .configure_legend(labelColor=_GREY, labelFontSize=12)
        .configure_view(stroke=None)
    )
    return vl_convert.vegalite_to_svg(chart.to_dict())


def main():
    comparisons = read_all()
    for name in TEXTS:
        path = ROOT / name
        path.write_text(fill(path.read_text(), comparisons))
    for name, comparison in comparisons.items():
        (ROOT / "results" / f"{name}.svg").write_text(draw(comparison))
    for name, curves in read_curves().items():
        (ROOT / "results" / "curves" / f"{name}.svg").write_text(draw_curves(curves))


if __name__ == "__main__":
    main()

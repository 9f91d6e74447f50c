"""Reads a report's page back: its tables, charts and links, as a browser would take them."""

import html.parser
import json
import pathlib
import re
import shutil
import subprocess


class Page(html.parser.HTMLParser):
    """What a page holds.

    Attributes:
        cells: dicts with the attributes of each cell that has a number, and its `"text"`.
        charts: specifications of the charts.
        embedded: plain data of the `Comparison`.
        tags: `(name, attributes)` of every element.
        text: all text outside of scripts and styles.
    """

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.cells, self.charts, self.tags, self.text, self.embedded = [], [], [], "", None
        self._inside, self._cell = [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        if tag in ("script", "style"):
            self._inside.append((tag, attributes))
        if tag in ("td", "th") and "data-value" in attributes:
            self._cell = attributes | {"text": ""}
            self.cells.append(self._cell)

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._inside.pop()
        if tag in ("td", "th"):
            self._cell = None

    def handle_data(self, data):
        if not self._inside:
            self.text += data
            if self._cell is not None:
                self._cell["text"] += data
        elif self._inside[-1][1].get("type") == "application/json":
            if self._inside[-1][1].get("id") == "comparison":
                self.embedded = json.loads(data)
            else:
                self.charts.append(json.loads(data))

    @property
    def addresses(self):
        """What elements of the page point to."""
        names = ("src", "href", "srcset", "data", "action", "poster", "background")
        return [value for _, attributes in self.tags for name, value in attributes.items() if name in names]

    def list_values(self):
        """The rows of data that charts show."""
        return [row for chart in self.charts for row in _list_rows(chart)]


def _list_rows(part):
    """The rows of data anywhere in a specification."""
    if isinstance(part, list):
        return [row for each in part for row in _list_rows(each)]
    if not isinstance(part, dict):
        return []
    own = part["data"]["values"] if "values" in part.get("data", {}) else []
    return own + [row for name, each in part.items() if name != "data" for row in _list_rows(each)]


def follow_pointer(values, pointer):
    """What a JSON pointer (RFC 6901) names in plain data."""
    for part in pointer.split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        values = values[int(part)] if isinstance(values, list) else values[part]
    return values


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def open_in_browser(path, *flags):
    """Opens a page without a network; returns its elements once its scripts have run, and what the console says."""
    # A second process of the same profile would hand its page over to the first.
    profile = pathlib.Path(path).with_name("profile")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0", *flags]
    command += [f"--user-data-dir={profile}", "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=10000"]
    command += ["--dump-dom", pathlib.Path(path).absolute().as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    # What the page's scripts say is no part of it.
    return done.stdout.partition('<script type="module"')[0], re.findall(r"CONSOLE.*", done.stderr)

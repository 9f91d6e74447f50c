"""Draws what RESULTS.md and README.md show of the comparisons in this folder: their tables, and a picture of each.

    python results/draw.py

A comparison is the `comparison.json` that `scripts/compare.py` or `make demo` left. In a text its table is the code
block below a line `<!--results/NAME.json-->`, which is written anew; its picture is `results/NAME.svg`.
"""

import pathlib
import re

from keras_tkd.reports.comparison import read_comparison
from keras_tkd.reports.comparison_tables import describe_comparison, format_comparison_table

ROOT = pathlib.Path(__file__).resolve().parent.parent
TEXTS = ("README.md", "RESULTS.md")
_BLOCK = re.compile(r"(?ms)(?<=<!--results/)(?P<name>\w+)(?P<head>\.json-->\n+```\n)(?P<table>.*?)(?=^```)")
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
    return vl_convert.vegalite_to_svg(spec).replace("currentColor", "#7d8590")


def main():
    comparisons = read_all()
    for name in TEXTS:
        path = ROOT / name
        path.write_text(fill(path.read_text(), comparisons))
    for name, comparison in comparisons.items():
        (ROOT / "results" / f"{name}.svg").write_text(draw(comparison))


if __name__ == "__main__":
    main()

"""The page itself: a template filled with sections, and the library that draws the charts."""

import functools
import importlib.util
import pathlib

from keras_tkd.reports.page.report import Report

__all__ = ["check_packages", "format_page"]

_FOLDER = pathlib.Path(__file__).parent
_PACKAGES = {"altair": "altair", "jinja2": "Jinja2", "vl_convert": "vl-convert-python"}


def check_packages():
    """Raises `ValueError` where what draws charts is not installed."""
    missing = [name for module, name in _PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ValueError(
            f"A report needs {' and '.join(missing)}, not installed here. "
            'Install the extra: pip install "keras_tkd[report]"'
        )


def format_page(report: Report):
    """Returns a `Report` as a page of HTML that needs no other file and no network.

    The same report gives the same text. Whatever users named, such as classes and paths, is text there and no markup.

    Raises:
        ValueError: what draws charts is not installed; the message names the extra.
    """
    check_packages()
    import jinja2

    from keras_tkd.reports.page import curves, sections

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    # JSON has no NaN; and the order of keys is no matter of how a dict was filled.
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "sort_keys": True}
    trusted = jinja2.utils.markupsafe.Markup
    return environment.from_string(_read("page.html")).render(
        report=report,
        sections=[
            sections.describe_accuracies(report),
            sections.describe_costs(report),
            curves.describe_curves(report),
            sections.describe_repetition(report),
        ],
        style=trusted(_read("page.css")),
        library=trusted(_bundle_library()),
    )


def _read(name):
    return (_FOLDER / name).read_text(encoding="utf-8")


@functools.cache
def _bundle_library():
    """Returns Vega-Lite with all that it needs, and what draws the page's charts, as one script."""
    import vl_convert

    return vl_convert.javascript_bundle(_read("page.js"))

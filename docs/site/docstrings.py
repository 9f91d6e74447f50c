"""Turns this package's docstrings into the Markdown that the site needs; in the code they are plain text."""

import re

import griffe

# Paragraphs that begin with a word of their own, beside the sections that Google's style knows.
_LEADS = "Call|Data|Deviations|Example|Examples|Layers|Metrics|Our reading|References|Reference|Special cases|Weights"


def to_markdown(text):
    """Gives a docstring as Markdown: doctests as code, leads bold, lists as lists, and no quotation for `> 0`."""
    # A doctest, up to the next blank line.
    text = re.sub(r"(?m)^>>> (?:.+\n?)+", lambda code: f"```pycon\n{code[0].rstrip()}\n```\n", text)
    # A comparison where Markdown would see a quotation.
    text = re.sub(r"(?m)^( +(?:[\w, *]+: )?)>(?=[ =])", r"\1\\>", text)
    # A list needs a blank line before it.
    text = re.sub(r"(?m)^(?! *- )(.+)\n(?=- )", r"\1\n\n", text)
    return re.sub(rf"(?m)^({_LEADS})\b([^:\n]{{0,40}}):(?=\s)", r"\n**\1\2:**", text)


class Docstrings(griffe.Extension):
    """Rewrites each docstring before it is parsed."""

    def on_object(self, *, obj, **kwargs):
        if obj.docstring:
            obj.docstring.value = to_markdown(obj.docstring.value)

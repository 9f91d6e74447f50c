"""Parts that a page is made of: sections of tables, charts, pictures, sentences. Plain data, which a template shows."""

import dataclasses

__all__ = ["Cell", "Chart", "Gallery", "Listing", "Picture", "Section", "Table"]


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: what people read.
        value: the number that it shows, unrounded; None for words.
        source: where `comparison.json` has it, as a JSON pointer (RFC 6901); empty for a number that is computed.
        mood: `"better"` or `"worse"`, which has a colour; empty for neither.
    """

    text: str
    value: float | None = None
    source: str = ""
    mood: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        header: list of texts.
        rows: list of lists of `Cell`; the first of each names the row.
        caption: a sentence above it.
    """

    header: list[str]
    rows: list[list[Cell]]
    caption: str = ""
    kind: str = "table"


@dataclasses.dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        title: a short one.
        spec: Vega-Lite specification, as plain data.
        summary: a sentence for those who do not see it.
        wide: whether it takes the whole width of a large screen.
    """

    title: str
    spec: dict
    summary: str
    wide: bool = False
    kind: str = "chart"


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture with a few lines below it.

    Attributes:
        uri: the picture itself, as a `data:` URI.
        text: what it shows, for those who do not see it.
        lines: texts below it.
    """

    uri: str
    text: str
    lines: list[str]


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Pictures in rows.

    Attributes:
        title: a sentence above them.
        rows: list of lists of `Picture`; those of a row belong together.
    """

    title: str
    rows: list[list[Picture]]
    kind: str = "gallery"


@dataclasses.dataclass(frozen=True)
class Listing:
    """Lines of text to be copied.

    Attributes:
        title: what they are.
        lines: list of texts.
    """

    title: str
    lines: list[str]
    kind: str = "listing"


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of a page.

    Attributes:
        name: its anchor.
        title: its heading.
        notes: sentences that say what is shown, and what is left out and why.
        blocks: list of `Table`, `Chart`, `Gallery` and `Listing`.
    """

    name: str
    title: str
    notes: list[str]
    blocks: list

"""What a page is made of: a union of small values that know nothing of HTML or Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Prose:
    """Paragraphs, separated by an empty line."""

    text: str

    @property
    def paragraphs(self) -> list[str]:
        """The paragraphs, each on one line."""
        return [" ".join(part.split()) for part in self.text.split("\n\n") if part.strip()]


@dataclass(frozen=True)
class KeyNumbers:
    """A few (value, what it is) pairs to be seen first."""

    items: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Definitions:
    """(term, explanation) pairs."""

    items: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """A header and rows of ready text; what follows a line feed in a cell is set smaller, below."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"a table row has {len(row)} cells, its header {len(self.header)}: {row!r}")


@dataclass(frozen=True)
class Figure:
    """A drawing: trusted SVG, what it shows in words (`alt`), and a caption."""

    svg: str
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class RegeneratedText:
    """Text as it was regenerated: runs of (original, regenerated), right where the two are equal."""

    name: str
    pieces: Sequence[tuple[str, str]]
    unsure: Sequence[bool] = ()
    """Which pieces the model marks as what may be wrong; older results do not say."""

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """From a row of samples.jsonl."""
        pieces = tuple((original, regenerated) for original, regenerated in row["pieces"])
        return cls(row["document"], pieces, tuple(row.get("unsure", ())))

    @property
    def verdict(self) -> str:
        """How well it went, in words."""
        wrong = sum(original != regenerated for original, regenerated in self.pieces)
        unsure = sum(self.unsure)
        marks = f", {unsure} marked as unsure" if unsure else ""
        if wrong == 0:
            return f"regenerated without an error{marks}"
        return f"wrong in {wrong} {'place' if wrong == 1 else 'places'}{marks}"


Block = Prose | KeyNumbers | Definitions | Table | Figure | RegeneratedText

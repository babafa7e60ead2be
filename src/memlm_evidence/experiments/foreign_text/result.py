"""What memories were found to hold of text unlike that of training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from memlm.runtime.measures import Regeneration
from memlm_evidence.claims import ExperimentResult


@dataclass(frozen=True, kw_only=True)
class TextRow(Regeneration):
    """What an autoencoder's own decoder gives back of one kind of text."""

    mixer: str
    text: str
    """As `evaluation_sets` call it."""


@dataclass(frozen=True, kw_only=True)
class ForeignTextResult(ExperimentResult):
    """By mixer and kind of text."""

    name: ClassVar[str] = "foreign-text"
    rows: Sequence[TextRow]
    samples: Mapping[str, Sequence[Mapping[str, Any]]]
    """Passages drawn at random, given back, by mixer."""

    def row(self, mixer: str, text: str) -> TextRow:
        """That of a mixer and a kind of text."""
        return next(row for row in self.rows if (row.mixer, row.text) == (mixer, text))

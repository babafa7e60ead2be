"""What memories were found to hold of text unlike that of training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from memlm.runtime.results import Interval, Record
from memlm_evidence.claims import ExperimentResult


@dataclass(frozen=True, kw_only=True)
class TextRow(Record):
    """What an autoencoder's own decoder gives back of one kind of text, measured as `evaluation.metrics` says."""

    mixer: str
    text: str
    """As `evaluation_sets` call it."""
    token_accuracy: float
    exact_match: float
    nats_per_token: float
    bits_per_byte: float
    unconditional_nats_per_token: float
    retained_bits_per_token: float
    retained_fraction: float
    entropy_ratio: float
    bits_per_dim: float
    num_chunks: int
    num_tokens: int
    num_documents: int
    resampled: str
    bytes_per_token: float
    accuracy_by_position: Sequence[float | None]
    chunk_len: int
    memory_dim: int
    num_slots: int
    intervals: Mapping[str, Interval]


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

"""Measures by their names in result files: headers, digits and meanings for the terminal and for pages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from memlm.runtime.results import Interval, Record
from memlm.runtime.wording import human, number, share, with_interval


@dataclass(frozen=True)
class Measure:
    """How one measure is shown."""

    header: str
    meaning: str = ""
    digits: int = 4
    is_share: bool = False

    def show(self, value: Any) -> str:
        """The value as text."""
        return share(value, self.digits) if self.is_share else number(value, self.digits)

    def estimate(self, value: Any, interval: Sequence[float] | None) -> str:
        """The value, and on a second line its interval, if there is one."""
        return with_interval(self.show, value, interval)


@dataclass(frozen=True, kw_only=True)
class Regeneration(Record):
    """How much of some text was regenerated, as `evaluation.metrics` measures it."""

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
    accuracy_by_position: tuple[float | None, ...] = ()
    """None where no token stands; empty in a row that was shortened."""
    chunk_len: int
    memory_dim: int
    num_slots: int
    intervals: dict[str, Interval] = field(default_factory=dict)
    """95% intervals, by measure."""


MEASURES: Mapping[str, Measure] = {
    "token_accuracy": Measure(
        "token accuracy",
        "Share of tokens regenerated right, in place, from the memory alone, without teacher forcing.",
        is_share=True,
    ),
    "exact_match": Measure("exact match", "Share of chunks regenerated without an error.", is_share=True),
    "bits_per_byte": Measure(
        "bits/byte", "The decoder's cross-entropy given the memory, in bits per byte of the text. 0 is perfect."
    ),
    "retained_bits_per_token": Measure(
        "retained bits/token",
        "Bits per token that the memory saves, compared with a decoder that knows token frequencies only.",
        digits=2,
    ),
    "retained_fraction": Measure(
        "retained fraction",
        "Retained bits as a fraction of what a token costs without a memory. 1 is perfect.",
        is_share=True,
    ),
    "bits_per_dim": Measure("bits/dim", "Retained bits of a chunk per dimension of its memory.", digits=2),
    "entropy_ratio": Measure(
        "entropy ratio", "The paper's measure, for comparison: 1 − the decoder's cross-entropy / that of random logits."
    ),
    "storage_efficiency": Measure(
        "storage efficiency", "Retained bits as a fraction of the bits that the quantized memory takes.", is_share=True
    ),
    "causal_nats_per_token": Measure(
        "nats/token of a language model", "Cross-entropy of a causal language model, which sees the earlier tokens."
    ),
}

REPORTED = (  # the columns of a table of results
    "token_accuracy",
    "exact_match",
    "bits_per_byte",
    "retained_bits_per_token",
    "retained_fraction",
    "bits_per_dim",
    "entropy_ratio",
)


def measure(name: str) -> Measure:
    """A measure by its name; one not listed here goes by its own name."""
    return MEASURES.get(name) or Measure(human(name))

"""How often models were found to give back exact strings."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from memlm.runtime.results import Interval, Record
from memlm_evidence.claims import ExperimentResult


@dataclass(frozen=True, kw_only=True)
class SettingRow(Record):
    """Answers to one kind of question, with 95% intervals over texts."""

    kind: str
    num_chunks: int
    """Past chunks."""
    distance: int
    """Chunks from the fact to the question."""
    exact_match: float
    token_accuracy: float
    num_texts: int
    intervals: Mapping[str, Interval]


@dataclass(frozen=True, kw_only=True)
class RecallResult(ExperimentResult):
    """By model: shares of exact answers, over all kinds of fact by distance in chunks, and the other way round."""

    name: ClassVar[str] = "recall"
    recall: Mapping[str, Mapping[str, float]]
    recall_intervals: Mapping[str, Mapping[str, Interval]]
    recall_by_kind: Mapping[str, Mapping[str, float]]
    recall_by_kind_intervals: Mapping[str, Mapping[str, Interval]]
    chance: Mapping[str, float]
    """When nothing of the past is read."""
    rows: Mapping[str, Sequence[SettingRow]]

    def lines(self) -> Iterator[str]:
        """What to say of it in a terminal."""
        for name, rates in self.recall.items():
            shown = ", ".join(f"{rate:.3f} at {distance}" for distance, rate in rates.items())
            yield f"{name}: {shown} chunks; blind {self.chance[name]:.3f}"

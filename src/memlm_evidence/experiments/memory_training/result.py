"""How long training steps of a memory model and of others were found to take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from memlm_evidence.claims import ExperimentResult


@dataclass(frozen=True, kw_only=True)
class StepRow:
    """Seconds of a step by so many chunks of a window: of other ways and models over ours."""

    window_chunks: int
    combined_step_ratio: float
    recurrent_step_ratio: float
    encoder_decoder_step_ratio: float
    tokens_per_second: Mapping[str, float]
    seconds_per_step: Mapping[str, float]
    loss_difference: float
    batch_tokens: int


@dataclass(frozen=True, kw_only=True)
class MemoryTrainingResult(ExperimentResult, StepRow):
    """By chunks of a window; itself the row of the first number of them, which is the recipe's own."""

    name: ClassVar[str] = "memory-training"
    rows: Sequence[StepRow]
    model: Mapping[str, Any]
    precision: str
    num_threads: int

    @property
    def most_chunks(self) -> StepRow:
        """The row of the most chunks."""
        return max(self.rows, key=lambda row: row.window_chunks)

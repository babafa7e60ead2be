"""A memory model trains faster than loops over chunks, recurrent memory and encoder-decoders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from memlm_evidence.claims import Claim, ExperimentResult, Measured
from memlm_evidence.experiments.experiment import Experiment, deferred


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


MEMORY_TRAINING = Experiment[Mapping[str, Any], MemoryTrainingResult](
    name=MemoryTrainingResult.name,
    folder="memory-training",
    presets={"quick": lambda _: {"window_chunks": (4, 32)}, "standard": lambda _: {"window_chunks": (4, 8, 16, 32)}},
    run=deferred("memlm_evidence.experiments.memory_training.run:run"),
    page=deferred("memlm_evidence.experiments.memory_training.page:page"),
    result=MemoryTrainingResult,
    claims=(
        Claim(
            name="memory-models-are-parallel",
            statement="All chunks at once train faster than one after the other.",
            quantity="seconds of a step of the recipe chunk by chunk, over ours",
            threshold=2.5,
            measure=lambda result: Measured.exactly(result.combined_step_ratio),
        ),
        Claim(
            name="faster-than-recurrent-memory",
            statement="Memories of many chunks train faster than memory that is carried from chunk to chunk.",
            quantity="seconds of a next-token step of recurrent memory over ours, most chunks",
            threshold=1.0,
            measure=lambda result: Measured.exactly(result.most_chunks.recurrent_step_ratio),
        ),
        Claim(
            name="faster-than-encoder-decoders",
            statement="And faster than a decoder that attends to the states of all past tokens.",
            quantity="seconds of a next-token step of an encoder-decoder over ours, most chunks",
            threshold=1.0,
            measure=lambda result: Measured.exactly(result.most_chunks.encoder_decoder_step_ratio),
        ),
    ),
    seeded=False,
    timed=True,
)

"""What memories in place of tokens save, and what training a memory model takes: benchmarks that decide claims."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from memlm.runtime.tables import Table
from memlm.runtime.wording import number
from memlm_evidence.claims import ExperimentResult, Measured, claim
from memlm_evidence.experiments.experiment import Experiment, benchmarked
from memlm_evidence.pages.figures import Figure, Line, line_figure
from memlm_evidence.pages.page import Page, Section


@dataclass(frozen=True, kw_only=True)
class ContextRow:
    """Costs of one past; ratios are above 1 where memories cost less (`benchmarks.substitution` says what of)."""

    context_tokens: int
    ttft_ratio_cold: float
    ttft_ratio_cached: float
    decode_ratio: float
    cache_bytes_ratio: float
    flops_ratio_cold: float
    flops_ratio_cached: float
    position_limit: float
    memory_bytes: int
    seconds: Mapping[str, float]
    decode_tokens_per_second: Mapping[str, float]
    cache_bytes: Mapping[str, int]
    flops: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class SubstitutionResult(ExperimentResult):
    """By length of the past."""

    name: ClassVar[str] = "substitution"
    rows: Sequence[ContextRow]
    model: Mapping[str, Any]
    precision: str
    new_tokens: int
    device: str
    num_threads: int

    @property
    def longest(self) -> ContextRow:
        """The row of the longest past."""
        return max(self.rows, key=lambda row: row.context_tokens)


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
    combined_step_limit: float | None = None
    """Of the ratio, if all but the matrix products of our step took no time; None where that was not measured."""


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


def substitution_page(results: Sequence[SubstitutionResult]) -> Page:
    """What memories save by length of the past, of the last of several results."""
    ratios = {
        "ttft_ratio_cold": "first token, encoding included",
        "ttft_ratio_cached": "first token, memories kept",
        "flops_ratio_cold": "operations, encoding included",
        "cache_bytes_ratio": "cache",
        "decode_ratio": "speed of writing on",
    }
    labels = {"x_label": "tokens of the past", "y_label": "tokens' cost over memories'"}
    alt = "Ratios of cost against the length of the past."
    figure, cells = _by("context_tokens", results[-1].rows, ratios, 1, alt, **labels, log_x=True, log_y=True)
    told = "One past, read by the same decoder as tokens and as memories; above 1, memories cost less."
    return Page.of(Section("Memories in place of tokens", told, [figure], Table(["past", *ratios.values()], cells)))


def training_page(results: Sequence[MemoryTrainingResult]) -> Page:
    """Seconds of training steps over ours by chunks of a window, of the last of several results."""
    ratios = {
        "combined_step_ratio": "chunk by chunk, both objectives",
        "recurrent_step_ratio": "recurrent memory, next tokens",
        "encoder_decoder_step_ratio": "encoder-decoder, next tokens",
    }
    labels = {"x_label": "chunks of a window", "y_label": "seconds of a step, over ours"}
    alt = "Seconds of a training step over ours, against the chunks of a window."
    figure, cells = _by("window_chunks", results[-1].rows, ratios, 2, alt, **labels)
    told = "A training step with all chunks at once, beside other ways, on equal tokens; above 1, ours is faster."
    return Page.of(Section("All chunks at once", told, [figure], Table(["chunks", *ratios.values()], cells)))


def _by(
    name: str, rows: Sequence[Any], ratios: Mapping[str, str], digits: int, alt: str, **options: Any
) -> tuple[Figure, list[list[str]]]:
    """Ratios against what is varied: a figure with a line for each, and a table's rows with a column for each."""
    places = [getattr(row, name) for row in rows]
    lines = [Line(label, places, [getattr(row, ratio) for row in rows], marked=True) for ratio, label in ratios.items()]
    cells = [[f"{getattr(row, name):,}", *(number(getattr(row, ratio), digits) for ratio in ratios)] for row in rows]
    return line_figure(lines, alt, x_ticks={float(place): f"{place:,}" for place in places}, **options), cells


@claim("seconds to the first token of the longest past, as tokens over as memories", at_least=3.0)
def memories_save_time(result: SubstitutionResult) -> Measured:
    """A past as memories is read sooner than as tokens, encoding included."""
    return Measured.exactly(result.longest.ttft_ratio_cold)


@claim("operations to the first token of the longest past, as tokens over as memories", at_least=3.0)
def memories_save_compute(result: SubstitutionResult) -> Measured:
    """They take fewer operations, encoding included."""
    return Measured.exactly(result.longest.flops_ratio_cold)


@claim("bytes of keys and values of the longest past, as tokens over as memories", at_least=10.0)
def memories_save_cache(result: SubstitutionResult) -> Measured:
    """They leave a smaller cache."""
    return Measured.exactly(result.longest.cache_bytes_ratio)


SUBSTITUTION = Experiment[Mapping[str, Any], SubstitutionResult](
    name=SubstitutionResult.name,
    folder="substitution",
    presets=dict.fromkeys(("quick", "standard"), lambda _: {"contexts": (1024, 4096, 16384)}),
    run=benchmarked("memlm_evidence.benchmarks.substitution:Substitution", SubstitutionResult),
    page=substitution_page,
    result=SubstitutionResult,
    claims=(memories_save_time, memories_save_compute, memories_save_cache),
    seeded=False,
    timed=True,
)


@claim("seconds of a step of the recipe chunk by chunk, over ours", at_least=2.5)
def memory_models_are_parallel(result: MemoryTrainingResult) -> Measured:
    """All chunks at once train faster than one after the other."""
    return Measured.exactly(result.combined_step_ratio)


@claim("seconds of a next-token step of recurrent memory over ours, most chunks", at_least=1.0)
def faster_than_recurrent_memory(result: MemoryTrainingResult) -> Measured:
    """Memories of many chunks train faster than memory that is carried from chunk to chunk."""
    return Measured.exactly(result.most_chunks.recurrent_step_ratio)


@claim("seconds of a next-token step of an encoder-decoder over ours, most chunks", at_least=1.0)
def faster_than_encoder_decoders(result: MemoryTrainingResult) -> Measured:
    """And faster than a decoder that attends to the states of all past tokens."""
    return Measured.exactly(result.most_chunks.encoder_decoder_step_ratio)


MEMORY_TRAINING = Experiment[Mapping[str, Any], MemoryTrainingResult](
    name=MemoryTrainingResult.name,
    folder="memory-training",
    presets={"quick": lambda _: {"window_chunks": (4, 32)}, "standard": lambda _: {"window_chunks": (4, 8, 16, 32)}},
    run=benchmarked("memlm_evidence.benchmarks.memory_training:MemoryTraining", MemoryTrainingResult),
    page=training_page,
    result=MemoryTrainingResult,
    claims=(memory_models_are_parallel, faster_than_recurrent_memory, faster_than_encoder_decoders),
    seeded=False,
    timed=True,
)

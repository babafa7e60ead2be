"""The combined objective makes memories rich at the same next-token loss; a curriculum makes that cheap."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from memlm.config import MemoryModelRecipe, ReadingConfig
from memlm.probing.results import ProbeRow
from memlm.recipes.paper import paper_memory_model
from memlm.runtime.results import Interval, Record
from memlm.runtime.wording import share
from memlm_evidence.claims import Difference, ExperimentResult, Measured, claim
from memlm_evidence.experiments.experiment import Experiment, deferred

BOUNDS = ("encoder_decoder", "oracle")
"""Conditions that read more of the past, or of the very chunk, than memories hold; of a full comparison."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to train and how large; as it is, the standard preset's."""

    chunk_len: int = 32
    memory_dim: int = 256
    window_chunks: int = 4
    num_positions: int = 4
    """Decoder positions that a memory takes."""
    dim: int = 128
    """Width of the decoder."""
    num_tokens: int = 1_000_000
    """Causal tokens of every condition; the curriculum reads memories for some more first."""
    autoencoder_tokens: int = 1_000_000
    """Tokens of the autoencoder whose encoder the curriculum freezes."""
    reading_fraction: float = 0.25
    """Share of `num_tokens` that the curriculum spends on reading memories, on top of them."""
    reading_steps: int = 1000
    """Steps of the readers that memories are probed with."""
    reading_chunks: int = 40_000
    conditions: tuple[str, ...] = ("no_memory", "causal", "combined", "curriculum", "full_context", "recurrent")
    """What is trained (`run.CONDITIONS`); the first four are always compared."""
    full: bool = False
    """Also train bounds and variants."""
    variant_tokens: int = 500_000
    """Tokens of each variant."""
    weights: tuple[float, ...] = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0)
    """Of the retention term beside the causal one."""
    dims: tuple[int, ...] = (64, 128, 256)
    """Decoder widths."""
    insertions: tuple[tuple[str, int], ...] = (("prefix", 1), ("prefix", 4), ("cross_attention", 4), ("unpooled", 4))
    """How a memory enters the decoder, and as how many positions or keys."""
    seed: int = 0

    @classmethod
    def quick(cls, seed: int) -> "Plan":
        """As small as the claims can be decided."""
        return cls(num_tokens=800_000, conditions=("no_memory", "causal", "combined", "curriculum"), seed=seed)

    @property
    def compared(self) -> tuple[str, ...]:
        """All conditions."""
        return (*self.conditions, *(BOUNDS if self.full else ()))


@dataclass(frozen=True, kw_only=True)
class PaperPlan:
    """Memory models of the paper's sizes, and how their memories are read."""

    causal: MemoryModelRecipe
    combined: MemoryModelRecipe
    reading: ReadingConfig = field(default_factory=lambda: ReadingConfig(num_steps=10_000, max_chunks=500_000))
    seed: int = 0

    @classmethod
    def of_seed(cls, seed: int) -> "PaperPlan":
        """The paper's."""
        causal = paper_memory_model(retention=0.0, seed=seed)
        return cls(causal=causal, combined=paper_memory_model(seed=seed), seed=seed)


@dataclass(frozen=True, kw_only=True)
class VariantRow(Record):
    """One variant of the combined condition: what it differs in, and what came of it."""

    causal_nats: float
    interval: Interval
    train_flops: float
    decoder_positions_per_chunk: int
    gap: Difference | None = None
    """To causal training, where that is asked; relative."""
    retention_accuracy: float | None = None
    """Of its own decoder; None without an encoder."""
    retention_weight: float | None = None
    dim: int | None = None
    objective: str | None = None
    insertion: str | None = None
    number: int | None = None


@dataclass(frozen=True, kw_only=True)
class MemoryModelResult(ExperimentResult):
    """Conditions compared, by their name.

    What may be None is so at the paper's sizes, where combined and causal training are compared and no more.
    """

    name: ClassVar[str] = "memory-model"
    causal_nats: Mapping[str, float]
    """On chunks that have a past to read."""
    gap: Mapping[str, Difference]
    """To causal training, relative."""
    probes: Mapping[str, ProbeRow]
    """What the same reader, trained on each, finds in memories."""
    retention_accuracy: Mapping[str, float]
    """Its token accuracy."""
    seed: int
    causal_nats_by_chunk: Mapping[str, Sequence[float]] | None = None
    causal_nats_intervals: Mapping[str, Interval] | None = None
    gain: Mapping[str, Difference] | None = None
    """Over no memory, in nats a token."""
    own_retention_accuracy: Mapping[str, float] | None = None
    """Of what the models' own decoders give back."""
    train_flops: Mapping[str, float] | None = None
    """With that of the autoencoder that the curriculum begins with."""
    flops_to_rich: Mapping[str, float | None] | None = None
    """What it took to give back 99.5% of tokens; None for what never did."""
    tokens: Mapping[str, int] | None = None
    trade_off: Sequence[VariantRow] = field(default_factory=list)
    """Over the weight of retention, in a full comparison."""
    by_size: Sequence[VariantRow] = field(default_factory=list)
    """Of the decoder, likewise."""
    by_insertion: Sequence[VariantRow] = field(default_factory=list)
    """How a memory enters the decoder, likewise."""
    decoder_positions_per_chunk: int | None = None
    chunk_len: int | None = None
    window_chunks: int | None = None

    def lines(self) -> Iterator[str]:
        """What to say of it in a terminal."""
        for name, nats in self.causal_nats.items():
            retained = self.retention_accuracy.get(name)
            yield f"{name}: {nats:.4f} nats/token" + (f", retention {share(retained)}" if retained else "")


@claim("token accuracy of a trained reader", at_most=0.4)
def causal_memories_are_poor(result: MemoryModelResult) -> Measured:
    """A memory model trained on next tokens alone forms poor memories."""
    return Measured.of(result.probes["causal"], "token_accuracy")


@claim("token accuracy of a trained reader", at_least=0.995)
def combined_memories_are_rich(result: MemoryModelResult) -> Measured:
    """Trained to regenerate as well, it forms nearly perfect ones."""
    return Measured.of(result.probes["combined"], "token_accuracy")


@claim("nats a token gained over no memory", at_least=0.0)
def memories_help(result: MemoryModelResult) -> Measured | None:
    """Memories of the past make next tokens cheaper."""
    return None if result.gain is None else result.gain["combined"].measured


@claim("next-token loss of combined above causal training, relative", at_most=0.02)
def rich_memories_cost_no_prediction(result: MemoryModelResult) -> Measured:
    """Regeneration does not cost next-token loss."""
    return result.gap["combined"].measured


@claim("operations to 99.5%, with the autoencoder's own, over combined training's", at_most=0.5)
def curriculum_is_cheaper(result: MemoryModelResult) -> Measured | None:
    """A frozen autoencoder's encoder with a curriculum makes rich memories for half the operations."""
    spent, whole = result.flops_to_rich, result.train_flops
    if spent is None or whole is None:
        return None
    curriculum, combined = spent["curriculum"], spent["combined"]
    if curriculum is None:
        return Measured.exactly(float("inf"))  # it never got there
    curriculum += whole["autoencoder"]
    if combined is None:  # the other never did: more than all it was given
        most = curriculum / whole["combined"]
        return Measured(most, 0.0, most)
    return Measured.exactly(curriculum / combined)


MEMORY_MODEL = Experiment[Plan | PaperPlan, MemoryModelResult](
    name=MemoryModelResult.name,
    folder="memory-model",
    presets={"quick": Plan.quick, "standard": lambda seed: Plan(seed=seed), "paper": PaperPlan.of_seed},
    run=deferred("memlm_evidence.experiments.memory_model.run:run"),
    page=deferred("memlm_evidence.experiments.memory_model.page:page"),
    result=MemoryModelResult,
    claims=(
        causal_memories_are_poor,
        combined_memories_are_rich,
        memories_help,
        rich_memories_cost_no_prediction,
        curriculum_is_cheaper,
    ),
)

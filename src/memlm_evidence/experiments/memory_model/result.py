"""What a comparison of memory models found."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from memlm.probing.results import ProbeRow
from memlm.runtime.results import Interval, Record
from memlm.runtime.wording import share
from memlm_evidence.claims import ExperimentResult, Measured


@dataclass(frozen=True, kw_only=True)
class Difference(Record):
    """Between two conditions on the same windows, with its paired 95% interval over documents."""

    value: float
    interval: Interval

    @property
    def measured(self) -> Measured:
        """As claims take it."""
        return Measured(self.value, *self.interval)


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

"""What a probe measures, as typed results; without torch, for whoever reads result files."""

from dataclasses import dataclass, field
from typing import NamedTuple

from memlm.config import Degradation
from memlm.runtime.results import Provenance, Record, Regeneration


class View(NamedTuple):
    """Which of an encoder's embeddings is meant."""

    layer: int
    """From 0, the token embeddings; negative counts from the last, which is -1."""
    pooling: str
    """A `StatePooling`, or `memory`, an autoencoder's own."""

    def __str__(self) -> str:
        return self.pooling if self.pooling in ("memory", "sentence") else f"layer {self.layer}, {self.pooling}"


@dataclass(frozen=True, kw_only=True)
class ProbeRow(Regeneration):
    """What one reader made of one embedding of an encoder, or of a control."""

    encoder: str
    layer: int
    pooling: str
    reader: str
    seed: int
    degradation: Degradation | None
    """What was put on the embedding; None where it was read as it is."""
    control: str | None
    """Which control this is; None where it is none."""
    trust: float
    converged: bool
    lower_bound: bool
    """Whether the reader was still improving when its steps ended."""
    vocab_size: int
    curve: tuple[dict[str, float], ...] = ()
    """{tokens, token_accuracy, exact_match, nats_per_token, ...} over training; empty in a row that was shortened."""
    num_train_chunks: int
    f1: float | None = None
    """Words in common with the text, of a reader that writes; None of any other."""
    bleu: float | None = None
    stored_bits: int | None = None
    """Bits that a quantized embedding takes; None of any other."""
    storage_efficiency: float | None = None
    """Retained bits for each of them; None of an embedding that is not quantized.

    It may be above 1: a reader of tokens one by one counts what several tokens share once for each of them, and one
    that knows little of the language without an embedding gains from it what it could have known.
    """

    @property
    def view(self) -> str:
        """Which of the encoder's embeddings was read."""
        return str(View(self.layer, self.pooling))


@dataclass(frozen=True, kw_only=True)
class Baselines(Record):
    """What the text costs without any memory: to the unconditional reader, and to a causal language model."""

    unconditional_nats_per_token: float
    num_train_chunks: int
    num_chunks: int
    num_documents: int
    vocab_size: int
    causal_nats_per_token: float | None
    """None where chunks of one token leave nothing to predict."""
    causal_model: str


@dataclass(frozen=True, kw_only=True, repr=False)
class ProbeResult(Record):
    """A probe of one encoder."""

    name: str = "probe"
    encoder: str
    rows: tuple[ProbeRow, ...]
    """One for each combination of what was asked for."""
    controls: dict[str, ProbeRow] = field(default_factory=dict)
    """At the first chunk length, by name."""
    control_rows: tuple[ProbeRow, ...] = ()
    """At every chunk length."""
    baselines: dict[str, Baselines] = field(default_factory=dict)
    """By chunk length; empty where controls were not asked for."""
    round_trips: bool = True
    """Whether tokens → text gives the texts back exactly."""
    provenance: Provenance | None = None

    @property
    def plain(self) -> list[ProbeRow]:
        """The rows of embeddings as they are."""
        return [row for row in self.rows if row.degradation is None]

    def __repr__(self) -> str:
        shown = [f"  {row.pooling}, {row.reader}: token accuracy {row.token_accuracy:.4f}" for row in self.rows[:5]]
        more = [f"  and {len(self.rows) - 5} more in .rows"] if len(self.rows) > 5 else []
        return "\n".join([f"ProbeResult of {self.encoder!r}", *shown, *more])

"""Structured recurrent mixers: what each part of them brings, beside attention and the masked mixer."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar

from memlm import config
from memlm.runtime.results import Interval, Record
from memlm.runtime.tables import Table
from memlm.runtime.wording import human, number, quantity, share
from memlm_evidence.claims import Difference, ExperimentResult, Measured, claim
from memlm_evidence.experiments.embeddings import EmbeddingRow
from memlm_evidence.experiments.experiment import Experiment, deferred
from memlm_evidence.pages.page import Page, Section
from memlm_evidence.pages.seeds import of, seeds_table

PUBLISHED = ("row", "column", "mixed", "decay", "diagonal")
"""Variants of the recurrent mixer, from the highest to the lowest published loss (arXiv 2605.08696)."""
MIXERS: Mapping[str, config.Mixer] = {
    "row": config.RecurrentMixer(structure="row", decay=False, diagonal=False),
    "column": config.RecurrentMixer(structure="column", decay=False, diagonal=False),
    "mixed": config.RecurrentMixer(decay=False, diagonal=False),
    "decay": config.RecurrentMixer(diagonal=False),
    "diagonal": config.RecurrentMixer(),
    "attention": config.Attention(),
    "masked_mixer": config.MaskedMixer(),
    "mamba": config.Mamba(),
}
"""What is compared; `decay` is mixed with decay, `diagonal` is that with a weight for a position's own token."""


@dataclass(frozen=True, kw_only=True)
class MixersPlan:
    """What to train and how large; as it is, the standard preset's."""

    chunk_len: int = 64
    dim: int = 256
    """Width of the language models' states, and dimensions of the autoencoders' memories."""
    num_tokens: int = 500_000
    """Tokens that every language model is trained on."""
    memory_tokens: int = 1_000_000
    """Tokens that every autoencoder is trained on."""
    mixers: tuple[str, ...] = tuple(MIXERS)
    reading_steps: int = 200
    reading_chunks: int = 6_000
    seed: int = 0

    @classmethod
    def quick(cls, seed: int) -> "MixersPlan":
        """As small as the claims can be decided."""
        return cls(chunk_len=32, dim=128, num_tokens=300_000, memory_tokens=600_000, seed=seed)


@dataclass(frozen=True, kw_only=True)
class LossRow(Record):
    """What a causal language model with one mixer predicts of text that it was not trained on."""

    mixer: str
    num_parameters: int
    next_token_nats: float
    saved: Difference | None = None
    """By the variant that is published before it, less this: of variants but the first; older results lack it."""
    intervals: Mapping[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MemoryRow(Record):
    """What an autoencoder whose encoder has one mixer gives back of text that it was not trained on."""

    mixer: str
    num_parameters: int
    """Of the encoder; the decoder is the same."""
    token_accuracy: float
    exact_match: float
    retained_fraction: float
    intervals: Mapping[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MixersResult(ExperimentResult):
    """Losses of language models, what readers find in their last states, and what autoencoders give back."""

    name: ClassVar[str] = "mixers"
    losses: Sequence[LossRow]
    rows: Sequence[EmbeddingRow]
    """Of the language models' last states, by mixer and objective: untrained, causal."""
    memories: Sequence[MemoryRow]
    chunk_len: int
    seed: int

    def saved(self, before: str, mixer: str) -> Measured:
        """What a mixer's next-token loss is lower by than another's; unpaired where the result is an older one."""
        one, other = (next(row for row in self.losses if row.mixer == each) for each in (before, mixer))
        if other.saved:
            return other.saved.measured
        first, second = (Measured.of(row, "next_token_nats") for row in (one, other))
        return Measured(first.value - second.value, first.low - second.high, first.high - second.low)

    def in_state(self, mixer: str) -> Measured:
        """The fraction of the text's information that a reader finds in a trained language model's last state."""
        found = next(row for row in self.rows if (row.mixer, row.objective) == (mixer, "causal"))
        return Measured.of(found, "retained_fraction")

    def in_memory(self, mixer: str) -> Measured:
        """The fraction of the text's information that an autoencoder gives back."""
        return Measured.of(next(row for row in self.memories if row.mixer == mixer), "retained_fraction")

    def lines(self) -> Iterator[str]:
        """What to say of it in a terminal."""
        for row in self.losses:
            yield f"{row.mixer}: {row.next_token_nats:.3f} nats per next token"
        for each in self.rows:
            yield f"{each.mixer}, {each.objective}: retained fraction {share(each.retained_fraction)}"
        for memory in self.memories:
            accuracy = share(memory.token_accuracy)
            yield f"{memory.mixer}, autoencoder: {accuracy} of tokens, retained {share(memory.retained_fraction)}"


def page(results: Sequence[MixersResult]) -> Page:
    """Losses, and what embeddings retain."""
    losses = {
        "mixer": lambda same: f"{human(same[0].mixer)}\n{quantity(same[0].num_parameters)} parameters",
        "nats per next token": of("next_token_nats", number),
    }
    states = {
        "state": lambda same: f"{human(same[0].mixer)}\n{human(same[0].objective)}",
        "token accuracy": of("token_accuracy", share),
        "retained fraction": of("retained_fraction", share),
    }
    memories = {
        "encoder": lambda same: f"{human(same[0].mixer)}\n{quantity(same[0].num_parameters)} parameters",
        "token accuracy": of("token_accuracy", share),
        "exact chunks": of("exact_match", share),
        "retained fraction": of("retained_fraction", share),
    }
    tokens = f"Chunks of {results[0].chunk_len} tokens, the same text and order, as many parameters."
    read = "Language models' last states, read by readers trained in the same way."
    own = "Autoencoders with the same decoder, which is their reader, and the same tokens; encoders of as many layers."

    def table(rows: str, columns: Any) -> Table:
        return seeds_table([getattr(each, rows) for each in results], columns)

    return Page.of(
        Section("Next-token loss by mixer", tokens, table=table("losses", losses)),
        Section("What last states of each mixer hold", read, table=table("rows", states)),
        Section("What memories of each mixer hold", own, table=table("memories", memories)),
    )


@claim("least loss saved from a variant to the next, in nats", at_least=0.0)
def recurrent_variants_improve_as_published(result: MixersResult) -> Measured:
    """Losses of recurrent mixers fall from rows to columns, to both, to decay, to a diagonal."""
    return Measured(*map(min, zip(*(result.saved(*pair) for pair in pairwise(PUBLISHED)), strict=True)))


@claim("retained fraction", at_most=0.317)
def recurrent_causal_states_hold_little(result: MixersResult) -> Measured:
    """The last state of a recurrent language model holds no more of its text than is published."""
    return result.in_state("diagonal")


@claim("retained fraction", at_least=0.777)
def recurrent_encoders_hold_most(result: MixersResult) -> Measured:
    """A memory made by a recurrent encoder that is trained to regenerate gives back at least what is published."""
    return result.in_memory("diagonal")


MIXERS_COMPARED = Experiment[MixersPlan, MixersResult](
    name=MixersResult.name,
    folder="mixers",
    presets={"quick": MixersPlan.quick, "standard": lambda seed: MixersPlan(seed=seed)},
    run=deferred("memlm_evidence.experiments.mixers.run:run"),
    page=page,
    result=MixersResult,
    claims=(
        recurrent_variants_improve_as_published,
        recurrent_causal_states_hold_little,
        recurrent_encoders_hold_most,
    ),
)

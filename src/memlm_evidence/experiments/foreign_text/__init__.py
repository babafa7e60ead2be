"""Memories are not trivial codes: what was never in training is held too, and what is unlikely is held worse."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from memlm.config import Attention, AutoencoderRecipe
from memlm.recipes.autoencoder import autoencoder
from memlm.recipes.scale import Scale
from memlm.runtime.results import Regeneration
from memlm.runtime.wording import human, number, share
from memlm_evidence.claims import ExperimentResult, Measured, claim
from memlm_evidence.experiments.experiment import Experiment, deferred
from memlm_evidence.pages.page import Page, Section
from memlm_evidence.pages.seeds import of, seeds_table


@dataclass(frozen=True, kw_only=True)
class ForeignTextPlan:
    """What to train, and on how much; as it is, the standard preset's."""

    chunk_len: int = 64
    memory_dim: int = 256
    num_tokens: int = 750_000
    seed: int = 0

    @classmethod
    def quick(cls, seed: int) -> "ForeignTextPlan":
        """As small as the claims can be decided."""
        return cls(chunk_len=32, memory_dim=128, num_tokens=300_000, seed=seed)

    def recipe(self, mixer: str) -> AutoencoderRecipe:
        """Ours; or the same with attention, which nothing can be grown into."""
        scale = Scale(chunk_len=self.chunk_len, memory_dim=self.memory_dim, num_tokens=self.num_tokens, seed=self.seed)
        if mixer == "masked_mixer":
            return autoencoder(scale)
        whole = autoencoder(scale, grown_from=0)
        encoder, decoder = (replace(stack, mixer=Attention()) for stack in (whole.model.encoder, whole.model.decoder))
        return replace(whole, model=replace(whole.model, encoder=encoder, decoder=decoder))

    def folder(self, mixer: str) -> str:
        """Of the run; that of ours is the embeddings experiment's too."""
        name = "positional" if mixer == "masked_mixer" else mixer
        return f"autoencoder-{name}-seed-{self.seed}"


@dataclass(frozen=True, kw_only=True)
class TextRow(Regeneration):
    """What an autoencoder's own decoder gives back of one kind of text."""

    mixer: str
    text: str
    """As `evaluation_sets` call it."""


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


def page(results: Sequence[ForeignTextResult]) -> Page:
    """What memories hold by kind of text and mixer, and passages given back."""
    columns = {
        "text": lambda same: human(same[0].text),
        "mixer": lambda same: human(same[0].mixer),
        "token accuracy": of("token_accuracy", share),
        "exact chunks": of("exact_match", share),
        "retained bits/token": of("retained_bits_per_token", number),
    }
    by_kind = seeds_table([result.rows for result in results], columns)
    trained = "Autoencoders trained on presidential addresses, measured on addresses and on other kinds of text."
    drawn = (
        "Passages drawn at random: held-out text, then a novel, verse, source code and random tokens. What came out "
        "wrong is struck through; what it should have been follows, underlined."
    )
    return Page.of(
        Section("What memories hold, by kind of text", trained, table=by_kind),
        *(
            Section(f"Regenerated, {human(mixer)}", drawn, passages=passages)
            for mixer, passages in results[0].samples.items()
        ),
    )


@claim("token accuracy of its own decoder", at_least=0.15)
def attention_autoencoders_hold_more(result: ForeignTextResult) -> Measured:
    """So does one of attention, though it is slower to learn: more than any language model's last state."""
    return Measured.of(result.row("attention", "held_out"), "token_accuracy")


@claim("token accuracy of its own decoder", at_least=0.95)
def memories_hold_foreign_text(result: ForeignTextResult) -> Measured:
    """Memories hold text of a kind that was never trained on: a novel, after addresses."""
    return Measured.of(result.row("masked_mixer", "novel"), "token_accuracy")


@claim("share of random tokens given back, over the share of held-out text's", at_most=0.9)
def memories_are_no_trivial_codes(result: ForeignTextResult) -> Measured:
    """Memories lean on what text is like: uniformly random tokens, which a mere code would keep as well, they keep
    worse."""
    text, noise = (result.row("masked_mixer", name) for name in ("held_out", "random_tokens"))
    return Measured.of(noise, "token_accuracy").over(text.token_accuracy)


FOREIGN_TEXT = Experiment[ForeignTextPlan, ForeignTextResult](
    name=ForeignTextResult.name,
    folder="embeddings",
    presets={"quick": ForeignTextPlan.quick, "standard": lambda seed: ForeignTextPlan(seed=seed)},
    run=deferred("memlm_evidence.experiments.foreign_text.run:run"),
    page=page,
    result=ForeignTextResult,
    claims=(attention_autoencoders_hold_more, memories_hold_foreign_text, memories_are_no_trivial_codes),
)

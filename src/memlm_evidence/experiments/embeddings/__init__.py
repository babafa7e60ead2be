"""Language models' embeddings hold little of their input, autoencoders' nearly all."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import AliasChoices, Field

from memlm.config import AutoencoderRecipe, LanguageModelRecipe, ReadingConfig
from memlm.probing.results import ProbeRow
from memlm.recipes.paper import paper_autoencoder, paper_causal
from memlm.runtime.results import Interval
from memlm.runtime.wording import human, number, quantity, share
from memlm_evidence.claims import ExperimentResult, Measured, claim
from memlm_evidence.experiments.experiment import Experiment, deferred
from memlm_evidence.pages.page import Page, Section
from memlm_evidence.pages.seeds import of, seeds_table

LanguageMixer = Literal["attention", "masked_mixer"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to train and how large; as it is, the standard preset's."""

    chunk_len: int = 64
    dim: int = 256
    """Width of the language models' states, and dimensions of the autoencoder's memory."""
    num_tokens: int = 750_000
    """Tokens every encoder is trained on."""
    dims: tuple[int, ...] = (64, 128, 256)
    """Sizes of causal models."""
    budgets: tuple[int, ...] = (187_500, 375_000, 750_000)
    """Budgets of causal models, in tokens."""
    mixers: tuple[LanguageMixer, ...] = ("masked_mixer",)
    grid: bool = False
    """Train every size with every budget, instead of each size with the largest budget and the other way round."""
    cross: bool = False
    """Cross objectives with poolings."""
    reading_steps: int = 400
    reading_chunks: int = 8_000
    seed: int = 0

    @classmethod
    def quick(cls, seed: int) -> "Plan":
        """As small as the claims can be decided."""
        return cls(
            chunk_len=32,
            dim=128,
            num_tokens=300_000,
            dims=(32, 64, 128),
            budgets=(75_000, 150_000, 300_000),
            reading_chunks=6000,
            seed=seed,
        )


@dataclass(frozen=True, kw_only=True)
class PaperPlan:
    """An autoencoder and a causal model of the paper's sizes, and how they are read."""

    autoencoder: AutoencoderRecipe
    causal: LanguageModelRecipe
    reading: ReadingConfig = field(default_factory=lambda: ReadingConfig(num_steps=10_000, max_chunks=500_000))
    seed: int = 0

    @classmethod
    def of_seed(cls, seed: int) -> "PaperPlan":
        """The paper's."""
        return cls(autoencoder=paper_autoencoder(seed=seed), causal=paper_causal("masked_mixer", seed=seed), seed=seed)


@dataclass(frozen=True, kw_only=True)
class EmbeddingRow(ProbeRow):
    """What a reader finds in one encoder's embeddings; `num_tokens` are those that the encoder was trained on."""

    objective: str
    mixer: str
    num_parameters: int


@dataclass(frozen=True, kw_only=True)
class Slopes:
    """How the retained fraction changes for ten times the parameters (`compute`) or tokens (`data`); 95% intervals."""

    compute: float
    data: float
    compute_interval: Interval
    data_interval: Interval
    num_points: int


@dataclass(frozen=True, kw_only=True)
class EmbeddingsResult(ExperimentResult):
    """Embeddings by objective, and of causal models by size and budget.

    Slopes, causal models and controls are None at the paper's sizes, where two models are compared and no more.
    """

    name: ClassVar[str] = "embeddings"
    rows: Sequence[EmbeddingRow]
    """By mixer and objective."""
    chunk_len: int
    seed: int
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    slope_compute: float | None = None
    slope_data: float | None = None
    """Of the first mixer."""
    token_accuracy: Mapping[str, float] | None = None
    retained_fraction: Mapping[str, float] | None = None
    """By objective, of the first mixer."""
    slopes: Mapping[str, Slopes] | None = None
    """By mixer."""
    causal_models: Annotated[
        Sequence[EmbeddingRow] | None, Field(validation_alias=AliasChoices("causal_models", "cells"))
    ] = None
    """By size and budget; older files call them cells."""
    controls: Mapping[str, EmbeddingRow | ProbeRow] | None = None
    """Of the causal model, by name; the untrained one is among `rows` too."""
    pooling_table: Sequence[EmbeddingRow] | None = None
    """Objectives crossed with poolings; empty unless the plan asks for it. Some older files have none."""

    def of(self, objective: str) -> EmbeddingRow:
        """The row of an objective, of the first mixer."""
        return next(row for row in self.rows if row.objective == objective)

    def lines(self) -> Iterator[str]:
        """What to say of it in a terminal."""
        for row in self.rows:
            found = f"token accuracy {share(row.token_accuracy)}, retained fraction {share(row.retained_fraction)}"
            yield f"{row.objective}, {row.mixer}: {found}"
        for name in self.intervals:
            slope = Measured.of(self, name)
            yield f"{name}: {slope.value:+.4f} retained fraction a decade [{slope.low:+.4f}, {slope.high:+.4f}]"


def page(results: Sequence[EmbeddingsResult]) -> Page:
    """What embeddings hold by objective, by size and budget of causal models, and of controls, where these are."""
    objectives = {
        "embedding": lambda same: f"{human(same[0].objective)}\n{quantity(same[0].num_tokens)} tokens",
        "token accuracy": of("token_accuracy", share),
        "exact chunks": of("exact_match", share),
        "retained bits/token": of("retained_bits_per_token", number),
        "retained fraction": of("retained_fraction", share),
    }
    budgets = {
        "causal model, parameters": lambda same: quantity(same[0].num_parameters),
        "tokens": lambda same: quantity(same[0].num_tokens),
        "retained fraction": of("retained_fraction", share),
    }
    controls = {
        "control": lambda same: human(same[0].control or "untrained"),
        "token accuracy": of("token_accuracy", share),
        "retained fraction": of("retained_fraction", share),
    }
    controlled = [list(result.controls.values()) for result in results if result.controls]
    budgeted = [result.causal_models for result in results if result.causal_models]
    read = f"Of {results[0].chunk_len} tokens, read from one vector, by readers trained in the same way."
    alike = "The same reader where the right answer is known: shuffled and constant embeddings must retain nothing."
    sections = [Section("What embeddings hold", read, table=seeds_table([each.rows for each in results], objectives))]
    if budgeted:
        sections.append(Section("Larger causal models, and more text", table=seeds_table(budgeted, budgets)))
    if controlled:
        table = seeds_table(controlled, controls)
        sections.append(Section("Controls of the causal model", alike, table=table))
    return Page.of(*sections)


@claim("token accuracy of a trained reader", at_most=0.15)
def causal_embeddings_hold_little(result: EmbeddingsResult) -> Measured:
    """The last state of a model trained on next tokens gives back few tokens of its text."""
    return Measured.of(result.of("causal"), "token_accuracy")


@claim("retained fraction gained with ten times the parameters", at_most=0.05)
def regardless_of_compute(result: EmbeddingsResult) -> Measured | None:
    """Larger causal models do not hold more."""
    return None if result.slope_compute is None else Measured.of(result, "slope_compute")


@claim("retained fraction gained with ten times the tokens", at_most=0.05)
def regardless_of_data(result: EmbeddingsResult) -> Measured | None:
    """Causal models trained on more text do not hold more."""
    return None if result.slope_data is None else Measured.of(result, "slope_data")


@claim("token accuracy of a trained reader", at_least=0.98)
def autoencoders_hold_nearly_all(result: EmbeddingsResult) -> Measured:
    """An autoencoder's one vector gives back nearly all of them, at equal tokens of training."""
    return Measured.of(result.of("autoencoder"), "token_accuracy")


EMBEDDINGS = Experiment[Plan | PaperPlan, EmbeddingsResult](
    name=EmbeddingsResult.name,
    folder="embeddings",
    presets={"quick": Plan.quick, "standard": lambda seed: Plan(seed=seed), "paper": PaperPlan.of_seed},
    run=deferred("memlm_evidence.experiments.embeddings.run:run"),
    page=page,
    result=EmbeddingsResult,
    claims=(causal_embeddings_hold_little, regardless_of_compute, regardless_of_data, autoencoders_hold_nearly_all),
)

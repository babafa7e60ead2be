"""Claim: language models' embeddings hold little of their input whatever the data and compute, autoencoders' all.

Encoders trained on equal tokens and probed alike: untrained, causal, causal then retrieval, autoencoder. Causal models
of several sizes and budgets give the slopes; objective crossed with pooling tells apart what is the training's and what
is the architecture's.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import t

from memlm.config import AutoencoderRecipe, LanguageModelRecipe, LastToken, Mean, ReadingConfig, Recipe
from memlm.config.probe import StatePooling
from memlm.data.token_store import prepare
from memlm.probing.encoders import FrozenEncoder, MemoryEncoder, StateEncoder
from memlm.probing.probe import CONTROLS
from memlm.recipes.autoencoder import autoencoder
from memlm.recipes.causal import causal, retrieval
from memlm.recipes.scale import Scale
from memlm.runtime.results import Interval, Provenance
from memlm.text.model import TextModel
from memlm.training.accelerator import world_size
from memlm.training.train import train
from memlm_evidence.benchmarks.measuring import num_parameters
from memlm_evidence.benchmarks.paper import require_machine
from memlm_evidence.experiments.embeddings import EmbeddingRow, EmbeddingsResult, LanguageMixer, PaperPlan, Plan, Slopes
from memlm_evidence.experiments.readers import Readers

OBJECTIVES = ("untrained", "causal", "retrieval", "autoencoder")
POOLINGS: tuple[StatePooling, ...] = ("last", "mean", "positional")
Points = Float[np.ndarray, " point"]


class Encoder(NamedTuple):
    """A trained encoder, and what it took."""

    objective: str
    encoder: FrozenEncoder
    num_tokens: int
    num_parameters: int

    @classmethod
    def of(cls, objective: str, trained: TextModel[Any, Any], encoder: FrozenEncoder) -> "Encoder":
        """Of a trained model."""
        return cls(objective, encoder, trained.provenance["tokens"], num_parameters(trained.model))

    def row(self, readers: Readers, mixer: str, *poolings: StatePooling) -> EmbeddingRow:
        """What a reader finds in its embeddings."""
        about = {"objective": self.objective, "mixer": mixer, "num_tokens": self.num_tokens}
        found = readers.row(self.encoder, *poolings).to_dict()
        return EmbeddingRow.from_dict({**found, **about, "num_parameters": self.num_parameters})


def run(out: Path, plan: Plan | PaperPlan) -> EmbeddingsResult | None:
    """Train, probe and compare. What was trained or read before is not made again.

    Returns:
        None where one of several processes only trains, at the paper's sizes.

    Raises:
        ValueError: as `require_machine`, at the paper's sizes.
    """
    return compare_two(out, plan) if isinstance(plan, PaperPlan) else compare(out, plan)


def compare_two(out: Path, plan: PaperPlan) -> EmbeddingsResult | None:
    """Those of the paper's sizes: on several processes (torchrun) they are trained and no more."""
    recipes: Mapping[str, Recipe] = {"causal": plan.causal, "autoencoder": plan.autoencoder}
    for name, recipe in recipes.items():
        require_machine(recipe, out / name)
    ours, causal = train(plan.autoencoder, out / "autoencoder"), train(plan.causal, out / "causal")
    if world_size() > 1:
        return None
    chunk_len = plan.causal.model.chunk_len
    readers = Readers(plan.autoencoder.data, ours.tokenizer, chunk_len, plan.reading, plan.seed)
    last_state = StateEncoder(causal.model.eval(), causal.tokenizer, name=plan.causal.name)
    memory = MemoryEncoder(ours.model.encoder, ours.tokenizer, name=plan.autoencoder.name)
    encoders = Encoder.of("causal", causal, last_state), Encoder.of("autoencoder", ours, memory)
    return EmbeddingsResult(
        rows=[each.row(readers, "masked_mixer") for each in encoders],
        chunk_len=chunk_len,
        seed=plan.seed,
        provenance=Provenance.here(seed=plan.seed, **{name: recipe.name for name, recipe in recipes.items()}),
    )


def compare(out: Path, plan: Plan) -> EmbeddingsResult:
    """Encoders of every objective, size and budget, trained into a folder and probed."""
    trained = _Encoders(out, plan)
    reading = ReadingConfig(num_steps=plan.reading_steps, max_chunks=plan.reading_chunks)
    readers = Readers(trained.recipe.data, trained.prepared.tokenizer, plan.chunk_len, reading, plan.seed)
    rows, models, crossed = [], [], []
    for mixer in plan.mixers:
        rows += [made.row(readers, mixer) for made in trained.objectives(mixer)]
        models += [made.row(readers, mixer, "last") for made in trained.causal_models(mixer)]
        crossed += list(_crossed(trained, readers, mixer)) if plan.cross else []
    main = {row.objective: row for row in rows if row.mixer == plan.mixers[0]}
    slopes = {str(mixer): _slopes([row for row in models if row.mixer == mixer]) for mixer in plan.mixers}
    first = slopes[plan.mixers[0]]
    controls = readers.probe(trained.main_model(plan.mixers[0]).encoder, "last").controls(CONTROLS[1:])
    return EmbeddingsResult(
        rows=rows,
        causal_models=models,
        pooling_table=crossed,
        token_accuracy={name: main[name].token_accuracy for name in OBJECTIVES},
        retained_fraction={name: main[name].retained_fraction for name in OBJECTIVES},
        slope_compute=first.compute,
        slope_data=first.data,
        slopes=slopes,
        controls={"untrained": main["untrained"], **{str(row.control): row for row in controls}},
        intervals={"slope_compute": first.compute_interval, "slope_data": first.data_interval},
        chunk_len=plan.chunk_len,
        seed=plan.seed,
        provenance=Provenance.here(plan=vars(plan), data=trained.prepared.fingerprint),
    )


def _crossed(trained: "_Encoders", readers: Readers, mixer: LanguageMixer) -> Iterator[EmbeddingRow]:
    """Every objective with every pooling; positional pooling of a language model is a random projection."""
    models = trained.objectives(mixer)
    for pooling in POOLINGS:
        yield from (made.row(readers, mixer, pooling) for made in models[:-1])
        yield replace(trained.autoencoder(mixer, pooling).row(readers, mixer), pooling=pooling)


def _slopes(models: Sequence[EmbeddingRow]) -> Slopes:
    sizes, tokens = np.log10([row.num_parameters for row in models]), np.log10([row.num_tokens for row in models])
    return fit_slopes(sizes, tokens, np.array([row.retained_fraction for row in models]))


def fit_slopes(log_sizes: Points, log_tokens: Points, values: Points) -> Slopes:
    """Least squares of values on log10 of parameters and of tokens, together; Student-t intervals of the residuals.

    Raises:
        ValueError: fewer than four points, or points that do not vary in both.
    """
    design = np.column_stack([np.ones(len(values)), log_sizes, log_tokens])
    freedom = len(values) - design.shape[1]
    if freedom < 1 or np.linalg.matrix_rank(design) < design.shape[1]:
        raise ValueError(f"{len(values)} points do not give two slopes: vary size and data, at four points or more")
    coefficients, *_ = np.linalg.lstsq(design, values, rcond=None)
    residual = values - design @ coefficients
    covariance = np.linalg.inv(design.T @ design) * (residual @ residual) / freedom
    reach = t.ppf(0.975, freedom) * np.sqrt(np.diag(covariance))
    _, compute, data = coefficients.tolist()
    _, by_compute, by_data = (
        Interval(float(at - by), float(at + by)) for at, by in zip(coefficients, reach, strict=True)
    )
    return Slopes(
        compute=compute, data=data, compute_interval=by_compute, data_interval=by_data, num_points=len(values)
    )


class _Encoders:
    """Encoders trained into a folder."""

    def __init__(self, out: Path, plan: Plan) -> None:
        self.out, self.plan = out, plan
        self.recipe = self._autoencoder()
        self.prepared = prepare(self.recipe.data)

    def objectives(self, mixer: LanguageMixer) -> list[Encoder]:
        """One of each, the autoencoder last."""
        trained = self.main_model(mixer)
        untrained = trained._replace(
            objective="untrained", encoder=trained.encoder.untrained(self.plan.seed), num_tokens=0
        )
        both = retrieval(**self._knobs(mixer, self.plan.dim, self.plan.num_tokens))
        return [untrained, trained, self._language_model("retrieval", both), self.autoencoder(mixer, "positional")]

    def main_model(self, mixer: LanguageMixer) -> Encoder:
        """The causal model that is compared."""
        return self._language_model("causal", self._causal(mixer, self.plan.dim, self.plan.num_tokens))

    def causal_models(self, mixer: LanguageMixer) -> Iterator[Encoder]:
        """By size and budget."""
        largest_dim, largest_budget = max(self.plan.dims), max(self.plan.budgets)
        for dim in self.plan.dims:
            for budget in self.plan.budgets:
                if self.plan.grid or dim == largest_dim or budget == largest_budget:
                    yield self._language_model("causal", self._causal(mixer, dim, budget))

    def autoencoder(self, mixer: LanguageMixer, pooling: str) -> Encoder:
        """Ours; or, to tell objective from architecture, a language model's encoder and pooling with our decoder."""
        recipe, name = self.recipe, f"autoencoder {pooling} seed {self.plan.seed}"
        if pooling != "positional":
            stack = self._causal(mixer, self.plan.dim, self.plan.num_tokens).model.stack
            whole = self._autoencoder(grown_from=0)
            model = replace(whole.model, encoder=stack, pooling=LastToken() if pooling == "last" else Mean())
            recipe, name = replace(whole, model=model), f"{name} {mixer}"
        folder = self.out / name.replace(" ", "-")
        trained = train(recipe, folder, prepared=self.prepared)
        encoder = MemoryEncoder(trained.model.encoder, trained.tokenizer, name=f"autoencoder, {pooling}")
        return Encoder.of("autoencoder", trained, encoder)

    def _language_model(self, objective: str, recipe: LanguageModelRecipe) -> Encoder:
        name = f"{recipe.name} {recipe.num_tokens} seed {self.plan.seed}".replace(" ", "-")
        trained = train(recipe, self.out / name, prepared=self.prepared)
        encoder = StateEncoder(trained.model.eval(), trained.tokenizer, name=recipe.name)
        return Encoder.of(objective, trained, encoder)

    def _causal(self, mixer: LanguageMixer, dim: int, num_tokens: int) -> LanguageModelRecipe:
        return causal(**self._knobs(mixer, dim, num_tokens))

    def _knobs(self, mixer: LanguageMixer, dim: int, num_tokens: int) -> dict[str, Any]:
        about = {"chunk_len": self.plan.chunk_len, "seed": self.plan.seed}
        return {**about, "dim": dim, "mixer": mixer, "num_tokens": num_tokens}

    def _autoencoder(self, grown_from: int = 16) -> AutoencoderRecipe:
        plan = self.plan
        scale = Scale(chunk_len=plan.chunk_len, memory_dim=plan.dim, num_tokens=plan.num_tokens, seed=plan.seed)
        return autoencoder(scale, grown_from=grown_from)

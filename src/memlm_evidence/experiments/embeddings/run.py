"""Claim: language models' embeddings hold little of their input whatever the data and compute, autoencoders' all.

Encoders trained on equal tokens and probed alike: untrained, causal, causal then retrieval, autoencoder. Causal models
of several sizes and budgets give the slopes; objective crossed with pooling tells apart what is the training's and what
is the architecture's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from memlm.config import AutoencoderRecipe, LanguageModelRecipe, LastToken, Mean, ProbeConfig, ReadingConfig
from memlm.data.cache import default_cache
from memlm.data.token_store import PreparedData, prepare
from memlm.probing.encoder_probe import CONTROLS, EncoderProbe
from memlm.probing.encoders import FrozenEncoder, MemoryEncoder, StateEncoder
from memlm.probing.results import ProbeRow
from memlm.probing.texts import ProbeTexts
from memlm.recipes.autoencoder import autoencoder
from memlm.recipes.causal import causal, retrieval
from memlm.recipes.scale import Scale
from memlm.runtime.results import Provenance
from memlm.training.train import train
from memlm_evidence.experiments.embeddings import EmbeddingRow, EmbeddingsResult, LanguageMixer, PaperPlan, Plan, Slopes
from memlm_evidence.experiments.embeddings.slopes import fit_slopes
from memlm_evidence.experiments.paper_size import compare_embeddings

OBJECTIVES = ("untrained", "causal", "retrieval", "autoencoder")
POOLINGS = ("last", "mean", "positional")


class Encoder(NamedTuple):
    """A trained encoder, and what it took."""

    objective: str
    encoder: FrozenEncoder
    num_tokens: int
    num_parameters: int


def run(
    out: Path, plan: Plan | PaperPlan | None = None, *, cache: Path | None = None, quiet: bool = False
) -> EmbeddingsResult | None:
    """Train, probe and compare. What was trained or read before is not made again.

    Returns:
        None where one of several processes only trains, at the paper's sizes.

    Raises:
        ValueError: as `paper_size.compare_embeddings`.
    """
    plan = plan or Plan()
    return (
        compare_embeddings(out, plan) if isinstance(plan, PaperPlan) else compare(out, plan, cache=cache, quiet=quiet)
    )


def compare(out: Path, plan: Plan, *, cache: Path | None = None, quiet: bool = False) -> EmbeddingsResult:
    """Encoders of every objective, size and budget, trained into a folder and probed."""
    trained = _Encoders(out, plan, quiet)
    probe = _Probe(trained.recipe, trained.prepared, plan, cache or default_cache(), quiet)
    rows, models, crossed = [], [], []
    for mixer in plan.mixers:
        rows += [probe.row(made, mixer, made.encoder.default_view.pooling) for made in trained.objectives(mixer)]
        models += [probe.row(made, mixer, "last") for made in trained.causal_models(mixer)]
        crossed += list(_crossed(trained, probe, mixer)) if plan.cross else []
    main = {row.objective: row for row in rows if row.mixer == plan.mixers[0]}
    slopes = {str(mixer): _slopes([row for row in models if row.mixer == mixer]) for mixer in plan.mixers}
    first = slopes[plan.mixers[0]]
    return EmbeddingsResult(
        rows=rows,
        causal_models=models,
        pooling_table=crossed,
        token_accuracy={name: main[name].token_accuracy for name in OBJECTIVES},
        retained_fraction={name: main[name].retained_fraction for name in OBJECTIVES},
        slope_compute=first.compute,
        slope_data=first.data,
        slopes=slopes,
        controls={"untrained": main["untrained"], **probe.controls(trained.main_model(plan.mixers[0]))},
        intervals={"slope_compute": first.compute_interval, "slope_data": first.data_interval},
        chunk_len=plan.chunk_len,
        seed=plan.seed,
        provenance=Provenance.here(plan=vars(plan), data=trained.prepared.fingerprint),
    )


def _crossed(trained: "_Encoders", probe: "_Probe", mixer: LanguageMixer) -> Iterator[EmbeddingRow]:
    """Every objective with every pooling; positional pooling of a language model is a random projection."""
    models = trained.objectives(mixer)
    for pooling in POOLINGS:
        yield from (probe.row(made, mixer, pooling) for made in models[:-1])
        yield replace(probe.row(trained.autoencoder(mixer, pooling), mixer, "memory"), pooling=pooling)


def _slopes(models: Sequence[EmbeddingRow]) -> Slopes:
    sizes, tokens = np.log10([row.num_parameters for row in models]), np.log10([row.num_tokens for row in models])
    return fit_slopes(sizes, tokens, np.array([row.retained_fraction for row in models]))


class _Probe:
    """Readers trained on encoders' embeddings, all alike."""

    def __init__(self, recipe: AutoencoderRecipe, prepared: PreparedData, plan: Plan, cache: Path, quiet: bool) -> None:
        self.plan, self.cache, self.quiet = plan, cache, quiet
        self.reading = ReadingConfig(num_steps=plan.reading_steps, max_chunks=plan.reading_chunks)
        self.texts = ProbeTexts.of_splits(recipe.data, prepared.tokenizer, self.reading.test_fraction)

    def row(self, made: Encoder, mixer: str, pooling: str) -> EmbeddingRow:
        """What a reader finds in an encoder's embeddings."""
        (row,) = self._probe(made.encoder, pooling).rows()
        about = {"objective": made.objective, "mixer": mixer, "num_tokens": made.num_tokens}
        return EmbeddingRow.from_dict({**row.to_dict(), **about, "num_parameters": made.num_parameters})

    def controls(self, made: Encoder) -> dict[str, ProbeRow]:
        """The controls of a probe, but for the untrained one, which is compared anyway."""
        rows = self._probe(made.encoder, "last").controls(CONTROLS[1:])
        return {str(row.control): row for row in rows}

    def _probe(self, encoder: FrozenEncoder, pooling: str) -> EncoderProbe:
        cfg = ProbeConfig(
            chunk_lens=(self.plan.chunk_len,),
            poolings=() if pooling == "memory" else (pooling,),  # type: ignore[arg-type]
            seeds=(self.plan.seed,),
            reading=self.reading,
        )
        return EncoderProbe(encoder, self.texts, cfg, self.plan.chunk_len, cache=self.cache, quiet=self.quiet)


class _Encoders:
    """Encoders trained into a folder."""

    def __init__(self, out: Path, plan: Plan, quiet: bool) -> None:
        self.out, self.plan, self.quiet = out, plan, quiet
        self.recipe = self._autoencoder()
        self.prepared = prepare(self.recipe.data, quiet=quiet)

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
        trained = train(recipe, folder, prepared=self.prepared, quiet=self.quiet)
        encoder = MemoryEncoder(trained.model.encoder, trained.tokenizer, name=f"autoencoder, {pooling}")
        return Encoder("autoencoder", encoder, trained.provenance["tokens"], num_parameters(trained.model))

    def _language_model(self, objective: str, recipe: LanguageModelRecipe) -> Encoder:
        name = f"{recipe.name} {recipe.num_tokens} seed {self.plan.seed}".replace(" ", "-")
        trained = train(recipe, self.out / name, prepared=self.prepared, quiet=self.quiet)
        encoder = StateEncoder(trained.model.eval(), trained.tokenizer, name=recipe.name)
        return Encoder(objective, encoder, trained.provenance["tokens"], num_parameters(trained.model))

    def _causal(self, mixer: LanguageMixer, dim: int, num_tokens: int) -> LanguageModelRecipe:
        return causal(**self._knobs(mixer, dim, num_tokens))

    def _knobs(self, mixer: LanguageMixer, dim: int, num_tokens: int) -> dict[str, Any]:
        about = {"chunk_len": self.plan.chunk_len, "seed": self.plan.seed}
        return {**about, "dim": dim, "mixer": mixer, "num_tokens": num_tokens}

    def _autoencoder(self, grown_from: int = 16) -> AutoencoderRecipe:
        plan = self.plan
        scale = Scale(chunk_len=plan.chunk_len, memory_dim=plan.dim, num_tokens=plan.num_tokens, seed=plan.seed)
        return autoencoder(scale, grown_from=grown_from)


def num_parameters(model: Any) -> int:
    """Of a module."""
    return sum(parameter.numel() for parameter in model.parameters())

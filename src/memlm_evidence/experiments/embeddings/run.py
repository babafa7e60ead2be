"""Claim: language models' embeddings hold little of their input whatever the data and compute, autoencoders' all.

Encoders trained on equal tokens and probed alike: untrained, causal, causal then retrieval, autoencoder. Causal models
of several sizes and budgets give the slopes; objective crossed with pooling tells apart what is the training's and what
is the architecture's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from memlm.config import LanguageModelRecipe, LastToken, Mean, ProbeConfig, ReadingConfig, RecipeConfig
from memlm.data.cache import default_cache
from memlm.data.token_store import PreparedData, prepare
from memlm.evaluation.regression import Slopes, fit_slopes
from memlm.probing.encoder_probe import CONTROLS, EncoderProbe
from memlm.probing.encoders import FrozenEncoder, MemoryEncoder, language_model_encoder
from memlm.probing.texts import ProbeTexts
from memlm.recipes.autoencoder import autoencoder
from memlm.recipes.causal import causal, retrieval
from memlm.recipes.scale import Scale
from memlm.runtime.results import Provenance, Result
from memlm.training.autoencoder import train_autoencoder
from memlm.training.language_model import train_language_model

OBJECTIVES = ("untrained", "causal", "retrieval", "autoencoder")
POOLINGS = ("last", "mean", "positional")

LanguageMixer = Literal["attention", "masked_mixer"]
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to train and how large."""

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


class Encoder(NamedTuple):
    """A trained encoder, and what it took."""

    objective: str
    encoder: FrozenEncoder
    num_tokens: int
    num_parameters: int


def reproduce_embeddings(
    out: Path, plan: Plan | None = None, *, cache: Path | None = None, quiet: bool = False
) -> Result:
    """Train, probe and compare. What was trained or read before is not made again.

    Returns:
        `token_accuracy` and `retained_fraction` by objective, for the first mixer; `slope_compute` and `slope_data`, by
        how much the retained fraction of causal models changes for ten times the parameters or the tokens; `rows`,
        `controls`, and with `cross` the `pooling_table`.
    """
    plan = plan or Plan()
    cache = cache or default_cache()
    work = _Work(out, plan, cache, quiet)
    rows = [row for mixer in plan.mixers for row in work.compare(mixer)]
    cells = [row for mixer in plan.mixers for row in work.cells(mixer)]
    slopes = {mixer: _slopes([cell for cell in cells if cell["mixer"] == mixer]) for mixer in plan.mixers}
    main = {row["objective"]: row for row in rows if row["mixer"] == plan.mixers[0]}
    first = slopes[plan.mixers[0]]
    values: Row = {
        "token_accuracy": {name: main[name]["token_accuracy"] for name in OBJECTIVES},
        "retained_fraction": {name: main[name]["retained_fraction"] for name in OBJECTIVES},
        "slope_compute": first.compute,
        "slope_data": first.data,
        "slopes": {mixer: found._asdict() for mixer, found in slopes.items()},
        "rows": rows,
        "cells": cells,
        "controls": {"untrained": main["untrained"], **work.controls(plan.mixers[0])},
        "pooling_table": [row for mixer in plan.mixers for row in work.crossed(mixer)] if plan.cross else [],
        "chunk_len": plan.chunk_len,
        "seed": plan.seed,
    }
    intervals = {"slope_compute": first.compute_interval, "slope_data": first.data_interval}
    made_by = Provenance.here(plan=vars(plan), data=work.prepared.fingerprint)
    return Result(name="embeddings", measures=values, intervals=intervals, provenance=made_by)


def _slopes(cells: Sequence[Row]) -> Slopes:
    sizes = np.log10([cell["num_parameters"] for cell in cells])
    tokens = np.log10([cell["num_tokens"] for cell in cells])
    return fit_slopes(sizes, tokens, np.array([cell["retained_fraction"] for cell in cells]))


class _Work:
    """Encoders trained into a folder, and their probes."""

    def __init__(self, out: Path, plan: Plan, cache: Path, quiet: bool) -> None:
        self.out, self.plan, self.cache, self.quiet = out, plan, cache, quiet
        recipe = self._autoencoder()
        self.prepared: PreparedData = prepare(recipe.data, quiet=quiet)
        self.reading = ReadingConfig(num_steps=plan.reading_steps, max_chunks=plan.reading_chunks)
        self.texts = ProbeTexts.of_splits(recipe.data, self.prepared.tokenizer, self.reading.test_fraction)

    def compare(self, mixer: LanguageMixer) -> Iterator[Row]:
        """The four objectives, each with the embedding it gives: last token, or memory."""
        for made in self._main(mixer):
            yield self._row(made, mixer, made.encoder.default_view.pooling)

    def crossed(self, mixer: LanguageMixer) -> Iterator[Row]:
        """Every objective with every pooling; positional pooling of a language model is a random projection."""
        models = self._main(mixer)
        for pooling in POOLINGS:
            for made in models[:-1]:
                yield self._row(made, mixer, pooling)
            trained = self._train_autoencoder(mixer, pooling)
            yield {**self._row(trained, mixer, "memory"), "pooling": pooling}

    def cells(self, mixer: LanguageMixer) -> Iterator[Row]:
        """Causal models by size and budget."""
        largest_dim, largest_budget = max(self.plan.dims), max(self.plan.budgets)
        for dim in self.plan.dims:
            for budget in self.plan.budgets:
                if self.plan.grid or dim == largest_dim or budget == largest_budget:
                    recipe = self._causal(mixer, dim, budget)
                    yield self._row(self._train_language_model("causal", recipe), mixer, "last")

    def controls(self, mixer: LanguageMixer) -> dict[str, Row]:
        """The controls of a probe of the causal model, but for the untrained one, which is compared anyway."""
        made = self._train_language_model("causal", self._causal(mixer, self.plan.dim, self.plan.num_tokens))
        probing = self._probe(made.encoder, "last")
        return {str(row.control): row.to_dict() for row in probing.controls(CONTROLS[1:])}

    def _main(self, mixer: LanguageMixer) -> list[Encoder]:
        trained = self._train_language_model("causal", self._causal(mixer, self.plan.dim, self.plan.num_tokens))
        untrained = trained._replace(
            objective="untrained", encoder=trained.encoder.untrained(self.plan.seed), num_tokens=0
        )
        both = self._train_language_model(
            "retrieval", retrieval(**self._knobs(mixer, self.plan.dim, self.plan.num_tokens))
        )
        return [untrained, trained, both, self._train_autoencoder(mixer, "positional")]

    def _row(self, made: Encoder, mixer: str, pooling: str) -> Row:
        (row,) = self._probe(made.encoder, pooling).rows()
        about = {"objective": made.objective, "mixer": mixer, "num_tokens": made.num_tokens}
        return {**row.to_dict(), **about, "num_parameters": made.num_parameters}

    def _probe(self, encoder: FrozenEncoder, pooling: str) -> EncoderProbe:
        cfg = ProbeConfig(
            chunk_lens=(self.plan.chunk_len,),
            poolings=() if pooling == "memory" else (pooling,),  # type: ignore[arg-type]
            seeds=(self.plan.seed,),
            reading=self.reading,
        )
        return EncoderProbe(encoder, self.texts, cfg, self.plan.chunk_len, cache=self.cache, quiet=self.quiet)

    # --- training ----------------------------------------------------------------------------------------------

    def _knobs(self, mixer: LanguageMixer, dim: int, num_tokens: int) -> dict[str, Any]:
        return {
            "chunk_len": self.plan.chunk_len,
            "dim": dim,
            "mixer": mixer,
            "num_tokens": num_tokens,
            "seed": self.plan.seed,
        }

    def _causal(self, mixer: LanguageMixer, dim: int, num_tokens: int) -> LanguageModelRecipe:
        return causal(**self._knobs(mixer, dim, num_tokens))

    def _autoencoder(self, grown_from: int = 16) -> RecipeConfig:
        plan = self.plan
        scale = Scale(chunk_len=plan.chunk_len, memory_dim=plan.dim, num_tokens=plan.num_tokens, seed=plan.seed)
        return autoencoder(scale, grown_from=grown_from)

    def _train_language_model(self, objective: str, recipe: LanguageModelRecipe) -> Encoder:
        name = f"{recipe.name} {recipe.training.num_tokens} seed {self.plan.seed}".replace(" ", "-")
        trained = train_language_model(recipe, self.out / name, prepared=self.prepared, quiet=self.quiet)
        encoder = language_model_encoder(trained.model, trained.tokenizer, name=recipe.name)
        return Encoder(objective, encoder, trained.provenance["tokens"], _num_parameters(trained.model))

    def _train_autoencoder(self, mixer: LanguageMixer, pooling: str) -> Encoder:
        """Ours; or, to tell objective from architecture, a language model's encoder and pooling with our decoder."""
        recipe, name = self._autoencoder(), f"autoencoder {pooling} seed {self.plan.seed}"
        if pooling != "positional":
            stack = self._causal(mixer, self.plan.dim, self.plan.num_tokens).model.stack
            whole = self._autoencoder(grown_from=0)
            model = replace(whole.model, encoder=stack, pooling=LastToken() if pooling == "last" else Mean())
            recipe, name = replace(whole, model=model), f"{name} {mixer}"
        folder = self.out / name.replace(" ", "-")
        trained = train_autoencoder(recipe, folder, prepared=self.prepared, quiet=self.quiet)
        encoder = MemoryEncoder(trained.model.encoder, trained.tokenizer, name=f"autoencoder, {pooling}")
        return Encoder("autoencoder", encoder, trained.provenance["tokens"], _num_parameters(trained.model))


def _num_parameters(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())

"""The density table: held-out fidelity by chunk length and tokens per dimension, at one token budget."""

import itertools
from dataclasses import asdict
from pathlib import Path
from typing import Any

from memlm.data.token_store import prepare
from memlm.recipes.density import density
from memlm.runtime.results import Provenance
from memlm.text.evaluation_sets import HELD_OUT
from memlm.training.autoencoder import train_autoencoder

MEASURES = ("chunk_len", "memory_dim", "token_accuracy", "exact_match", "retained_bits_per_token", "bits_per_dim")


def density_table(
    out: Path,
    *,
    chunk_lens: tuple[int, ...],
    tokens_per_dim: tuple[float, ...],
    num_tokens: int,
    seed: int = 0,
) -> dict[str, Any]:
    """Train and evaluate every cell, each in its own folder of `out`; finished cells are not trained again."""
    grid = itertools.product(chunk_lens, tokens_per_dim)
    rows = [_cell(out, *cell, num_tokens=num_tokens, seed=seed) for cell in grid]
    return {"rows": rows, "provenance": asdict(Provenance.here(seed=seed))}


def _cell(out: Path, chunk_len: int, tokens_per_dim: float, *, num_tokens: int, seed: int) -> dict[str, Any]:
    recipe = density(chunk_len=chunk_len, tokens_per_dim=tokens_per_dim, num_tokens=num_tokens, seed=seed)
    prepared = prepare(recipe.data)
    folder = out / f"{chunk_len}-{recipe.model.shape.memory_dim}-seed{seed}"
    model = train_autoencoder(recipe, folder, prepared=prepared)
    result = model.evaluate_split(prepared.splits["test"], name=HELD_OUT)
    row = {name: result.measures[name] for name in MEASURES}
    intervals = {name: list(result.intervals[name]) for name in MEASURES if name in result.intervals}
    took = {"tokens_trained": model.provenance["tokens"], "seconds": model.provenance["seconds"]}
    return {"tokens_per_dim": tokens_per_dim, **row, "intervals": intervals, **took, "seed": seed}

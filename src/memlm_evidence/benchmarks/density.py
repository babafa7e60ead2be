"""`memlm bench density`."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memlm.cli.command import Answer
from memlm.data.token_store import prepare
from memlm.recipes.autoencoder import density
from memlm.text.evaluation_sets import HELD_OUT
from memlm.training.train import train
from memlm_evidence.benchmarks.measuring import Benchmark, made_here

MEASURES = ("chunk_len", "memory_dim", "token_accuracy", "exact_match", "retained_bits_per_token", "bits_per_dim")


@dataclass(frozen=True, kw_only=True)
class Density(Benchmark):
    """Measure how much held-out text comes back, by chunk length and tokens per dimension of the memory.

    One autoencoder is trained for each combination. If the command is interrupted, run it again: it resumes.
    """

    out: Path = Path("runs/density")
    """Folder for the trained models."""
    chunk_lens: tuple[int, ...] = (32, 64, 128, 256)
    """Tokens per chunk; each length is measured."""
    tokens_per_dim: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0)
    """Tokens per dimension of the memory; each value is measured."""
    num_tokens: int = 4_000_000
    """Tokens that each model is trained on."""
    seed: int = 0
    """Random seed."""

    def run(self) -> Answer:
        """Train and evaluate every combination, each in a folder of its own; what is finished is not trained again."""
        rows = list(itertools.starmap(self._row, itertools.product(self.chunk_lens, self.tokens_per_dim)))
        return {"rows": rows, **made_here(seed=self.seed)}

    def _row(self, chunk_len: int, tokens_per_dim: float) -> dict[str, Any]:
        recipe = density(chunk_len=chunk_len, tokens_per_dim=tokens_per_dim, num_tokens=self.num_tokens, seed=self.seed)
        prepared = prepare(recipe.data)
        folder = self.out / f"{chunk_len}-{recipe.model.shape.memory_dim}-seed{self.seed}"
        model = train(recipe, folder, prepared=prepared)
        result = model.evaluate_split(prepared.splits["test"], name=HELD_OUT)
        return {
            "tokens_per_dim": tokens_per_dim,
            **{name: result.measures[name] for name in MEASURES},
            "intervals": {name: list(result.intervals[name]) for name in MEASURES if name in result.intervals},
            "tokens_trained": model.provenance["tokens"],
            "seconds": model.provenance["seconds"],
            "seed": self.seed,
        }

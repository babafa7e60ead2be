"""Train, then evaluate on every standard set."""

import itertools
from pathlib import Path

from memlm.config import RecipeConfig
from memlm.data.token_store import PreparedData
from memlm.runtime.files import atomic_write
from memlm.runtime.results import Result, json_lines
from memlm.text.autoencoder import TextAutoencoder
from memlm.text.evaluation_sets import corpus_sets, evaluate_sets, foreign_sets
from memlm.training.accelerator import is_main_process
from memlm.training.autoencoder import train_autoencoder


def train_and_evaluate(
    recipe: RecipeConfig, prepared: PreparedData, out: Path, *, quiet: bool = False
) -> tuple[TextAutoencoder, list[Result]]:
    """Train a recipe into `out` and evaluate it on every standard set; results go to `out/results.jsonl`.

    Of several processes the first evaluates; the others have no results.
    """
    model = train_autoencoder(recipe, out, prepared=prepared, quiet=quiet)
    if not is_main_process():
        return model, []
    sets = itertools.chain(corpus_sets(prepared), foreign_sets(model.tokenizer))
    results = evaluate_sets(model, sets, quiet=quiet)
    atomic_write(out / "results.jsonl", json_lines(result.to_dict() for result in results))
    return model, results

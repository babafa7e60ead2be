"""A recipe of any kind → its held-out measures."""

import shutil
from dataclasses import replace
from pathlib import Path

from memlm.config import Recipe
from memlm.data.token_store import prepare
from memlm.runtime.results import Interval, Provenance, Result
from memlm.text.evaluation_sets import HELD_OUT
from memlm.training.train import train
from memlm_evidence.benchmarks.measuring import num_parameters


def measure(recipe: Recipe, folder: Path) -> Result:
    """Train a recipe into a folder, going on from what is there, and evaluate it on held-out documents.

    Beside the measures of its kind: `parameters`, `tokens_trained` and `seconds` of training. The model stays in the
    folder, its checkpoints do not.

    Raises:
        ValueError: the recipe cannot be trained.
        TrainingDivergedError: a loss became NaN or infinite.
    """
    prepared = prepare(recipe.data, quiet=True)
    model = train(recipe, folder, prepared=prepared, quiet=True)
    result = _side_by_side(model.evaluate_split(prepared.splits["test"], name=HELD_OUT))
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    took = {
        "parameters": num_parameters(model.model),
        "tokens_trained": model.provenance["tokens"],
        "seconds": model.provenance["seconds"],
    }
    made_by = Provenance.here(data=prepared.fingerprint)
    return replace(result, measures={**result.measures, **took}, provenance=made_by)


def _side_by_side(result: Result) -> Result:
    """A memory model's retention beside its next tokens, so that rows of all kinds are read alike."""
    retention = result.measures.get("retention")
    if retention is None:
        return result
    measures = {name: value for name, value in result.measures.items() if name != "retention"}
    kept = {name: value for name, value in retention.items() if name not in ("name", "intervals", "provenance")}
    intervals = {name: Interval(*ends) for name, ends in retention["intervals"].items()}
    return replace(result, measures={**kept, **measures}, intervals={**intervals, **result.intervals})

"""How many tokens and seconds to a given fidelity: the paper's recipe against ours."""

from dataclasses import asdict, replace
from typing import Any, Literal

from memlm.config import RecipeConfig
from memlm.data.token_store import PreparedData, prepare
from memlm.recipes.autoencoder import autoencoder
from memlm.recipes.reference import reference
from memlm.recipes.scale import Scale
from memlm.runtime.results import Provenance
from memlm.training.accelerator import build_accelerator
from memlm.training.autoencoder import train_stages

TARGET = 0.9
OUR_TOKENS = 400_000
RESOLUTION = 40
"""Held-out measures over the last stage of a budget, which is how finely the crossing is seen."""


def fidelity(
    *,
    chunk_len: int,
    memory_dim: int,
    mixer: Literal["attention", "masked_mixer"],
    budget_ratio: float,
    seed: int = 0,
) -> dict[str, Any]:
    """Train ours to 90% held-out token accuracy, then the reference on up to `budget_ratio` times the tokens it took.

    Seconds are those of training steps alone. A reference that never gets there gives lower bounds, and
    `lower_bound` says so: what it used up, divided by what ours needed.

    Raises:
        ValueError: ours does not reach 90% within its budget.
    """
    scale = Scale(chunk_len=chunk_len, memory_dim=memory_dim, num_tokens=OUR_TOKENS, seed=seed)
    recipe = autoencoder(scale)
    prepared = prepare(recipe.data)
    ours = _to_target(recipe, prepared)
    if not ours["reached"]:
        raise ValueError(f"ours got to {ours['token_accuracy']:.3f}, not {TARGET}, in {OUR_TOKENS} tokens: no ratio")
    budget = replace(scale, num_tokens=int(budget_ratio * ours["tokens"]))
    theirs = _to_target(reference(budget, mixer=mixer), prepared)
    return {
        "tokens_to_90_ratio": theirs["tokens"] / ours["tokens"],
        "seconds_to_90_ratio": theirs["seconds"] / ours["seconds"],
        "lower_bound": not theirs["reached"],
        "ours": ours,
        "reference": {**theirs, "mixer": mixer},
        "chunk_len": chunk_len,
        "memory_dim": memory_dim,
        "provenance": asdict(Provenance.here(seed=seed, data=prepared.fingerprint)),
    }


def _to_target(recipe: RecipeConfig, prepared: PreparedData) -> dict[str, Any]:
    """Train until held-out accuracy reaches the target or the budget ends; where it was then."""
    cfg = replace(recipe.training, eval_tokens=max(1, recipe.training.num_tokens // RESOLUTION))
    seen: dict[str, float] = {}

    def reached(measures: dict[str, float]) -> bool:
        seen.update(measures)
        return measures["token_accuracy"] >= TARGET

    _, progress = train_stages(replace(recipe, training=cfg), prepared, build_accelerator(cfg), stop=reached)
    accuracy = seen["token_accuracy"]
    return {**asdict(progress), "token_accuracy": accuracy, "reached": accuracy >= TARGET}

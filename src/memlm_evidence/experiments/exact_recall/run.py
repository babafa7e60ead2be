"""Claim: rich memories can be used, not only regenerated: a decoder gives back exact strings from anywhere in its past.

The memory model by combined and by causal training, and the same decoder with the whole window as tokens, all trained
on the same windows with facts and questions in them, are asked for facts that none of them has seen.
"""

from functools import partial
from pathlib import Path
from typing import Any

from memlm.data.token_store import prepare
from memlm.recipes.memory_model import without_memory
from memlm.runtime.results import Provenance
from memlm.training.train import train
from memlm_evidence.benchmarks.recall import Recall
from memlm_evidence.experiments.exact_recall import RecallPlan, RecallResult
from memlm_evidence.experiments.memory_model.run import autoencoder_recipe, combined_recipe
from memlm_evidence.experiments.memory_model.training import trained_encoder


def run(out: Path, plan: RecallPlan) -> RecallResult:
    """Train every model and ask it. What was trained before is not trained again."""
    recipe = partial(combined_recipe, plan, pointer_span=plan.pointer_span, recall_fraction=plan.recall_fraction)
    encoder = trained_encoder(autoencoder_recipe(plan), out) if plan.autoencoder_tokens else None
    recipes = {
        "combined": recipe(reading_fraction=plan.reading_fraction, encoder_from=encoder),
        "causal": recipe(retention=0.0),
        "full_context": without_memory(recipe(), full_context=True),
    }
    prepared = prepare(recipes["combined"].data)
    asked: dict[str, dict[str, Any]] = {}
    for name in plan.models:
        folder = out / f"recall-{name}-seed-{plan.seed}"
        trained = train(recipes[name], folder, prepared=prepared)
        ask = Recall(model=name, num_texts=plan.num_texts, chunk_len=plan.chunk_len, seed=plan.seed)
        asked[name] = dict(ask.measure(trained))
    names = ("recall", "recall_intervals", "recall_by_kind", "recall_by_kind_intervals", "chance", "rows")
    found = {name: {model: answers[name] for model, answers in asked.items()} for name in names}
    made_by = Provenance.here(plan=vars(plan), data=prepared.fingerprint)
    return RecallResult.from_dict({**found, "provenance": made_by})

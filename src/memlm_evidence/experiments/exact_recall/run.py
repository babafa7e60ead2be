"""Claim: rich memories can be used, not only regenerated: a decoder gives back exact strings from anywhere in its past.

The memory model by combined and by causal training, and the same decoder with the whole window as tokens, all trained
on the same windows with facts and questions in them, are asked for facts that none of them has seen.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from memlm.data.token_store import prepare
from memlm.recipes.autoencoder import autoencoder
from memlm.recipes.memory_model import memory_model, without_memory
from memlm.recipes.scale import Scale
from memlm.runtime.results import Provenance, Result
from memlm.training.memory_model import train_memory_model
from memlm_evidence.benchmarks.recall import Recall
from memlm_evidence.experiments.memory_model.conditions import trained_encoder

MODELS = ("combined", "causal", "full_context")


@dataclass(frozen=True, kw_only=True)
class RecallPlan:
    """What to train and how long, and how much to ask."""

    chunk_len: int = 32
    memory_dim: int = 256
    window_chunks: int = 4
    num_positions: int = 4
    """Decoder positions that a memory takes."""
    pointer_span: int = 12
    """Tokens by which a decoder with memories finds what it copies of them."""
    dim: int = 128
    """Width of the decoder."""
    reading_fraction: float = 0.25
    """Share of the tokens that the combined model first learns to read memories from: what is not given back cannot be
    pointed at."""
    num_tokens: int = 8_000_000
    autoencoder_tokens: int | None = None
    """Train an autoencoder on so many tokens first (`reproduce.memory_model` has the same), take its encoder, and leave
    that as it is: memories are good from the first step on. None trains the encoder with the rest."""
    recall_fraction: float = 0.8
    """Share of training windows with facts and questions."""
    num_texts: int = 100
    """Texts of the benchmark for each kind of fact, number of past chunks and distance."""
    models: tuple[str, ...] = MODELS
    seed: int = 0


def reproduce_recall(out: Path, plan: RecallPlan | None = None, *, quiet: bool = False) -> Result:
    """Train every model and ask it. What was trained before is not trained again.

    Returns:
        By model: `recall` by distance in chunks, with `recall_intervals` over texts, `recall_by_kind` of fact, and
        `chance`, when nothing of the past is read; `rows` with every kind, distance and number of chunks.
    """
    plan = plan or RecallPlan()
    recipe = partial(
        memory_model,
        chunk_len=plan.chunk_len,
        memory_dim=plan.memory_dim,
        window_chunks=plan.window_chunks,
        num_positions=plan.num_positions,
        pointer_span=plan.pointer_span,
        dim=plan.dim,
        num_tokens=plan.num_tokens,
        recall_fraction=plan.recall_fraction,
        seed=plan.seed,
    )
    encoder = None
    if plan.autoencoder_tokens:
        scale = Scale(
            chunk_len=plan.chunk_len, memory_dim=plan.memory_dim, num_tokens=plan.autoencoder_tokens, seed=plan.seed
        )
        encoder = trained_encoder(autoencoder(scale), out, quiet=quiet)
    recipes = {
        "combined": recipe(reading_fraction=plan.reading_fraction, encoder_from=encoder),
        "causal": recipe(retention=0.0),
        "full_context": without_memory(recipe(), full_context=True),
    }
    prepared = prepare(recipes["combined"].data, quiet=quiet)
    asked: dict[str, dict[str, Any]] = {}
    for name in plan.models:
        folder = out / f"recall-{name}-seed-{plan.seed}"
        trained = train_memory_model(recipes[name], folder, prepared=prepared, quiet=quiet)
        ask = Recall(model=name, num_texts=plan.num_texts, chunk_len=plan.chunk_len, seed=plan.seed)
        asked[name] = dict(ask.measure(trained, quiet=quiet))
    parts = ("recall", "recall_intervals", "recall_by_kind", "recall_by_kind_intervals", "chance", "rows")
    values = {part: {name: found[part] for name, found in asked.items()} for part in parts}
    made_by = Provenance.here(plan=vars(plan), data=prepared.fingerprint)
    return Result(name="recall", measures=values, provenance=made_by)

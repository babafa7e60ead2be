"""A recipe → a trained autoencoder, saved."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from memlm.config import RecipeConfig
from memlm.data.chunks import concat_chunks, insert_repetitions, sample_chunks, scramble, with_end_tokens
from memlm.data.token_store import PreparedData, prepare
from memlm.evaluation.information import unconditional_log_probs
from memlm.evaluation.metrics import quick_measures, score
from memlm.models.autoencoder import Autoencoder
from memlm.models.batch import Batch
from memlm.models.growth import grow, shrunk
from memlm.runtime.files import atomic_write
from memlm.text.autoencoder import TextAutoencoder
from memlm.training import checkpoint
from memlm.training.accelerator import build_accelerator
from memlm.training.checkpoint import Progress
from memlm.training.loop import Home, Task, fit
from memlm.training.objectives import RETENTION
from memlm.training.run import (
    check_vocabulary,
    end,
    fingerprint,
    finished,
    provenance_of,
    stage_checkpoints,
    unwatched,
    validation_chunks,
)


def train_autoencoder(
    recipe: RecipeConfig, folder: Path, *, prepared: PreparedData | None = None, quiet: bool = False
) -> TextAutoencoder:
    """Train what a recipe describes, or go on where an interrupted run stopped, or load a finished one.

    `prepared` is the recipe's data, for a caller that has it already: standard input can be read only once.

    `folder` receives `recipe.json`, `metrics.jsonl`, `checkpoints/`, and `model/` at the end.

    Raises:
        ValueError: the recipe does not fit its data, or `folder` holds another run.
        TrainingDivergedError: a loss became NaN or infinite.
    """
    prepared = prepared or prepare(recipe.data, quiet=quiet)
    check_vocabulary(recipe.model.shape.vocab_size, prepared)
    stages(recipe)  # refuses what cannot grow, before anything is written
    fingerprint = fingerprint_of(recipe, prepared)
    if done := finished(TextAutoencoder, folder, fingerprint):
        return done
    checkpoint.refuse_others(stage_checkpoints(folder, 0), fingerprint)  # before anything is written
    accelerator = build_accelerator(recipe.training, folder)
    if accelerator.is_main_process:
        atomic_write(folder / "recipe.json", recipe.to_json())
    model, progress = train_stages(recipe, prepared, accelerator, folder=folder, quiet=quiet)
    log_probs = unconditional_log_probs(prepared.splits["train"].tokens, recipe.model.shape.vocab_size)
    unconditional = torch.from_numpy(log_probs).float()
    provenance = provenance_of(fingerprint, recipe, prepared, progress, accelerator, recipe.training)
    result = TextAutoencoder(model.cpu(), prepared.tokenizer, unconditional, provenance)
    end(result, folder, accelerator)
    return result


def stages(recipe: RecipeConfig) -> list[RecipeConfig]:
    """A recipe as stages without growth, the last of them for the model itself.

    Raises:
        ValueError: the model cannot be grown from a stage's chunk length.
    """
    shorter = [
        replace(recipe, model=shrunk(recipe.model, stage.chunk_len), training=stage.training, growth=())
        for stage in recipe.growth
    ]
    return [*shorter, replace(recipe, growth=())]


def train_stages(
    recipe: RecipeConfig,
    prepared: PreparedData,
    accelerator: Accelerator,
    *,
    folder: Path | None = None,
    stop: Callable[[dict[str, float]], bool] | None = None,
    quiet: bool = False,
) -> tuple[Autoencoder, Progress]:
    """Train stage after stage, each grown from the one before; with a `folder`, a stage that is done is only loaded.

    `stop` may end the last stage, given its held-out measures.
    """
    before = Progress()
    model: Autoencoder | None = None
    for number, stage in enumerate(stages(recipe)):
        model = grow(model, stage.model) if model else seeded_autoencoder(stage)
        last = number == len(recipe.growth)
        title = f"Training {recipe.name}, chunks of {stage.model.shape.chunk_len}"
        task = retention_task(stage, prepared, title, grows=not last)
        if last:
            task = replace(task, stop=stop)
        home = _home(folder, number, fingerprint_of(recipe, prepared), before) if folder else None
        before += fit(model, task, stage.training, accelerator, home=home, quiet=quiet)
    assert model is not None
    return model, before


def _home(folder: Path, stage: int, fingerprint: str, before: Progress) -> Home:
    return Home(stage_checkpoints(folder, stage), folder / "metrics.jsonl", fingerprint, before)


def seeded_autoencoder(recipe: RecipeConfig) -> Autoencoder:
    """The recipe's model, freshly initialized from the recipe's seed."""
    torch.manual_seed(recipe.training.seed)
    return Autoencoder(recipe.model)


def retention_task(
    recipe: RecipeConfig, prepared: PreparedData, title: str | None = None, *, grows: bool = False
) -> Task:
    """Regenerate random chunks of the training split; watch the validation split.

    A model that `grows` will be part of a larger one, in whose short chunks whole parts stand empty.
    """
    chunk_len = recipe.model.shape.chunk_len
    vocab_size, validation = recipe.model.shape.vocab_size, validation_chunks(prepared, chunk_len)
    short = sample_chunks(
        prepared.splits["validation"], chunk_len, len(validation.mask), seed=0, step=0, short_fraction=1.0
    )

    def evaluate(model: nn.Module) -> dict[str, float]:
        device = next(model.parameters()).device
        scores, short_scores = (score(model, chunks, vocab_size, device=device) for chunks in (validation, short))
        short_exact = quick_measures(short_scores)["exact_match"]
        return {**quick_measures(scores), "short_exact_match": short_exact, "chunk_len": chunk_len}

    return Task(
        sample=batch_sampler(recipe, prepared, shortest=0 if grows else 1),
        objective=RETENTION,
        evaluate=evaluate,
        title=title or f"Training {recipe.name}",
    )


def batch_sampler(recipe: RecipeConfig, prepared: PreparedData, *, shortest: int = 1) -> Callable[[int], Batch]:
    """Step → its batch of random training chunks, transformed as configured."""
    cfg, shape = recipe.training, recipe.model.shape
    shortest = shortest if shape.end_token else 1
    num_chunks = cfg.batch_tokens // shape.chunk_len
    num_everyday = round(num_chunks * cfg.everyday_fraction)

    def batch(step: int) -> Batch:
        draw = {"seed": cfg.seed, "step": step}
        short: Any = {**draw, "short_fraction": cfg.short_fraction, "shortest": shortest}
        chunks = sample_chunks(prepared.splits["train"], shape.chunk_len, num_chunks - num_everyday, **short)
        if num_everyday:
            everyday = sample_chunks(
                prepared.splits["everyday"], shape.chunk_len, num_everyday, from_start=True, **short
            )
            chunks = concat_chunks([chunks, everyday])
        if cfg.scrambled_fraction:
            chunks = scramble(chunks, shape.vocab_size, fraction=cfg.scrambled_fraction, **draw)
        if cfg.repeated_fraction:
            chunks = insert_repetitions(chunks, shape.vocab_size, fraction=cfg.repeated_fraction, **draw)
        return Batch.of(with_end_tokens(chunks, shape.vocab_size) if shape.end_token else chunks)

    return batch


def fingerprint_of(recipe: RecipeConfig, prepared: PreparedData) -> str:
    """What tells one run from another: its recipe, except how it is watched and saved, and its data."""
    return fingerprint([replace(stage, training=unwatched(stage.training)) for stage in stages(recipe)], prepared)

"""A recipe → a trained causal language model, saved."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from memlm.config import LanguageModelRecipe, TrainingConfig
from memlm.data.chunks import sample_chunks
from memlm.data.token_store import PreparedData, TokenSplit, prepare
from memlm.models.batch import Batch
from memlm.models.language_model import LanguageModel
from memlm.runtime.files import atomic_write
from memlm.text.language_model import TextLanguageModel, causal_nats
from memlm.training import checkpoint
from memlm.training.accelerator import build_accelerator
from memlm.training.checkpoint import Progress
from memlm.training.loop import Home, Task, fit
from memlm.training.objectives import CAUSAL, retrieval
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


def train_language_model(
    recipe: LanguageModelRecipe, folder: Path, *, prepared: PreparedData | None = None, quiet: bool = False
) -> TextLanguageModel:
    """Train what a recipe describes, or go on where an interrupted run stopped, or load a finished one.

    `folder` receives `recipe.json`, `metrics.jsonl`, `checkpoints/`, and `model/` at the end.

    Raises:
        ValueError: the recipe does not fit its data, or `folder` holds another run.
        TrainingDivergedError: a loss became NaN or infinite.
    """
    prepared = prepared or prepare(recipe.data, quiet=quiet)
    check_vocabulary(recipe.model.vocab_size, prepared)
    watched = [replace(recipe, training=unwatched(recipe.training))]
    run = fingerprint(watched, prepared)
    if done := finished(TextLanguageModel, folder, run):
        return done
    checkpoint.refuse_others(stage_checkpoints(folder, 0), run)  # before anything is written
    accelerator = build_accelerator(recipe.training, folder)
    if recipe.retrieval and accelerator.num_processes > 1:
        raise ValueError("retrieval tells a text from the whole rest of its batch: train it in one process")
    if accelerator.is_main_process:
        atomic_write(folder / "recipe.json", recipe.to_json())
    torch.manual_seed(recipe.training.seed)
    model = LanguageModel(recipe.model)
    progress = Progress()
    for number, (task, cfg) in enumerate(_tasks(recipe, prepared)):
        home = Home(stage_checkpoints(folder, number), folder / "metrics.jsonl", run, progress)
        progress += fit(model, task, cfg, accelerator, home=home, quiet=quiet)
    provenance = provenance_of(run, recipe, prepared, progress, accelerator, recipe.training)
    result = TextLanguageModel(model.cpu(), prepared.tokenizer, provenance)
    end(result, folder, accelerator)
    return result


def _tasks(recipe: LanguageModelRecipe, prepared: PreparedData) -> list[tuple[Task, TrainingConfig]]:
    """Causal training, then retrieval if the recipe has it."""
    train, chunk_len = prepared.splits["train"], recipe.model.chunk_len
    evaluate = _validation(prepared, chunk_len)
    causal = Task(
        sample=_sampler(train, chunk_len, recipe.training),
        objective=CAUSAL,
        evaluate=evaluate,
        title=f"Training {recipe.name}",
    )
    tasks = [(causal, recipe.training)]
    if recipe.retrieval:
        cfg = recipe.retrieval.training
        task = Task(
            # Two texts that overlap by half are one row of one and a half times the length.
            sample=_sampler(train, chunk_len * 3 // 2, replace(cfg, short_fraction=0.0)),
            objective=retrieval(recipe.retrieval.temperature),
            evaluate=evaluate,
            title=f"Training {recipe.name}, retrieval",
        )
        tasks.append((task, cfg))
    return tasks


def _sampler(train: TokenSplit, row_len: int, cfg: TrainingConfig) -> Callable[[int], Batch]:
    num_rows = cfg.batch_tokens // row_len
    return lambda step: Batch.of(
        sample_chunks(train, row_len, num_rows, seed=cfg.seed, step=step, short_fraction=cfg.short_fraction)
    )


def _validation(prepared: PreparedData, chunk_len: int) -> Callable[[nn.Module], dict[str, float]]:
    watched = validation_chunks(prepared, chunk_len)

    def evaluate(model: nn.Module) -> dict[str, float]:
        assert isinstance(model, LanguageModel)
        nats, scored = causal_nats(model, watched), watched.mask[:, 1:]
        return {"causal_nats_per_token": float(nats[scored].mean())}

    return evaluate

"""A recipe of any kind → a trained model, saved: one loop over stages."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, overload

from accelerate import Accelerator
from torch import nn

from memlm.config import (
    AutoencoderConfig,
    AutoencoderRecipe,
    LanguageModelRecipe,
    MemoryModelRecipe,
    MemoryReaderRecipe,
    Recipe,
    TrainingConfig,
)
from memlm.config.base import Config
from memlm.data.token_store import PreparedData, prepare
from memlm.runtime.cpu import precision_on
from memlm.runtime.files import atomic_write, make_folder, only_one_in, place_for
from memlm.runtime.results import Provenance
from memlm.text.autoencoder import TextAutoencoder
from memlm.text.language_model import TextLanguageModel
from memlm.text.memory_model import TextMemoryModel
from memlm.text.memory_reader import TextMemoryReader
from memlm.text.model import TextModel
from memlm.training import checkpoint
from memlm.training.accelerator import build_accelerator, is_main_process
from memlm.training.autoencoder import AutoencoderTraining
from memlm.training.checkpoint import Progress, RunFolder
from memlm.training.language_model import LanguageModelTraining
from memlm.training.loop import fit
from memlm.training.memory_model import MemoryModelTraining
from memlm.training.memory_reader import MemoryReaderTraining
from memlm.training.model_training import ModelTraining
from memlm.training.optimizers import freeze
from memlm.training.search import SearchTraining

TRAININGS: Mapping[str, type[ModelTraining]] = {
    "autoencoder": AutoencoderTraining,
    "language_model": LanguageModelTraining,
    "memory_model": MemoryModelTraining,
    "memory_reader": MemoryReaderTraining,
}
"""How each kind of model is trained."""
_UNWATCHED = ("eval_tokens", "checkpoint_tokens", "trackers", "num_processes", "sharded", "workers")
"""Of a stage's training, what changes nothing of the model."""
_TOLD = 3
"""Differences between recipes that an error names."""


@overload
def train(
    recipe: AutoencoderRecipe, folder: Path, *, prepared: PreparedData | None = ..., quiet: bool = ...
) -> TextAutoencoder: ...
@overload
def train(
    recipe: LanguageModelRecipe, folder: Path, *, prepared: PreparedData | None = ..., quiet: bool = ...
) -> TextLanguageModel: ...
@overload
def train(
    recipe: MemoryModelRecipe, folder: Path, *, prepared: PreparedData | None = ..., quiet: bool = ...
) -> TextMemoryModel: ...
@overload
def train(
    recipe: MemoryReaderRecipe, folder: Path, *, prepared: PreparedData | None = ..., quiet: bool = ...
) -> TextMemoryReader: ...
@overload
def train(
    recipe: Recipe, folder: Path, *, prepared: PreparedData | None = ..., quiet: bool = ...
) -> TextAutoencoder | TextLanguageModel | TextMemoryModel | TextMemoryReader: ...
def train(recipe: Recipe[Any], folder: Path, *, prepared: PreparedData | None = None, quiet: bool = False) -> Any:
    """Train what a recipe describes, or go on where an interrupted run stopped, or load a finished one.

    `prepared` is the recipe's data, for a caller that has it already: standard input can be read only once.

    `folder` receives `recipe.json`, `metrics.jsonl`, `checkpoints/`, and `model/` at the end.

    Raises:
        ValueError: the recipe does not fit its data or the encoder it begins with; `folder` holds another run, or
            somebody else is training in it.
        TrainingDivergedError: a loss became NaN or infinite.
    """
    training = training_of(recipe, prepared or prepare(recipe.data, quiet=quiet))
    run = fingerprint(recipe, training.prepared) + training.begins_with
    start = RunFolder(folder, run)
    with _told_apart(folder, recipe):
        if done := _finished(training.text_model, folder, run):
            return done
    with only_one_in(make_folder(folder)) if is_main_process() else nullcontext():
        return _trained(training, start, quiet=quiet)


def _trained(training: ModelTraining, start: RunFolder, *, quiet: bool) -> TextModel[Any, Any]:
    """Train in a folder that nobody else trains in."""
    recipe, folder = training.recipe, start.path
    with _told_apart(folder, recipe):
        checkpoint.newest_whole(start.checkpoints, start.run)  # another run's is refused before anything is written
    accelerator = build_accelerator(recipe.stages[0].training, folder, all_used=training.all_weights_used)
    if accelerator.num_processes > 1 and any(stage.weights.retrieval for stage in recipe.stages):
        raise ValueError("retrieval tells a text from the whole rest of its batch: train it in one process")
    if accelerator.is_main_process:
        atomic_write(folder / "recipe.json", recipe.to_json())
    model, progress = train_stages(training, accelerator, start=start, quiet=quiet)
    result = training.finish(model.cpu(), _provenance(training, start.run, progress, accelerator))
    if accelerator.is_main_process:
        result.save_pretrained(folder / "model")
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return result


def training_of(recipe: Recipe[Any], prepared: PreparedData) -> ModelTraining:
    """How this recipe's model is trained on its data.

    Raises:
        ValueError: the recipe does not fit its data, or what it begins with.
    """
    searched = isinstance(recipe.model, AutoencoderConfig) and recipe.model.search is not None
    return (SearchTraining if searched else TRAININGS[recipe.model.kind])(recipe, prepared)


def train_stages(
    training: ModelTraining,
    accelerator: Accelerator,
    *,
    start: RunFolder | None = None,
    stop: Callable[[dict[str, float]], bool] | None = None,
    quiet: bool = False,
) -> tuple[nn.Module, Progress]:
    """Train stage after stage; with a folder to start from, a stage that is done is only loaded.

    `stop` may end the last stage, given its held-out measures.
    """
    recipe, model, progress = training.recipe, training.build(), Progress()
    for number, stage in enumerate(recipe.stages):
        model = training.begin(stage, model)
        freeze(model, stage.frozen)
        last = number == len(recipe.stages) - 1
        progress += fit(
            model,
            # A frozen encoder encodes before training begins, where it will be trained around.
            training.sampler(stage, model.to(accelerator.device) if stage.frozen else model),
            training.objective(stage),
            stage.training,
            accelerator=accelerator,
            evaluate=training.evaluator(stage),
            stop=stop if last else None,
            title=f"Training {recipe.name}"
            + f", stage {number + 1} of {len(recipe.stages)}" * (len(recipe.stages) > 1),
            folder=start and replace(start, stage=number, before=progress),
            quiet=quiet,
        )
    freeze(model, ())
    return model, progress


def fingerprint(cfg: Config, prepared: PreparedData) -> str:
    """A short hash of a configuration and data: what tells one run from another.

    How a recipe's run is watched, saved and distributed is left out: it changes nothing of the model.
    """
    if isinstance(cfg, Recipe):
        cfg = cfg.with_training(**{name: getattr(TrainingConfig(), name) for name in _UNWATCHED})
    # By way of JSON, so that a ratio of 4 and one of 4.0 are the same, as they are in a recipe file.
    text = type(cfg).from_json(cfg.to_json()).to_json()
    return hashlib.sha256((text + prepared.fingerprint).encode()).hexdigest()[:16]


def _finished(text_model: type[TextModel[Any, Any]], folder: Path, run: str) -> TextModel[Any, Any] | None:
    """The model of a finished run of the same recipe and data, if `folder` holds one.

    Raises:
        ValueError: it holds another's, or cannot be a folder.
    """
    place_for("folder", folder)
    if not (folder / "model").exists():
        return None
    model = text_model.from_pretrained(folder / "model")
    if model.provenance.get("run") != run:
        raise ValueError(f"{folder} holds a model of another recipe or data; give another folder, or delete it")
    return model


@contextmanager
def _told_apart(folder: Path, recipe: Recipe[Any]) -> Iterator[None]:
    """A block that refuses a folder of another recipe; the error says how they differ."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{error}{_differences(folder, recipe)}") from None


def _differences(folder: Path, recipe: Recipe[Any]) -> str:
    """What the recipe in a folder says otherwise than this one, for an error; nothing where it says the same."""
    try:
        kept = type(recipe).from_json((folder / "recipe.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none, or another kind's
        return ""
    there, here = kept.leaves(), recipe.leaves()
    others = [name for name in {**here, **there} if here.get(name) != there.get(name)]
    told = [name for name in others if name.rpartition(".")[2] not in _UNWATCHED]
    named = "; ".join(f"{name} is {there.get(name)!r} there and {here.get(name)!r} here" for name in told[:_TOLD])
    more = f"; and {len(told) - _TOLD} more" * (len(told) > _TOLD)
    return f" ({named}{more})" if told else ""


def _provenance(training: ModelTraining, run: str, progress: Progress, accelerator: Accelerator) -> dict[str, Any]:
    """What a trained model is saved with: its run, recipe and data, how far it got, and what made it."""
    recipe = training.recipe
    dtype = precision_on(accelerator.device, recipe.stages[0].training.precision)
    return {
        "run": run,
        "recipe": asdict(recipe),
        "data": training.prepared.fingerprint,
        **asdict(progress),
        "made_by": asdict(Provenance.here(dtype=dtype, seed=recipe.seed)),
    }

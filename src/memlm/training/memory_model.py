"""A recipe → a trained memory model, saved."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from memlm.config import MemoryModelConfig, MemoryModelRecipe, Phase
from memlm.data.chunks import Chunks, LazyChunks, lazy_chunks, split_into_chunks
from memlm.data.facts import FactTexts, Tokens
from memlm.data.token_store import PreparedData, prepare
from memlm.data.tokenizer import Tokenizer
from memlm.data.windows import all_windows, sample_windows
from memlm.evaluation.information import unconditional_log_probs
from memlm.evaluation.metrics import quick_measures, score
from memlm.evaluation.prediction import predict
from memlm.models.batch import Batch, encode_chunks
from memlm.models.encoder import Encoder
from memlm.models.memory_model import MemoryModel, Regenerator, WindowMemory
from memlm.runtime.files import atomic_write
from memlm.text.autoencoder import TextAutoencoder
from memlm.text.checkpoint_folder import config_class
from memlm.text.memory_model import TextMemoryModel
from memlm.training import checkpoint
from memlm.training.accelerator import build_accelerator
from memlm.training.checkpoint import Progress
from memlm.training.loop import Home, Task, fit
from memlm.training.objectives import combined
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

_WATCHED_WINDOWS = 64


def train_memory_model(
    recipe: MemoryModelRecipe, folder: Path, *, prepared: PreparedData | None = None, quiet: bool = False
) -> TextMemoryModel:
    """Train what a recipe describes, or go on where an interrupted run stopped, or load a finished one.

    `folder` receives `recipe.json`, `metrics.jsonl`, `checkpoints/`, and `model/` at the end.

    Raises:
        ValueError: the recipe does not fit its data or the encoder it begins with, or `folder` holds another run.
        TrainingDivergedError: a loss became NaN or infinite.
    """
    prepared = prepared or prepare(recipe.data, quiet=quiet)
    check_vocabulary(recipe.model.shape.vocab_size, prepared)
    torch.manual_seed(recipe.phases[0].training.seed)
    model = MemoryModel(recipe.model)
    source = _take_encoder(model, recipe, prepared) if recipe.encoder_from else ""
    phases = tuple(replace(phase, training=unwatched(phase.training)) for phase in recipe.phases)
    run = fingerprint([replace(recipe, phases=phases)], prepared) + source
    if done := finished(TextMemoryModel, folder, run):
        return done
    checkpoint.refuse_others(stage_checkpoints(folder, 0), run)  # before anything is written
    # To read memories is not to predict from them: a phase may have no use for some weights.
    accelerator = build_accelerator(recipe.phases[0].training, folder, all_used=False)
    if accelerator.is_main_process:
        atomic_write(folder / "recipe.json", recipe.to_json())
    progress = Progress()
    for number, (task, phase) in enumerate(_tasks(recipe, prepared, model, accelerator.device)):
        home = Home(stage_checkpoints(folder, number), folder / "metrics.jsonl", run, progress)
        progress += fit(model, task, phase.training, accelerator, home=home, quiet=quiet)
    log_probs = unconditional_log_probs(prepared.splits["train"].tokens, recipe.model.shape.vocab_size)
    unconditional = torch.from_numpy(log_probs).float()
    provenance = provenance_of(run, recipe, prepared, progress, accelerator, recipe.phases[0].training)
    result = TextMemoryModel(model.cpu().requires_grad_(True), prepared.tokenizer, unconditional, provenance)
    end(result, folder, accelerator)
    return result


def _take_encoder(model: MemoryModel, recipe: MemoryModelRecipe, prepared: PreparedData) -> str:
    """Put another model's encoder into this one; returns its fingerprint.

    Raises:
        ValueError: it does not fit; says in what, and what would.
    """
    name = str(recipe.encoder_from)
    if config_class(name) is MemoryModelConfig:
        other: TextAutoencoder | TextMemoryModel = TextMemoryModel.from_pretrained(name)
        encoder = other.model.encoder
    else:
        other = TextAutoencoder.from_pretrained(name)
        encoder = other.model.encoder
    if encoder is None or model.encoder is None:
        raise ValueError(f"{name if encoder is None else recipe.name} has no encoder")
    theirs = {**asdict(other.config.shape), "encoder": other.config.encoder, "pooling": other.config.pooling}
    ours = {**asdict(recipe.model.shape), "encoder": recipe.model.encoder, "pooling": recipe.model.pooling}
    wrong = [f"{key} {theirs[key]} is not the model's {ours[key]}" for key in ours if ours[key] != theirs[key]]
    if wrong:
        raise ValueError(f"the encoder of {name!r} does not fit: {'; '.join(wrong)}. Set the model's like it")
    if other.tokenizer.fingerprint != prepared.tokenizer.fingerprint:
        raise ValueError(f"the encoder of {name!r} was trained with another tokenizer than this data has")
    model.encoder.load_state_dict(encoder.state_dict())
    return f" {other.encoder_fingerprint}"


def _tasks(
    recipe: MemoryModelRecipe, prepared: PreparedData, model: MemoryModel, device: torch.device
) -> Iterator[tuple[Task, Phase]]:
    """The curriculum; each phase's task is made when its turn comes, of the model as it then is."""
    chunks = lazy_chunks(prepared.splits["train"], recipe.model.shape.chunk_len)
    for number, phase in enumerate(recipe.phases, 1):
        if model.encoder is not None:
            model.encoder.requires_grad_(not phase.encoder_frozen)
        title = f"Training {recipe.name}" + (f", phase {number} of {len(recipe.phases)}" * (len(recipe.phases) > 1))
        # It encodes before training begins, and what is sharded is a copy: where it is now, it stays.
        frozen = model.encoder.to(device) if model.encoder is not None and phase.encoder_frozen else None
        task = Task(
            sample=window_sampler(recipe, phase, chunks, prepared.tokenizer, frozen),
            objective=combined(phase.weights),
            evaluate=_validation(recipe, phase, prepared),
            title=title,
        )
        yield task, phase


def window_sampler(
    recipe: MemoryModelRecipe, phase: Phase, chunks: Chunks | LazyChunks, tokenizer: Tokenizer, frozen: Encoder | None
) -> Callable[[int], Batch]:
    """Step → its batch of random windows, the recipe's share of them for recall; with a frozen encoder's memories,
    which are made once.

    Raises:
        ValueError: the chunks are too short for a kind of recall.
    """
    cfg = phase.training
    num_windows = cfg.batch_tokens // (recipe.window_chunks * recipe.model.shape.chunk_len)
    memories = encode_chunks(frozen, chunks) if frozen is not None else None

    def batch(step: int) -> Batch:
        windows = sample_windows(chunks, recipe.window_chunks, num_windows, seed=cfg.seed, step=step)
        memory = None if memories is None else memories[torch.from_numpy(windows.chunk)]
        return Batch(torch.from_numpy(windows.tokens), torch.from_numpy(windows.mask), memory)

    if not recipe.recall_fraction:
        return batch
    filler = chunks.split.tokens if isinstance(chunks, LazyChunks) else chunks.tokens[chunks.mask]
    return _with_recall(batch, recipe, cfg.seed, filler, tokenizer, frozen)


def _with_recall(
    sample: Callable[[int], Batch],
    recipe: MemoryModelRecipe,
    seed: int,
    filler: Tokens,
    tokenizer: Tokenizer,
    frozen: Encoder | None,
) -> Callable[[int], Batch]:
    """Recall windows in the place of a share of each batch; a frozen encoder's memories of them are made at once."""
    model_len = recipe.model.shape.chunk_len
    chunk_len = recipe.recall_chunk_len or model_len
    texts = FactTexts(tokenizer, filler, chunk_len=chunk_len)

    def batch(step: int) -> Batch:
        others = sample(step)
        # Over many steps the share is exact, however few windows a batch has.
        share = recipe.recall_fraction * len(others.tokens)
        number = int((step + 1) * share) - int(step * share)
        if number == 0:
            return others
        windows = texts.practice(number, recipe.window_chunks * model_len // chunk_len, seed=seed, step=step)
        tokens = windows.reshape(number, recipe.window_chunks, model_len)
        mask = np.ones_like(tokens, dtype=bool)
        memory = None if frozen is None else _encode_windows(frozen, tokens, mask)
        ours, rest = Batch(torch.from_numpy(tokens), torch.from_numpy(mask), memory), others.rows(slice(number, None))
        return Batch._make(
            None if one is None or other is None else torch.cat([one, other])
            for one, other in zip(ours, rest, strict=True)
        )

    return batch


def _encode_windows(encoder: Encoder, tokens: NDArray[np.int64], mask: NDArray[np.bool_]) -> WindowMemory:
    """The memories of windows [window chunk token], on the CPU."""
    rows = -1, tokens.shape[-1]
    memory = encode_chunks(encoder, Chunks(tokens.reshape(rows), mask.reshape(rows), np.arange(mask[..., 0].size)))
    return memory.view(*tokens.shape[:2], *memory.shape[1:])


def _validation(
    recipe: MemoryModelRecipe, phase: Phase, prepared: PreparedData
) -> Callable[[nn.Module], dict[str, float]]:
    shape = recipe.model.shape
    watched = validation_chunks(prepared, shape.chunk_len)
    windows = all_windows(split_into_chunks(prepared.splits["validation"], shape.chunk_len), recipe.window_chunks)
    few = np.linspace(0, len(windows.tokens) - 1, min(_WATCHED_WINDOWS, len(windows.tokens))).astype(int)
    windows = windows.rows(few)

    def evaluate(model: nn.Module) -> dict[str, float]:
        assert isinstance(model, MemoryModel)
        device = next(model.parameters()).device
        found: dict[str, float] = {}
        if phase.weights.retention:
            found |= quick_measures(score(Regenerator(model), watched, shape.vocab_size, device=device))
        if phase.weights.causal:
            prediction = predict(model, windows, shape.vocab_size, device=device)
            found["causal_nats_per_token"] = float(prediction.nats[windows.mask].mean())
        return found

    return evaluate

"""A memory model's training step: all chunks of a batch at once, against loops over them and against other models."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from memlm.config import MemoryModelConfig, MemoryModelRecipe, RecurrentConfig, Weights
from memlm.models.batch import Batch, window_nats
from memlm.models.memory_model import MemoryModel
from memlm.models.parallel_decoder import Logits
from memlm.models.recurrent import RecurrentModel
from memlm.nn.pointer import PastTokens
from memlm.recipes.memory_model import encoder_decoder, memory_model
from memlm.runtime.results import Provenance
from memlm.training.accelerator import build_accelerator, precision_on
from memlm.training.objectives import Objective, combined
from memlm.training.step import Stepper
from memlm_evidence.benchmarks.steps import build_stepper, random_batch, timed

ROUNDS = 5
STEPS = 3


def memory_training(window_chunks: tuple[int, ...] = ()) -> dict[str, Any]:
    """The recipe's model trained on the combined objective, as we do it and as its twin does, in turn; and, on next
    tokens alone, beside recurrent memory and an encoder-decoder with the same decoder.

    Medians over rounds; a step is forward, backward and update, on random tokens. Twins start with the same weights.

    Args:
        window_chunks: chunks of a window, each measured with as many tokens a batch as the recipe has, and with a
            memory of every earlier chunk; the recipe's own if none are given.

    Returns:
        `combined_step_ratio`, the twin's seconds by ours; `recurrent_step_ratio` and `encoder_decoder_step_ratio`,
        those of the other models by ours on next tokens; `tokens_per_second` and `seconds_per_step` of all;
        `loss_difference`, by how much their losses differ, relatively, in fp32, with the same trained weights: of the
        first number of chunks, and in `rows` of all.
    """
    recipe = memory_model()
    rows = [_compared(_in_windows(recipe, chunks)) for chunks in window_chunks or (recipe.window_chunks,)]
    cfg = recipe.phases[-1].training
    precision = precision_on(build_accelerator(cfg).device, cfg.precision)
    return {
        **rows[0],
        "rows": rows,
        "model": asdict(recipe.model),
        "precision": precision,
        "num_threads": torch.get_num_threads(),
        "provenance": asdict(Provenance.here(seed=cfg.seed, precision=precision)),
    }


def _in_windows(recipe: MemoryModelRecipe, num_chunks: int) -> MemoryModelRecipe:
    return replace(recipe, window_chunks=num_chunks, model=replace(recipe.model, max_memories=num_chunks - 1))


def _compared(recipe: MemoryModelRecipe) -> dict[str, Any]:
    """Steps of all in turn, round after round, so that noise of the machine meets all."""
    weights, batch = recipe.phases[-1].weights, random_windows(recipe)
    objectives = {"ours": combined(weights), "chunk_by_chunk": chunk_by_chunk(weights)}
    steppers = {name: _stepper(recipe, recipe.model, objective) for name, objective in objectives.items()}
    next_tokens = combined(Weights(causal=1.0))
    # Without retention nobody learns to give tokens back, and the decoder reads none.
    others: dict[str, MemoryModelConfig | RecurrentConfig] = {
        "causal": replace(recipe.model, overlap=0),
        "recurrent": RecurrentConfig(vocab_size=recipe.model.shape.vocab_size, decoder=recipe.model.decoder),
        "encoder_decoder": encoder_decoder(recipe).model,
    }
    steppers |= {name: _stepper(recipe, model, next_tokens) for name, model in others.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steppers}
    for number in range(ROUNDS + 1):
        for name, each in steppers.items():
            _, spent = timed(partial(_take_steps, each, batch))
            if number:  # the first round warms up
                seconds[name].append(spent / STEPS)
    step = {name: median(times) for name, times in seconds.items()}
    return {
        "window_chunks": recipe.window_chunks,
        "combined_step_ratio": step["chunk_by_chunk"] / step["ours"],
        "recurrent_step_ratio": step["recurrent"] / step["causal"],
        "encoder_decoder_step_ratio": step["encoder_decoder"] / step["causal"],
        "tokens_per_second": {name: batch.num_tokens / spent for name, spent in step.items()},
        "seconds_per_step": step,
        # A decoder that was not trained yet reads nothing of memories, and would hide a difference.
        "loss_difference": loss_difference(steppers["ours"].model, batch, *objectives.values()),
        "batch_tokens": batch.num_tokens,
    }


def _take_steps(stepper: Stepper, batch: Batch) -> None:
    for _ in range(STEPS):
        stepper.step(batch)


def chunk_by_chunk(weights: Weights) -> Objective:
    """The combined objective's twin, which works as the paper's reference code does.

    Chunks are encoded one after the other; the decoder runs once for every chunk, with the memories there are in front
    of it; and encoder and decoder run once more for every chunk that is regenerated. What a chunk's end is given back
    as comes of that, as in our own step. Losses are `combined`'s, up to rounding. There is no copy term.
    """

    def nats(model: nn.Module, batch: Batch) -> Tensor:
        assert isinstance(model, MemoryModel)
        retention, recalled = _retention_nats(model, batch)
        return torch.stack([_causal_nats(model, batch, recalled), retention])

    return Objective("chunk by chunk", nats, weights={"causal": weights.causal, "retention": weights.retention})


def loss_difference(model: nn.Module, batch: Batch, one: Objective, other: Objective) -> float:
    """The largest difference of two objectives' terms, in fp32 and relative to the first's."""
    batch = batch.rows(slice(None), next(model.parameters()).device)
    with torch.no_grad():
        expected, found = one.nats(model, batch), other.nats(model, batch)
    return float(((found - expected) / expected).abs().max())


def random_windows(recipe: MemoryModelRecipe) -> Batch:
    """A batch of the recipe's shape."""
    cfg, shape = recipe.phases[-1].training, recipe.model.shape
    return random_batch(cfg.batch_tokens, (recipe.window_chunks, shape.chunk_len), shape.vocab_size, seed=cfg.seed)


def _causal_nats(model: MemoryModel, batch: Batch, recalled: Sequence[PastTokens]) -> Tensor:
    """Predict every chunk after the memories of those before it, of which there is one more each time."""
    num_chunks, most = batch.tokens.shape[1], model.config.max_memories
    # Nobody reads the last one's.
    memory = torch.stack([_encode(model, batch, chunk) for chunk in range(num_chunks - 1)], dim=1)
    present, total = batch.mask.any(-1), memory.new_zeros(())
    for chunk in range(num_chunks):
        earlier = slice(max(0, chunk - most), chunk)
        latest = recalled[chunk - 1] if chunk else None
        logits = model.predict(batch.tokens[:, chunk], memory[:, earlier], present[:, earlier], latest)
        total = total + _chunk_nats(logits, batch, chunk)
    return total


def _retention_nats(model: MemoryModel, batch: Batch) -> tuple[Tensor, list[PastTokens]]:
    """Encode every chunk again, and regenerate it; and what each is given back as."""
    total, recalled = batch.mask.new_zeros((), dtype=torch.float32), []
    for chunk in range(batch.tokens.shape[1]):
        logits = model.regenerate(_encode(model, batch, chunk))
        total = total + _chunk_nats(logits, batch, chunk)
        recalled.append(model.as_past_tokens(logits[:, None]))
    return total, recalled


def _encode(model: MemoryModel, batch: Batch, chunk: int) -> Tensor:
    """The memories [window slot memory_dim] of one chunk of every window."""
    assert model.encoder is not None
    return model.encoder(batch.tokens[:, chunk], batch.mask[:, chunk])


def _chunk_nats(logits: Logits, batch: Batch, chunk: int) -> Tensor:
    """The summed nats of one chunk of every window."""
    one = slice(chunk, chunk + 1)
    return window_nats(logits[:, None], Batch(batch.tokens[:, one], batch.mask[:, one])).sum()


def _stepper(recipe: MemoryModelRecipe, shape: MemoryModelConfig | RecurrentConfig, objective: Objective) -> Stepper:
    cfg = recipe.phases[-1].training
    torch.manual_seed(cfg.seed)
    model = RecurrentModel(shape) if isinstance(shape, RecurrentConfig) else MemoryModel(shape)
    return build_stepper(model, objective, cfg)

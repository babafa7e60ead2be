"""`memlm bench train`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from memlm.cli.command import Answer
from memlm.config import MemoryModelConfig, MemoryModelRecipe, RecurrentConfig, Weights
from memlm.models.batch import Batch, token_nats
from memlm.models.memory_model import MemoryModel
from memlm.models.recurrent import RecurrentModel
from memlm.nn.mixers import Logits
from memlm.nn.pointer import PastTokens
from memlm.recipes.memory_model import encoder_decoder, memory_model
from memlm.runtime.cpu import precision_on
from memlm.training.accelerator import build_accelerator
from memlm.training.objectives import Objective, combined
from memlm_evidence.benchmarks.measuring import (
    Benchmark,
    TrainingSteps,
    made_here,
    operation_shares,
    random_batch,
    side_by_side,
)

ROUNDS = 5
STEPS = 3


@dataclass(frozen=True, kw_only=True)
class MemoryTraining(Benchmark):
    """Measure how much faster a memory model's training step is with all chunks at once than in a loop over chunks.

    The loop is that of the paper's reference code: one pass of encoder and decoder for each chunk and each objective,
    with the same weights and the same losses. Two other models are compared, on next tokens alone: recurrent memory,
    which carries memory tokens from chunk to chunk, and an encoder-decoder, which attends to the states of all past
    tokens.
    """

    window_chunks: tuple[int, ...] = (4, 8, 16, 32)
    """Chunks per window; each value is measured, with the recipe's tokens per batch and a memory of every earlier
    chunk. The numbers at the top of the answer are for the first value."""

    def run(self) -> Answer:
        """Measure; a step is forward, backward and update, on random tokens, and numbers are medians over rounds.

        Ratios are other ways' or models' seconds over ours: of both objectives, or of next tokens alone. The
        `loss_difference` of loop and ours is relative, in fp32, with the same trained weights. `combined_step_limit` is
        what the first ratio would be if all but the matrix products of our step took no time: more cannot be had on
        this machine (Amdahl's law).
        """
        recipe = memory_model()
        rows = [_row(recipe, chunks) for chunks in self.window_chunks]
        cfg = recipe.stages[-1].training
        precision = precision_on(build_accelerator(cfg).device, cfg.precision)
        model = {"model": asdict(recipe.model), "precision": precision}
        return {**rows[0], "rows": rows, **model, **made_here(seed=cfg.seed, precision=precision)}


def _row(recipe: MemoryModelRecipe, num_chunks: int) -> dict[str, Any]:
    model = replace(recipe.model, max_memories=num_chunks - 1)
    recipe = replace(recipe, windows=replace(recipe.windows, num_chunks=num_chunks), model=model)
    weights, shape, cfg = recipe.stages[-1].weights, recipe.model.shape, recipe.stages[-1].training
    batch = random_batch(cfg.batch_tokens, recipe.row_shape, shape.vocab_size, seed=cfg.seed)
    ours, loop, next_tokens = combined(weights), chunk_by_chunk(weights), combined(Weights(causal=1.0))
    trained: dict[str, tuple[MemoryModelConfig | RecurrentConfig, Objective]] = {
        "ours": (recipe.model, ours),
        "chunk_by_chunk": (recipe.model, loop),
        # Without retention nobody learns to give tokens back, and the decoder reads none.
        "causal": (replace(recipe.model, overlap=0), next_tokens),
        "recurrent": (RecurrentConfig(vocab_size=shape.vocab_size, decoder=recipe.model.decoder), next_tokens),
        "encoder_decoder": (encoder_decoder(recipe).model, next_tokens),
    }
    steps = {}
    for name, (each, objective) in trained.items():
        torch.manual_seed(cfg.seed)
        built = RecurrentModel(each) if isinstance(each, RecurrentConfig) else MemoryModel(each)
        steps[name] = TrainingSteps(built, objective, cfg, batch, STEPS)
    step = {name: seconds / STEPS for name, seconds in side_by_side(steps, ROUNDS).items()}
    products = operation_shares(steps["ours"])["matrix products"]
    return {
        "window_chunks": num_chunks,
        "combined_step_ratio": step["chunk_by_chunk"] / step["ours"],
        "combined_step_limit": step["chunk_by_chunk"] / (step["ours"] * products),
        "recurrent_step_ratio": step["recurrent"] / step["causal"],
        "encoder_decoder_step_ratio": step["encoder_decoder"] / step["causal"],
        "tokens_per_second": {name: batch.num_tokens / spent for name, spent in step.items()},
        "seconds_per_step": step,
        # A decoder that was not trained yet reads nothing of memories, and would hide a difference.
        "loss_difference": loss_difference(steps["ours"].stepper.model, batch, ours, loop),
        "batch_tokens": batch.num_tokens,
    }


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
    return token_nats(logits[:, None], Batch(batch.tokens[:, one], batch.mask[:, one])).sum()

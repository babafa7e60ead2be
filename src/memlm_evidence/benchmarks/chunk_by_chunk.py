"""A memory model's combined objective, computed chunk by chunk as the paper's reference code does."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from memlm.config import Weights
from memlm.models.batch import Batch, token_nats
from memlm.models.memory_model import MemoryModel
from memlm.nn.mixers import Logits
from memlm.nn.pointer import PastTokens
from memlm.training.objectives import Objective


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

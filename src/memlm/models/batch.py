"""Chunks as tensors, and what their tokens cost under a model's logits."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from memlm.data.chunks import Chunks
from memlm.models.autoencoder import Regeneration
from memlm.models.encoder import Tokens
from memlm.models.memory_model import WindowLogits
from memlm.models.parallel_decoder import Logits
from memlm.nn.cross_entropy import cross_entropy
from memlm.nn.mixers import Mask
from memlm.nn.pooling import Memory


class Batch(NamedTuple):
    """Chunks as tensors; `mask` marks the real tokens. Where memories are frozen, they come along."""

    tokens: Tokens
    mask: Mask
    memory: Memory | None = None

    @classmethod
    def of(cls, chunks: Chunks, memory: Memory | None = None) -> "Batch":
        """Chunks, without copying them, and their memories if they are frozen."""
        return cls(torch.from_numpy(chunks.tokens), torch.from_numpy(chunks.mask), memory)

    def rows(self, index: slice | Tensor, device: torch.device | str = "cpu") -> "Batch":
        """Some of the chunks, on a device."""
        return Batch._make(None if part is None else part[index].to(device) for part in self)

    @property
    def num_tokens(self) -> int:
        """Real tokens."""
        return int(self.mask.sum())


def token_nats(regeneration: Regeneration, batch: Batch) -> Float[Tensor, "batch token"]:
    """Cross-entropy of every token in nats; 0 at the padding."""
    return _nats(regeneration.logits, batch.tokens) * batch.mask


def next_token_nats(logits: Logits, batch: Batch) -> Float[Tensor, "batch token_less_one"]:
    """Cross-entropy of every token but the first, given those before it, in nats; 0 at the padding."""
    return _nats(logits[:, :-1], batch.tokens[:, 1:]) * batch.mask[:, 1:]


def _nats(logits: Logits, tokens: Tokens) -> Float[Tensor, "batch token"]:
    return cross_entropy(logits.flatten(0, 1), tokens.flatten()).view(tokens.shape)


def window_nats(logits: WindowLogits, batch: Batch) -> Float[Tensor, "window chunk token"]:
    """Cross-entropy of every token of windows in nats, the first of each chunk too; 0 at the padding."""
    return cross_entropy(logits.flatten(0, 2), batch.tokens.flatten()).view(batch.tokens.shape) * batch.mask

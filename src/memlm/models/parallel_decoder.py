"""The parallel decoder: a memory → all tokens of its chunk at once."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from memlm import config
from memlm.nn.linear import linear, to_compute_dtype
from memlm.nn.pooling import MemoryVectors
from memlm.nn.stack import Stack
from memlm.nn.unpooling import build_unpooling

Logits = Float[Tensor, "batch token vocab"]


class ParallelDecoder(nn.Module):
    """Unpooling with learned positions, a stack, and a head; its only input is the memory."""

    def __init__(self, shape: config.MemoryShape, stack: config.StackConfig, unpooling: config.Unpooling) -> None:
        super().__init__()
        self.shape = shape
        self.unpooling = build_unpooling(unpooling, shape, stack.dim)
        self.positions = nn.Parameter(torch.randn(shape.chunk_len, stack.dim) * 0.1)
        self.stack = Stack(stack, shape.chunk_len)
        self.head = linear(stack.dim, shape.num_types, gain=0.3)

    def forward(self, memory: MemoryVectors) -> Logits:
        """Logits of every position's token."""
        hidden = to_compute_dtype(self.unpooling(memory) + self.positions)
        return self.head(self.stack(hidden))

"""Unpooling: memory [batch slot memory_dim] → hidden [batch token dim].

Each unpooling is built of its configuration, the memories' shape, and the width of the hidden states.
"""

import math
from typing import Any

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from memlm import config
from memlm.nn.linear import attend, block_orthogonal, fp32, linear, to_compute_dtype
from memlm.nn.mixers import Hidden
from memlm.nn.pooling import MemoryVectors, block_shape


class RepeatUnpooling(nn.Module):
    """The memory, projected to the width, at every position (the paper's plain unpooling)."""

    def __init__(self, cfg: config.Repeat, shape: config.MemoryShape, dim: int) -> None:
        super().__init__()
        self.chunk_len = shape.chunk_len
        self.project = linear(shape.num_slots * shape.memory_dim, dim)

    def forward(self, memory: MemoryVectors) -> Hidden:
        """Unpool."""
        return repeat(fp32(self.project, rearrange(memory, "b s m -> b (s m)")), "b d -> b t d", t=self.chunk_len)


class SlidingWindowUnpooling(nn.Module):
    """Position i reads half the dimensions, from the i-th on and wrapping, through one shared map (the paper's)."""

    window: Int[Tensor, "token window"]

    def __init__(self, cfg: config.SlidingWindow, shape: config.MemoryShape, dim: int) -> None:
        super().__init__()
        width = shape.num_slots * shape.memory_dim
        window = (torch.arange(shape.chunk_len)[:, None] + torch.arange(width // 2)) % width
        self.register_buffer("window", window, persistent=False)
        self.project = linear(width // 2, dim)

    def forward(self, memory: MemoryVectors) -> Hidden:
        """Unpool."""
        return fp32(self.project, rearrange(memory, "b s m -> b (s m)")[:, self.window])


class PositionalUnpooling(nn.Module):
    """One linear map from the memory to `token_dim` for each position, each then widened."""

    def __init__(self, cfg: config.Positional, shape: config.MemoryShape, dim: int) -> None:
        super().__init__()
        self.token_dim = cfg.token_dim
        self.scatter = linear(shape.num_slots * shape.memory_dim, shape.chunk_len * cfg.token_dim)
        blocks, memory_dims, tokens = block_shape(shape)
        gain = math.sqrt(shape.chunk_len * cfg.token_dim / (shape.num_slots * shape.memory_dim))
        self.scatter.weight.data = gain * block_orthogonal(blocks, tokens * cfg.token_dim, memory_dims)
        self.widen = linear(cfg.token_dim, dim)

    def parts(self, memory: MemoryVectors) -> Float[Tensor, "batch token token_dim"]:
        """Each position's projection of the memory."""
        parts = fp32(self.scatter, rearrange(memory, "b s m -> b (s m)"))
        return rearrange(parts, "b (t p) -> b t p", p=self.token_dim)

    def forward(self, memory: MemoryVectors) -> Hidden:
        """Unpool."""
        return self.widen(to_compute_dtype(self.parts(memory)))


class AlignedUnpooling(nn.Module):
    """Position i reads slot i, through one shared map: for memories of as many slots as there are tokens."""

    def __init__(self, cfg: config.Aligned, shape: config.MemoryShape, dim: int) -> None:
        super().__init__()
        self.project = linear(shape.memory_dim, dim)

    def forward(self, memory: MemoryVectors) -> Hidden:
        """Unpool."""
        return fp32(self.project, memory)


class LearnedQueryUnpooling(nn.Module):
    """Each position's learned query attends to the parts that the memory is cut into."""

    def __init__(self, cfg: config.LearnedQuery, shape: config.MemoryShape, dim: int) -> None:
        super().__init__()
        self.num_heads, self.num_parts = cfg.num_heads, cfg.num_parts
        self.queries = nn.Parameter(torch.randn(shape.chunk_len, dim))
        self.part_positions = nn.Parameter(torch.randn(shape.num_slots * cfg.num_parts, dim) * 0.3)
        self.widen = linear(shape.memory_dim // cfg.num_parts, dim)
        self.key_value = linear(dim, 2 * dim)

    def forward(self, memory: MemoryVectors) -> Hidden:
        """Unpool."""
        parts = fp32(self.widen, rearrange(memory, "b s (q m) -> b (s q) m", q=self.num_parts)) + self.part_positions
        queries = repeat(self.queries, "t d -> b t d", b=len(memory))
        return attend(queries, self.key_value(to_compute_dtype(parts)), self.num_heads)


UNPOOLINGS: dict[type[config.PoolingConfig], Any] = {
    config.Repeat: RepeatUnpooling,
    config.SlidingWindow: SlidingWindowUnpooling,
    config.Positional: PositionalUnpooling,
    config.LearnedQuery: LearnedQueryUnpooling,
    config.Aligned: AlignedUnpooling,
}
"""Each configuration's unpooling."""


def build_unpooling(cfg: config.PoolingConfig, shape: config.MemoryShape, dim: int) -> nn.Module:
    """The unpooling that a configuration names."""
    unpooling: nn.Module = UNPOOLINGS[type(cfg)](cfg, shape, dim)
    return unpooling

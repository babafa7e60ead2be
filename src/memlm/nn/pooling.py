"""Pooling: hidden [batch token dim] → memory [batch slot memory_dim]; masked positions contribute nothing.
Unpooling: the way back.

Each is built of its configuration, the memories' shape, and the width of the hidden states.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from memlm import config
from memlm.nn.linear import attend, block_orthogonal, fp32, linear, to_compute_dtype
from memlm.nn.mixers import Hidden, Mask

MemoryVectors = Float[Tensor, "batch slot memory_dim"]


def block_shape(shape: config.MemoryShape) -> tuple[int, int, int]:
    """Into how many blocks memory dimensions and positions are divided at first; dimensions and positions of each."""
    memory_dims = shape.num_slots * shape.memory_dim
    blocks = math.gcd(memory_dims, shape.chunk_len)
    return blocks, memory_dims // blocks, shape.chunk_len // blocks


def last_token(hidden: Hidden, mask: Mask) -> Float[Tensor, "batch dim"]:
    """The last real token's hidden state; the first position's where there is no token."""
    last = (mask.sum(dim=1) - 1).clamp_min(0)
    return hidden[torch.arange(len(hidden), device=hidden.device), last]


def mean_token(hidden: Hidden, mask: Mask) -> Float[Tensor, "batch dim"]:
    """The mean of the real tokens' hidden states; 0 where there is none."""
    total = (hidden * mask[..., None]).sum(dim=1)
    return total / mask.sum(dim=1, keepdim=True).clamp_min(1)


class StatePooling(nn.Module):
    """One state of the whole chunk, projected to the memory."""

    state: Callable[[Hidden, Mask], Tensor]

    def __init__(self, cfg: config.PoolingConfig, shape: config.MemoryShape, dim: int) -> None:
        super().__init__()
        self.num_slots = shape.num_slots
        self.project = linear(dim, shape.num_slots * shape.memory_dim)

    def forward(self, hidden: Hidden, mask: Mask) -> MemoryVectors:
        """Pool."""
        return rearrange(fp32(self.project, self.state(hidden, mask)), "b (s m) -> b s m", s=self.num_slots)


class LastTokenPooling(StatePooling):
    """The last real token's state, projected."""

    state = staticmethod(last_token)


class MeanPooling(StatePooling):
    """The mean state, projected."""

    state = staticmethod(mean_token)


class PositionalPooling(nn.Module):
    """Each position projected to `token_dim`, all concatenated, one linear map to the memory."""

    def __init__(self, cfg: config.Positional, shape: config.MemoryShape, dim: int) -> None:
        super().__init__()
        self.num_slots = shape.num_slots
        self.narrow = linear(dim, cfg.token_dim)
        self.gather = linear(shape.chunk_len * cfg.token_dim, shape.num_slots * shape.memory_dim)
        # Block-diagonal, as unpooling is: each dimension begins with few positions and is written back to the same
        # ones, so that memories can be decoded from the first step on.
        blocks, memory_dims, tokens = block_shape(shape)
        self.gather.weight.data = block_orthogonal(blocks, memory_dims, tokens * cfg.token_dim)

    def forward(self, hidden: Hidden, mask: Mask) -> MemoryVectors:
        """Pool."""
        parts = self.narrow(hidden) * mask[..., None]
        memory = fp32(self.gather, rearrange(parts, "b t p -> b (t p)"))
        return rearrange(memory, "b (s m) -> b s m", s=self.num_slots)


class LearnedQueryPooling(nn.Module):
    """Learned queries attend to the real tokens; the results, projected and concatenated, are the memory."""

    def __init__(self, cfg: config.LearnedQuery, shape: config.MemoryShape, dim: int) -> None:
        super().__init__()
        self.num_heads, self.num_slots = cfg.num_heads, shape.num_slots
        self.queries = nn.Parameter(torch.randn(shape.num_slots * cfg.num_parts, dim))
        self.key_value = linear(dim, 2 * dim)
        self.narrow = linear(dim, shape.memory_dim // cfg.num_parts)

    def forward(self, hidden: Hidden, mask: Mask) -> MemoryVectors:
        """Pool."""
        queries = repeat(self.queries, "q d -> b q d", b=len(hidden))
        answers = attend(queries, self.key_value(hidden), self.num_heads, mask)
        return rearrange(fp32(self.narrow, answers), "b (s q) m -> b s (q m)", s=self.num_slots)


class AlignedPooling(nn.Module):
    """Each token's state, projected, in the slot of its position; 0 at the padding."""

    def __init__(self, cfg: config.Aligned, shape: config.MemoryShape, dim: int) -> None:
        super().__init__()
        self.project = linear(dim, shape.memory_dim)

    def forward(self, hidden: Hidden, mask: Mask) -> MemoryVectors:
        """Project; nothing is pooled."""
        return fp32(self.project, hidden) * mask[..., None]


POOLINGS: dict[type[config.PoolingConfig], Any] = {
    config.LastToken: LastTokenPooling,
    config.Mean: MeanPooling,
    config.Positional: PositionalPooling,
    config.LearnedQuery: LearnedQueryPooling,
    config.Aligned: AlignedPooling,
}
"""Each configuration's pooling."""


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

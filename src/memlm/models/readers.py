"""Readers: what a probe trains to regenerate a text from its frozen embedding.

Every reader writes tokens as *codes*: the encoder's own input embeddings, whitened and frozen. A token that was seldom
or never seen in training can then be read too, and a reader begins as the unconditional one, knowing how often each
token occurs. A new kind of reader is a class here, or in a file of its own, and a row of `_READERS`.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from memlm import config
from memlm.models.autoencoder import Regeneration
from memlm.nn.linear import fp32, linear, to_compute_dtype
from memlm.nn.mixers import Hidden, Logits, Mask, Tokens
from memlm.nn.pooling import UNPOOLINGS, MemoryVectors
from memlm.nn.stack import Stack

CODE_SCALE = 4.0
"""A code's logit when it is met exactly is this times the square root of its length."""


class CodeHead(nn.Module):
    """Hidden states → logits: the likeness to every token's code, on top of how often the token occurs."""

    codes: Float[Tensor, "vocab code"]
    log_probs: Float[Tensor, " vocab"]

    def __init__(self, codes: Float[Tensor, "vocab code"], log_probs: Float[Tensor, " vocab"], dim: int) -> None:
        super().__init__()
        self.register_buffer("codes", codes, persistent=False)
        self.register_buffer("log_probs", log_probs, persistent=False)
        self.project = linear(dim, codes.shape[1], gain=0.0)

    def choose_from(self, codes: Float[Tensor, "vocab code"], log_probs: Float[Tensor, " vocab"]) -> None:
        """Choose from other tokens from now on: nothing that is learned depends on which there are."""
        self.codes, self.log_probs = codes, log_probs

    def forward(self, hidden: Hidden) -> Logits:
        """Logits of every position's token."""
        likeness = CODE_SCALE / math.sqrt(self.codes.shape[1]) * self.project(hidden)
        return likeness @ self.codes.T.to(likeness.dtype) + self.log_probs.to(likeness.dtype)


class ReaderModule(nn.Module):
    """A decoder of frozen embeddings, which it reads through `unpooling`, position by position."""

    def __init__(
        self, shape: config.MemoryShape, codes: Tensor, log_probs: Tensor, *, token_dim: int, dim: int
    ) -> None:
        super().__init__()
        self.chunk_len = shape.chunk_len
        self.head = CodeHead(codes, log_probs, dim)
        # Embeddings of all positions are read each in its place; any other is spread over the positions.
        aligned = shape.num_slots == shape.chunk_len
        cfg = config.Aligned() if aligned else config.Positional(token_dim=token_dim)
        self.unpooling = UNPOOLINGS[type(cfg)](cfg, shape, dim)

    def forward(self, tokens: Tokens, mask: Mask, memory: MemoryVectors) -> Regeneration:
        """Regenerate chunks from their embeddings; of its tokens, a position sees those before it at most."""
        return Regeneration(self.head(self.hidden(tokens, memory)), memory)

    def hidden(self, tokens: Tokens, memory: MemoryVectors) -> Hidden:
        """What the head reads."""
        raise NotImplementedError


class ParallelReader(ReaderModule):
    """Positions unpooled from the embedding, a bidirectional masked mixer, all tokens at once (paper, §3)."""

    def __init__(self, cfg: config.ParallelReader, shape: config.MemoryShape, *head: Tensor) -> None:
        super().__init__(shape, *head, token_dim=cfg.token_dim or token_dim(shape.chunk_len), dim=cfg.dim)
        self.positions = nn.Parameter(torch.randn(shape.chunk_len, cfg.dim) * 0.1)
        self.stack = Stack(config.StackConfig(dim=cfg.dim, num_layers=cfg.num_layers), shape.chunk_len)

    def hidden(self, tokens: Tokens, memory: MemoryVectors) -> Hidden:
        """States of the stack; the tokens are not looked at."""
        return self.stack(to_compute_dtype(self.unpooling(memory) + self.positions))


class LinearReader(ReaderModule):
    """One linear map from the embedding to each position's code."""

    def __init__(self, cfg: config.LinearReader, shape: config.MemoryShape, *head: Tensor) -> None:
        super().__init__(shape, *head, token_dim=cfg.token_dim, dim=cfg.token_dim)
        self.positions = nn.Parameter(torch.zeros(shape.chunk_len, cfg.token_dim))

    def hidden(self, tokens: Tokens, memory: MemoryVectors) -> Hidden:
        """The embedding's part for each position; the tokens are not looked at."""
        return to_compute_dtype(self.unpooling(memory) + self.positions)


class AutoregressiveReader(ReaderModule):
    """The embedding, unfolded into a few positions, then the text so far, through a causal transformer.

    What the embedding says of each position is added to the place that position is written from, which is learned many
    times faster than from the prefix alone (`docs/log.md`).
    """

    def __init__(self, cfg: config.AutoregressiveReader, shape: config.MemoryShape, *head: Tensor) -> None:
        super().__init__(shape, *head, token_dim=token_dim(shape.chunk_len), dim=cfg.dim)
        self.num_prefix = cfg.num_prefix
        self.unfold = linear(shape.num_slots * shape.memory_dim, cfg.num_prefix * cfg.dim)
        self.read = linear(self.head.codes.shape[1], cfg.dim)
        self.positions = nn.Parameter(torch.randn(cfg.num_prefix + shape.chunk_len, cfg.dim) * 0.1)
        stack = config.StackConfig(dim=cfg.dim, num_layers=cfg.num_layers, mixer=config.Attention(), causal=True)
        self.stack = Stack(stack, cfg.num_prefix + shape.chunk_len)

    def hidden(self, tokens: Tokens, memory: MemoryVectors) -> Hidden:
        """States from the embedding and the tokens before each."""
        given = self._given(memory)[:, : self.num_prefix + tokens.shape[1] - 1]
        read = F.pad(self.read(self.head.codes[tokens[:, :-1]]), (0, 0, self.num_prefix, 0))
        return self.stack(to_compute_dtype(given + read))[:, self.num_prefix - 1 :]

    @torch.no_grad()
    def greedy(self, memory: MemoryVectors) -> Int[Tensor, "batch token"]:
        """The texts that the embeddings give back, each token given those written before it."""
        state, written = self.stack.initial_state(len(memory)), list[Tensor]()
        for place, inputs in enumerate(self._given(memory).split(1, dim=1)):  # type: ignore[no-untyped-call]
            if written:
                inputs = inputs + self.read(self.head.codes[written[-1]])
            hidden, state = self.stack.step(to_compute_dtype(inputs), state)
            if place >= self.num_prefix - 1:
                written.append(self.head(hidden).argmax(dim=-1))
        return torch.cat(written, dim=1)

    def _given(self, memory: MemoryVectors) -> Hidden:
        """All of the inputs but the tokens: the embedding, unfolded and unpooled, and positions."""
        prefix = fp32(self.unfold, rearrange(memory, "b s m -> b (s m)"))
        prefix = F.pad(rearrange(prefix, "b (p d) -> b p d", p=self.num_prefix), (0, 0, 0, self.chunk_len - 1))
        return prefix + F.pad(self.unpooling(memory), (0, 0, self.num_prefix - 1, 0)) + self.positions[:-1]


_READERS: dict[type[config.Config], Any] = {
    config.ParallelReader: ParallelReader,
    config.LinearReader: LinearReader,
    config.AutoregressiveReader: AutoregressiveReader,
}


def build_reader(
    cfg: config.Reader,
    shape: config.MemoryShape,
    codes: Float[Tensor, "vocab code"],
    log_probs: Float[Tensor, " vocab"],
) -> ReaderModule:
    """The reader that a configuration names; `log_probs` are those of the unconditional reader."""
    return _READERS[type(cfg)](cfg, shape, codes, log_probs)


def token_dim(chunk_len: int) -> int:
    """Dimensions that each position gets of the embedding: more where there are few positions."""
    return min(64, max(16, 1024 // chunk_len))

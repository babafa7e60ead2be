"""The autoencoder, trained for regeneration: an encoder (chunk → memory) and a parallel decoder (memory → chunk)."""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from memlm import config
from memlm.models.context import ContextHead
from memlm.nn.linear import linear, to_compute_dtype
from memlm.nn.mixers import Hidden, Logits, Mask, Tokens
from memlm.nn.pooling import POOLINGS, UNPOOLINGS, MemoryVectors
from memlm.nn.quantization import quantized
from memlm.nn.stack import Stack


class Encoder(nn.Module):
    """Token embeddings and learned positions, a stack, and pooling.

    Memory vectors have root mean square 1, and are then quantized if the shape has `num_bits`.
    """

    def __init__(self, shape: config.MemoryShape, stack: config.StackConfig, pooling: config.Pooling) -> None:
        super().__init__()
        self.shape, self.configs = shape, (shape, stack, pooling)
        self.embed = nn.Embedding(shape.num_types, stack.dim)
        nn.init.normal_(self.embed.weight, std=0.35)
        self.positions = nn.Parameter(torch.randn(shape.chunk_len, stack.dim) * 0.1)
        self.stack = Stack(stack, shape.chunk_len)
        self.pooling = POOLINGS[type(pooling)](pooling, shape, stack.dim)

    def forward(self, tokens: Tokens, mask: Mask) -> MemoryVectors:
        """Encode chunks; tokens at the padding are ignored.

        Raises:
            ValueError: the chunks are not `chunk_len` long.
        """
        if tokens.shape[1] != self.shape.chunk_len:
            raise ValueError(f"this encoder reads chunks of {self.shape.chunk_len} tokens, not {tokens.shape[1]}")
        if self.shape.end_token:
            tokens = torch.where(mask, tokens, self.shape.vocab_size)
        return self.of_embedded(self.embedded(tokens), mask)

    def of_embedded(self, embedded: Hidden, mask: Mask) -> MemoryVectors:
        """Encode chunks from what is `embedded` of them, the end tokens that fill them up included."""
        stack_mask: Mask | None = mask
        if self.shape.end_token:
            stack_mask, mask = None, torch.ones_like(mask)
        hidden = to_compute_dtype(embedded + self.positions)
        memory = self.pooling(self.stack(hidden, stack_mask), mask).float()
        memory = F.rms_norm(memory, memory.shape[-1:], eps=1e-8)
        return memory if self.shape.num_bits is None else quantized(memory, self.shape.num_bits)

    def embedded(self, tokens: Tokens) -> Hidden:
        """What the stack reads of each token, without its position."""
        return self.embed(tokens)

    def fingerprint(self, tokenizer: str) -> str:
        """A short hash of weights, configuration and tokenizer (its own fingerprint)."""
        # Through JSON, so that a ratio of 4 and one of 4.0 are the same, as they are after loading.
        configs = [type(cfg).from_json(cfg.to_json()) for cfg in self.configs]
        # A field that is newer than stored memories is left out at its default.
        about = str(configs).replace(", end_token=False", "")
        return weights_fingerprint(self, f"{about} {tokenizer}")


def weights_fingerprint(model: nn.Module, about: str) -> str:
    """A short hash of a model's weights and a description."""
    digest = hashlib.sha256(about.encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


class SearchEncoder(Encoder):
    """The part that makes the dimensions by which memories are searched.

    Tokens of a small vocabulary are pieces of words, so each also looks up the word that it ends, by a hash of its
    letters (Svenstrup et al. 2017): two rows of a table, so that hardly any two words share both.
    """

    letters_hash: Int[Tensor, " type"]
    letters_power: Int[Tensor, " type"]
    joins_before: Bool[Tensor, " type"]
    joins_after: Bool[Tensor, " type"]
    reduction: Float[Tensor, "teacher_dim dim"]

    def __init__(self, cfg: config.SearchConfig, shape: config.MemoryShape) -> None:
        # Empty positions are masked: the mean is that of the text.
        own = replace(shape, memory_dim=cfg.dim, num_bits=None, end_token=False)
        super().__init__(own, cfg.stack, config.Mean())
        self.words = nn.Embedding(cfg.num_words, cfg.word_dim) if cfg.num_words else None
        if self.words is not None:
            nn.init.normal_(self.words.weight, std=0.1)
            self.from_words = linear(cfg.word_dim, cfg.stack.dim)
        for name in ("hash", "power"):
            self.register_buffer(f"letters_{name}", torch.zeros(shape.vocab_size, dtype=torch.long))
        for name in ("before", "after"):
            self.register_buffer(f"joins_{name}", torch.zeros(shape.vocab_size, dtype=torch.bool))
        self.register_buffer("reduction", torch.zeros(cfg.teacher_dim, cfg.dim))

    def spell(self, token_bytes: Sequence[bytes]) -> None:
        """Learn what letters each token is made of."""
        for token, spelled in enumerate(token_bytes):
            letters = spelled.strip().lower()
            self.letters_hash[token] = functools.reduce(lambda code, byte: (code * _BASE + byte) % _PRIME, letters, 0)
            self.letters_power[token] = pow(_BASE, len(letters), _PRIME)
            self.joins_before[token], self.joins_after[token] = (
                _in_word(spelled[at : at + 1]) for at in (0, len(spelled) - 1)
            )

    def forward(self, tokens: Tokens, mask: Mask) -> MemoryVectors:
        """What texts are searched by, of root mean square `SEARCH_RMS`."""
        return SEARCH_RMS * super().forward(tokens, mask)

    def embedded(self, tokens: Tokens) -> Hidden:
        """Of the token, and of the word so far."""
        hidden = super().embedded(tokens)
        if self.words is None:
            return hidden
        code = self.word_codes(tokens)
        rows = torch.stack([code, code * _BASE // _SPREAD]) % self.words.num_embeddings
        return hidden + self.from_words(self.words(rows).sum(0))

    def word_codes(self, tokens: Tokens) -> Int[Tensor, "batch token"]:
        """A hash of each token's word up to its end, which is the same however the word is cut into tokens."""
        code, power = self.letters_hash[tokens], self.letters_power[tokens]
        total, scale = code, power
        inside = self.joins_before[tokens] & _before(self.joins_after[tokens])
        reaches = inside
        for _ in range(_MAX_PIECES):
            code, power = _before(code), _before(power)
            total = torch.where(reaches, (total + code * scale) % _PRIME, total)
            scale = torch.where(reaches, scale * power % _PRIME, scale)
            inside = _before(inside)
            reaches = reaches & inside
        return total


SEARCH_RMS = 0.75
"""Below the text's 1, so that where a vector is rounded to few bits, its widest dimensions are the text's."""
_BASE, _PRIME = 65_599, 16_777_213
"""Of the hash; numbers below 2^24 are whole in fp32, too."""
_SPREAD = 4_093
"""Takes a second row from other bits."""
_MAX_PIECES = 8
"""Tokens of a word, before the last, that its hash knows."""


def _in_word(byte: bytes) -> bool:
    """Whether it is a letter or a digit, or part of one that takes several bytes."""
    return byte.isalnum() or byte >= b"\x80"


def _before(of_tokens: Tensor) -> Tensor:
    """What stands one token before; 0 before the first."""
    return F.pad(of_tokens[:, :-1], (1, 0))


class ParallelDecoder(nn.Module):
    """Unpooling with learned positions, a stack, and a head; its only input is the memory, but for the dimensions by
    which that is searched."""

    def __init__(self, shape: config.MemoryShape, stack: config.StackConfig, unpooling: config.Unpooling) -> None:
        super().__init__()
        self.shape = shape
        self.unpooling = UNPOOLINGS[type(unpooling)](unpooling, shape, stack.dim)
        self.positions = nn.Parameter(torch.randn(shape.chunk_len, stack.dim) * 0.1)
        self.stack = Stack(stack, shape.chunk_len)
        self.head = linear(stack.dim, shape.num_types, gain=0.3)

    def forward(self, memory: MemoryVectors) -> Logits:
        """Logits of every position's token."""
        return self.head(self.states(memory))

    def states(self, memory: MemoryVectors) -> Hidden:
        """The stack's last states, one for each token, of which the head makes logits."""
        text = memory[..., : self.shape.memory_dim]  # not what memories are searched by
        return self.stack(to_compute_dtype(self.unpooling(text) + self.positions))


class Regeneration(NamedTuple):
    """What an autoencoder returns."""

    logits: Logits
    """From the memory alone; in training of a context that is all that matters, from the tokens before, too."""
    memory: MemoryVectors
    expected: Logits | None = None
    """In training, those of a decoder that has also read the tokens before each, if the model has one."""


class Autoencoder(nn.Module):
    """Chunk → memory → chunk. `memory_noise` is added in training only.

    `encoder` and `decoder` know nothing of the dimensions by which memories are searched; those are `search`'s.
    """

    def __init__(self, cfg: config.AutoencoderConfig) -> None:
        super().__init__()
        self.config = cfg
        self.encoder = Encoder(cfg.shape, cfg.encoder, cfg.pooling)
        self.decoder = ParallelDecoder(cfg.shape, cfg.decoder, cfg.unpooling)
        self.context = None if cfg.context is None else ContextHead(cfg.context, cfg.shape, cfg.decoder.dim)
        self.search = SearchEncoder(cfg.search, cfg.shape) if cfg.search else None

    def forward(self, tokens: Tokens, mask: Mask, memory: MemoryVectors | None = None) -> Regeneration:
        """Regenerate chunks from their memories, which are computed here unless given."""
        memory = self.encoder(tokens, mask) if memory is None else memory
        noisy = memory
        if self.training and self.config.memory_noise:
            noisy = memory + self.config.memory_noise * torch.randn_like(memory)
        states = self.decoder.states(noisy)
        if not self.training or self.config.context is None:
            return Regeneration(self.decoder.head(states), memory)
        expected = self.expected(states, tokens)
        if not self.config.context.memory_alone:
            return Regeneration(expected, memory)
        return Regeneration(self.decoder.head(states), memory, expected)

    def expected(self, states: Hidden, tokens: Tokens) -> Logits:
        """Logits of each token, of the decoder's last states and the tokens before, for a model with a context."""
        assert self.context is not None
        return self.decoder.head(self.context(states, self.context.before(tokens)))

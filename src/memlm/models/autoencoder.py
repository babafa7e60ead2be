"""The autoencoder, trained for regeneration: an encoder (chunk → memory) and a parallel decoder (memory → chunk)."""

import hashlib
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

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
        stack_mask: Mask | None = mask
        if self.shape.end_token:
            tokens = torch.where(mask, tokens, self.shape.vocab_size)
            stack_mask, mask = None, torch.ones_like(mask)
        hidden = to_compute_dtype(self.embed(tokens) + self.positions)
        memory = self.pooling(self.stack(hidden, stack_mask), mask).float()
        memory = F.rms_norm(memory, memory.shape[-1:], eps=1e-8)
        return memory if self.shape.num_bits is None else quantized(memory, self.shape.num_bits)

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


class ParallelDecoder(nn.Module):
    """Unpooling with learned positions, a stack, and a head; its only input is the memory."""

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
        return self.stack(to_compute_dtype(self.unpooling(memory) + self.positions))


class Regeneration(NamedTuple):
    """What an autoencoder returns."""

    logits: Logits
    memory: MemoryVectors
    expected: Logits | None = None
    """In training, those of a decoder that has also read the tokens before each, if the model has one."""


class Autoencoder(nn.Module):
    """Chunk → memory → chunk. `memory_noise` is added in training only."""

    def __init__(self, cfg: config.AutoencoderConfig) -> None:
        super().__init__()
        self.config = cfg
        self.encoder = Encoder(cfg.shape, cfg.encoder, cfg.pooling)
        self.decoder = ParallelDecoder(cfg.shape, cfg.decoder, cfg.unpooling)
        self.context = None if cfg.context is None else ContextHead(cfg.context, cfg.shape, cfg.decoder.dim)

    def forward(self, tokens: Tokens, mask: Mask, memory: MemoryVectors | None = None) -> Regeneration:
        """Regenerate chunks from their memories, which are computed here unless given."""
        memory = self.encoder(tokens, mask) if memory is None else memory
        noisy = memory
        if self.training and self.config.memory_noise:
            noisy = memory + self.config.memory_noise * torch.randn_like(memory)
        states = self.decoder.states(noisy)
        expected = self.expected(states, tokens) if self.training and self.context is not None else None
        return Regeneration(self.decoder.head(states), memory, expected)

    def expected(self, states: Hidden, tokens: Tokens) -> Logits:
        """Logits of each token, of the decoder's last states and the tokens before, for a model with a context."""
        assert self.context is not None
        return self.decoder.head(self.context(states, self.context.before(tokens)))

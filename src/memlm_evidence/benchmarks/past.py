"""One past of tokens, and the ways in which a memory model's decoder reads it."""

from typing import Any, NamedTuple

import torch
from einops import repeat
from jaxtyping import Int
from torch import Tensor

from memlm.models.memory_model import MemoryModel, WindowMemory
from memlm.nn.linear import to_compute_dtype
from memlm.nn.mixers import Hidden
from memlm.nn.pointer import PastTokens

ENCODER_TOKENS = 16384
"""Tokens that are encoded at once."""


class Reading(NamedTuple):
    """What is known once a past has been read."""

    token: Int[Tensor, "1 1"]
    """The first token after it, the likeliest."""
    cache: Any
    """Keys and values of all positions; it grows as more is read."""

    @property
    def cache_bytes(self) -> int:
        """Of the keys and values so far."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.cache.layers)


class Past:
    """A past of random tokens, and the model that reads it."""

    def __init__(self, model: MemoryModel, num_tokens: int) -> None:
        shape, device = model.config.shape, model.start.device
        self.model = model
        self.chunks = torch.randint(
            shape.vocab_size, (1, num_tokens // shape.chunk_len, shape.chunk_len), device=device
        )
        self.memory = self.encode()
        self.latest = self.latest_tokens(self.memory)

    def encode(self) -> WindowMemory:
        """The memories of all chunks, a batch of chunks at a time."""
        at_once = max(1, ENCODER_TOKENS // self.chunks.shape[2])
        parts = self.chunks.split(at_once, dim=1)  # type: ignore[no-untyped-call]
        return torch.cat([self.model.encode(part, torch.ones_like(part, dtype=torch.bool)) for part in parts], dim=1)

    def latest_tokens(self, memory: WindowMemory) -> PastTokens:
        """The latest chunk as its memory gives it back; of the others nothing is read."""
        return self.model.past_tokens(memory[:, -1:])

    def full(self) -> Reading:
        """Read the tokens."""
        start = repeat(self.model.start, "d -> 1 1 d")
        return self._prefill(self.model.decoder.embed(self.chunks.flatten(1)), start)

    def cold(self) -> Reading:
        """Make memories, and read them."""
        memory = self.encode()
        return self._from(memory, self.latest_tokens(memory))

    def cached(self) -> Reading:
        """Read the memories that were made before; what the latest gives back is known as well."""
        return self._from(self.memory, self.latest)

    def write(self, reading: Reading, num_tokens: int) -> None:
        """So many more tokens, each the likeliest, one after the other."""
        for _ in range(num_tokens):
            reading = self._next(self.model.decoder.embed(reading.token), reading.cache)

    def _from(self, memory: WindowMemory, latest: PastTokens) -> Reading:
        present = torch.ones_like(memory[:, :, 0, 0], dtype=torch.bool)
        start, context = self.model.read(self.chunks[:, 0, :0], memory, present, latest)
        return self._prefill(context.prefix, start)

    def _prefill(self, past: Hidden, start: Hidden) -> Reading:
        """Read positions [1 position dim], and the one that a chunk starts with."""
        return self._next(torch.cat([past, start.to(past.dtype)], dim=1), None)

    def _next(self, inputs: Hidden, cache: Any) -> Reading:
        output = self.model.decoder.hf(
            inputs_embeds=to_compute_dtype(inputs), past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        return Reading(output.logits[:, -1:].argmax(dim=-1), output.past_key_values)

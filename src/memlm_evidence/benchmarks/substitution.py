"""What memories in place of tokens save a decoder: one past, read as tokens and as memories, side by side."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from statistics import median
from typing import Any, Literal, NamedTuple

import torch
from einops import repeat
from jaxtyping import Int
from torch import Tensor

from memlm.config import (
    DecoderConfig,
    MaskedMixer,
    MemoryModelConfig,
    MemoryShape,
    Positional,
    Prefix,
    StackConfig,
)
from memlm.models.memory_model import MemoryModel, WindowMemory
from memlm.nn.linear import to_compute_dtype
from memlm.nn.mixers import Hidden
from memlm.nn.pointer import PastTokens
from memlm.runtime.progress import Advance, track
from memlm.runtime.results import Provenance
from memlm.training.accelerator import precision_on
from memlm.training.flops import flop_counter
from memlm_evidence.benchmarks.steps import timed

ROUNDS = 3
NEW_TOKENS = 32
VOCAB_SIZE = 1024
MEMORY_DIM = 512
ENCODER_TOKENS = 16384
"""Tokens that are encoded at once."""


def substitution(
    *,
    chunk_len: int,
    num_positions: int,
    dim: int,
    num_layers: int,
    contexts: tuple[int, ...],
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    seed: int = 0,
) -> dict[str, Any]:
    """Read pasts of so many tokens with the same decoder, as tokens and as memories; medians over rounds.

    The model is randomly initialized and the tokens are random: neither changes what anything costs.

    Returns:
        `rows`, one for each context, and the configuration. Of a row, ratios are above 1 where memories cost less:

        - `ttft_ratio_cold`, `ttft_ratio_cached`: seconds to the first token after the past as tokens, divided by
          those after memories that have yet to be made of the tokens (cold), or that are there already, and with them
          what the latest gives back (cached).
        - `decode_ratio`: tokens a second of `NEW_TOKENS` further tokens with the key-value cache, memories' by tokens'.
        - `cache_bytes_ratio`: bytes of the key-value caches after reading, tokens' by memories'. `memory_bytes` are
          those of the memories as vectors, which are all that has to be kept between texts.
        - `flops_ratio_cold`, `flops_ratio_cached`: floating-point operations to the first token, likewise.
        - `position_limit`: the ratio of decoder positions, (N + 1) / (N / chunk_len · num_positions + overlap). It is
          `cache_bytes_ratio`, and what `ttft_ratio_cached` would tend to if a position cost the same in any context;
          attention makes it cost more in a longer one, and what every call costs makes short ones dearer.
        - `seconds`, `decode_tokens_per_second`, `cache_bytes` and `flops`, by way of reading.

    Raises:
        ValueError: a context is not a whole number of chunks.
    """
    for context in contexts:
        if context < 1 or context % chunk_len:
            raise ValueError(f"a context of {context} tokens is not a whole number of chunks of {chunk_len}")
    cfg = _config(chunk_len, num_positions, dim, num_layers, max_memories=max(contexts) // chunk_len)
    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    precision = precision_on(device, precision)
    torch.manual_seed(seed)
    model = MemoryModel(cfg).eval().to(device)
    total = (ROUNDS + 1) * sum(contexts)
    # One autocast for all: it casts each weight once and keeps it, and that is not to be timed.
    with (
        torch.no_grad(),
        torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
        track("Reading tokens and memories", total=total, unit="tokens") as advance,
    ):
        rows = [_row(model, context, advance) for context in contexts]
    return {
        "rows": rows,
        "model": asdict(cfg),
        "precision": precision,
        "new_tokens": NEW_TOKENS,
        "device": device.type,
        "num_threads": torch.get_num_threads(),
        "provenance": asdict(Provenance.here(seed=seed, precision=precision)),
    }


class Reading(NamedTuple):
    """What is known once a past has been read."""

    token: Int[Tensor, "1 1"]
    """The first token after it, the likeliest."""
    cache: Any
    """Keys and values of all positions; it grows as more is read."""


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

    def write(self, reading: Reading) -> Reading:
        """`NEW_TOKENS` more tokens, each the likeliest, one after the other."""
        for _ in range(NEW_TOKENS):
            reading = self._next(self.model.decoder.embed(reading.token), reading.cache)
        return reading

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


@dataclass
class _Way:
    """One way of reading a past, and what it has cost so far."""

    past: Past
    read: Callable[[], Reading]
    flops: int = 0
    cache_bytes: int = 0
    read_seconds: list[float] = field(default_factory=list)
    write_seconds: list[float] = field(default_factory=list)

    def warm_up(self) -> None:
        """Read and write untimed; reading's operations are counted."""
        with flop_counter() as counter:
            reading = self.read()
        self.flops = counter.get_total_flops()
        self.cache_bytes = sum(layer.keys.nbytes + layer.values.nbytes for layer in reading.cache.layers)
        self.past.write(reading)

    def measure(self) -> None:
        """Read and write once."""
        reading, seconds = timed(self.read)
        self.read_seconds.append(seconds)
        _, seconds = timed(partial(self.past.write, reading))
        self.write_seconds.append(seconds)

    @property
    def seconds(self) -> float:
        """To the first token."""
        return median(self.read_seconds)

    @property
    def tokens_per_second(self) -> float:
        """Of the further tokens."""
        return NEW_TOKENS / median(self.write_seconds)


def _row(model: MemoryModel, num_tokens: int, advance: Advance) -> dict[str, Any]:
    """Every way in turn, round after round, so that noise of the machine meets all."""
    past, shape = Past(model, num_tokens), model.config.shape
    full, cold, cached = (_Way(past, read) for read in (past.full, past.cold, past.cached))
    ways = {"full": full, "cold": cold, "cached": cached}
    for number in range(ROUNDS + 1):
        for way in ways.values():
            way.measure() if number else way.warm_up()
        advance(num_tokens)
    positions = num_tokens // shape.chunk_len * model.decoder_positions_per_chunk
    return {
        "context_tokens": num_tokens,
        "ttft_ratio_cold": full.seconds / cold.seconds,
        "ttft_ratio_cached": full.seconds / cached.seconds,
        "decode_ratio": cached.tokens_per_second / full.tokens_per_second,
        "cache_bytes_ratio": full.cache_bytes / cached.cache_bytes,
        "flops_ratio_cold": full.flops / cold.flops,
        "flops_ratio_cached": full.flops / cached.flops,
        "position_limit": (num_tokens + 1) / (positions + model.config.overlap),
        "memory_bytes": past.memory.nbytes,
        "seconds": {name: way.seconds for name, way in ways.items()},
        "decode_tokens_per_second": {name: way.tokens_per_second for name, way in ways.items()},
        "cache_bytes": {name: way.cache_bytes for name, way in ways.items()},
        "flops": {name: way.flops for name, way in ways.items()},
    }


def _config(chunk_len: int, num_positions: int, dim: int, num_layers: int, max_memories: int) -> MemoryModelConfig:
    """The memory model recipe's, for longer texts."""
    return MemoryModelConfig(
        shape=MemoryShape(vocab_size=VOCAB_SIZE, chunk_len=chunk_len, memory_dim=MEMORY_DIM),
        encoder=StackConfig(num_layers=1, mixer=MaskedMixer(num_heads=8)),
        pooling=Positional(token_dim=16),
        insertion=Prefix(num_positions=num_positions),
        decoder=DecoderConfig(dim=dim, num_layers=num_layers),
        max_memories=max_memories,
    )

"""`memlm bench substitution`."""

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from einops import repeat
from jaxtyping import Int
from torch import Tensor

from memlm import config
from memlm.cli.command import Answer
from memlm.models.memory_model import MemoryModel, WindowMemory
from memlm.nn.linear import to_compute_dtype
from memlm.nn.mixers import Hidden
from memlm.nn.pointer import PastTokens
from memlm.runtime.cpu import precision_on
from memlm.runtime.progress import track
from memlm.training.footprint import flop_counter
from memlm_evidence.benchmarks.measuring import Benchmark, made_here, num_bytes, side_by_side

ROUNDS = 3
NEW_TOKENS = 32
VOCAB_SIZE = 1024
MEMORY_DIM = 512


@dataclass(frozen=True, kw_only=True)
class Substitution(Benchmark):
    """Measure what a decoder saves by reading memories instead of tokens: time to first token, speed, cache, FLOPs.

    The same past is read in three ways: as tokens; as memories that are first made from them (cold); and as memories
    made before (cached).
    """

    chunk_len: int = 256
    """Tokens that one memory stands for."""
    num_positions: int = 4
    """Decoder positions that a memory takes."""
    dim: int = 256
    """Width of the decoder; the larger it is, the less of its time goes into attention."""
    num_layers: int = 4
    """Layers of the decoder."""
    contexts: tuple[int, ...] = (1024, 2048, 4096, 8192, 16384)
    """Lengths of the past in tokens, each a whole number of chunks; each is measured."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of matrix products. auto is bf16 if the processor supports it, else fp32. Memories are always fp32."""

    def run(self) -> Answer:
        """Read pasts of so many tokens with the same decoder, as tokens and as memories; medians over rounds.

        The model is randomly initialized and the tokens are random: neither changes what anything costs. Of `rows`,
        one for each context, ratios are above 1 where memories cost less: seconds to the first token (`ttft`) and
        operations to it (`flops`), tokens a second after it (`decode`), and bytes of the KV caches. `position_limit` is
        that of decoder positions, which `ttft_ratio_cached` would tend to if each cost the same in any context.

        Raises:
            ValueError: a context is not a whole number of chunks.
        """
        for context in self.contexts:
            if context < 1 or context % self.chunk_len:
                raise ValueError(f"a context of {context} tokens is not a whole number of chunks of {self.chunk_len}")
        device = torch.accelerator.current_accelerator() or torch.device("cpu")
        precision = precision_on(device, self.precision)
        torch.manual_seed(0)
        model = MemoryModel(self.model()).eval().to(device)
        rows = []
        # One autocast for all: it casts each weight once and keeps it, and that is not to be timed.
        with (
            torch.no_grad(),
            torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
            track("Reading tokens and memories", total=sum(self.contexts), unit="tokens") as advance,
        ):
            for context in self.contexts:
                rows.append(_row(model, context))
                advance(context)
        return {
            "rows": rows,
            "model": asdict(model.config),
            "precision": precision,
            "new_tokens": NEW_TOKENS,
            "device": device.type,
            **made_here(seed=0, precision=precision),
        }

    def model(self) -> config.MemoryModelConfig:
        """The memory model recipe's, for longer texts."""
        return config.MemoryModelConfig(
            shape=config.MemoryShape(vocab_size=VOCAB_SIZE, chunk_len=self.chunk_len, memory_dim=MEMORY_DIM),
            encoder=config.StackConfig(num_layers=1, mixer=config.MaskedMixer(num_heads=8)),
            pooling=config.Positional(token_dim=16),
            insertion=config.Prefix(num_positions=self.num_positions),
            decoder=config.DecoderConfig(dim=self.dim, num_layers=self.num_layers),
            max_memories=max(self.contexts) // self.chunk_len,
        )


def _row(model: MemoryModel, num_tokens: int) -> dict[str, Any]:
    past, shape = Past(model, num_tokens), model.config.shape
    ways = {"full": past.full, "cold": past.cold, "cached": past.cached}
    readings: dict[str, Reading] = {}

    def read(name: str) -> None:
        readings[name] = ways[name]()

    def write(name: str) -> None:
        past.write(readings[name], NEW_TOKENS)

    work = {(name, part): partial(part, name) for name in ways for part in (read, write)}
    spent = side_by_side(work, ROUNDS)
    seconds = {name: spent[name, read] for name in ways}
    speed = {name: NEW_TOKENS / spent[name, write] for name in ways}
    flops = {}
    for name in ways:
        with flop_counter() as counter:
            read(name)
        flops[name] = counter.get_total_flops()
    cache = {name: num_bytes(reading.cache) for name, reading in readings.items()}
    positions = num_tokens // shape.chunk_len * model.decoder_positions_per_chunk
    return {
        "context_tokens": num_tokens,
        "ttft_ratio_cold": seconds["full"] / seconds["cold"],
        "ttft_ratio_cached": seconds["full"] / seconds["cached"],
        "decode_ratio": speed["cached"] / speed["full"],
        "cache_bytes_ratio": cache["full"] / cache["cached"],
        "flops_ratio_cold": flops["full"] / flops["cold"],
        "flops_ratio_cached": flops["full"] / flops["cached"],
        "position_limit": (num_tokens + 1) / (positions + model.config.overlap),
        "memory_bytes": past.memory.nbytes,
        "seconds": seconds,
        "decode_tokens_per_second": speed,
        "cache_bytes": cache,
        "flops": flops,
    }


ENCODER_TOKENS = 16384
"""Tokens that are encoded at once."""


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

"""What a memory model's decoder takes for the next chunk, by how many chunks came before (`memlm bench generation`)."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from memlm.config import (
    DecoderConfig,
    MemoryModelConfig,
    MemoryShape,
    Prefix,
    RecurrentDecoder,
    RecurrentMixer,
    StackConfig,
)
from memlm.models.memory_model import MemoryModel
from memlm_evidence.benchmarks.measuring import num_bytes, num_parameters, side_by_side

VOCAB_SIZE, HEAD_DIM = 1024, 64
CHUNK_LEN, NUM_POSITIONS = 128, 4
ROUNDS = 9


class Chunks:
    """A memory model with random weights, memories of as many chunks as it reads, and the next chunk's text."""

    def __init__(self, model: MemoryModel) -> None:
        self.model, shape = model.eval(), model.config.shape
        random = torch.Generator().manual_seed(0)
        most = model.config.max_memories
        self.memories = torch.randn(1, most, shape.num_slots, shape.memory_dim, generator=random)
        self.present = torch.ones(1, most, dtype=torch.bool)
        self.text = torch.randint(VOCAB_SIZE, (1, CHUNK_LEN - 1), generator=random)
        self.end = model.past_tokens(self.memories[:, -1:])

    def read_anew(self, number: int) -> None:
        """Read so many memories, the next one and the text."""
        seen = slice(0, number + 1)
        inputs, context = self.model.read(self.text, self.memories[:, seen], self.present[:, seen], self.end)
        self.model.decoder.states(inputs, context)

    def read_after(self, state: Any, number: int) -> None:
        """Read the memory after so many, which the state stands for, and the text."""
        latest = slice(number, number + 1)
        now = self.model.remember(self.memories[:, latest], state)
        inputs, context = self.model.read(self.text, self.memories[:, latest], self.present[:, latest], self.end, now)
        self.model.decoder.states(inputs, context)

    def read_after_keys_and_values(self, cache: Any, number: int) -> None:
        """The same of a decoder that attends; the cache is then cut to what it was."""
        latest, length = slice(number, number + 1), cache.get_seq_length()
        inputs, context = self.model.read(self.text, self.memories[:, latest], self.present[:, latest], self.end)
        for part in (context.prefix[:, :NUM_POSITIONS], torch.cat([context.prefix[:, NUM_POSITIONS:], inputs], dim=1)):
            self.model.decoder.hf.base_model(inputs_embeds=part, past_key_values=cache, use_cache=True)
        cache.crop(length - cache.get_seq_length())

    def keys_and_values(self, number: int) -> Any:
        """The cache of so many memories."""
        prefix = self.model.insertion(self.memories[:, :number], self.present[:, :number]).prefix
        return self.model.decoder.hf.base_model(inputs_embeds=prefix, use_cache=True).past_key_values


def memory_model(decoder: Any, num_chunks: int, dim: int) -> MemoryModel:
    """A memory model that reads as many memories, and one more."""
    return MemoryModel(
        MemoryModelConfig(
            shape=MemoryShape(vocab_size=VOCAB_SIZE, chunk_len=CHUNK_LEN, memory_dim=dim),
            encoder=StackConfig(dim=dim),
            insertion=Prefix(num_positions=NUM_POSITIONS),
            decoder=decoder,
            max_memories=num_chunks + 1,
        )
    )


def mlp_width(like: Any, dim: int, num_layers: int) -> int:
    """The width of a Llama's MLP with which it has as many parameters."""
    per_layer = (num_parameters(like) - 2 * VOCAB_SIZE * dim) / num_layers
    return max(1, round((per_layer - 4 * dim * dim) / (3 * dim)))


def next_chunk(numbers: tuple[int, ...], dim: int, num_layers: int) -> dict[str, Any]:
    """Seconds of a memory and a text after so many memories, as ratios, and what is kept of those."""
    stack = StackConfig(dim=dim, num_layers=num_layers, mixer=RecurrentMixer(), causal=True)
    window = (max(numbers) + 2) * NUM_POSITIONS + CHUNK_LEN
    ours = Chunks(memory_model(RecurrentDecoder(window=window, stack=stack), max(numbers), dim))
    ratio = mlp_width(ours.model.decoder.hf, dim, num_layers) / dim
    llama = DecoderConfig(dim=dim, num_layers=num_layers, num_heads=max(1, dim // HEAD_DIM), mlp_ratio=ratio)
    attention = Chunks(memory_model(llama, max(numbers), dim))
    states = {number: ours.model.remember(ours.memories[:, :number]) for number in numbers}
    caches = {number: attention.keys_and_values(number) for number in numbers}
    kept = {number: num_bytes(cache) for number, cache in caches.items()}
    work: dict[tuple[str, int], Callable[[], None]] = {}
    for number in numbers:
        work["state", number] = partial(ours.read_after, states[number], number)
        work["anew", number] = partial(ours.read_anew, number)
        work["attention", number] = partial(attention.read_after_keys_and_values, caches[number], number)
        work["attention_anew", number] = partial(attention.read_anew, number)
    seconds = side_by_side(work, ROUNDS, time.process_time)
    ways, first = ("state", "anew", "attention", "attention_anew"), numbers[0]
    return {
        "rows": [
            {
                "chunks": number,
                "seconds": seconds["state", number],
                "seconds_ratio": {way: seconds[way, number] / seconds[way, first] for way in ways},
                "times_ours": {way: seconds[way, number] / seconds["state", number] for way in ways[1:]},
                "state_bytes": states[number].nbytes,
                "state_bytes_ratio": kept[number] / states[number].nbytes,
            }
            for number in numbers
        ],
        "parameters": {
            name: num_parameters(each.model.decoder) for name, each in (("recurrent", ours), ("attention", attention))
        },
        "chunk_len": CHUNK_LEN,
        "positions_per_memory": NUM_POSITIONS,
    }

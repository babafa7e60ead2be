"""`memlm bench generation`."""

import copy
import time
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from memlm.cli.command import Answer, Command
from memlm.config import RecurrentMixer, StackConfig
from memlm.config.base import require
from memlm.runtime.cpu import one_thread
from memlm.runtime.progress import track
from memlm_evidence.benchmarks.generation_memories import HEAD_DIM, VOCAB_SIZE, mlp_width, next_chunk
from memlm_evidence.benchmarks.generation_tables import print_generation
from memlm_evidence.benchmarks.measuring import made_here, num_bytes, num_parameters, side_by_side

ROUNDS = 3
STEPS = 8
ROOM = STEPS * (ROUNDS + 1)
"""Tokens that are written after a text, the round that warms up included."""


@dataclass(frozen=True, kw_only=True)
class Generation(Command):
    """Compare a recurrent language model with attention: how fast it continues a text, and how much state it keeps.

    Attention is transformers' Llama with as many parameters. Its KV cache is measured in two ways: it grows, as by
    default in `generate`, which copies it for every token; or it has its full size from the start and is written in
    place. Ratios are to the faster of the two. Weights are random, in fp32. One thread is used, and its processor time
    is measured.
    """

    tokens: tuple[int, ...] = (512, 1024, 2048, 4096)
    """Lengths of the text in tokens; each is measured."""
    batch: tuple[int, ...] = (1, 16, 64)
    """Batch sizes; each is measured. All rows of a batch continue a copy of the same text."""
    chunks: tuple[int, ...] = (1, 4, 16, 64)
    """For a memory model: numbers of past chunks; each is measured."""
    dim: int = 256
    """Width of the models: a multiple of 64, or a smaller multiple of 8."""
    num_layers: int = 4
    """Number of layers of each model."""

    def run(self) -> Answer:
        """Each row: `tokens_per_second` of the next 24 tokens after so many `tokens` in each of `batch` rows, greedily,
        and `state_bytes`, with their ratios (attention's bytes over ours); `prefill`, the same of reading one text;
        `memories`, what a memory model's decoder takes for a memory and a text of 128 tokens after so many `chunks`:
        from a state, all anew, and with attention, whose keys and values are kept, or anew.
        """
        for name in ("tokens", "batch", "chunks"):
            require(bool(getattr(self, name)) and min(getattr(self, name)) > 0, f"--{name} takes positive numbers")
        require(self.num_layers > 0, f"--num-layers must be positive, not {self.num_layers}")
        unit = RecurrentMixer().num_heads * max(1, self.dim // HEAD_DIM)  # attention's heads have an even width
        require(self.dim > 0 and self.dim % unit == 0, f"--dim must be a multiple of {unit}, not {self.dim}")
        with one_thread(), torch.inference_mode():
            recurrent = recurrent_model(self.dim, self.num_layers, max(self.tokens) + ROOM)
            attention = attention_model(recurrent, self.dim, self.num_layers)
            rows, prefill = [], []
            with track("Writing", total=sum(self.tokens) * sum(self.batch), unit="tokens") as advance:
                for tokens in self.tokens:
                    text = torch.randint(VOCAB_SIZE, (1, tokens), generator=torch.Generator().manual_seed(tokens))
                    prefill.append(reading(recurrent, attention, text))
                    for batch in self.batch:
                        rows.append(writing(recurrent, attention, text, batch))
                        advance(tokens * batch)
            models = {"recurrent": recurrent, "attention": attention}
            answer = {
                "rows": rows,
                "prefill": prefill,
                "memories": next_chunk(self.chunks, self.dim, self.num_layers),
                "parameters": {name: num_parameters(model) for name, model in models.items()},
                "dim": self.dim,
                "num_layers": self.num_layers,
                **made_here(),
            }
        print_generation(self.console(), answer)
        return answer


class Writer:
    """A language model that goes on after a text, greedily, in so many rows."""

    def __init__(self, model: Any, cache: Any, batch: int) -> None:
        self.model, self.cache, self.last = model, cache, torch.zeros(batch, 1, dtype=torch.long)

    def __call__(self) -> None:
        """Write a few tokens."""
        for _ in range(STEPS):
            logits: Tensor = self.model(self.last, past_key_values=self.cache, use_cache=True).logits
            self.last = logits[:, -1:].argmax(-1)


def recurrent_model(dim: int, num_layers: int, window: int) -> Any:
    """A structured recurrent language model, with random weights."""
    from memlm.models.srm import SrmConfig, SrmForCausalLM

    stack = StackConfig(dim=dim, num_layers=num_layers, mixer=RecurrentMixer(), causal=True)
    return SrmForCausalLM(SrmConfig(VOCAB_SIZE, window, asdict(stack))).eval()


def attention_model(like: Any, dim: int, num_layers: int) -> Any:
    """A Llama of the same width and depth, whose MLP is as wide as makes it as many parameters."""
    from transformers import LlamaConfig, LlamaForCausalLM

    heads = max(1, dim // HEAD_DIM)
    sizes = {"hidden_size": dim, "num_hidden_layers": num_layers}
    sizes["intermediate_size"] = mlp_width(like, dim, num_layers)
    sizes |= {"num_attention_heads": heads, "num_key_value_heads": heads, "vocab_size": VOCAB_SIZE}
    return LlamaForCausalLM(LlamaConfig(**sizes, max_position_embeddings=like.config.window)).eval()


def reading(recurrent: Any, attention: Any, text: Tensor) -> dict[str, Any]:
    """How fast both read a text, to write on after it."""
    work = {name: partial(read, model, text) for name, model in (("ours", recurrent), ("attention", attention))}
    seconds = side_by_side(work, ROUNDS, time.process_time)
    return {
        "tokens": text.shape[1],
        "tokens_per_second": text.shape[1] / seconds["ours"],
        "tokens_per_second_ratio": seconds["attention"] / seconds["ours"],
    }


def writing(recurrent: Any, attention: Any, text: Tensor, batch: int) -> dict[str, Any]:
    """How fast both write after a text, in so many rows, and what they keep of it."""
    state, keys_and_values = read(recurrent, text), read(attention, text)
    caches = {
        "recurrent": repeated(state, batch),
        "growing": repeated(keys_and_values, batch),
        "in_place": in_place(keys_and_values, attention, batch),
    }
    kept = {"recurrent": caches["recurrent"].nbytes, "attention": batch * num_bytes(keys_and_values)}
    models = {"recurrent": recurrent, "growing": attention, "in_place": attention}
    writers = {name: Writer(models[name], cache, batch) for name, cache in caches.items()}
    seconds = side_by_side(writers, ROUNDS, time.process_time)
    rate = {name: batch * STEPS / spent for name, spent in seconds.items()}
    return {
        "tokens": text.shape[1],
        "batch": batch,
        "tokens_per_second": rate["recurrent"],
        "tokens_per_second_ratio": rate["recurrent"] / max(rate["growing"], rate["in_place"]),
        "attention_tokens_per_second": {name: rate[name] for name in ("growing", "in_place")},
        "state_bytes": kept["recurrent"],
        "state_bytes_ratio": kept["attention"] / kept["recurrent"],
    }


def read(model: Any, text: Tensor) -> Any:
    """The cache of a text."""
    return model(text, use_cache=True, logits_to_keep=1).past_key_values


def repeated(cache: Any, batch: int) -> Any:
    """A copy of a cache of one row, so many times."""
    cache = copy.deepcopy(cache)
    cache.batch_repeat_interleave(batch)
    return cache


def in_place(cache: Any, model: Any, batch: int) -> Any:
    """The same keys and values in tensors that have room for all that will be written."""
    from transformers import StaticCache

    tokens = cache.get_seq_length()
    fixed = StaticCache(config=model.config, max_cache_len=tokens + ROOM)
    for index, layer in enumerate(cache.layers):
        rows = (part.expand(batch, -1, -1, -1) for part in (layer.keys, layer.values))
        fixed.update(*rows, index, {"cache_position": torch.arange(tokens)})
    return fixed

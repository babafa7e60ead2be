"""Times for `memlm bench reader`: a past read as memories, beside the same model that reads it as tokens."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from memlm.data.texts import evaluation_documents
from memlm.runtime.executor import Row
from memlm_evidence.benchmarks.measuring import num_bytes, side_by_side
from memlm_evidence.benchmarks.reader_rows import Readers

_RATIO, _ROUNDS, _NEW_TOKENS = 8, 2, 16
_PROMPT = " It is a truth universally acknowledged, that"


@dataclass(frozen=True)
class Times:
    """Times a reader."""

    readers: Readers

    @cached_property
    def hf(self) -> Any:
        """The language model. Its weights are of the type that it computes in, so that no cast of them is timed."""
        hf = self.readers.memory.model.decoder.hf
        return copy.deepcopy(hf).to(torch.bfloat16) if self.readers.precision == "bf16" else hf

    @torch.no_grad()
    def row(self, context: int) -> Row:
        """How many times sooner the first token comes from memories of so many tokens than from the text, the encoding
        included (cold) and with memories ready (cached), how many times faster the others follow, and how many times
        smaller the cache is."""
        ways = self._ways(context)
        seconds = side_by_side(ways, _ROUNDS)
        caches = {"text": ways["text"](), "memories": ways["cached"]()}
        sizes = {name: num_bytes(cache) for name, cache in caches.items()}
        decoding = side_by_side({name: partial(self._decode, cache) for name, cache in caches.items()}, _ROUNDS)
        return {
            "context_tokens": context,
            "ttft_ratio_cold": seconds["text"] / seconds["cold"],
            "ttft_ratio_cached": seconds["text"] / seconds["cached"],
            "decode_ratio": decoding["text"] / decoding["memories"],
            "cache_bytes_ratio": sizes["text"] / sizes["memories"],
            "ttft_seconds": seconds,
        }

    def _ways(self, context: int) -> dict[str, Callable[[], Any]]:
        """What reads the past and gives its cache."""
        reader, hf = self.readers.memory, self.hf
        encode, decode = reader.model_tokenizer.encode, reader.model_tokenizer.decode
        tokens = encode("\n".join(document.text for document in evaluation_documents("novel")))
        text = decode(np.resize(tokens, context).tolist())
        ids = torch.tensor([encode(text + _PROMPT).tolist()], device=reader.device)
        ready = reader.encoder.encode([text])

        def read(memory: Any) -> Any:
            embeds = reader.prompt_embeds(memory, _PROMPT, ratio=_RATIO)[None].to(hf.device, hf.dtype)
            return hf(inputs_embeds=embeds, use_cache=True, logits_to_keep=1).past_key_values

        return {
            "text": lambda: hf(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values,
            "cached": lambda: read(ready),
            "cold": lambda: read(reader.encoder.encode([text])),
        }

    def _decode(self, cache: Any) -> None:
        """So many more tokens, one by one; the cache is as it was afterwards."""
        length = cache.get_seq_length()
        token = torch.zeros(1, 1, dtype=torch.long, device=self.hf.device)
        for _ in range(_NEW_TOKENS):
            self.hf(input_ids=token, past_key_values=cache, use_cache=True)
        cache.crop(length - cache.get_seq_length())

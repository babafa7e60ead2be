"""Times for `memlm bench reader`: a past read as memories, beside the same model that reads it as tokens."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from memlm.data.texts import evaluation_documents
from memlm.text.memory_reader import TextMemoryReader
from memlm_evidence.benchmarks.measuring import side_by_side

_RATIO, _ROUNDS, _NEW_TOKENS = 8, 2, 16
_PROMPT = " It is a truth universally acknowledged, that"


@torch.no_grad()
def time_rows(reader: TextMemoryReader, contexts: Sequence[int]) -> list[dict[str, Any]]:
    """For each length of the past: how many times sooner the first token comes from memories than from text, the
    encoding included (cold) and with memories ready (cached), how many times faster the others follow, and how many
    times smaller the cache is."""
    tokens = reader.model_tokenizer.encode("\n".join(document.text for document in evaluation_documents("novel")))
    hf, rows = reader.model.decoder.hf, []
    for context in contexts:
        text = reader.model_tokenizer.decode(np.resize(tokens, context).tolist())
        memory = reader.encoder.encode([text])
        ids = torch.tensor([reader.model_tokenizer.encode(text + _PROMPT).tolist()], device=reader.device)

        def read_text(ids: torch.Tensor = ids) -> Any:
            return hf(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values

        def read_memories(memory: Any = memory) -> Any:
            embeds = reader.prompt_embeds(memory, _PROMPT, ratio=_RATIO)[None].to(reader.device)
            return hf(inputs_embeds=embeds, use_cache=True, logits_to_keep=1).past_key_values

        def read_cold(text: str = text) -> Any:
            return read_memories(reader.encoder.encode([text]))

        seconds = side_by_side({"text": read_text, "cached": read_memories, "cold": read_cold}, _ROUNDS)
        caches = {"text": read_text(), "memories": read_memories()}
        sizes = {name: _cache_bytes(cache) for name, cache in caches.items()}
        decoding = side_by_side({name: partial(_decode, hf, cache) for name, cache in caches.items()}, _ROUNDS)
        rows.append(
            {
                "context_tokens": context,
                "ttft_ratio_cold": seconds["text"] / seconds["cold"],
                "ttft_ratio_cached": seconds["text"] / seconds["cached"],
                "decode_ratio": decoding["text"] / decoding["memories"],
                "cache_bytes_ratio": sizes["text"] / sizes["memories"],
                "ttft_seconds": seconds,
            }
        )
    return rows


def _cache_bytes(cache: Any) -> int:
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)


def _decode(hf: Any, cache: Any) -> None:
    """So many more tokens, one by one; the cache is as it was afterwards."""
    length = cache.get_seq_length()
    token = torch.zeros(1, 1, dtype=torch.long, device=hf.device)
    for _ in range(_NEW_TOKENS):
        hf(input_ids=token, past_key_values=cache, use_cache=True)
    cache.crop(length - cache.get_seq_length())

"""Needles for `memlm bench reader`: facts hidden in a long past, asked for with and without expansion."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from memlm.data.facts import KINDS, FactTexts
from memlm.data.texts import evaluation_documents
from memlm.evaluation.bootstrap import share_interval
from memlm.runtime.progress import track
from memlm.text.expansion import CHOOSERS
from memlm.text.memory_reader import TextMemoryReader

_RATIO = 8
_BUDGET = 400
"""Tokens that may be expanded: two or three chunks."""


def needle_rows(reader: TextMemoryReader, contexts: Sequence[int], number: int) -> list[dict[str, Any]]:
    """For each length of the past and kind of fact, the share of answers that are right: read from memories alone, and
    after expansion of the chunks that each chooser takes."""
    tokenizer, chunk_len = reader.encoder.tokenizer, reader.config.shape.chunk_len
    novel = [document.text for document in evaluation_documents("novel")]
    filler = np.concatenate(tokenizer.encode_batch(novel))
    # Lengths are in the language model's tokens, of which a chunk has fewer.
    in_chunk = chunk_len * len(np.concatenate(reader.model_tokenizer.encode_batch(novel))) / len(filler)
    rows = []
    with track("Asking", total=sum(contexts) * len(KINDS) * number, unit="tokens") as advance:
        for step, (context, kind) in enumerate((context, kind) for context in contexts for kind in KINDS):
            texts = FactTexts(tokenizer, filler, chunk_len=chunk_len, kinds=(kind,))
            windows = texts.sample(number, max(2, round(context / in_chunk)) + 1, seed=0, step=step)
            hits = dict.fromkeys(("memories", *CHOOSERS), 0)
            for tokens, answer in zip(windows.tokens, windows.answer, strict=True):
                past = tokenizer.decode(tokens[:-1].reshape(-1))
                value = tokenizer.decode(tokens[-1][answer[-1]]).strip(" .")
                question = tokenizer.decode(tokens[-1][: int(answer[-1].argmax())]).strip()
                for name in hits:
                    hits[name] += value in _answer(reader, past, _lead(kind, question), value, name)
                advance(context)
            rows.append(
                {
                    "context_tokens": context,
                    "kind": kind,
                    "accuracy": hits["memories"] / number,
                    "accuracy_expanded": hits["likelihood"] / number,
                    "accuracy_by_chooser": {name: hits[name] / number for name in CHOOSERS},
                    "accuracy_expanded_interval": list(_interval(hits["likelihood"], number)),
                }
            )
    return rows


def _interval(hits: int, number: int) -> tuple[float, float]:
    interval = share_interval(hits, number)
    return interval.low, interval.high


def _lead(kind: str, question: str) -> str:
    """What stands before the value in the past, for the key of this question: a language model goes on from it."""
    before, after = KINDS[kind].question.strip().split("{key}")
    key = question.removeprefix(before).removesuffix(after)
    return KINDS[kind].fact.format(key=key)


def _answer(reader: TextMemoryReader, past: str, lead: str, value: str, name: str) -> str:
    memory = reader.encoder.encode([past])
    options: dict[str, Any] = {"ratio": _RATIO, "max_new_tokens": 2 * len(value), "do_sample": False}
    if name != "memories":
        options |= {"expand": _BUDGET, "by": name}
    return str(reader.generate(memory, lead, **options))

"""Readers in the evaluation harness (lm-eval), whose tasks then see long contexts as memories.

python -m memlm_evidence.lm_eval --model memlm --model_args reader=runs/smollm2/model,context=memory --tasks mine
--include_path tasks

Arguments are the harness's own. It has no entry point for models of other packages, hence this module.
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any, Literal, get_args

import numpy as np
import torch
from lm_eval.__main__ import cli_evaluate
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from memlm.runtime.files import BOXED_READER
from memlm.runtime.progress import track
from memlm.text.memory import Memory
from memlm.text.memory_reader import TextMemoryReader

Context = Literal["text", "memory", "memory+expand"]


@register_model("memlm")
class MemlmLM(LM):  # type: ignore[misc]
    """A language model that has all but the last tokens of each context as memories.

    Args:
        reader: a reader's checkpoint folder; by default the reader that ships with memlm.
        context: `text` is the language model as it was, with the context as tokens; `memory` reads memories;
            `memory+expand` also reads the text of the chunks that matter.
        ratio: tokens of the context that share a position.
        expand: with `memory+expand`, tokens that may be read as text.
        recent: last tokens of a context that are always read as text.
        device: where to run it.
        batch_size: of no effect, as is `max_batch_size`: requests are answered one by one.

    Raises:
        ValueError: there is no such reader, context or argument.
    """

    def __init__(
        self,
        reader: str = BOXED_READER,
        context: Context = "memory",
        ratio: int = 4,
        expand: int = 400,
        recent: int = 64,
        device: str | None = None,
        batch_size: Any = None,
        max_batch_size: Any = None,
        **unknown: Any,
    ) -> None:
        super().__init__()
        if unknown:
            known = "reader, context, ratio, expand, recent and device"
            raise ValueError(f"--model_args of memlm are {known}, not {', '.join(unknown)}")
        if context not in get_args(Context):
            raise ValueError(f"context is one of {', '.join(get_args(Context))}, not {context!r}")
        if int(recent) < 1:
            raise ValueError(f"recent must be positive, not {recent}")
        # The harness asks for cuda:0 unless told otherwise.
        there = torch.cuda.is_available() or not str(device).startswith("cuda")
        self.reader = TextMemoryReader.from_pretrained(reader, device=device if there else None)
        self.reads_text, self.recent = context == "text", int(recent)
        self.reading: dict[str, Any] = {"ratio": int(ratio), "expand": int(expand) if context == "memory+expand" else 0}

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Of each continuation after its context; and whether it is what the model would have written."""
        return [self._scored(*args) for args in _tracked(requests)]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Of whole texts, in blocks of as many tokens as are always read as text."""
        found = []
        for (text,) in _tracked(requests):
            _, begins = self.reader.model_tokenizer.encode_placed(text)
            places = [*begins[:: self.recent].tolist(), len(text)]
            blocks = itertools.pairwise(places)
            found.append(sum(self._scored(text[:begin], text[begin:end])[0] for begin, end in blocks))
        return found

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Each context gone on from, until a string that ends it: by the likeliest tokens, if a task draws none."""
        return [self._generated(*args) for args in _tracked(requests)]

    def _scored(self, context: str, continuation: str) -> tuple[float, bool]:
        memory, recent = self._split(context)
        encode = self.reader.model_tokenizer.encode
        number = len(encode(recent + continuation)) - len(encode(recent))
        with self._model():
            nats, likeliest = self.reader.scored(memory, recent + continuation, **self.reading)
        start = max(0, len(nats) - number)
        return -float(nats[start:].sum()), bool(np.all(likeliest[start:]))

    def _generated(self, context: str, options: dict[str, Any]) -> str:
        memory, recent = self._split(context)
        ends = options.get("until", [])
        drawn = {name: options[name] for name in ("temperature", "top_p", "top_k") if options.get(name)}
        draws: dict[str, Any] = {"do_sample": True, **drawn} if options.get("do_sample") else {"do_sample": False}
        with self._model():
            text = self.reader.generate(
                memory, recent, max_new_tokens=options.get("max_gen_toks", 256), **draws, **self.reading
            )
        for end in [ends] if isinstance(ends, str) else ends:
            text = text.split(end)[0] if end else text
        return str(text)

    def _split(self, context: str) -> tuple[Memory | None, str]:
        """The memories of a context, and its last tokens."""
        _, begins = self.reader.model_tokenizer.encode_placed(context)
        if self.reads_text or len(begins) <= self.recent:
            return None, context
        place = int(begins[-self.recent])
        return self.reader.encoder.encode([context[:place]]), context[place:]

    def _model(self) -> Any:
        return self.reader.without_memory() if self.reads_text else nullcontext()


def _tracked(requests: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """The arguments of each request, with progress on standard error."""
    sizes = [len(request.args[0].encode(errors="replace")) for request in requests]
    with track("Requests", total=sum(sizes), unit="bytes") as advance:
        for request, size in zip(requests, sizes, strict=True):
            yield request.args
            advance(size)


if __name__ == "__main__":
    cli_evaluate()

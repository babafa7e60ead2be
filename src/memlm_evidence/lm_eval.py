"""Readers in the evaluation harness (lm-eval), whose tasks then see long contexts as memories.

python -m memlm_evidence.lm_eval --model memlm --model_args reader=runs/smollm2/model,context=memory --tasks mine
--include_path tasks

Arguments are the harness's own. It has no entry point for models of other packages, hence this module.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Literal, get_args

import numpy as np
from lm_eval.__main__ import cli_evaluate
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from memlm.text.memory import Memory
from memlm.text.memory_reader import TextMemoryReader

Context = Literal["text", "memory", "memory+expand"]


@register_model("memlm")
class MemlmLM(LM):  # type: ignore[misc]
    """A language model that has all but the last tokens of each context as memories.

    Args:
        reader: a reader's checkpoint folder.
        context: `text` is the language model as it was, with the context as tokens; `memory` reads memories;
            `memory+expand` also reads the text of the chunks that matter.
        ratio: tokens of the context that share a position.
        expand: with `memory+expand`, tokens that may be read as text.
        recent: last tokens of a context that are always read as text.

    Raises:
        ValueError: there is no such reader or context.
    """

    def __init__(
        self, reader: str, context: Context = "memory", ratio: int = 4, expand: int = 400, recent: int = 64, **_: Any
    ) -> None:
        super().__init__()
        if context not in get_args(Context):
            raise ValueError(f"context is one of {', '.join(get_args(Context))}, not {context!r}")
        self.reader = TextMemoryReader.from_pretrained(reader)
        self.reads_text, self.recent = context == "text", int(recent)
        self.reading: dict[str, Any] = {"ratio": int(ratio), "expand": int(expand) if context == "memory+expand" else 0}

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Of each continuation after its context; and whether it is what the model would have written."""
        return [self._scored(*request.args) for request in requests]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Of whole texts, in blocks of as many tokens as are always read as text."""
        found = []
        for request in requests:
            (text,) = request.args
            tokens = self.reader.model_tokenizer.encode(text)
            starts = range(0, len(tokens), max(self.recent, 1))
            decode = self.reader.model_tokenizer.decode
            pieces = [(decode(tokens[:start]), decode(tokens[start : start + self.recent])) for start in starts]
            found.append(sum(self._scored(before, piece)[0] for before, piece in pieces))
        return found

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Each context gone on from, until a string that ends it."""
        return [self._generated(*request.args) for request in requests]

    def _scored(self, context: str, continuation: str) -> tuple[float, bool]:
        memory, recent = self._split(context)
        number = len(self.reader.model_tokenizer.encode(continuation))
        with self._model():
            nats, likeliest = self.reader.scored(memory, recent + continuation, **self.reading)
        return -float(nats[-number:].sum()), bool(np.all(likeliest[-number:]))

    def _generated(self, context: str, options: dict[str, Any]) -> str:
        memory, recent = self._split(context)
        ends = options.get("until", [])
        with self._model():
            text = self.reader.generate(
                memory, recent, max_new_tokens=options.get("max_gen_toks", 64), do_sample=False, **self.reading
            )
        for end in [ends] if isinstance(ends, str) else ends:
            text = text.split(end)[0] if end else text
        return str(text)

    def _split(self, context: str) -> tuple[Memory | None, str]:
        """The memories of a context, and its last tokens."""
        tokens = self.reader.model_tokenizer.encode(context)
        if self.reads_text or len(tokens) <= self.recent:
            return None, context
        decode, past = self.reader.model_tokenizer.decode, len(tokens) - self.recent
        return self.reader.encoder.encode([decode(tokens[:past])]), decode(tokens[past:])

    def _model(self) -> Any:
        return self.reader.without_memory() if self.reads_text else nullcontext()


if __name__ == "__main__":
    cli_evaluate()

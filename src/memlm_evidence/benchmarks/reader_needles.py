"""Needles for `memlm bench reader`: facts hidden in a long past, asked for with and without expansion.

Beside each stands what may have failed: whether memories hold the fact, whether its chunk was chosen, and whether the
language model, as it was, answers from the chunk's own text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from memlm.data.facts import KINDS, FactTexts, FactWindows
from memlm.data.texts import evaluation_documents
from memlm.evaluation.bootstrap import share_interval
from memlm.runtime.executor import Row
from memlm.text.expansion import CHOOSERS
from memlm.text.memory_reader import TextMemoryReader
from memlm.text.past import Past
from memlm.text.reader_prompts import Prompt
from memlm_evidence.benchmarks.reader_rows import Readers

RATIO = 8
BUDGET = 400
"""Tokens that may be expanded: two or three chunks."""
_PROMPTS_AT_ONCE = 32
_SPARE_TOKENS = 4
"""That an answer may have beside the value."""


class Question(NamedTuple):
    """A past, and what is asked about it."""

    past: Past
    lead: str
    """What stands before the value in the past: a language model goes on from it."""
    value: str
    chunk: str
    """Text of the chunk that holds the fact."""


@dataclass(frozen=True)
class Needles:
    """Asks for facts in a novel."""

    readers: Readers
    number: int
    """Questions of each kind at each length of the past."""

    @property
    def reader(self) -> TextMemoryReader:
        """What is asked."""
        return self.readers.memory

    @cached_property
    def filler(self) -> tuple[NDArray[np.int32], float]:
        """The novel as tokens of the encoder, and how many of the language model's each is."""
        novel = [document.text for document in evaluation_documents("novel")]
        filler, theirs = (
            np.concatenate(tokenizer.encode_batch(novel))
            for tokenizer in (self.reader.encoder.tokenizer, self.reader.model_tokenizer)
        )
        return filler, len(theirs) / len(filler)

    @torch.no_grad()
    def row(self, context: int, kind: str) -> Row:
        """Shares of right answers about pasts of so many of the language model's tokens."""
        questions = self._questions(context, kind)
        with self.readers.computing():
            chosen = {name: [self._chosen(question, name) for question in questions] for name in CHOOSERS}
            hits = self._hits(questions, {"memories": [()] * len(questions), **chosen})
            base = self._base_hits(questions)
        holders = [self._holders(question) for question in questions]
        found = {
            name: [bool(each) and each <= set(some) for each, some in zip(holders, sets, strict=True)]
            for name, sets in chosen.items()
        }
        expanded = hits.get("similarity")
        return {
            "context_tokens": context,
            "kind": kind,
            "questions": self.number,
            "accuracy": _share(hits["memories"]),
            "accuracy_interval": _interval(hits["memories"]),
            "accuracy_expanded": expanded and _share(expanded),
            "accuracy_expanded_interval": expanded and _interval(expanded),
            "accuracy_by_chooser": {name: _share(hits[name]) for name in chosen},
            "chosen": {name: _share(each) for name, each in found.items()},
            "held": _share([bool(each) for each in holders]),
            "accuracy_base": _share(base),
        }

    def _questions(self, context: int, kind: str) -> list[Question]:
        reader, (filler, ratio) = self.reader, self.filler
        chunk_len, decode = reader.config.shape.chunk_len, reader.encoder.tokenizer.decode
        texts = FactTexts(reader.encoder.tokenizer, filler, chunk_len=chunk_len, kinds=(kind,))
        number = max(2, round(context / (chunk_len * ratio)))
        windows = texts.sample(self.number, number + 1, seed=0, step=context)
        memory = reader.encoder.encode([decode(tokens[:-1].reshape(-1)) for tokens in windows.tokens])
        pasts = reader.pasts(memory)  # once, however often they are read
        return [self._question(past, windows, place, kind) for place, past in enumerate(pasts)]

    def _question(self, past: Past, windows: FactWindows, place: int, kind: str) -> Question:
        decode, tokens, answer = self.reader.encoder.tokenizer.decode, windows.tokens[place], windows.answer[place, -1]
        before, after = KINDS[kind].question.strip().split("{key}")
        asked = decode(tokens[-1][: int(answer.argmax())]).strip()
        lead = KINDS[kind].fact.format(key=asked.removeprefix(before).removesuffix(after))
        return Question(
            past, lead, decode(tokens[-1][answer]).strip(" ."), decode(tokens[-1 - windows.distance[place]])
        )

    def _holders(self, question: Question) -> set[int]:
        """The chunks that the fact lies in, as memories give them back; none if they do not."""
        past, fact = question.past, f"{question.lead.strip()} {question.value}"
        chunks = [past.tokens[past.chunk == number].tolist() for number in range(len(past.vectors))]
        pieces = self.reader.model_tokenizer.decode_pieces(chunks)
        start = "".join(pieces).find(fact)
        if start < 0:
            return set()
        first, last = np.searchsorted(np.cumsum([*map(len, pieces)]), [start, start + len(fact) - 1], side="right")
        return {*range(int(first), int(last) + 1)}

    def _chosen(self, question: Question, name: Any) -> tuple[int, ...]:
        lead = self.reader.model_tokenizer.encode(question.lead).tolist()
        return tuple(self.reader.expanded(question.past, lead, RATIO, BUDGET, name))

    def _hits(self, questions: list[Question], expanded: dict[str, list[tuple[int, ...]]]) -> dict[str, list[bool]]:
        """Whether each is answered with these chunks expanded; what several choose is asked once."""
        encode, begin = self.reader.model_tokenizer.encode, list(self.reader.config.begin)
        asked = {
            (place, chunks): Prompt(begin, question.past, encode(question.lead).tolist(), chunks)
            for sets in expanded.values()
            for place, (question, chunks) in enumerate(zip(questions, sets, strict=True))
        }
        answers = dict(zip(asked, self._answers([*asked.values()], questions), strict=True))
        return {
            name: [question.value in answers[place, sets[place]] for place, question in enumerate(questions)]
            for name, sets in expanded.items()
        }

    def _base_hits(self, questions: list[Question]) -> list[bool]:
        """Whether the language model as it was answers, after the text of the chunk that holds the fact."""
        encode, begin = self.reader.model_tokenizer.encode, list(self.reader.config.begin)
        prompts = [Prompt(begin, None, encode(each.chunk + each.lead).tolist()) for each in questions]
        with self.reader.without_memory():
            answers = self._answers(prompts, questions)
        return [each.value in answer for each, answer in zip(questions, answers, strict=True)]

    def _answers(self, prompts: list[Prompt], questions: list[Question]) -> list[str]:
        """What is written after prompts, many at once: that takes hardly longer than after one."""
        tokenizer, answers = self.reader.model_tokenizer, list[str]()
        longest = max(len(tokenizer.encode(f" {question.value}")) for question in questions) + _SPARE_TOKENS
        options = {"max_new_tokens": longest, "do_sample": False, "pad_token_id": 0}
        for start in range(0, len(prompts), _PROMPTS_AT_ONCE):
            some = prompts[start : start + _PROMPTS_AT_ONCE]
            inputs, context = self.reader.inputs_of(some, RATIO, room=longest)
            written = self.reader.model.decoder.generate(inputs, context, **options)
            answers += [tokenizer.decode(row) for row in written.tolist()]
        return answers


def _share(hits: Sequence[bool]) -> float:
    return sum(hits) / len(hits)


def _interval(hits: Sequence[bool]) -> list[float]:
    return [*share_interval(sum(hits), len(hits))]

"""Chats that a reader is trained on: about facts hidden in the past, and what the language model itself answers."""

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memlm.config import MemoryReaderConfig
from memlm.data.cache import default_cache
from memlm.data.chunks import LazyChunks, Windows, gather_windows
from memlm.data.facts import FactTexts
from memlm.data.token_store import PreparedData
from memlm.models.load_pretrained import load_causal, transformers_tokenizer, weights_fingerprint
from memlm.runtime.cache import Cache
from memlm.text.chats import QUESTIONS, Chat, answers, chat_about

_FORMAT = 1
"""Of kept answers; a change of how they are made raises it."""
_MARGIN = 1.25
"""How much longer than the longest chat that is known another may be."""


class Chats(NamedTuple):
    """Chats about all chunks of each window but the last."""

    windows: Windows
    chats: list[Chat]
    answers: list[str]


class ChatSampler:
    """Draws chats about a training split, half of them about facts, if there are any texts with facts.

    What the language model answers, who reads the text itself, is made here, once, and kept.
    """

    def __init__(
        self,
        cfg: MemoryReaderConfig,
        prepared: PreparedData,
        chunks: LazyChunks,
        places: Sequence[NDArray[np.int64]],
        facts: FactTexts | None,
        device: str,
        max_positions: int,
    ) -> None:
        """`places`: for one chunk of past, two, ...: where windows may begin; longer pasts than fit have no chats."""
        self.config, self.prepared, self.chunks, self.facts, self.device = cfg, prepared, chunks, facts, device
        self._tokenizer = transformers_tokenizer(cfg.decoder.name, cfg.decoder.revision)
        random, each = np.random.default_rng(0), -(-cfg.window.num_chats // len(places))
        self.first = [np.sort(random.choice(some, size=min(each, len(some)), replace=False)) for some in places]
        self.questions = [
            [str(question) for question in random.choice(QUESTIONS, size=len(some))] for some in self.first
        ]
        texts = [self._texts(some, number) for number, some in enumerate(self.first, start=1)]
        told = iter(self._answers([*chain(*texts)]))
        self.answers = [[next(told) for _ in some] for some in self.first]
        longest = [max(map(self._num_tokens, *each)) for each in zip(texts, self.questions, self.answers, strict=True)]
        self.most_chunks = sum(_MARGIN * tokens <= max_positions for tokens in longest)
        """The longest past that chats are about."""

    def sample(self, num_rows: int, num_chunks: int, random: np.random.Generator, *, seed: int, step: int) -> Chats:
        """Chats about pasts of so many chunks."""
        first, questions, replies = (
            self.first[num_chunks - 1],
            self.questions[num_chunks - 1],
            self.answers[num_chunks - 1],
        )
        drawn = random.integers(len(first), size=num_rows)
        windows = gather_windows(self.chunks, first[drawn], num_chunks + 1)
        asked, told = [questions[place] for place in drawn], [replies[place] for place in drawn]
        if self.facts and (number := num_rows // 2):
            about = self.facts.ask(number, num_chunks, seed=seed, step=step)
            windows.tokens[:number, :-1], windows.mask[:number, :-1] = about.tokens, True
            asked[:number], told[:number] = about.questions, about.answers
        return Chats(windows, [chat_about(self._tokenizer, question, past=True) for question in asked], told)

    def _texts(self, first: NDArray[np.int64], num_chunks: int) -> list[str]:
        """The texts that so many chunks are, from each of these on."""
        windows, decode = gather_windows(self.chunks, first, num_chunks), self.prepared.tokenizer.decode
        return [decode(tokens[mask].tolist()) for tokens, mask in zip(*windows[:2], strict=True)]

    def _num_tokens(self, text: str, question: str, answer: str) -> int:
        """Of a chat, with its past as tokens."""
        chat = chat_about(self._tokenizer, question, past=True)
        written = len(self._tokenizer(text + answer, add_special_tokens=False).input_ids)
        return written + sum(map(len, (chat.before, chat.after, chat.end)))

    def _answers(self, texts: list[str]) -> list[str]:
        """To all questions."""
        decoder = self.config.decoder

        def make() -> list[str]:
            model = load_causal(decoder.name, decoder.revision).to(self.device).eval()
            return answers(model, self._tokenizer, texts, [*chain(*self.questions)])

        key = {
            "format": _FORMAT,
            "model": weights_fingerprint(decoder.name, decoder.revision),
            "data": self.prepared.fingerprint,
            "chunk_len": self.config.shape.chunk_len,
            "windows": [some.tolist() for some in self.first],
            "questions": self.questions,
        }
        found: list[str] = Cache(default_cache() / "answers").get(key, make)
        return found

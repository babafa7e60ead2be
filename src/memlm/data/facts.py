"""Facts hidden in real text, and at its end a question about one of them, with its answer.

Facts are drawn from fixed lists (`facts.json`), and the text between them is whatever text the caller has: nothing is
downloaded.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydantic
from numpy.typing import NDArray

from memlm.data.tokenizer import Tokenizer

Tokens = NDArray[np.integer[Any]]
_TRAINING, _BENCHMARK, _CHATS = 2, 3, 4
"""The third word of a generator's seed, so that each use has random numbers of its own at every seed and step."""
_END = "."


class Kind(NamedTuple):
    """A kind of fact: a sentence with a key and a value, and a question that names the key."""

    fact: str
    """What stands before the value in the past; `{key}` stands for the key."""
    question: str
    """What stands before the value in the last chunk."""
    keys: tuple[str, ...]
    symbols: tuple[str, ...]
    """What values are made of, each symbol drawn uniformly."""
    num_symbols: int
    separator: str = ""
    """What stands between two symbols."""

    def value(self, random: np.random.Generator) -> str:
        """A random value as it stands in the text, with the period that ends it."""
        drawn = random.integers(len(self.symbols), size=self.num_symbols)
        return " " + self.separator.join(self.symbols[i] for i in drawn) + _END


KINDS = pydantic.TypeAdapter(dict[str, Kind]).validate_json(Path(__file__).with_name("facts.json").read_bytes())
"""A name's number of five digits, a name's code of eight hexadecimal digits, the four words after a marker."""


class FactWindows(NamedTuple):
    """Windows whose last chunk asks for a fact that an earlier one holds; padding is token 0."""

    tokens: NDArray[np.int64]
    """[window chunk token]"""
    mask: NDArray[np.bool_]
    """[window chunk token], True for a real token: all of the past, and the last chunk as far as its answer's end."""
    answer: NDArray[np.bool_]
    """[window chunk token], True for the answer's tokens in the last chunk, the period among them."""
    distance: NDArray[np.int64]
    """[window], chunks from the fact to the question; 1 is the chunk right before."""
    kind: NDArray[np.str_]
    """[window], of `KINDS`."""


class Asked(NamedTuple):
    """Pasts, each with a question about a fact in it, and the answer: the sentence that states it."""

    tokens: NDArray[np.int64]
    """[window chunk token]"""
    questions: list[str]
    answers: list[str]


class _Placed(NamedTuple):
    """A past with facts in it, and which of them is asked for."""

    tokens: NDArray[np.int64]
    """[chunk token]"""
    kind: str
    key: str
    value: str


@dataclass(frozen=True)
class FactTexts:
    """Makes texts with facts in them; each fact lies wholly inside one chunk.

    Raises:
        ValueError: `chunk_len` is too short for a kind, with the tokens that it needs; there is no such kind, no kind
            or no filler; or `num_facts` is not positive.
    """

    tokenizer: Tokenizer
    filler: Tokens
    """[token] of real text; each window reads it from a random token, around its end if need be."""
    _: KW_ONLY
    chunk_len: int
    kinds: tuple[str, ...] = tuple(KINDS)
    """Each window's is drawn uniformly from them."""
    num_facts: int = 2
    """Facts of a window of `sample`, all of its kind, with different keys and in different chunks; fewer where there
    are fewer past chunks. Only one is asked for, so that its key has to be matched."""

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown or not self.kinds:
            raise ValueError(f"kinds of facts are {', '.join(KINDS)}, not {', '.join(unknown) or 'none'}")
        if self.num_facts < 1:
            raise ValueError(f"num_facts must be positive, not {self.num_facts}")
        if len(self.filler) == 0:
            raise ValueError("there is no text to put facts in")
        for kind in self.kinds:
            self._require_room(kind, tokens_needed(self.tokenizer, kind))

    def sample(
        self, num_windows: int, num_chunks: int, *, seed: int, step: int, distance: int | None = None
    ) -> FactWindows:
        """Random windows to measure with, a function of `seed` and `step`; never those of `practice`.

        The last of a window's chunks asks for a fact `distance` chunks before; uniformly random if None.

        Raises:
            ValueError: a window without a past, a fact outside of it, or no windows.
        """
        if num_windows < 1 or num_chunks < 2:
            raise ValueError(
                f"{num_windows} windows of {num_chunks} chunks: there must be a window, and two chunks in it"
            )
        if distance is not None and not 1 <= distance < num_chunks:
            raise ValueError(f"a window of {num_chunks} chunks has no fact at a distance of {distance}")
        random = np.random.default_rng([seed, step, _BENCHMARK])
        windows = [self._window(random, num_chunks, distance) for _ in range(num_windows)]
        return FactWindows(*map(np.stack, zip(*windows, strict=True)))

    def practice(self, num_windows: int, num_chunks: int, *, seed: int, step: int) -> NDArray[np.int64]:
        """Windows [window chunk token] to learn from; a function of `seed` and `step`.

        More can be learned from them than from those of the benchmark: the first chunk holds a fact, each one after it
        another fact or a question about an earlier one, the last a question. Some questions follow a single fact.
        """
        random = np.random.default_rng([seed, step, _TRAINING])
        return np.stack([self._practice(random, num_chunks) for _ in range(num_windows)])

    def ask(self, num_windows: int, num_chunks: int, *, seed: int, step: int) -> Asked:
        """Questions to learn to answer, about pasts of so many chunks; a function of `seed` and `step`."""
        random = np.random.default_rng([seed, step, _CHATS])
        placed = [
            self._placed(random, str(random.choice(self.kinds)), num_chunks, int(random.integers(1, num_chunks + 1)))
            for _ in range(num_windows)
        ]
        return Asked(
            np.stack([each.tokens for each in placed]),
            [KINDS[each.kind].question.format(key=each.key).strip() for each in placed],
            [(KINDS[each.kind].fact.format(key=each.key) + each.value).strip() for each in placed],
        )

    def _practice(self, random: np.random.Generator, num_chunks: int) -> NDArray[np.int64]:
        name = self.kinds[random.integers(len(self.kinds))]
        kind, known = KINDS[name], list[tuple[str, str]]()
        keys = random.permutation(kind.keys)[:num_chunks]
        tokens = self._filler(random, num_chunks)
        for chunk in range(num_chunks):
            if known and (chunk == num_chunks - 1 or random.random() < 0.5):
                key, value = known[random.integers(len(known))]
                question = np.concatenate(self._pieces(name, kind.question.format(key=key), value))
                tokens[chunk, : len(question)] = question
            else:
                known.append((keys[chunk], kind.value(random)))
                self._hide(random, tokens[chunk], name, *known[-1])
        return tokens

    def _window(self, random: np.random.Generator, num_chunks: int, distance: int | None) -> FactWindows:
        """One window, each field without its first axis."""
        name = self.kinds[random.integers(len(self.kinds))]
        past = num_chunks - 1
        distance = distance or int(random.integers(1, num_chunks))
        placed = self._placed(random, name, past, distance)
        tokens = np.concatenate([placed.tokens, np.zeros((1, self.chunk_len), np.int64)])
        question, answer = self._pieces(name, KINDS[name].question.format(key=placed.key), placed.value)
        end = len(question) + len(answer)
        tokens[past, :end] = np.concatenate([question, answer])
        mask, is_answer = np.ones(tokens.shape, dtype=bool), np.zeros(tokens.shape, dtype=bool)
        mask[past, end:] = False
        is_answer[past, len(question) : end] = True
        return FactWindows(tokens, mask, is_answer, np.array(distance), np.array(name))

    def _placed(self, random: np.random.Generator, name: str, past: int, distance: int) -> _Placed:
        """Text of so many chunks with facts of a kind in it, the one that is asked for so far from its end."""
        kind, asked = KINDS[name], past - distance
        others = [chunk for chunk in random.permutation(past) if chunk != asked]
        places = [asked, *others[: self.num_facts - 1]]
        keys = [kind.keys[i] for i in random.permutation(len(kind.keys))[: len(places)]]
        values = [kind.value(random) for _ in places]
        tokens = self._filler(random, past)
        for chunk, key, value in zip(places, keys, values, strict=True):
            self._hide(random, tokens[chunk], name, key, value)
        return _Placed(tokens, name, keys[0], values[0])

    def _filler(self, random: np.random.Generator, num_chunks: int) -> NDArray[np.int64]:
        """Text [chunk token] from a random token on."""
        begin = random.integers(len(self.filler))
        text = self.filler[(begin + np.arange(num_chunks * self.chunk_len)) % len(self.filler)]
        return text.reshape(num_chunks, self.chunk_len).astype(np.int64)

    def _hide(self, random: np.random.Generator, chunk: Tokens, kind: str, key: str, value: str) -> None:
        """Write a fact over a chunk's tokens [token], at a random place."""
        fact = np.concatenate(self._pieces(kind, KINDS[kind].fact.format(key=key), value))
        at = random.integers(self.chunk_len - len(fact), endpoint=True)
        chunk[at : at + len(fact)] = fact

    def _pieces(self, kind: str, before: str, value: str) -> list[NDArray[np.int32]]:
        """Tokens of a value and of what stands before it, tokenized apart, so that a value's are always the same."""
        pieces = self.tokenizer.encode_batch([before, value])
        self._require_room(kind, sum(map(len, pieces)))
        return pieces

    def _require_room(self, kind: str, needed: int) -> None:
        if needed > self.chunk_len:
            raise ValueError(
                f"chunks of {self.chunk_len} tokens are too short for facts of kind {kind!r}: with this tokenizer a "
                f"fact or a question with its answer takes as many as {needed}"
            )


def tokens_needed(tokenizer: Tokenizer, kind: str) -> int:
    """The length in tokens of a chunk that has room for any fact and any question of a kind."""
    fact, question, keys, symbols, num_symbols, separator = KINDS[kind]

    def longest(texts: Sequence[str]) -> int:
        return max(map(len, tokenizer.encode_batch(texts)))

    before = longest([template.format(key=key) for template in (fact, question) for key in keys])
    first, later = (longest([lead + symbol for symbol in symbols]) for lead in (" ", separator))
    return before + first + (num_symbols - 1) * later + longest([_END])

"""Texts sent through their memories round after round, and a word of each replaced between the rounds."""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from memlm.data.chunks import Chunks
from memlm.data.tokenizer import Tokenizer
from memlm.store.codec import Codec
from memlm.store.tokenized import Span

Texts = Int[np.ndarray, "text token"]
"""Tokens of texts of one length."""

_WORD = re.compile(rb"(?: |(?<![ 'A-Za-z\x80-\xff]))[A-Za-z]+(?![A-Za-z\x80-\xff])")
"""Of plain letters, with the space before it, which belongs to its first token."""


class Key(NamedTuple):
    """What words that may stand for each other have in common."""

    spaced: bool
    """Whether a space comes first."""
    num_tokens: int


class Round(NamedTuple):
    """Texts after a round."""

    texts: Texts
    expected: Texts
    """As they would be without an error: the first texts, and what was replaced in them."""
    replaced: Bool[np.ndarray, "text token"]
    """Tokens of words that were replaced, in this round or before."""


class Words:
    """Words to replace by others, from a list of words."""

    def __init__(self, tokenizer: Tokenizer, words: Sequence[str]) -> None:
        self._token_bytes = tokenizer.token_bytes
        spelled: dict[Key, list[Texts]] = {}
        for spaced in (False, True):
            for tokens in tokenizer.encode_batch([" " * spaced + word for word in words]):
                spelled.setdefault(Key(spaced, len(tokens)), []).append(tokens.astype(np.int64))
        self._others = {key: np.unique(np.stack(same), axis=0) for key, same in spelled.items()}

    def of(self, text: Texts) -> list[Span]:
        """Where the words of a text [token] begin and end that there are others for."""
        spelled = [self._token_bytes[token] for token in text]
        place = {offset: number for number, offset in enumerate(accumulate(map(len, spelled), initial=0))}
        found = ((place.get(word.start()), place.get(word.end())) for word in _WORD.finditer(b"".join(spelled)))
        whole = [(start, stop) for start, stop in found if start is not None and stop is not None]
        return [(start, stop) for start, stop in whole if len(self._like(text[start:stop])) > 1]

    def other(self, word: Texts, random: np.random.Generator) -> Texts:
        """Another word [token], with a space before it if this one has one, and of as many tokens."""
        others = self._like(word)
        return random.choice(others[(others != word).any(axis=1)])

    def _like(self, word: Texts) -> Texts:
        key = Key(self._token_bytes[word[0]].startswith(b" "), len(word))
        return self._others.get(key, np.zeros((0, len(word)), np.int64))


class Editor:
    """Replaces a random word of each text by another one.

    It takes the place of the one before, so that `words` stay those of the first texts.
    """

    def __init__(self, words: Words, texts: Texts, seed: Sequence[int]) -> None:
        self.words = [words.of(text) for text in texts]
        self._vocabulary, self._random = words, np.random.default_rng(seed)

    def edit(self, before: Round) -> Round:
        """Texts with one more word replaced; those without words stay as they are."""
        after = Round(*(part.copy() for part in before))
        for text, words in enumerate(self.words):
            if words:
                place = text, slice(*words[self._random.integers(len(words))])
                word = self._vocabulary.other(before.expected[place], self._random)
                after.texts[place] = after.expected[place] = word
                after.replaced[place] = True
        return after


def rounds_of(send: Callable[[Texts], Texts], texts: Texts, editor: Editor | None = None) -> Iterator[Round]:
    """The texts themselves, then what `send` makes of them, of that, and so on without end.

    What comes back as it was sent always will: it is sent again only after an edit.
    """
    now, moving = Round(texts, texts, np.zeros(texts.shape, bool)), np.ones(len(texts), bool)
    while True:
        yield now
        if editor:
            edited = editor.edit(now)
            moving |= (edited.texts != now.texts).any(axis=1)
            now = edited
        if moving.any():
            back = now.texts.copy()
            back[moving] = send(now.texts[moving])
            moving = (back != now.texts).any(axis=1)
            now = now._replace(texts=back)


def sender(codec: Codec) -> Callable[[Texts], Texts]:
    """Texts → memories, rounded as in a memory file → the likeliest tokens, as many as the file says."""

    def send(texts: Texts) -> Texts:
        number, length = texts.shape
        empty = [(0, 0), (0, codec.chunk_len - length)]
        chunks = Chunks(np.pad(texts, empty), np.pad(np.ones(texts.shape, bool), empty), np.zeros(number, np.int64))
        back = [codec.model.token_logits(memory).argmax(dim=-1).cpu().numpy() for _, _, memory in codec.sent(chunks)]
        return np.concatenate(back)[:, :length]

    return send

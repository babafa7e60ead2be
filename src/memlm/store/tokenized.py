"""A text as tokens that spell it exactly, cut into spans that are whole characters."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from memlm.data.chunks import Chunks
from memlm.data.documents import split_bytes
from memlm.data.tokenizer import Tokenizer

MIN_CHUNK = 4
"""Tokens within which a character ends, since none takes more bytes: a shorter chunk might have to end inside of one.
Tokenizers whose tokens reach from one character into the next may need more; then the text is stored raw."""

Span = tuple[int, int]
"""First token, and the one after the last."""


class Tokenized(NamedTuple):
    """A text's tokens, and where its bytes and its characters begin among them."""

    data: bytes
    tokens: NDArray[np.int64]
    offsets: NDArray[np.int64]
    """[token + 1], in bytes."""
    whole: Bool[np.ndarray, " token_plus_1"]
    """Whether a character begins there."""

    @classmethod
    def of(cls, tokenizer: Tokenizer, data: bytes) -> Self | None:
        """None, where the tokens do not spell the text, or too many in a row end inside of characters."""
        # In pieces, for all cores, and so that a line of megabytes is no single word.
        pieces = [piece.decode() for piece in split_bytes([data])]
        tokens = np.concatenate([np.zeros(0, np.int32), *tokenizer.encode_batch(pieces)]).astype(np.int64)
        spelled = [*map(tokenizer.token_bytes.__getitem__, tokens.tolist())]
        sizes = np.array([*map(len, spelled)], dtype=np.int64)
        if b"".join(spelled) != data or not sizes.all():
            return None
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        # A byte 0b10xxxxxx goes on with a character; at the very end, one would begin.
        begins = (np.frombuffer(data + b"\0", np.uint8) & 0xC0) != 0x80
        whole = begins[offsets]
        if np.diff(np.flatnonzero(whole)).max(initial=0) > MIN_CHUNK:
            return None
        return cls(data, tokens, offsets, whole)

    def text(self, start: int, stop: int) -> bytes:
        """The bytes of some tokens."""
        return self.data[self.offsets[start] : self.offsets[stop]]

    def spans(self, start: int, stop: int, length: int) -> list[Span]:
        """Split tokens into spans of at most `length`, each whole characters."""
        spans = []
        while start < stop:
            end = min(start + length, stop)
            while not self.whole[end]:
                end -= 1
            spans.append((start, end))
            start = end
        return spans

    def chunks(self, spans: Sequence[Span], chunk_len: int) -> Chunks:
        """Spans, padded."""
        starts, stops = np.array(spans).T
        index = starts[:, None] + np.arange(chunk_len)
        mask = index < stops[:, None]
        tokens = np.where(mask, self.tokens[np.minimum(index, len(self.tokens) - 1)], 0)
        return Chunks(tokens, mask, np.zeros(len(spans), np.int64))


NOTHING = Tokenized(b"", np.zeros(0, np.int64), np.zeros(1, np.int64), np.ones(1, np.bool_))
"""An empty text."""

"""The tokens of two tokenizers side by side: any span of one's is the same text in the other's."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
from numpy.typing import NDArray

from memlm.data.chunks import Chunks, gather
from memlm.data.token_store import TokenSplit
from memlm.data.tokenizer import Tokenizer
from memlm.runtime.progress import Advance

_DOCUMENTS_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class AlignedSplit:
    """Documents as tokens of a byte-level tokenizer, and of another one."""

    split: TokenSplit
    begins: NDArray[np.int64]
    """[token + 1], the byte at which each token of `split` begins, all documents in a row."""
    word_begins: NDArray[np.int64]
    """[word], tokens of `split` before which no word is cut, in order."""
    other_tokens: NDArray[np.int32]
    """[other], the same text's tokens of the other tokenizer."""
    other_begins: NDArray[np.int64]
    """[other], the byte at which each begins."""

    @classmethod
    def of(cls, split: TokenSplit, tokenizer: Tokenizer, other: Tokenizer, advance: Advance | None = None) -> Self:
        """Tokenize documents with another tokenizer; `advance` hears of bytes.

        Raises:
            ValueError: the first tokenizer's tokens do not spell the text.
        """
        table = tokenizer.token_bytes
        sizes = np.array([len(token) for token in table], np.int64)[split.tokens]
        begins = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        tokens, places = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
        starts = split.document_starts
        for first in range(0, len(starts) - 1, _DOCUMENTS_AT_ONCE):
            some = starts[first : first + _DOCUMENTS_AT_ONCE + 1]
            texts = [b"".join([table[token] for token in split.tokens[a:b].tolist()]) for a, b in pairwise(some)]
            placed = other.encode_placed_batch([_decoded(text) for text in texts])
            for start, text, (ids, characters) in zip(some[:-1], texts, placed, strict=True):
                # A byte 0b10xxxxxx goes on with a character.
                of_characters = np.flatnonzero((np.frombuffer(text, np.uint8) & 0xC0) != 0x80)
                tokens.append(ids.astype(np.int32))
                places.append(begins[start] + of_characters[characters])
            if advance:
                advance(sum(map(len, texts)))
        spaced = np.array([not token[:1].isalnum() and token[:1] < b"\x80" for token in table])
        return cls(
            split=split,
            begins=begins,
            word_begins=np.union1d(np.flatnonzero(spaced[split.tokens]), starts),
            other_tokens=np.concatenate(tokens),
            other_begins=np.concatenate(places),
        )

    def whole_words(
        self, begin: NDArray[np.int64], length: NDArray[np.int64], chunk_len: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Spans of tokens moved to where words begin; one that is shorter than a chunk also ends there."""
        last = len(self.word_begins) - 2
        first = np.searchsorted(self.word_begins, begin).clip(max=last)
        end = np.searchsorted(self.word_begins, begin + length, side="right") - 1
        end = np.maximum(end, first + 1).clip(max=last + 1)
        start = self.word_begins[first]
        short = np.minimum(self.word_begins[end] - start, chunk_len)
        return start, np.where(length < chunk_len, short, chunk_len)

    def read(self, begin: NDArray[np.int64], length: NDArray[np.int64], chunk_len: int) -> tuple[Chunks, Chunks]:
        """Spans of tokens as chunks; and what of the other's tokens begins within them."""
        chunks = gather(self.split, begin, length, chunk_len)
        stop = self.begins[begin + chunks.mask.sum(1)]
        first, end = (np.searchsorted(self.other_begins, at) for at in (self.begins[begin], stop))
        counts = np.minimum(end - first, chunk_len)
        place = np.arange(max(1, int(counts.max(initial=0))))
        mask = place < counts[:, None]
        index = np.minimum(first[:, None] + place, len(self.other_tokens) - 1)
        others = np.where(mask, self.other_tokens[index], 0).astype(np.int64)
        return chunks, Chunks(others, mask, chunks.document)


def _decoded(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise ValueError("the tokenizer's tokens do not spell the text: it must be byte-level") from None

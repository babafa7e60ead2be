"""A probe's chunks in a language model's tokens: the same text, written out by the encoder's tokenizer."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from memlm.data.chunks import Chunks
from memlm.data.tokenizer import Tokenizer


class LanguageTexts(NamedTuple):
    """Between a probe's tokens and a language model's, through text."""

    types: Int[np.ndarray, " type"]
    """The encoder's token ids, by the numbers that readers have for them."""
    encoder: Tokenizer
    language: Tokenizer

    def of(self, chunks: Chunks) -> list[str]:
        """The texts of numbered chunks."""
        return [self.encoder.decode(self.types[row]) for row in chunks.tokens]

    def read(self, chunks: Chunks) -> Chunks:
        """The same texts in the language model's tokens, padded on the right."""
        rows = self.language.encode_batch(self.of(chunks))
        tokens = np.zeros((len(rows), max(1, *map(len, rows))), dtype=np.int64)
        mask = np.arange(tokens.shape[1]) < np.array([len(row) for row in rows])[:, None]
        tokens[mask] = np.concatenate(rows)
        return Chunks(tokens, mask, chunks.document)

    def cut(self, written: Sequence[str], chunk_len: int) -> list[str]:
        """Texts without what is more than so many of the encoder's tokens."""
        return [self.encoder.decode(ids[:chunk_len]) for ids in self.encoder.encode_batch(written)]

    def numbered(self, written: Sequence[str], chunks: Chunks) -> Int[np.ndarray, "chunk token"]:
        """What was written in place of chunks, as numbered tokens; -1 where there is none, or one that no text has."""
        number = np.full(1 + max(self.encoder.vocab_size, int(self.types.max())), -1)
        number[self.types] = np.arange(len(self.types))
        texts, found = self.of(chunks), np.full(chunks.tokens.shape, -1)
        encoded = zip(self.encoder.encode_batch(written), self.encoder.encode_batch(texts), strict=True)
        for row, (ids, own) in zip(found, encoded, strict=True):
            # A chunk that begins within a word may be spelt with more tokens, at its beginning, than it has.
            ids = ids[max(0, len(own) - len(row)) :][: len(row)]
            row[: len(ids)] = number[ids]
        same = [one.strip() == other.strip() for one, other in zip(written, texts, strict=True)]
        return np.where(np.array(same)[:, None], chunks.tokens, found)

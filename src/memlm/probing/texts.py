"""What a probe reads: whole chunks of the encoder's own tokens, from documents that are kept apart."""

import hashlib
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memlm.config import DataConfig, ReadingConfig
from memlm.data.chunks import Chunks, split_into_chunks
from memlm.data.corpus import MAX_DOCUMENT_BYTES, Document, read_documents, split_bytes, split_of
from memlm.data.token_store import TokenSplit, tokenize_documents
from memlm.data.tokenizer import Tokenizer

MIN_TRAIN_CHUNKS = 100
MIN_TEST_CHUNKS = 20
_FEW_DOCUMENTS, _MIN_PIECES = 12, 60
_MIN_PIECE_BYTES = 1024
_LARGEST_TEXT = 64 * 1024 * 1024


class Vocabulary:
    """The token types that occur in a probe's text, numbered anew: what readers choose from."""

    def __init__(self, *parts: Chunks) -> None:
        self.types: NDArray[np.int64] = np.unique(np.concatenate([part.tokens.ravel() for part in parts]))

    def __len__(self) -> int:
        return len(self.types)

    def number(self, chunks: Chunks) -> Chunks:
        """The same chunks, their tokens numbered as this vocabulary's."""
        return chunks._replace(tokens=np.searchsorted(self.types, chunks.tokens))


@dataclass(frozen=True, kw_only=True)
class ProbeData:
    """Chunks to train readers on, to watch them by and to measure them on, in the encoder's token ids."""

    train: Chunks
    validation: Chunks
    test: Chunks
    test_bytes: NDArray[np.float64]
    """[document], bytes of text in each test document's chunks."""
    vocabulary: Vocabulary
    round_trips: bool
    """Whether tokens → text gives the texts back exactly; if not, fidelity is that of tokens."""

    def random_tokens(self, seed: int = 0) -> Chunks:
        """As many chunks as the test has, of uniformly random tokens of the vocabulary."""
        random = np.random.default_rng(seed)
        return self.test._replace(tokens=random.choice(self.vocabulary.types, size=self.test.tokens.shape))


class _Splits(NamedTuple):
    train: TokenSplit
    validation: TokenSplit
    test: TokenSplit


class ProbeTexts:
    """Documents in three splits, tokenized once, when they are first cut; into chunks of any length."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        documents: Sequence[Document],
        test_fraction: float,
        *,
        held_out: Sequence[Document] = (),
    ) -> None:
        """Whole documents are kept apart. Where there are few, they are cut into pieces, which then count as documents.
        What is kept apart depends on the texts alone.

        Args:
            tokenizer: the encoder's.
            documents: what readers are trained on and, but for `held_out`, measured on.
            test_fraction: share of documents to measure on.
            held_out: measure on these instead; for an encoder that was trained on `documents`.
        """
        self.tokenizer, self.documents, self.held_out = tokenizer, documents, held_out
        self.test_fraction = test_fraction

    @classmethod
    def of_splits(cls, data: DataConfig, tokenizer: Tokenizer, test_fraction: float) -> "ProbeTexts":
        """For encoders that were trained on this corpus: readers learn from what the encoders learned from, and are
        measured on what neither has seen."""
        everything = list(read_documents(data.corpus))
        learned, held_out = (
            [document for document in everything if split_of(document, data) == name] for name in ("train", "test")
        )
        return cls(tokenizer, learned, test_fraction, held_out=held_out)

    def split_into_chunks(self, chunk_len: int, cfg: ReadingConfig) -> ProbeData:
        """Whole chunks of each split.

        Raises:
            ValueError: there is too little text to split, or for chunks of this length; says how much is needed.
        """
        splits = self._splits
        # More chunks than are drawn in training would be embedded for nothing.
        drawn = max(MIN_TRAIN_CHUNKS, cfg.num_steps * cfg.chunks_per_step(chunk_len))
        train = _whole(split_into_chunks(splits.train, chunk_len), min(cfg.max_chunks, drawn))
        validation = _whole(split_into_chunks(splits.validation, chunk_len), max(MIN_TEST_CHUNKS, cfg.test_chunks // 3))
        test, test_bytes = _documents_with_chunks(
            _whole(split_into_chunks(splits.test, chunk_len), cfg.test_chunks), splits.test
        )
        self._require("training", train, MIN_TRAIN_CHUNKS)
        self._require("validation", validation, MIN_TEST_CHUNKS // 2)
        self._require("test", test, MIN_TEST_CHUNKS)
        return ProbeData(
            train=train,
            validation=validation,
            test=test,
            test_bytes=test_bytes,
            vocabulary=Vocabulary(train, validation, test),
            round_trips=all(self.tokenizer.is_lossless(document.text[:2000]) for document in self.documents[:5]),
        )

    @cached_property
    def _splits(self) -> _Splits:
        documents = _limited(self.documents)
        train, validation, test = _split(_enough(documents), self.test_fraction)
        if self.held_out:
            train, test = train + test, _enough(self.held_out)
        return _Splits(*(tokenize_documents(self.tokenizer, part) for part in (train, validation, test)))

    def _require(self, name: str, chunks: Chunks, wanted: int) -> None:
        found, chunk_len = chunks.tokens.shape
        if found >= wanted:
            return
        tokens = sum(len(split.tokens) for split in self._splits)
        num_bytes = sum(int(split.document_bytes.sum()) for split in self._splits)
        needed = num_bytes * 1.5 * wanted / max(found, 0.5)
        raise ValueError(
            f"too little text for chunks of {chunk_len} tokens: {tokens:,} tokens ({num_bytes:,} bytes) give "
            f"{found} whole {name} chunks, and at least {wanted} are needed; give about {needed:,.0f} bytes, or "
            "shorter chunks"
        )


def _limited(documents: Sequence[Document]) -> list[Document]:
    kept, size = [], 0
    for document in documents:
        if size > _LARGEST_TEXT:
            warnings.warn(f"the text is large; only its first {size / 1e6:.0f} MB are read", stacklevel=3)
            break
        kept.append(document)
        size += len(document.text)
    return kept


def _num_bytes(document: Document) -> int:
    return len(document.text.encode("utf-8", "surrogatepass"))


def _enough(documents: Sequence[Document]) -> list[Document]:
    """The documents, or pieces of them if they are too few to keep some apart and to see their spread."""
    if len(documents) < _FEW_DOCUMENTS:
        limit = sum(map(_num_bytes, documents)) // _MIN_PIECES
        limit = min(MAX_DOCUMENT_BYTES, max(_MIN_PIECE_BYTES, limit))
        documents = [piece for document in documents for piece in _cut(document, limit)]
    # A text that occurs twice must not be learned from one place and measured in another.
    return list({document.text: document for document in documents}.values())


def _cut(document: Document, limit: int) -> list[Document]:
    pieces = split_bytes(io.BytesIO(document.text.encode("utf-8", "surrogatepass")), limit)
    texts = [piece.decode("utf-8", "surrogatepass") for piece in pieces]
    return [Document(f"{document.name}/{number}", text) for number, text in enumerate(texts)]


def _split(documents: list[Document], test_fraction: float) -> tuple[list[Document], list[Document], list[Document]]:
    """Train, validation and test, by rank of the texts' hashes: the shares hold however few documents there are."""
    ranked = sorted(documents, key=lambda document: hashlib.sha256(document.text.encode("utf-8", "replace")).digest())
    num_test = max(1, round(test_fraction * len(ranked)))
    num_validation = max(1, round(test_fraction / 3 * len(ranked)))
    test, rest = ranked[:num_test], ranked[num_test:]
    validation, train = rest[:num_validation], rest[num_validation:]
    if not validation or not train:
        raise ValueError(
            f"too little text to keep some of it apart: {len(documents)} pieces of about {_MIN_PIECE_BYTES} bytes; "
            f"at least {20 * _MIN_PIECE_BYTES:,} bytes are needed"
        )
    return train, validation, test


def _whole(chunks: Chunks, max_chunks: int) -> Chunks:
    """At most so many of the chunks without padding, drawn at random, but always the same."""
    whole = np.flatnonzero(chunks.mask.all(axis=1))
    drawn = np.random.default_rng(0).permutation(whole)[:max_chunks]
    return chunks.rows(drawn)


def _documents_with_chunks(chunks: Chunks, split: TokenSplit) -> tuple[Chunks, NDArray[np.float64]]:
    """The chunks, their documents numbered anew without those that have none; and each one's share of bytes."""
    kept, document = np.unique(chunks.document, return_inverse=True)
    tokens = np.bincount(document, weights=chunks.mask.sum(axis=1))
    share = tokens / np.diff(split.document_starts)[kept]
    return chunks._replace(document=document), split.document_bytes[kept] * share

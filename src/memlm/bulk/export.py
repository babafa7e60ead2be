"""Memories written into a store: Parquet, Lance or FAISS."""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from memlm.bulk.destination import ROW_GROUP, parquet_writer
from memlm.bulk.rows import COLUMNS, MEMORY, About, Dtype, about_memories, sign_size
from memlm.bulk.store import FaissStore, VectorStore, compared, open_store, unit
from memlm.runtime.extras import extra
from memlm.runtime.files import atomic_file, sync
from memlm.text.memory import Memory

KINDS = (".parquet", ".lance", ".faiss")
"""What the name of a store ends with."""
_TRAINING_ROWS = 65_536
"""By which an index learns where vectors lie, from all over the store."""
_FATAL = re.compile(r"(?<!\d)0+(?!\d)|(HNSW|NSG)0*1(?!\d)")
"""In the name of an index: some of these end the whole process, or never end."""


class Rows(Protocol):
    """What can be exported, such as a `VectorStore`."""

    about: About

    def __len__(self) -> int:
        """Chunks."""
        ...

    def batches(self) -> Iterator[pa.Table]:
        """All rows, in order, so many at a time, as often as they are asked for."""
        ...


class MemoryRows:
    """Memories as rows; documents are called by their numbers."""

    def __init__(self, memory: Memory, encoder: str = "") -> None:
        self._memory = memory
        self.about = about_memories(memory, encoder, None, signs=sign_size(memory))

    def __len__(self) -> int:
        return len(self._memory.vectors)

    def batches(self) -> Iterator[pa.Table]:
        """All rows."""
        counts = self._memory.num_chunks
        documents = [str(text) for text, count in enumerate(counts) for _ in range(count)]
        chunks = [chunk for count in counts for chunk in range(count)]
        yield table_of(self._memory, self.about, documents, chunks)


def table_of(memory: Memory, about: About, documents: list[str], chunks: list[int]) -> pa.Table:
    """Memories as rows: the document and the number of each chunk."""
    rows = about.column(memory.numpy().reshape(len(documents), -1))
    columns = [documents, chunks, memory.num_tokens.numpy(), rows]
    schema = about.schema(COLUMNS)
    return pa.table(dict(zip(schema.names, columns, strict=True)), schema=schema)


def export(rows: Rows, out: str | Path, *, dtype: Dtype | None = None, index: str | None = None) -> VectorStore:
    """Write rows as a Parquet file, a Lance data set, or a folder with a FAISS index, by the ending of the name.

    Args:
        rows: a store, or memories as `MemoryRows`.
        out: where; ends with one of `KINDS`.
        dtype: of numbers; by default as they are.
        index: what FAISS's index factory takes, such as Flat, HNSW32 or `IVF1024,SQ8`; for signs BFlat or BHNSW32.

    Raises:
        ValueError: the ending is none of these; something is there, or is by the time that this is written, and stays;
            what writes it is not installed; there is no such index; numbers are more than signs; there are no rows.
        OSError: the disk is full or not writable.
    """
    out = Path(out)
    if out.suffix not in KINDS:
        raise ValueError(f"{out} does not say what to write: let its name end with {', '.join(KINDS)}")
    if out.exists():
        raise ValueError(f"{out} exists; give another name")
    if index is not None and out.suffix != ".faiss":
        raise ValueError(f"only FAISS takes an index ({index}); let the name of {out} end with .faiss")
    if index == "":
        raise ValueError("index is empty: name one, such as Flat or HNSW32, or leave it out")
    if not len(rows):
        raise ValueError("there are no memories to export")
    about = rows.about
    if dtype is not None and dtype != about.dtype:
        if "bit" in (dtype, about.dtype):
            raise ValueError(f"these memories are stored as {about.dtype}, which {dtype} cannot stand for")
        about = replace(about, dtype=dtype)
    write = {".parquet": _write_parquet, ".lance": _write_lance}
    with _new(out) as path:
        if out.suffix == ".faiss":
            _write_faiss(rows, about, path, index or ("BFlat" if about.dtype == "bit" else "Flat"))
        else:
            write[out.suffix](_converted(rows, about), path)
    return open_store(out)


@contextmanager
def _new(out: Path) -> Iterator[Path]:
    """What becomes `out`, a file or a folder, when the block ends, unless somebody else has made one meanwhile."""
    try:
        with atomic_file(out, new=True) as path:
            yield path
            for file in path.rglob("*"):
                sync(file)
    except FileExistsError:
        raise ValueError(f"{out} exists; give another name") from None


def _converted(rows: Rows, about: About) -> Iterator[pa.Table]:
    """Rows as another dtype stores them."""
    for table in rows.batches():
        others = table.drop_columns([MEMORY])
        column = about.column(rows.about.vectors(rows.about.stored(table)))
        yield pa.table([*others.columns, column], schema=about.schema(list(others.schema)))


def _write_parquet(tables: Iterator[pa.Table], path: Path) -> None:
    first = next(tables)
    with parquet_writer(path, first.schema) as writer:
        for table in chain([first], tables):
            writer.write_table(table, row_group_size=ROW_GROUP)


def _write_lance(tables: Iterator[pa.Table], path: Path) -> None:
    lance, first = extra("lance", "writing Lance"), next(tables)
    batches = (batch for table in chain([first], tables) for batch in table.to_batches())
    lance.write_dataset(pa.RecordBatchReader.from_batches(first.schema, batches), str(path))


def _write_faiss(rows: Rows, about: About, folder: Path, factory: str) -> None:
    """An index, and beside it what each row is; memories too, if the index does not hold the whole of them."""
    faiss, binary = extra("faiss", "writing FAISS"), about.dtype == "bit"
    if binary and about.search_dim:
        raise ValueError("memories of bits are searched by all of them, but these only by some: export float32")
    width, asked = about.search_dim or about.width, partial(_asked, factory, len(rows), binary)
    with asked():
        if _FATAL.search(factory):
            raise RuntimeError("no number of it may be 0, and a graph has 2 links or more")
        if binary:
            index = faiss.index_binary_factory(width, factory)
        else:
            index = faiss.index_factory(width, factory, faiss.METRIC_INNER_PRODUCT)
    if not index.is_trained:
        sample = _sample(rows)
        with asked():
            index.train(sample)
    kept: list[pa.Table] = []
    for table in _converted(rows, about):
        vectors = _indexed(table, about)
        with asked():
            index.add(vectors)
        kept.append(table if about.search_dim else _without_memory(table, about))
    if hasattr(index, "make_direct_map"):  # of inverted lists
        index.make_direct_map()
        index.nprobe = math.ceil(math.sqrt(index.nlist))  # lists to look through; by default it is one
    if not about.search_dim:
        with asked():
            index.reconstruct(0)  # memories are given back by the index alone
    folder.mkdir()
    pq.write_table(pa.concat_tables(kept), folder / FaissStore.ROWS, compression="zstd")
    (faiss.write_index_binary if binary else faiss.write_index)(index, str(folder / FaissStore.INDEX))


@contextmanager
def _asked(factory: str, num_chunks: int, binary: bool) -> Iterator[None]:
    """A block that asks FAISS for what it may refuse: ValueError then, with indexes that it does not refuse."""
    try:
        yield
    except RuntimeError as error:
        others = "BFlat, BHNSW32" if binary else "Flat, SQ8, HNSW32"
        lists = "BIVF16" if binary else "IVF16,SQ8"
        why = str(error).strip().rpartition(": ")[2]  # behind the places in FAISS's source
        raise ValueError(
            f"index={factory!r} cannot be made of these {num_chunks:,} chunks ({why}); take {others}, or lists that "
            f"are fewer than the chunks, such as {lists}"
        ) from None


def _indexed(table: pa.Table, about: About) -> NDArray[Any]:
    """What an index is given of rows."""
    stored = about.stored(table)
    return stored if about.dtype == "bit" else unit(compared(about.vectors(stored), about))


def _sample(rows: Rows) -> NDArray[Any]:
    """Of all rows, evenly."""
    step = max(1, len(rows) // _TRAINING_ROWS)
    return np.concatenate([_indexed(table, rows.about)[::step] for table in rows.batches()])


def _without_memory(table: pa.Table, about: About) -> pa.Table:
    """Rows whose memories an index holds but for their lengths."""
    rows = table.drop_columns([MEMORY])
    if about.dtype == "bit":
        return rows
    lengths = np.linalg.norm(about.vectors(about.stored(table)), axis=1)
    return rows.append_column(FaissStore.LENGTH, pa.array(lengths, pa.float32()))

"""`memlm export-vectors` and `memlm nearest`: stores that memories are searched in."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from memlm.cli.command import Answer, Command, UsesModel
from memlm.runtime.wording import printable

if TYPE_CHECKING:
    from memlm.bulk.export import Rows
    from memlm.bulk.rows import About
    from memlm.store.file import MemoryFile

_CHUNKS_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True)
class ExportVectors(Command):
    """Write memories into a vector store: Parquet, Lance or FAISS, by the ending of its name.

    memlm export-vectors memories -o memories.faiss

    memlm export-vectors notes.memory -o notes.lance

    memlm export-vectors memories -o small.faiss --index IVF1024,SQ8

    A FAISS store is a folder with an index, which also returns the memories, and a table that says which chunk each row
    is. If the memories are signs, the index is binary and is searched by Hamming distance. Lance needs pip install
    'memlm[lance]', FAISS 'memlm[faiss]'.
    """

    out_is_folder = False

    source: tyro.conf.Positional[Path]
    """The memories to write: what memlm encode-corpus or memlm export-vectors wrote, a memory file of memlm remember,
    or a file of Memory.save."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The store to write; its name ends with .parquet, .lance or .faiss."""
    dtype: Literal["float32", "float16"] | None = None
    """How each number is stored; by default as in the source."""
    index: str | None = None
    """The FAISS index, as a string for FAISS's index factory, such as HNSW32 or IVF1024,SQ8, or BHNSW32 for signs. By
    default a flat index, which compares the query with every memory."""

    def run(self) -> Answer:
        """Write it."""
        from memlm.bulk.export import export
        from memlm.store.store import DamagedChunkError

        try:
            rows = rows_of(self.source)
            store = export(rows, self.out, dtype=self.dtype, index=self.index)
        except DamagedChunkError as error:
            raise ValueError(
                f"{error.where} is {error.why}; memlm recall --skip-damaged writes the text of the others, which memlm "
                "remember makes a whole file of"
            ) from None
        paths = [self.out] if self.out.is_file() else [path for path in self.out.rglob("*") if path.is_file()]
        num_bytes = sum(path.stat().st_size for path in paths)
        self.say(f"{len(store)} chunks in {self.out}, {num_bytes / len(store):.0f} bytes each")
        num_raw = rows.num_raw if isinstance(rows, _NotesRows) else 0
        if num_raw:
            self.say(f"{num_raw} chunks of {self.source} are raw text, which has no vector: they are left out")
        sizes = {"chunks": len(store), "raw_chunks": num_raw, "bytes": num_bytes}
        return {"out": str(self.out), **sizes, "encoder": store.about.encoder}


@dataclass(frozen=True, kw_only=True)
class Nearest(UsesModel):
    """Find the memories nearest to a text's, and print their chunks, regenerated from the vectors.

    memlm nearest memories 'She was the youngest of the two daughters'

    Whole memories are compared by cosine, so the nearest chunks are those with nearly the same words. If the encoder
    was trained for search (memlm train searchable), memories are compared by meaning.
    """

    store: tyro.conf.Positional[Path]
    """The store to search, which memlm encode-corpus or memlm export-vectors wrote."""
    query: tyro.conf.Positional[str]
    """The text to look for. Only its first chunk is used."""
    most: int = 5
    """Number of chunks to show, the nearest first."""
    model: str | None = None
    """The encoder, needed only if it is no longer where the store says."""

    def run(self) -> Answer:
        """Search, and show."""
        import memlm
        from memlm.bulk.store import open_store
        from memlm.store.store import file_version

        if self.store.is_file() and file_version(self.store):
            raise ValueError(f"{self.store} is a file of memories: memlm export-vectors makes a store of it")
        store = open_store(self.store)
        name = self.model or store.about.encoder
        if not name:
            raise ValueError(f"{self.store} does not name its encoder ({store.about.fingerprint}): give it as --model")
        model = memlm.load(name, device=self.device)
        query = model.encode([self.query])
        if not query.num_chunks[0]:
            raise ValueError("an empty text is nothing to look for")
        if len(query.vectors) > 1:
            self.say(f"This text has {len(query.vectors)} chunks; only the first is looked for.\n")
        found = store.search(query, self.most)
        rows = store.rows(found.row[0])
        texts = model.regenerate(store.about.memory(rows))
        answer = [
            {
                "score": float(score),
                "document": row["document"],
                "chunk": row["chunk"],
                "text": text,
                "proven": text.proven,
            }
            for score, row, text in zip(
                found.score[0], rows.select(["document", "chunk"]).to_pylist(), texts, strict=True
            )
        ]
        for one in answer:
            self.say(printable(f"{one['score']:.3f}  {one['document'] or '(no name)'}, chunk {one['chunk']}"))
            self.say(printable("    " + " ".join(one["text"].split()) + "\n"))
        return {"found": answer, "chunks": len(store), "query_chunks": len(query.vectors)}


def rows_of(source: Path) -> "Rows":
    """Memories to export.

    Raises:
        ValueError: there are none.
    """
    from memlm.bulk.export import MemoryRows
    from memlm.bulk.store import open_store
    from memlm.store.file import MemoryFile
    from memlm.store.store import file_version
    from memlm.text.memory import Memory

    if source.is_file() and source.suffix == ".safetensors":
        return MemoryRows(Memory.load(source))
    if source.is_file() and file_version(source):
        return _NotesRows(MemoryFile.open(source))
    return open_store(source)


class _NotesRows:
    """The memories of a file of memlm remember; chunks have the numbers that memlm recall takes."""

    def __init__(self, notes: "MemoryFile") -> None:
        from memlm.bulk.rows import about_memories

        self._notes = notes
        self._names = [one.name for one in notes.documents for _ in range(one.start_chunk, one.stop_chunk)]
        self._is_raw = [chunk.kind == "raw" for chunk in notes.chunks]
        self.num_raw = sum(self._is_raw)
        first = 0 if not len(self) else self._is_raw.index(False)
        one = notes.memories(first, first + min(len(self), 1))
        self.about: About = about_memories(one, notes.about.encoder, "float32")

    def __len__(self) -> int:
        return len(self._is_raw) - self.num_raw

    def batches(self) -> "Iterator[Any]":
        """All rows."""
        from memlm.bulk.export import table_of

        for begin in range(0, len(self._is_raw), _CHUNKS_AT_ONCE):
            end = min(begin + _CHUNKS_AT_ONCE, len(self._is_raw))
            some = [number for number in range(begin, end) if not self._is_raw[number]]
            memory = self._notes.memories(begin, end)
            if some:
                yield table_of(memory, self.about, [self._names[number] for number in some], some)

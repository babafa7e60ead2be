"""`memlm bench store`."""

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
import tyro
from jaxtyping import Int
from numpy.typing import NDArray

from memlm.bulk.export import MemoryRows, Rows, export, table_of
from memlm.bulk.rows import About
from memlm.bulk.store import BATCH_ROWS, Found, VectorStore, exact, open_store
from memlm.cli.command import Answer, ReadsText, UsesModel
from memlm.cli.show import print_table
from memlm.data.texts import evaluation_documents
from memlm.runtime.progress import track
from memlm.runtime.tables import Table
from memlm.runtime.wording import number
from memlm.text.autoencoder import TextAutoencoder
from memlm.text.memory import Memory
from memlm_evidence.benchmarks.measuring import made_here

NEAREST = 10
FLOATS = ("out.lance", "Flat", "SQfp16", "SQ8", "SQ4", "PQ64", "IVF1024,SQ8", "HNSW32")
SIGNS = ("out.lance", "BFlat", "BIVF1024", "BHNSW32")
_SIGNS_OF_FLOATS = "signs of floats, BFlat"
_GIVEN_BACK = 64
"""Chunks that are regenerated from each store."""


@dataclass(frozen=True, kw_only=True)
class StoreBenchmark(UsesModel, ReadsText):
    """Compare vector stores of memories with exact search in float32: what they find, their size, what they give back.

    memlm bench store --num-vectors 100000 --json

    memlm bench store --memories crawl-memories --queries questions.txt --json

    Needs pip install 'memlm[lance,faiss]'.
    """

    model: tyro.conf.Positional[str] = "english"
    """An autoencoder that ships with memlm, a checkpoint folder, or a Hugging Face hub name."""
    text: tuple[str, ...] = ()
    """Text to encode: files or globs; by default a novel that comes with memlm."""
    num_vectors: int = 100_000
    """Number of vectors in the store: the memories of the text, filled up with mixtures of two memories each."""
    memories: Path | None = None
    """Use exactly the memories that memlm encode-corpus --text wrote to this folder, instead of encoding a text."""
    queries: tuple[str, ...] = ()
    """Text whose full chunks are the queries: files or globs; by default verse that comes with memlm."""
    num_queries: int = 200
    """Use at most this many queries."""
    kinds: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A store to measure: a string for FAISS's index factory, or out.lance. Repeat --kinds for several; by default the
    usual ones."""

    def run(self) -> Answer:
        """`recall_at_10`: the share of a query's ten nearest, by exact search, that a store finds; of signs, of which
        many are as near as each other, of those as near. `index_bytes` and `table_bytes` for a chunk; `given_back`,
        the share of real chunks whose text is regenerated exactly from what the store holds, and
        `given_back_directly`, without one; `query_ms`, on one thread, all queries at once.
        """
        model = TextAutoencoder.from_pretrained(self.model, device=self.device)
        rows, sample = self._stored(model) if self.memories else self._made(model)
        asked = model.encode(self._texts(self.queries, "verse"))
        full = asked.num_tokens == model.config.shape.chunk_len
        queries = asked.vectors[full][: self.num_queries].flatten(1).numpy()
        torch.set_num_threads(1)
        right = exact(queries, (rows.about.stored(table) for table in rows.batches()), rows.about, NEAREST)
        kinds = self.kinds or (SIGNS if rows.about.dtype == "bit" else (*FLOATS, _SIGNS_OF_FLOATS))
        measured = []
        num_bytes = len(rows) * rows.about.row_bytes
        with track("Storing", total=len(kinds) * num_bytes, unit="bytes") as advance:
            for kind in kinds:
                measured.append(_row(kind, rows, queries, right, sample, model))
                advance(num_bytes)
        answer = {
            "rows": measured,
            "num_vectors": len(rows),
            "num_real": rows.num_real if isinstance(rows, MadeRows) else len(rows),
            "num_queries": len(queries),
            "float32_bytes": 4 * rows.about.width,
            "given_back_directly": _given_back(sample.memory, sample, model),
            **made_here(model=model.provenance, encoder=model.encoder_fingerprint),
        }
        self._show(answer)
        return answer

    def _texts(self, patterns: tuple[str, ...], otherwise: str) -> list[str]:
        return self.documents(patterns) if patterns else [each.text for each in evaluation_documents(otherwise)]

    def _made(self, model: TextAutoencoder) -> tuple["MadeRows", "Sample"]:
        """Memories of a text, and vectors made of them."""
        ids, length = model.tokenizer.encode_batch(self._texts(self.text, "novel")), model.config.shape.chunk_len
        chunks = [text[begin : begin + length] for text in ids for begin in range(0, len(text), length)]
        memory = model.encode_tokens([text.tolist() for text in ids])
        rows = MadeRows(memory, self.num_vectors, model.source)
        places = _all_over(rows.num_real)
        texts = [model.tokenizer.decode(chunks[place]) for place in places]
        return rows, Sample(places, rows.memory(places), texts)

    def _stored(self, model: TextAutoencoder) -> tuple[VectorStore, "Sample"]:
        """Memories that were encoded before."""
        rows = open_store(self.memories or "")
        if rows.about.fingerprint != model.encoder_fingerprint:
            raise ValueError(f"encoder {rows.about.fingerprint} made {self.memories}, not {self.model}")
        places = _all_over(len(rows))
        some = rows.rows(places)
        if "text" not in some.column_names:
            raise ValueError(f"{self.memories} has no texts; write them with memlm encode-corpus --text")
        return rows, Sample(places, rows.about.memory(some), some.column("text").to_pylist())

    def _show(self, answer: Mapping[str, Any]) -> None:
        names = ("recall_at_10", "index_bytes", "table_bytes", "given_back", "query_ms", "build_seconds")
        rows = [[row["kind"], *(number(row[name], 3) for name in names)] for row in answer["rows"]]
        note = (
            f"{answer['num_vectors']} vectors, {answer['num_real']} of them memories of text; in float32 each takes "
            f"{answer['float32_bytes']} bytes, and {answer['given_back_directly']:.3f} of the texts come back exactly."
        )
        print_table(self.console(), Table(["store", "recall", "bytes", "table", "given back", "ms", "s"], rows), note)


class Sample(NamedTuple):
    """Real chunks, whose texts are regenerated from what each store holds of them."""

    places: Int[np.ndarray, " chunk"]
    """Their rows."""
    memory: Memory
    texts: Sequence[str]


def _all_over(num_rows: int) -> Int[np.ndarray, " chunk"]:
    """Rows from all over a store."""
    return np.linspace(0, num_rows - 1, _GIVEN_BACK).astype(np.int64)


class MadeRows(MemoryRows):
    """Real memories, and then vectors between two of them each, anew whenever they are read; of signs, some of each."""

    def __init__(self, memory: Memory, number: int, encoder: str) -> None:
        super().__init__(memory, encoder)
        self._real = memory.vectors.flatten(1).numpy()[:number]
        self._tokens = memory.num_tokens.numpy()[:number]
        self.num_real, self._number = len(self._real), number

    def memory(self, places: Int[np.ndarray, " chunk"]) -> Memory:
        """The memories of some real chunks."""
        return self.about.memory_of(self._real[places], self._tokens[places])

    def __len__(self) -> int:
        return self._number

    def batches(self) -> Iterator[pa.Table]:
        """All rows."""
        yield self._table(self._real, 0)
        for begin in range(self.num_real, self._number, BATCH_ROWS):
            random = np.random.default_rng([0, begin])
            some = min(BATCH_ROWS, self._number - begin)
            one, other = random.integers(self.num_real, size=(2, some))
            if self.about.dtype == "bit":
                first = random.random((some, 1)) > random.random((some, self.about.width))
                vectors = np.where(first, self._real[one], self._real[other])
            else:
                share = random.random((some, 1), dtype=np.float32)
                vectors = share * self._real[one] + (1 - share) * self._real[other]
                vectors /= np.sqrt(np.square(vectors).mean(1, keepdims=True))
            yield self._table(vectors, begin)

    def _table(self, vectors: NDArray[np.float32], begin: int) -> pa.Table:
        tokens = np.resize(self._tokens, begin + len(vectors))[begin:]
        memory = self.about.memory_of(vectors, tokens)
        return table_of(memory, self.about, ["made"] * len(vectors), [*range(begin, begin + len(vectors))])


class _Signs:
    """The signs of such vectors."""

    def __init__(self, rows: Rows) -> None:
        self._rows, self.about = rows, replace(rows.about, dtype="bit")

    def __len__(self) -> int:
        return len(self._rows)

    def batches(self) -> Iterator[pa.Table]:
        """All rows."""
        for table in self._rows.batches():
            vectors = self._rows.about.vectors(self._rows.about.stored(table))
            yield table.drop_columns(["memory"]).append_column("memory", self.about.column(vectors))


def _row(
    kind: str, rows: Rows, queries: NDArray[np.float32], right: Found, sample: Sample, model: TextAutoencoder
) -> dict[str, Any]:
    """What a store finds of the right rows, takes, and gives back."""
    signs_of_floats = kind == _SIGNS_OF_FLOATS
    with tempfile.TemporaryDirectory() as folder:
        out, begin = Path(folder) / (kind if kind.endswith(".lance") else "out.faiss"), time.monotonic()
        index = None if out.suffix == ".lance" else "BFlat" if signs_of_floats else kind
        store: VectorStore = export(_Signs(rows) if signs_of_floats else rows, out, index=index)
        built = time.monotonic() - begin
        begin = time.monotonic()
        found = store.search(queries, NEAREST)
        seconds = time.monotonic() - begin
        sizes = {path.name: path.stat().st_size for path in out.rglob("*") if path.is_file()}
        table = sizes.pop("rows.parquet", 0)
        back = None if signs_of_floats else _given_back(store.memory(sample.places), sample, model)
    return {
        "kind": kind,
        "recall_at_10": _recall(found, right, rows.about),
        "index_bytes": sum(sizes.values()) / len(rows),
        "table_bytes": table / len(rows),
        "given_back": back,
        "query_ms": 1000 * seconds / len(queries),
        "build_seconds": built,
    }


def _recall(found: Found, right: Found, about: About) -> float:
    if about.dtype == "bit":
        return float((found.score >= right.score[:, -1:] - 1e-6).mean())
    return float((found.row[:, :, None] == right.row[:, None]).any(1).mean())


def _given_back(stored: Memory, sample: Sample, model: TextAutoencoder) -> float:
    """The share of real chunks whose text is regenerated exactly from what is stored of them."""
    pairs = zip(model.regenerate(stored), sample.texts, strict=True)
    return sum(back == text for back, text in pairs) / len(sample.texts)

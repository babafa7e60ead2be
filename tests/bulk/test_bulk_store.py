"""Stores: what they find is what exact search finds, and what is found is given back from its vector."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import memlm as library
from command_line import Memlm, assert_refused
from memlm import Memory, MemoryFile, TextAutoencoder
from memlm.bulk.export import MemoryRows, export, table_of
from memlm.bulk.rows import About
from memlm.bulk.store import FaissStore, VectorStore, open_store
from memlm.data.texts import evaluation_documents

ENDINGS = (".parquet", ".lance", ".faiss")
each_kind = pytest.mark.parametrize("ending", ENDINGS)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [document.text[:2000] for document in evaluation_documents("novel")[:8]]


@pytest.fixture(scope="module")
def memory(trained: TextAutoencoder, texts: list[str]) -> Memory:
    return trained.encode(texts)


def brute_force(vectors: torch.Tensor, query: torch.Tensor, most: int) -> torch.Tensor:
    """Cosines of the nearest, one query at a time."""
    cosines = torch.nn.functional.cosine_similarity(query.flatten(1).double()[:, None], vectors.flatten(1).double(), -1)
    return cosines.sort(descending=True).values[:, :most]


@each_kind
def test_a_store_finds_what_exact_search_finds_and_gives_memories_back(
    ending: str, memory: Memory, tmp_path: Path
) -> None:
    store = export(MemoryRows(memory), tmp_path / f"out{ending}")
    assert len(store) == len(memory.vectors) > 500
    queries = memory.vectors[::97] + 0.3 * torch.randn_like(memory.vectors[::97])
    found = store.search(queries.flatten(1).numpy(), 10)
    np.testing.assert_allclose(found.score, brute_force(memory.vectors, queries, 10), atol=1e-5)
    order = np.random.default_rng(0).permutation(len(store))[:50]
    back = store.memory(order)
    tolerance = 1e-5 if ending == ".faiss" else 0.0
    torch.testing.assert_close(back.vectors, memory.vectors[order], atol=tolerance, rtol=0)
    assert back.num_tokens.tolist() == memory.num_tokens[order].tolist()
    assert back.encoder == memory.encoder
    rows = store.rows(found.row[0]).to_pylist()
    starts = np.cumsum([0, *memory.num_chunks])
    assert [starts[int(row["document"])] + row["chunk"] for row in rows] == found.row[0].tolist()
    itself = store.search(store.memory([3, 200]), 1)
    assert itself.row[:, 0].tolist() == [3, 200]
    assert len(store.memory([]).vectors) == 0
    with pytest.raises(IndexError, match=f"rows 0:{len(store)}"):
        store.rows([len(store)])


@each_kind
def test_of_two_exports_into_one_name_the_later_is_refused(ending: str, memory: Memory, tmp_path: Path) -> None:
    out = tmp_path / f"out{ending}"

    class Overtaken(MemoryRows):
        def batches(self) -> Iterator[pa.Table]:
            export(MemoryRows(memory[:1]), out)
            return super().batches()

    with pytest.raises(ValueError, match=rf"out{ending} exists; give another name"):
        export(Overtaken(memory[1:3]), out)
    assert len(open_store(out)) == memory.num_chunks[0] != sum(memory.num_chunks[1:3])
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_a_store_is_written_to_lance_a_table_at_a_time(
    memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be larger than memory."""
    made, write = list[int](), lance.write_dataset

    class Counted(MemoryRows):
        def batches(self) -> Iterator[pa.Table]:
            for number in range(3):
                made.append(number)
                yield from super().batches()

    def watched(batches: pa.RecordBatchReader, path: str) -> None:
        assert made == [0]
        write(batches, path)

    monkeypatch.setattr(lance, "write_dataset", watched)
    assert len(export(Counted(memory[0]), tmp_path / "out.lance")) == 3 * memory.num_chunks[0]


@each_kind
def test_signs_are_found_by_how_many_differ(ending: str, signs: str, texts: list[str], tmp_path: Path) -> None:
    memory = library.load(signs, device="cpu").encode(texts)
    store = export(MemoryRows(memory), tmp_path / f"out{ending}")
    assert (store.about.dtype, store.about.row_bytes) == ("bit", 4)
    queries = memory.vectors[::97] * torch.where(torch.rand_like(memory.vectors[::97]) < 0.1, -1, 1)
    found = store.search(queries.flatten(1).numpy(), 10)
    np.testing.assert_allclose(found.score, brute_force(memory.vectors, queries, 10), atol=1e-6)
    assert store.memory(found.row[0]).vectors.equal(memory.vectors[found.row[0]])
    assert all(len(set(row)) == 10 for row in found.row.tolist())


@pytest.mark.parametrize("index", ["HNSW16", "IVF8,SQ8", "SQfp16"])
def test_other_indexes_find_most_and_give_memories_nearly_back(index: str, memory: Memory, tmp_path: Path) -> None:
    exact = export(MemoryRows(memory), tmp_path / "exact.parquet")
    store = export(exact, tmp_path / "out.faiss", index=index)
    some = exact.memory(range(0, len(exact), 31))
    right = exact.search(some, 10).row[..., None] == store.search(some, 10).row[:, None]
    assert right.any(2).mean() > 0.5
    back = store.memory(range(len(store)))
    assert torch.nn.functional.cosine_similarity(back.vectors, memory.vectors, dim=-1).min() > 0.99
    again = export(store, tmp_path / "again.parquet", dtype="float16")
    assert (again.about.dtype, again.about.row_bytes) == ("float16", 64)


@each_kind
def test_what_is_searched_by_meaning_is_compared_by_its_last_dimensions(
    ending: str, memory: Memory, tmp_path: Path
) -> None:
    class Searched(MemoryRows):
        def __init__(self) -> None:
            super().__init__(memory)
            self.about = replace(self.about, search_dim=12)

    store = export(Searched(), tmp_path / f"out{ending}")
    found = store.search(store.memory([5, 40]), 10)
    part = memory.vectors[..., -12:]
    np.testing.assert_allclose(found.score, brute_force(part, part[[5, 40]], 10), atol=1e-5)
    assert store.memory(found.row[0]).vectors.equal(memory.vectors[found.row[0]])


@each_kind
def test_a_file_of_memories_is_exported_and_a_found_chunk_is_regenerated(
    ending: str, texts: list[str], memlm: Memlm, tmp_path: Path
) -> None:
    notes = MemoryFile.create(tmp_path / "notes.memory", "english", {"one": texts[0], "two": texts[1]}, device="cpu")
    out = tmp_path / f"out{ending}"
    answer = memlm("export-vectors", notes.path, "--out", out, "--json").json()
    kept = [number for number, chunk in enumerate(notes.chunks) if chunk.kind != "raw"]
    assert (answer["chunks"], answer["raw_chunks"]) == (len(kept), notes.num_chunks - len(kept))
    chunk = next(number for number, chunk in enumerate(notes.chunks) if chunk.kind == "exact" and number > 3)
    text = notes.text(chunk, chunk + 1)
    first, *others = memlm("nearest", out, text, "--most", "3", "--device", "cpu", "--json").json()["found"]
    assert (first["text"], first["chunk"]) == (text, chunk)
    assert first["document"] == ("one" if chunk < notes.documents[0].stop_chunk else "two")
    assert first["score"] > 0.999 > others[0]["score"] > others[1]["score"]


def test_memories_that_were_saved_are_exported(memory: Memory, memlm: Memlm, tmp_path: Path) -> None:
    memory.save(tmp_path / "memory.safetensors")
    answer = memlm("export-vectors", tmp_path / "memory.safetensors", "-o", tmp_path / "out.parquet", "--json").json()
    assert answer["chunks"] == len(memory.vectors)
    assert open_store(tmp_path / "out.parquet").memory(range(9)).vectors.equal(memory.vectors[:9])
    nameless = memlm("nearest", tmp_path / "out.parquet", "the memory")
    assert_refused(nameless, "does not name its encoder", "--model")
    shown = memlm("nearest", tmp_path / "out.parquet", "the memory", "--model", "english")
    assert_refused(shown, "made these queries")
    MemoryFile.create(tmp_path / "notes.memory", "english", {"one": "a"}, device="cpu")
    assert_refused(memlm("nearest", tmp_path / "notes.memory", "a"), "export-vectors makes a store of it")


def test_rows_in_several_files_are_one_store(memory: Memory, tmp_path: Path) -> None:
    """Files of several row groups, of which only some are read."""
    half = len(memory) // 2
    for name, part in (("part-0", memory[:half]), ("part-1", memory[half:])):
        export(MemoryRows(part), tmp_path / f"{name}.parquet")
    store = open_store(tmp_path)
    rows = [len(store) - 1, 0, 7, sum(memory.num_chunks[:half]), 7]
    assert store.memory(rows).vectors.equal(memory.vectors[rows])
    export(MemoryRows(replace(memory[0], encoder="another")), tmp_path / "part-2.parquet")
    with pytest.raises(ValueError, match=r"part-2.parquet holds other memories"):
        open_store(tmp_path)


def test_what_cannot_be_exported_is_refused(memory: Memory, signs: str, memlm: Memlm, tmp_path: Path) -> None:
    source = tmp_path / "memory.safetensors"
    memory.save(source)
    (tmp_path / "there.lance").mkdir()
    (tmp_path / "words.txt").write_text("no memories")
    (tmp_path / "empty").touch()
    for given, out, options, words in (
        (source, "out.npy", [], ["out.npy does not say", ".faiss"]),
        (source, "there.lance", [], ["there.lance exists"]),
        (source, "out.parquet", ["--index", "Flat"], ["only FAISS takes an index"]),
        (source, "out.faiss", ["--index", "Nonsense7"], ["--index Nonsense7 cannot be made", "take Flat, SQ8, HNSW32"]),
        (source, "out.faiss", ["--index", "IDMap,Flat"], ["--index IDMap,Flat cannot be made"]),
        (source, "out.faiss", ["--index", "PCA4,IVF2,Flat"], ["--index PCA4,IVF2,Flat cannot be made"]),
        (source, "out.faiss", ["--index", "IVF1024,Flat"], ["--index IVF1024,Flat cannot be made of", "take Flat"]),
        (source, "out.faiss", ["--index", "HNSW0"], ["--index HNSW0 cannot be made", "2 links or more"]),
        (source, "out.faiss", ["--index", "IVF4_HNSW01,Flat"], ["2 links or more"]),
        (source, "out.faiss", ["--index", "PQ4x0"], ["no number of it may be 0"]),
        (source, "out.faiss", ["--index", ""], ["index is empty", "leave it out"]),
        (tmp_path / "none", "out.faiss", [], ["no store of memories"]),
        (tmp_path, "out.faiss", [], ["holds no memories"]),
        (tmp_path / "words.txt", "out.faiss", [], ["cannot read", "words.txt, a text file, as a store"]),
        (tmp_path / "empty", "out.faiss", [], ["empty, an empty file, as a store"]),
    ):
        assert_refused(memlm("export-vectors", given, "--out", tmp_path / out, *options), *words)
    assert {path.name for path in tmp_path.iterdir()} == {"memory.safetensors", "there.lance", "words.txt", "empty"}
    few = library.load(signs, device="cpu").encode(["the memory"])
    with pytest.raises(ValueError, match="stored as bit, which float16 cannot"):
        export(MemoryRows(few), tmp_path / "out.parquet", dtype="float16")
    for index in ("Flat,SQ8", "BHash4", "BHNSW1"):
        with pytest.raises(ValueError, match=f"index='{index}' cannot be made .* take BFlat"):
            export(MemoryRows(few), tmp_path / "out.faiss", index=index)
    with pytest.raises(ValueError, match="no memories to export"):
        export(MemoryRows(memory[[]]), tmp_path / "out.parquet")


def test_what_cannot_be_searched_is_refused(memory: Memory, tmp_path: Path) -> None:
    store = export(MemoryRows(memory), tmp_path / "out.faiss")
    with pytest.raises(ValueError, match=r"\[query 32\] here, not \[1, 31\]"):
        store.search(np.zeros((1, 31), np.float32))
    with pytest.raises(ValueError, match="encoder another made these queries"):
        store.search(replace(memory, encoder="another"))
    with pytest.raises(ValueError, match="0 chunks cannot be found; ask for 1 or more"):
        store.search(memory, 0)
    pq.write_table(store.rows([]), tmp_path / "none.parquet")
    with pytest.raises(ValueError, match="this store is empty"):
        open_store(tmp_path / "none.parquet").search(memory)
    index = tmp_path / "out.faiss" / FaissStore.INDEX
    index.write_bytes(index.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"index.faiss is damaged"):
        open_store(tmp_path / "out.faiss")


@pytest.mark.parametrize("module", ["lance", "faiss"])
def test_a_missing_library_is_named(
    module: str, memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=rf"pip install 'memlm\[{module}\]'"):
        export(MemoryRows(memory), tmp_path / f"out.{module}")


def test_tables_have_a_schema_that_says_what_they_are(memory: Memory) -> None:
    rows = MemoryRows(memory, "tiny")
    table = table_of(memory[0], rows.about, ["a"] * memory.num_chunks[0], [*range(memory.num_chunks[0])])
    assert About.of(table.schema, "it") == rows.about
    assert table.schema.field("memory").type == pa.list_(pa.float32(), 32)
    assert isinstance(rows.about, About)
    assert VectorStore.__abstractmethods__ == {"__len__", "batches", "rows"}

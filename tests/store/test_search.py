"""Search in memory files: what is there is found, with its exact text."""

import json
import random
from pathlib import Path

import pytest
import torch

from command_line import Memlm
from memlm import MemoryFile, TextAutoencoder
from memlm.store.search import Found
from memlm.text.memory import Memory
from tiny import SENTENCE

RAW = "a" * 200


def words(seed: int, number: int = 5) -> str:
    return " ".join(random.Random(seed).choices(SENTENCE.split(), k=number))


@pytest.fixture
def notes(searched: TextAutoencoder, tmp_path: Path) -> MemoryFile:
    return MemoryFile.create(tmp_path / "a.memory", searched, {str(seed): words(seed) for seed in range(20)}, bits=32)


def found_text(notes: MemoryFile, query: str) -> str:
    return notes.find(query, 1)[0].text


def test_each_chunk_is_what_is_nearest_to_its_own_text(notes: MemoryFile) -> None:
    whole = [number for number, chunk in enumerate(notes.chunks) if chunk.kind != "raw"]
    assert len(whole) > 15
    for number in whole:
        text = notes.text(number, number + 1)
        best = notes.find(text, 3)
        assert [type(one) for one in best] == [Found] * 3
        assert (best[0].text, best[0].score) == (text, pytest.approx(1, abs=2e-3))
        assert best[0].document == notes._store.document_of(best[0].chunk).name
        assert best[0].score >= best[1].score >= best[2].score
        assert len({one.chunk for one in best}) == 3


def test_nearest_is_by_the_cosine(notes: MemoryFile, searched: TextAutoencoder) -> None:
    scores = notes.memories().search_vectors @ searched.search_vectors(["the text"])[0]
    found = notes.find("the text", notes.num_chunks + 5)
    assert sorted(one.chunk for one in found) == [*range(notes.num_chunks)]
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    by_chunk = {one.chunk: one.score for one in found}
    whole = [by_chunk[number] for number, chunk in enumerate(notes.chunks) if chunk.kind != "raw"]
    torch.testing.assert_close(torch.tensor(whole), scores, atol=2e-3, rtol=0)


def test_what_is_added_is_found_and_what_is_forgotten_is_not(notes: MemoryFile, searched: TextAutoencoder) -> None:
    added = words(100, 3)
    assert found_text(notes, added) != added
    notes.append(added, name="later", target=0)
    assert notes.find(added, 1)[0].document == "later"
    notes.forget(notes.num_chunks - 1, notes.num_chunks)
    assert found_text(notes, added) != added
    assert found_text(MemoryFile.open(notes.path, searched), words(3)[:30]) in notes.text()


def test_text_that_is_stored_raw_is_found(notes: MemoryFile) -> None:
    notes.append(RAW, name="raw", target=0)
    assert "raw" in {chunk.kind for chunk in notes.chunks[notes.documents[-1].start_chunk :]}
    assert notes.find(RAW[:4], 40)[0].document == "raw"
    assert sorted(one.chunk for one in notes.find(RAW[:4], 1000)) == [*range(notes.num_chunks)]


def test_damaged_chunks_are_told_and_left_out(notes: MemoryFile, searched: TextAutoencoder) -> None:
    record, data = notes._store._block(2, 3).data, bytearray(notes.path.read_bytes())
    data[data.index(record) + 20] ^= 1
    notes.path.write_bytes(data)
    again, damage = MemoryFile.open(notes.path, searched), []
    with pytest.raises(ValueError, match=r"chunk 2 .*damaged"):
        again.find("one")
    chunks = [one.chunk for one in again.find("one", 1000, on_damage=damage.append)]
    assert sorted(chunks) == [number for number in range(again.num_chunks) if number != 2]
    assert [error.number for error in damage] == [2]
    assert again.find("one", 1, on_damage=damage.append)[0].chunk == chunks[0]


def test_an_empty_file_has_nothing(searched: TextAutoencoder, tmp_path: Path) -> None:
    assert MemoryFile.create(tmp_path / "none.memory", searched).find("one") == []


def test_few_bits_are_enough(searched: TextAutoencoder, tmp_path: Path) -> None:
    documents = {str(seed): words(seed, 8) for seed in range(20)}
    for bits in (8, 6, 4):
        notes = MemoryFile.create(tmp_path / f"{bits}.memory", searched, documents, bits=bits)  # type: ignore[arg-type]
        assert dict(notes.items()) == documents
        whole = [number for number, chunk in enumerate(notes.chunks) if chunk.kind != "raw"]
        made = searched.encode([notes.text(number, number + 1) for number in whole]).search_vectors
        assert ((notes.memories().search_vectors * made).sum(1) > {8: 0.999, 6: 0.99, 4: 0.95}[bits]).all()


def test_what_cannot_be_searched_says_so(notes: MemoryFile, trained: TextAutoencoder, tmp_path: Path) -> None:
    plain = MemoryFile.create(tmp_path / "plain.memory", trained, {"a": "one two"})
    for search in (lambda: plain.find("one"), lambda: plain.memories().search_vectors):
        with pytest.raises(ValueError, match="cannot be searched"):
            search()
    for query, most, why in (("", 1, "has 0"), (words(0, 80), 1, "1 to 16 tokens"), ("one", 0, "positive")):
        with pytest.raises(ValueError, match=why):
            notes.find(query, most)
    with pytest.raises(ValueError, match="surrogate"):
        notes.find("\ud800")
    with pytest.raises(ValueError, match="of 4 dimensions, 4"):
        Memory(vectors=torch.ones(1, 1, 4), num_tokens=torch.ones(1), num_chunks=(1,), encoder="a+b", search_dim=4)


def test_memories_keep_what_they_are_searched_by(searched: TextAutoencoder, tmp_path: Path) -> None:
    memory = searched.encode([words(0), "one"])
    memory.save(tmp_path / "m.safetensors")
    loaded = Memory.load(tmp_path / "m.safetensors")
    assert torch.equal(loaded.search_vectors, memory.search_vectors)
    assert torch.equal(memory[1].search_vectors, Memory.concat([memory[1], memory[0]])[0].search_vectors)
    assert torch.equal(memory.of_text.of_text.vectors, memory.of_text.vectors)
    torch.testing.assert_close(memory.search_vectors.norm(dim=1), torch.ones(len(memory.vectors)))


def test_the_command(memlm: Memlm, searched: TextAutoencoder, tmp_path: Path) -> None:
    model, notes = tmp_path / "model", tmp_path / "notes.memory"
    searched.save_pretrained(model)
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(words(ord(name)), encoding="utf-8")
    assert memlm("remember", tmp_path / "*.txt", "-o", notes, "--model", model).code == 0
    done = memlm("find", notes, words(ord("b"))[:20], "--most", 2, "--json")
    assert done.code == 0, done.err
    first, second = json.loads(done.data)["found"]
    assert first["document"].endswith("b.txt")
    assert first["text"] in words(ord("b"))
    assert first["score"] >= second["score"]
    shown = memlm("find", notes, words(ord("b"))[:20], "--most", 1)
    assert f"b.txt, chunk {first['chunk']}" in shown.data.decode()
    recalled = memlm("recall", notes, "--chunks", f"{first['chunk']}:{first['chunk'] + 1}")
    assert recalled.data.decode() == first["text"]
    refused = memlm("find", notes, "")
    assert (refused.code, refused.data) == (2, b"")
    assert "1 to 16 tokens" in refused.err

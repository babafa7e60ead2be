"""A file of memories: any span is exact, nothing is lost, and what is damaged is named."""

import errno
import json
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

import memlm
from memlm import MemoryFile, TextAutoencoder
from memlm.runtime import files
from memlm.store import writer
from memlm.store.chunk import FORMAT_VERSION
from memlm.store.segments import MAGIC, frame
from memlm.store.store import DamagedChunkError

TEXTS = [
    ("one", "the memory holds one long text and the vector reads short chunk whole text. " * 4),
    ("empty", ""),
    ("zwei ünd 漢", "漢字 → ünd 👩‍👩‍👧\0\r\n" * 10),
    ("three", "the vector " * 20),
]
WHOLE = "".join(text for _, text in TEXTS)


@pytest.fixture
def notes(trained: TextAutoencoder, tmp_path: Path) -> MemoryFile:
    return MemoryFile.create(tmp_path / "notes.memory", nameless(trained), TEXTS)


def nameless(model: TextAutoencoder) -> TextAutoencoder:
    """As a model that was trained, and not loaded."""
    return TextAutoencoder(model.model, model.tokenizer, model.unconditional, {})


def test_a_file_names_what_its_model_was_loaded_by(trained: TextAutoencoder, tmp_path: Path) -> None:
    MemoryFile.create(tmp_path / "a.memory", trained, {"a": "hello"}).close()
    with MemoryFile.open(tmp_path / "a.memory") as opened:
        assert opened["a"] == "hello"
        assert opened.about.encoder == trained.source


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def contents(file: MemoryFile) -> list[tuple[str, str]]:
    return [(one.name, file.text(one.start_chunk, one.stop_chunk)) for one in file.documents]


def test_opened_again_it_holds_the_same(notes: MemoryFile, trained: TextAutoencoder) -> None:
    again = MemoryFile.open(notes.path, trained)
    assert contents(notes) == contents(again) == TEXTS
    assert again.text() == WHOLE
    assert [one.num_bytes for one in again.documents] == [len(text.encode()) for _, text in TEXTS]
    assert again.chunks == notes.chunks
    assert again.damaged() == []
    assert names(notes.path.parent) == {"notes.memory"}


@pytest.mark.parametrize("bits", [32, 16, 8, 6, 4])
def test_the_encoder_is_found_by_its_name(bits: int, finished_run: Path, tmp_path: Path) -> None:
    MemoryFile.create(tmp_path / "notes.memory", finished_run / "model", TEXTS, bits=bits)
    again = MemoryFile.open(tmp_path / "notes.memory")
    assert contents(again) == TEXTS
    assert again.about.bits == bits


@settings(max_examples=15, deadline=None)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=4), split=st.integers(0, 4))
def test_appended_one_by_one_is_all_at_once(
    trained: TextAutoencoder, tmp_path_factory: pytest.TempPathFactory, texts: list[str], split: int
) -> None:
    folder, named = tmp_path_factory.mktemp("appended"), [(f"text {number}", text) for number, text in enumerate(texts)]
    whole = MemoryFile.create(folder / "whole", trained, named)
    grown = MemoryFile.create(folder / "grown", trained, named[:split])
    for name, text in named[split:]:
        grown.append(text, name=name)
    assert contents(grown) == contents(MemoryFile.open(folder / "grown", trained)) == contents(whole) == named
    assert grown.chunks == whole.chunks
    assert grown.documents == whole.documents
    torch.testing.assert_close(grown.memories().vectors, whole.memories().vectors, atol=0.05, rtol=0)


def test_any_range_is_the_slice_of_the_whole(notes: MemoryFile, trained: TextAutoencoder) -> None:
    pieces = [notes.text(number, number + 1) for number in range(notes.num_chunks)]
    vectors = notes.memories()
    assert "".join(pieces) == WHOLE
    with_vector = np.cumsum([0] + [chunk.kind != "raw" for chunk in notes.chunks])
    for start in range(0, notes.num_chunks + 1, 7):
        for stop in range(start, notes.num_chunks + 1, 11):
            assert notes.text(start, stop) == "".join(pieces[start:stop])
            part = notes.memories(start, stop)
            assert torch.equal(part.vectors, vectors.vectors[with_vector[start] : with_vector[stop]])
            alone = b"".join(notes.vectors_only(start, stop)).decode(errors="replace")
            assert trained.regenerate(part) == [alone]


def test_memories_are_what_the_decoder_reads(notes: MemoryFile, trained: TextAutoencoder) -> None:
    memory = notes.memories()
    chunks = notes.chunks
    assert memory.num_tokens.tolist() == [chunk.num_tokens for chunk in chunks if chunk.kind != "raw"]
    alone = b"".join(notes.vectors_only())
    assert trained.regenerate(memory) == [alone.decode(errors="replace")]


def test_a_chunk_is_read_without_the_rest(notes: MemoryFile, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    inner = os.pread

    def noted(file: int, size: int, offset: int) -> bytes:
        read.append(size)
        return inner(file, size, offset)

    number = next(number for number, chunk in enumerate(notes.chunks) if chunk.kind != "raw" and number > 5)
    monkeypatch.setattr(os, "pread", noted)
    assert notes.text(number, number + 1)
    assert read == [4 + notes.about.vector_bytes + notes.chunks[number].payload_bytes]


def test_what_is_forgotten_is_gone(notes: MemoryFile, trained: TextAutoencoder) -> None:
    pieces = [notes.text(number, number + 1) for number in range(notes.num_chunks)]
    before = notes.path.stat().st_size
    notes.forget(2, 7)
    for opened in (notes, MemoryFile.open(notes.path, trained)):
        assert opened.text() == "".join(pieces[:2] + pieces[7:])
        assert [one.name for one in opened.documents] == [name for name, _ in TEXTS]
        assert opened.damaged() == []
    assert notes.path.stat().st_size < before
    notes.forget(0, notes.num_chunks)
    assert (notes.num_chunks, notes.text(), list(notes)) == (0, "", ["empty"]), "which was empty before"
    notes.append("the memory", name="again")
    assert notes.text() == "the memory"


def test_what_is_forgotten_is_what_was_meant(notes: MemoryFile, trained: TextAutoencoder) -> None:
    other = MemoryFile.open(notes.path, trained)
    pieces = [notes.text(number, number + 1) for number in range(notes.num_chunks)]
    other.append("more")
    notes.forget(2, 3)  # that another has appended since changes nothing of these
    with pytest.raises(ValueError, match=r"chunks 3:4 of .* are others than when it was opened: open it again"):
        other.forget(3, 4)
    with pytest.raises(ValueError, match="open it again"):
        other.forget(other.num_chunks - 1, other.num_chunks)
    assert MemoryFile.open(notes.path, trained).text() == "".join(pieces[:2] + pieces[3:]) + "more"


@pytest.mark.skipif(os.name != "posix", reason="links and modes")
def test_links_and_permissions_stay(notes: MemoryFile, trained: TextAutoencoder) -> None:
    link = notes.path.with_name("link.memory")
    link.symlink_to(notes.path.name)
    notes.path.chmod(0o600)
    MemoryFile.open(link, trained).append("more")
    assert link.is_symlink()
    assert MemoryFile.open(notes.path, trained).text() == WHOLE + "more"
    assert notes.path.stat().st_mode & 0o777 == 0o600


def test_memories_are_read_without_the_encoder(notes: MemoryFile) -> None:
    alone = MemoryFile.open(notes.path)
    assert torch.equal(alone.memories(1, 5).vectors, notes.memories(1, 5).vectors)
    assert alone.damaged() == []
    with pytest.raises(ValueError, match=r"does not name its encoder .*open it with the model"):
        alone.text()


def test_a_writer_adds_to_what_another_wrote_meanwhile(notes: MemoryFile, trained: TextAutoencoder) -> None:
    other = MemoryFile.open(notes.path, trained)
    other.append("by the other", name="other")
    assert notes.text() == WHOLE, "an open file is as it was"
    notes.append("by the one", name="one more")
    assert contents(notes) == [*TEXTS, ("other", "by the other"), ("one more", "by the one")]


# --- what is taken ---------------------------------------------------------------------------------------------------


def untouched(folder: Path) -> None:
    assert list(folder.iterdir()) == [], "nothing was written"


@pytest.mark.parametrize("bits", [5, 0, 64, -8, "8", 8.0, True])
def test_bits_that_are_none_are_refused_by_name(bits: object, trained: TextAutoencoder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"one of 32, 16, 8, 6, 4, 3, 2, 1, not {bits!r}$"):
        MemoryFile.create(tmp_path / "notes.memory", trained, TEXTS, bits=bits)  # type: ignore[arg-type]
    untouched(tmp_path)


@pytest.mark.parametrize("target", [-0.1, 1.5, float("nan"), "0.9"])
def test_a_target_that_is_no_share_is_refused_by_name(
    target: object, notes: MemoryFile, trained: TextAutoencoder, tmp_path: Path
) -> None:
    message = rf"target fidelity is a share of tokens, from 0 to 1, not {target!r}$"
    (tmp_path / "new").mkdir()
    with pytest.raises(ValueError, match=message):
        MemoryFile.create(tmp_path / "new" / "notes.memory", trained, target=target)  # type: ignore[arg-type]
    untouched(tmp_path / "new")
    with pytest.raises(ValueError, match=message):
        notes.append("more", target=target)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message), notes.session(target=target):  # type: ignore[arg-type]
        pass
    assert notes.text() == WHOLE


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ("one text", "documents are names and texts, not 'one text'; give pairs"),
        (b"bytes", "documents are names and texts, not b'bytes'"),
        (None, "documents are names and texts, not None"),
        (7, "documents are names and texts, not 7"),
        (["the memory"], "a document is a name and a text, not 'the memory'; give pairs"),
        (["ab", "cd"], "a document is a name and a text, not 'ab'"),
        ([("name", "text"), None], "a document is a name and a text, not None"),
        ([("name", "text", "more")], "a document is a name and a text, not"),
        ([("name", b"text")], "the text of document 'name' is a string, not b'text'; decode it first"),
        ([(1, "text")], "a document's name is a string, not 1"),
        ({"name": None}, "the text of document 'name' is a string, not None"),
    ],
)
def test_what_is_no_document_is_refused_by_name(
    documents: object, message: str, notes: MemoryFile, trained: TextAutoencoder, tmp_path: Path
) -> None:
    (tmp_path / "new").mkdir()
    for write in (
        lambda: MemoryFile.create(tmp_path / "new" / "notes.memory", trained, documents),  # type: ignore[arg-type]
        lambda: notes.append_all(documents),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError, match=message):
            write()
    untouched(tmp_path / "new")
    with pytest.raises(TypeError, match="a document is a name and a text, not 'ab'"):
        notes.append_all(document for document in [("name", "text"), "ab"])  # type: ignore[misc]
    assert notes.text() == WHOLE


def test_a_long_value_does_not_flood_the_error(trained: TextAutoencoder, tmp_path: Path) -> None:
    with pytest.raises(TypeError) as refused:
        MemoryFile.create(tmp_path / "notes.memory", trained, "the memory " * 10_000)  # type: ignore[arg-type]
    assert len(str(refused.value)) < 200


def test_text_and_name_are_strings(notes: MemoryFile) -> None:
    with pytest.raises(TypeError, match=r"is a string, not b'bytes'; decode it first"):
        notes.append(b"bytes")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"a document's name is a string, not None"):
        notes.append("text", name=None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"a document's name is a string, not None"), notes.session(None):  # type: ignore[arg-type]
        pass
    with notes.session("session") as session, pytest.raises(TypeError, match="text is a string, not None"):
        session.append(None)  # type: ignore[arg-type]
    assert notes.text() == WHOLE


def test_documents_come_as_a_dict_as_pairs_or_one_by_one(trained: TextAutoencoder, tmp_path: Path) -> None:
    for number, documents in enumerate((dict(TEXTS), [list(pair) for pair in TEXTS], (pair for pair in TEXTS))):
        notes = MemoryFile.create(tmp_path / f"{number}.memory", trained, documents)  # type: ignore[arg-type]
        assert contents(notes) == TEXTS
    copied = MemoryFile.create(tmp_path / "copied.memory", trained, notes, bits=32)
    copied.append_all({"one more": "text"})
    assert contents(copied) == [*TEXTS, ("one more", "text")]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("folder", "cannot write a file at .*folder: a folder is there"),
        ("file/notes.memory", "file is a file, not a folder"),
    ],
)
def test_places_where_no_file_can_be_are_refused_before_anything_is_done(
    path: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("precious")
    with pytest.raises(ValueError, match=message):
        MemoryFile.create(tmp_path / path, "no model of this name", TEXTS)
    assert names(tmp_path) == {"folder", "file"}
    assert (tmp_path / "file").read_text() == "precious"
    with pytest.raises(ValueError, match="folder is a folder, not a memory file"):
        MemoryFile.open(tmp_path / "folder")


# --- as a mapping ----------------------------------------------------------------------------------------------------


def test_it_maps_names_to_texts(notes: MemoryFile, monkeypatch: pytest.MonkeyPatch) -> None:
    assert dict(notes) == dict(TEXTS)
    assert list(notes) == list(notes.keys()) == [name for name, _ in TEXTS]
    assert len(notes) == len(TEXTS)
    assert "one" in notes
    assert "four" not in notes
    assert 1 not in notes
    assert notes.get("four") is None
    assert notes.num_chunks == len(notes.chunks) > len(notes)
    monkeypatch.setattr(MemoryFile, "text", pytest.fail)
    assert notes == notes
    assert notes != MemoryFile.open(notes.path), "two are not compared by all their texts"
    assert len({notes, notes}) == 1


def test_a_name_that_is_not_there_is_named_with_what_is_close(notes: MemoryFile) -> None:
    with pytest.raises(KeyError, match=r"has no document 'thre'; did you mean 'three'\?"):
        notes["thre"]
    with pytest.raises(KeyError, match="has no document 'xyz'; `documents` says which there are"):
        notes["xyz"]
    with pytest.raises(KeyError, match=r"have names, and 0 is none; chunks are read with text\(start, stop\)"):
        notes[0]  # type: ignore[index]
    with pytest.raises(TypeError, match=r"whole numbers, not 'one' and .*; by its name a text is had as notes\[name\]"):
        notes.text("one")  # type: ignore[arg-type]


def test_a_name_of_several_documents_is_refused_and_says_where_they_are(notes: MemoryFile) -> None:
    notes.append("a second text of this name", name="one")
    first, *_, second = notes.documents
    with pytest.raises(ValueError, match=r"2 documents of .*notes\.memory are called 'one', of chunks ") as refused:
        notes["one"]
    for one in (first, second):
        assert f"{one.start_chunk}:{one.stop_chunk}" in str(refused.value)
    assert notes.text(second.start_chunk, second.stop_chunk) == "a second text of this name"
    assert len(notes) == len(list(notes)) == len(TEXTS) + 1
    assert notes["three"] == TEXTS[-1][1]
    pairs = [*TEXTS, ("one", "a second text of this name")]
    assert (list(notes.items()), list(notes.values())) == (pairs, [text for _, text in pairs])
    assert pairs[-1] in notes.items()
    assert pairs[0][1] in notes.values()
    assert "one" not in notes.values()


def test_it_is_shown_in_one_short_line(notes: MemoryFile) -> None:
    size = notes.path.stat().st_size
    numbers = f"documents=4, chunks={notes.num_chunks}, bytes={size}"
    assert repr(notes) == f"MemoryFile({str(notes.path)!r}, encoder='', {numbers})"
    notes.path.unlink()
    notes.close()
    assert repr(notes) == f"MemoryFile({str(notes.path)!r}, encoder='', {numbers}, closed)"


def test_a_closed_file_says_so(notes: MemoryFile, trained: TextAutoencoder) -> None:
    with MemoryFile.open(notes.path, trained) as opened:
        assert opened["one"] == TEXTS[0][1]
        opened.append("more", name="more")
    opened.close()
    assert (len(opened), list(opened)[-1]) == (len(TEXTS) + 1, "more"), "what is known is still known"

    def stream() -> None:
        with opened.session():
            pass

    for use in (
        opened.text,
        opened.memories,
        opened.damaged,
        stream,
        lambda: list(opened.vectors_only()),
        lambda: opened["one"],
        lambda: opened.append("more"),
        lambda: opened.forget(0, 1),
        lambda: opened.extend(MemoryFile.open(notes.path)),
        lambda: notes.extend(opened),
    ):
        with pytest.raises(ValueError, match=r"notes\.memory is closed; open it again"):
            use()
    assert names(notes.path.parent) == {"notes.memory"}
    assert MemoryFile.open(notes.path, trained).text() == WHOLE + "more"


# --- damage ----------------------------------------------------------------------------------------------------------


def flipped(path: Path, byte: int, bit: int) -> Path:
    data = bytearray(path.read_bytes())
    data[byte] ^= 1 << bit
    broken = path.with_name("broken.memory")
    broken.write_bytes(data)
    return broken


def test_a_flipped_bit_anywhere_is_detected_and_located(notes: MemoryFile, trained: TextAutoencoder) -> None:
    notes.append("one more text", name="after", target=0)  # one chunk
    data = notes.path.read_bytes()
    _, *begins = (place for place in range(len(data)) if data.startswith(MAGIC, place))  # but the header's
    chunks_of = [range(0), range(notes.num_chunks - 1), range(notes.num_chunks - 1, notes.num_chunks)]
    pieces = [notes.text(number, number + 1) for number in range(notes.num_chunks)]
    rng = random.Random(0)
    places = [
        *(begin + at for begin in [0, *begins] for at in range(0, 100, 7)),
        *rng.sample(range(begins[1], len(data)), 80),
    ]
    in_indexes = 0
    for byte in places:
        path = flipped(notes.path, byte, rng.randrange(8))
        if byte < begins[1]:
            assert contents(MemoryFile.open(path, trained)) == contents(notes), "the header has a copy"
            continue
        broken, segment = MemoryFile.open(path, trained), 1 + (byte >= begins[2])
        damaged = broken.damaged()
        if len(damaged) != 1 or broken.documents[-1].name == "(damaged)":
            in_indexes += 1
            assert damaged == [*chunks_of[segment]], "all chunks of the segment are lost, and no others"
        assert set(damaged) <= set(chunks_of[segment])
        with pytest.raises(ValueError, match=rf"chunk {damaged[0]} \(of .*\) is (damaged|lost)"):
            broken.text()
        lost: list[DamagedChunkError] = []
        rest = [piece for number, piece in enumerate(pieces) if number not in damaged]
        assert broken.text(on_damage=lost.append) == "".join(rest)
        assert [error.number for error in lost] == damaged
        assert {error.why for error in lost} <= {"damaged", "lost"}
        assert broken.text(0, damaged[0]) == "".join(pieces[: damaged[0]])
        assert broken.text(damaged[-1] + 1) == "".join(pieces[damaged[-1] + 1 :])
        before = broken.num_chunks
        broken.append("appended to a damaged file", name="last")
        assert broken["last"] == MemoryFile.open(path, trained)["last"] == "appended to a damaged file"
        assert MemoryFile.open(path).damaged() == damaged
        assert broken.chunks[before:] == MemoryFile.open(path).chunks[before:]
    assert 0 < in_indexes < len(places) / 2


def test_lost_chunks_can_be_forgotten(notes: MemoryFile, trained: TextAutoencoder) -> None:
    notes.append("one more text", name="after", target=0)  # one chunk
    data = notes.path.read_bytes()
    broken = MemoryFile.open(flipped(notes.path, data.index(MAGIC, data.index(MAGIC, 1) + 1) + 60, 0), trained)
    damaged = broken.damaged()
    assert [chunk.kind for chunk in broken.chunks] == ["lost"] * len(damaged) + [notes.chunks[-1].kind]
    with pytest.raises(KeyError, match=r"no document 'one'.* among those of lost chunks"):
        broken["one"]
    broken.forget(broken.num_chunks - 1, broken.num_chunks)
    assert (broken.damaged(), [chunk.kind for chunk in broken.chunks]) == (damaged, ["lost"] * len(damaged))
    broken.append("one more text", name="after")
    broken.forget(damaged[0], damaged[-1] + 1)
    assert contents(broken) == [("after", "one more text")]
    assert MemoryFile.open(broken.path).damaged() == []


def test_a_chunk_that_is_regenerated_otherwise_is_named(notes: MemoryFile, monkeypatch: pytest.MonkeyPatch) -> None:
    number = next(number for number, chunk in enumerate(notes.chunks) if chunk.kind == "exact")
    head = notes.model.model.decoder.head.weight
    monkeypatch.setattr(head, "data", -head.data)
    notes = MemoryFile.open(notes.path, notes.model)
    with pytest.raises(DamagedChunkError, match=f"chunk {number} .*not regenerated"):
        notes.text(number, number + 1)
    lost: list[DamagedChunkError] = []
    assert notes.text(number, number + 1, on_damage=lost.append) == ""
    assert [error.number for error in lost] == [number]
    assert "the decoder is another" in lost[0].why


@pytest.mark.parametrize("share", [0.001, 0.01])
def test_a_file_without_its_header_is_refused(share: float, notes: MemoryFile) -> None:
    data = notes.path.read_bytes()
    notes.path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ValueError, match=r"notes\.memory is no memory file, or .*cut short"):
        MemoryFile.open(notes.path)


def test_a_truncated_file_gives_back_the_segments_before(
    notes: MemoryFile, trained: TextAutoencoder, tmp_path: Path
) -> None:
    ends = [notes.file_bytes]
    for number in range(3):
        notes.append("the memory " * (number + 1), name=f"appended {number}")
        ends.append(notes.file_bytes)
    data, path = notes.path.read_bytes(), tmp_path / "cut.memory"
    for size in [*range(ends[0], ends[-1], 13), *ends]:
        path.write_bytes(data[:size])
        opened = MemoryFile.open(path, trained)
        whole = sum(end <= size for end in ends) - 1
        assert opened.torn_bytes == size - ends[whole]
        assert contents(opened) == contents(notes)[: len(TEXTS) + whole]
        assert opened.damaged() == []
        opened.append("after that", name="last")
        assert opened.torn_bytes == 0
        assert contents(MemoryFile.open(path, trained))[len(TEXTS) :] == [
            *contents(notes)[len(TEXTS) : len(TEXTS) + whole],
            ("last", "after that"),
        ]


@pytest.fixture
def long(trained: TextAutoencoder, tmp_path: Path) -> tuple[MemoryFile, bytes, list[int]]:
    """A file whose first document takes several segments; with its bytes, and where its segments begin."""
    text = "the memory holds one long text and the vector reads short chunk whole text. " * 150
    notes = MemoryFile.create(tmp_path / "long.memory", trained, {"first": text, "second": "short"})
    notes.append("appended", name="third")
    assert dict(notes) == {"first": text, "second": "short", "third": "appended"}
    data = notes.path.read_bytes()
    _, _, *begins = (place for place in range(len(data)) if data.startswith(MAGIC, place))
    assert len(begins) >= 4
    return notes, data, begins


@pytest.mark.parametrize("byte", [1, 50], ids=["head", "index"])
@pytest.mark.parametrize("segment", [0, 1, -2])
def test_a_document_of_which_a_segment_is_lost_is_never_read_shortened(
    segment: int, byte: int, long: tuple[MemoryFile, bytes, list[int]], trained: TextAutoencoder
) -> None:
    notes, _, begins = long
    broken = MemoryFile.open(flipped(notes.path, begins[segment] + byte, 0), trained)
    for _ in range(2):
        damaged = broken.damaged()
        for read in (lambda: broken["first"], lambda: broken.get("first"), lambda: list(broken.values())):
            with pytest.raises(DamagedChunkError, match=rf"; chunks {damaged[0]}:{damaged[-1] + 1} are lost\) is lost"):
                read()
        with pytest.raises(DamagedChunkError, match=r"chunk \d+ \(of 'first'; "):
            broken["first"]
        assert broken["third"] == "appended"
        broken.forget(damaged[-1] + 1, damaged[-1] + 1)  # writes all of it anew, as it is
    assert broken.num_chunks == notes.num_chunks


@pytest.mark.parametrize("segment", [1, 2])
@pytest.mark.parametrize("more", [0, 5], ids=["between segments", "within one"])
def test_a_file_that_was_cut_short_within_a_document_says_so(
    segment: int, more: int, long: tuple[MemoryFile, bytes, list[int]], trained: TextAutoencoder
) -> None:
    notes, data, begins = long
    notes.path.write_bytes(data[: begins[segment] + more])
    broken = MemoryFile.open(notes.path, trained)
    assert (list(broken), broken.torn_bytes) == (["first"], more)
    broken.append("and more", name="appended")
    for one in (broken, MemoryFile.open(notes.path, trained)):
        number = one.documents[-1].start_chunk - 1
        with pytest.raises(
            DamagedChunkError, match=rf"chunk {number} \(of 'first'; chunks {number}:{number + 1} are lost\)"
        ):
            one["first"]
        assert one["appended"] == "and more"
        assert long[0].text(0, number) == one.text(0, number)


def test_files_joined_byte_by_byte_are_told_apart(notes: MemoryFile) -> None:
    data = notes.path.read_bytes()
    notes.path.write_bytes(data * 2)
    with pytest.raises(ValueError, match=rf"another memory file, which begins at byte {len(data)}: split them there"):
        MemoryFile.open(notes.path)
    notes.path.write_bytes(b"text" + data)
    with pytest.raises(ValueError, match="is no memory file, or its header is damaged"):
        MemoryFile.open(notes.path)


def test_foreign_and_newer_files_are_refused(notes: MemoryFile, tmp_path: Path) -> None:
    (tmp_path / "text.memory").write_text("Call me Ishmael. " * 100)
    with pytest.raises(ValueError, match=r"text\.memory is a text file, not a memory file"):
        MemoryFile.open(tmp_path / "text.memory")
    save_file({"weight": np.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="but no memory file"):
        MemoryFile.open(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="there is no memory file"):
        MemoryFile.open(tmp_path / "nowhere.memory")
    header = json.dumps({"format_version": FORMAT_VERSION + 1, "whatever": "comes"}).encode()
    notes.path.write_bytes(frame(0, 0, header, b""))
    with pytest.raises(ValueError, match=r"format version 4; this memlm reads 3: upgrade memlm"):
        MemoryFile.open(notes.path)


def test_another_encoder_is_refused_by_name(
    finished_run: Path, untrained: TextAutoencoder, tmp_path: Path, trained: TextAutoencoder
) -> None:
    path = tmp_path / "notes.memory"
    trained.save_pretrained(tmp_path / "model")
    MemoryFile.create(path, tmp_path / "model", TEXTS)
    for fingerprint in (trained.encoder_fingerprint, untrained.encoder_fingerprint):
        with pytest.raises(ValueError, match=rf"was made by encoder .*model \(.*{fingerprint}"):
            MemoryFile.open(path, untrained)
    untrained.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="was made by encoder"):
        MemoryFile.open(path).text()
    (tmp_path / "model").rename(tmp_path / "moved")
    with pytest.raises(ValueError, match=rf"needs encoder .*{trained.encoder_fingerprint}.*no model"):
        MemoryFile.open(path).text()
    assert MemoryFile.open(path, finished_run / "model").text() == WHOLE


def test_ranges_outside_of_it_are_refused(notes: MemoryFile) -> None:
    for start, stop in ((-1, 2), (0, notes.num_chunks + 1), (5, 3), (notes.num_chunks + 1, None)):
        for use in (notes.text, notes.memories):
            with pytest.raises(ValueError, match=f"has chunks 0:{notes.num_chunks}, not {start}:"):
                use(start, stop)
    with pytest.raises(ValueError, match="has chunks"):
        notes.forget(0, notes.num_chunks + 1)
    assert notes.text() == WHOLE


def test_an_existing_file_is_not_written_over(notes: MemoryFile, trained: TextAutoencoder) -> None:
    with pytest.raises(ValueError, match="exists; open it and append to it") as refused:
        MemoryFile.create(notes.path, trained)
    assert "--" not in str(refused.value)
    assert notes.text() == WHOLE


# --- writers ---------------------------------------------------------------------------------------------------------


def test_a_second_writer_hears_who_is_writing(notes: MemoryFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_PATIENCE", 0)
    with writer.only_writer(notes.path):
        for write in (lambda: notes.append("more"), lambda: notes.forget(0, 1)):
            with pytest.raises(OSError, match=r"notes\.memory has an open session in this process; append to that one"):
                write()
    notes.append("more", name="more")
    monkeypatch.setattr(writer, "_LOCKS", notes.path.with_name("not everywhere"))
    with writer.only_writer(notes.path), pytest.raises(OSError, match="another process"):
        notes.append("and more")
    assert contents(notes) == [*TEXTS, ("more", "more")]


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def half(file: int, data: bytes, offset: int) -> int:
    """A write of which only the beginning fits."""
    os.write(os.open(f"/proc/self/fd/{file}", os.O_WRONLY | os.O_APPEND), data[: len(data) // 2])
    return full()  # type: ignore[func-returns-value]


@pytest.mark.parametrize("call", ["fsync", "pwrite"])
@pytest.mark.parametrize("write", [lambda notes: notes.append("more"), lambda notes: notes.forget(0, 3)])
def test_a_full_disk_loses_nothing(
    call: str,
    write: Callable[[MemoryFile], None],
    notes: MemoryFile,
    trained: TextAutoencoder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = notes.path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        if call == "pwrite":
            patch.setattr(os, "pwrite", half)
        with pytest.raises(OSError, match=r"could not write .*notes\.memory: .*No space left"):
            write(notes)
    assert notes.path.read_bytes() == before
    assert names(notes.path.parent) == {"notes.memory"}
    assert notes.text() == MemoryFile.open(notes.path, trained).text() == WHOLE


def test_what_an_append_writes_does_not_grow_with_the_file(notes: MemoryFile, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    inner = os.pwrite

    def counted(file: int, data: bytes, offset: int) -> int:
        written.append(len(data))
        return inner(file, data, offset)

    def appended() -> int:
        before = notes.path.read_bytes()
        written.clear()
        notes.append("the memory holds one long text", name="more")
        assert notes.path.read_bytes().startswith(before), "what is stored stays where it is"
        return sum(written)

    monkeypatch.setattr(os, "pwrite", counted)
    monkeypatch.setattr(writer, "atomic_file", pytest.fail)
    first = appended()
    for _ in range(8):
        notes.extend(notes)
    assert notes.num_chunks > 10_000
    assert appended() == first > 0


def test_what_killed_writers_left_is_cleared_away(notes: MemoryFile) -> None:
    (notes.path.parent / ".notes.memory.0a0a0a0a.memlm-unfinished").mkdir()
    notes.append("more")
    assert names(notes.path.parent) == {"notes.memory"}


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
from memlm import MemoryFile
path, model, kills = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
rng = random.Random(0)
def line(number): return f"the memory {number} holds ünd 漢字 " * (1 + number % 7)
opened = MemoryFile.open(path, model)
opened.text()
for _ in range(kills):
    child = os.fork()
    if child == 0:
        while True:
            opened.append(line(len(opened.documents)), name="line")
    time.sleep(rng.uniform(0, 0.15))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    before, opened = len(opened.documents), MemoryFile.open(path, opened.model)
    assert len(opened.documents) >= before
    assert opened.damaged() == []
    for number, document in enumerate(opened.documents):
        assert opened.text(document.start_chunk, document.stop_chunk) == line(number), number
opened.append(line(len(opened.documents)), name="line")
print(len(opened.documents))
"""


@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_at_random_moments_it_keeps_what_it_had(kills: int, finished_run: Path, tmp_path: Path) -> None:
    path, model = tmp_path / "notes.memory", finished_run / "model"
    MemoryFile.create(path, model)
    command = [sys.executable, "-c", KILLED, str(path), str(model), str(kills)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    documents = int(done.stdout)
    assert documents > kills / 4, "appends went on between the kills"
    assert names(tmp_path) == {"notes.memory"}, "and what they left was cleared away"
    assert len(memlm.MemoryFile.open(path).documents) == documents


# --- pickled ---------------------------------------------------------------------------------------------------------


def test_a_pickle_is_its_path_and_its_models_name(trained: TextAutoencoder, tmp_path: Path) -> None:
    notes = MemoryFile.create(tmp_path / "notes.memory", trained, TEXTS)
    for opened in (notes, MemoryFile.open(notes.path), MemoryFile.open(notes.path, trained.source)):
        data = pickle.dumps(opened)
        assert len(data) < 1000
        assert contents(pickle.loads(data)) == TEXTS
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(MemoryFile.text, notes).result() == WHOLE


def test_a_file_whose_model_has_no_name_is_not_pickled(notes: MemoryFile) -> None:
    for opened in (notes, MemoryFile.open(notes.path)):
        with pytest.raises(TypeError, match=r"notes\.memory is pickled as its path and its model's name, .* has none"):
            pickle.dumps(opened)


# --- two writers -----------------------------------------------------------------------------------------------------

APPENDING = """
import sys
from memlm import MemoryFile
notes = MemoryFile.open(sys.argv[1], sys.argv[2])
for number in range(10):
    notes.append(f"the memory {number} of {sys.argv[3]}", name=f"{sys.argv[3]} {number}")
"""


def test_two_writers_and_a_reader_at_once(finished_run: Path, tmp_path: Path) -> None:
    path, model = tmp_path / "notes.memory", finished_run / "model"
    MemoryFile.create(path, model)
    writers = [subprocess.Popen([sys.executable, "-c", APPENDING, path, model, name]) for name in ("one", "two")]
    reader, seen = memlm.load(model), 0
    while any(writer.poll() is None for writer in writers):
        opened = MemoryFile.open(path, reader)
        assert opened.damaged() == []
        assert len(opened) >= seen
        seen = len(opened)
    assert [writer.returncode for writer in writers] == [0, 0]
    expected = {f"{name} {number}": f"the memory {number} of {name}" for name in ("one", "two") for number in range(10)}
    assert dict(MemoryFile.open(path, reader)) == expected


def test_two_creators_at_once_make_one_file(trained: TextAutoencoder, tmp_path: Path) -> None:
    path = tmp_path / "notes.memory"

    def documents() -> Iterator[tuple[str, str]]:
        yield "first", "text"
        MemoryFile.create(path, trained, {"other": "was faster"})  # leaves the unfinished file of the first alone

    with pytest.raises(ValueError, match="exists; open it"):
        MemoryFile.create(path, trained, documents())
    assert dict(MemoryFile.open(path, trained)) == {"other": "was faster"}
    assert names(tmp_path) == {"notes.memory"}


def test_a_text_may_come_in_pieces(trained: TextAutoencoder, tmp_path: Path) -> None:
    """As one that does not fit in memory does; its file is that of the whole."""
    text = "".join(text for _, text in TEXTS) + "ünd漢\r\n" * 40
    (tmp_path / "text.txt").write_text(text, encoding="utf-8", newline="")
    whole = MemoryFile.create(tmp_path / "whole.memory", trained, {"a": text})
    with (tmp_path / "text.txt").open(encoding="utf-8", newline="") as lines:
        pieces = MemoryFile.create(tmp_path / "pieces.memory", trained, {"a": lines})
    pieces.append_all([("letters", iter(text)), ("nothing", iter(()))])
    assert pieces.text() == text * 2
    assert pieces["nothing"] == ""
    assert whole.chunks == pieces.chunks[: whole.num_chunks]
    for broken, error in ((iter([1]), TypeError), (iter(["a", "\ud800"]), ValueError), (["a list"], TypeError)):
        with pytest.raises(error, match=r"string|surrogate"):
            pieces.append_all([("broken", broken)])  # type: ignore[list-item]
    assert len(pieces) == 3


def test_many_short_texts_are_as_if_alone(trained: TextAutoencoder, tmp_path: Path) -> None:
    documents = [(f"{number % 7}", "漢\n" * (number % 5) + "short " * (number % 3)) for number in range(40)]
    documents.insert(20, ("long", "a long one, in the middle of the others. " * 40))
    together = MemoryFile.create(tmp_path / "together.memory", trained, documents)
    alone = MemoryFile.create(tmp_path / "alone.memory", trained)
    for name, text in documents:
        alone.append(text, name=name)
    assert [*together.items()] == [*alone.items()] == documents
    assert [one.num_bytes for one in together.chunks] == [one.num_bytes for one in alone.chunks]
    assert len(together) == 41


def test_a_file_that_another_makes_in_the_last_instant_is_kept(
    trained: TextAutoencoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, sync = tmp_path / "notes.memory", files.sync

    def another_was_faster(written: Path) -> None:
        monkeypatch.setattr(files, "sync", sync)
        MemoryFile.create(path, trained, {"other": "was faster"})
        sync(written)

    monkeypatch.setattr(files, "sync", another_was_faster)
    with pytest.raises(ValueError, match="exists; open it"):
        MemoryFile.create(path, trained, {"this": "comes too late"})
    assert dict(MemoryFile.open(path, trained)) == {"other": "was faster"}
    assert names(tmp_path) == {"notes.memory"}

"""Text that streams into a file is the text that was sent, however it was cut, and whoever dies on the way."""

import itertools
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memlm import MemoryFile, TextAutoencoder
from memlm.runtime import files
from memlm.store.codec import Codec
from memlm.store.segments import MAGIC
from memlm.store.store import DamagedChunkError

STREAM = "the memory holds one long text and the vector reads short chunk whole text. ünd 漢字 " * 40


def cuts(text: str, seed: int) -> list[str]:
    rng = random.Random(seed)
    places = sorted({0, len(text), *(rng.randrange(len(text)) for _ in range(50))})
    return [text[start:stop] for start, stop in itertools.pairwise(places)]


@pytest.fixture
def notes(trained: TextAutoencoder, tmp_path: Path) -> MemoryFile:
    return MemoryFile.create(tmp_path / "notes.memory", trained, [("before", "the text before. ")])


@settings(max_examples=20, deadline=None)
@given(pieces=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=300), max_size=20))
def test_whatever_streams_in_is_one_document(
    trained: TextAutoencoder, tmp_path_factory: pytest.TempPathFactory, pieces: list[str]
) -> None:
    notes = MemoryFile.create(tmp_path_factory.mktemp("streamed") / "notes.memory", trained)
    with notes.session("stream") as session:
        for piece in pieces:
            session.append(piece)
            assert notes.text() + session.pending == "".join(pieces)[: len(notes.text() + session.pending)]
    assert notes.text() == MemoryFile.open(notes.path, trained).text() == "".join(pieces)
    assert [one.name for one in notes.documents] == ["stream"]


def test_full_chunks_are_written_as_they_come(notes: MemoryFile, trained: TextAutoencoder) -> None:
    with notes.session("stream") as session:
        for piece in cuts(STREAM, 0):
            session.append(piece)
        before = MemoryFile.open(notes.path, trained).text()
        assert len(before) > len(STREAM) / 2
        assert before + session.pending == "the text before. " + STREAM
    first, streamed = notes.documents
    assert (first.name, streamed.name) == ("before", "stream")
    assert notes.text(streamed.start_chunk, streamed.stop_chunk) == STREAM
    lengths = [chunk.num_tokens for chunk in Codec(trained).write(STREAM) if chunk.vector is not None]
    streamed_lengths = [chunk.num_tokens for chunk in notes.chunks[streamed.start_chunk :] if chunk.kind != "raw"]
    assert streamed_lengths.count(16) >= lengths.count(16) - 2, "chunks are full, as of a text that comes whole"


def test_what_is_pending_is_kept_when_the_stream_breaks_off(notes: MemoryFile) -> None:
    def broken_off() -> None:
        with notes.session("broken") as session:
            session.append("the memory holds")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert notes.text() == "the text before. the memory holds"


def test_a_flushed_session_goes_on_in_the_same_document(notes: MemoryFile) -> None:
    with notes.session("twice") as session:
        session.append("the memory ")
        session.flush()
        assert session.pending == ""
        assert notes.text().endswith("the memory ")
        session.append("holds")
    assert notes.documents[-1].num_bytes == len("the memory holds")


def test_a_session_that_is_over_takes_nothing_more(notes: MemoryFile) -> None:
    with notes.session("first") as session:
        session.append("the memory ")
    with notes.session("second") as second:
        second.append("holds")
        second.close()
        for use in (lambda: second.append("more"), second.flush, lambda: session.append("more"), session.flush):
            with pytest.raises(ValueError, match="this session is over"):
                use()
    session.close()
    assert notes.text() == "the text before. the memory holds"
    assert [path.name for path in notes.path.parent.iterdir()] == ["notes.memory"]


def test_a_lone_surrogate_is_refused_and_nothing_else(notes: MemoryFile) -> None:
    with notes.session() as session:
        session.append("the memory ")
        with pytest.raises(ValueError, match=r"the text holds a lone surrogate, U\+D800, at index 1,"):
            session.append("a\ud800")
        session.append("holds")
    assert notes.text() == "the text before. the memory holds"


def test_a_full_disk_leaves_text_pending(notes: MemoryFile, monkeypatch: pytest.MonkeyPatch) -> None:
    with notes.session() as session:
        session.append("the memory ")
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            with pytest.raises(OSError, match="No space left"):
                session.flush()
        assert session.pending == "the memory "
    assert notes.text() == "the text before. the memory "


@pytest.mark.parametrize("call", ["ftruncate", "pwrite", "fsync"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_an_interrupted_write_is_stored_once(
    call: str, after: bool, notes: MemoryFile, trained: TextAutoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner, calls = getattr(os, call), iter(range(100))

    def interrupt(*arguments: int) -> int:
        if next(calls):
            return inner(*arguments)
        if after:
            inner(*arguments)
        raise KeyboardInterrupt

    def streaming() -> None:
        with notes.session("stream") as session:
            session.append("streamed once. ")
            monkeypatch.setattr(os, call, interrupt)
            session.flush()

    with pytest.raises(KeyboardInterrupt):
        streaming()
    assert MemoryFile.open(notes.path, trained).text() == "the text before. streamed once. "
    assert [one.name for one in MemoryFile.open(notes.path).documents] == ["before", "stream"]


def test_a_session_without_text_is_an_empty_document_as_an_append_is(notes: MemoryFile) -> None:
    with notes.session("session"):
        pass
    with notes.session("flushed") as session:
        session.flush()
        session.append("")
        session.flush()
    notes.append("", name="append")
    assert {name: notes[name] for name in list(notes)[1:]} == {"session": "", "flushed": "", "append": ""}


@pytest.mark.parametrize(
    ("lost", "documents"),
    [
        (0, ["before", "stream", "other", "after"]),
        (1, ["before", "stream", "other", "after"]),
        (2, ["before", "stream", "other", "after"]),
        (3, ["before", "stream", "(damaged)", "after"]),  # a session that was closed is whole
    ],
)
def test_a_session_of_which_a_part_is_lost_is_damaged(
    lost: int, documents: list[str], notes: MemoryFile, trained: TextAutoencoder
) -> None:
    with notes.session("stream", target=0) as session:  # a chunk each
        for piece in ("first. ", "second. "):
            session.append(piece)
            session.flush()
        session.append("third. ")
    for name in ("other", "after"):
        notes.append(name, name=name)
    data = bytearray(notes.path.read_bytes())
    places = [place for place in range(len(data)) if data.startswith(MAGIC, place)]
    data[places[3 + lost] + 50] ^= 1  # in the index
    notes.path.write_bytes(data)
    broken, errors = MemoryFile.open(notes.path, trained), list[DamagedChunkError]()
    assert list(broken) == documents
    rest = [text for number, text in enumerate(("first. ", "second. ", "third. ", "other")) if number != lost]
    assert broken.text(on_damage=errors.append) == "".join(["the text before. ", *rest, "after"])
    assert [error.number for error in errors] == broken.damaged()
    assert broken.num_chunks == notes.num_chunks
    if lost < 3:
        with pytest.raises(DamagedChunkError, match=r"chunk \d+ \(of 'stream'; chunks \d+:\d+ are lost\) is lost"):
            broken["stream"]


def test_a_session_is_the_only_writer(notes: MemoryFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_PATIENCE", 0.05)
    other = MemoryFile.open(notes.path, notes.model)
    with notes.session() as session:
        session.append("one ")
        with pytest.raises(OSError, match="has an open session in this process"):
            other.append("two ")
    other.append("two ")
    assert other.text() == "the text before. one two "


STREAMING = """
import sys
from memlm import MemoryFile
notes = MemoryFile.open(sys.argv[1], sys.argv[2])
with notes.session("stream") as session:
    number = 0
    while True:
        session.append(f"the memory {number} holds ünd 漢字 ")
        number += 1
        if number == 300:
            print("going", flush=True)
"""


def test_a_killed_session_keeps_what_filled_chunks(finished_run: Path, tmp_path: Path) -> None:
    path, model = tmp_path / "notes.memory", finished_run / "model"
    MemoryFile.create(path, model)
    with subprocess.Popen([sys.executable, "-c", STREAMING, path, model], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "going\n"
        child.kill()
    notes = MemoryFile.open(path)
    whole = "".join(f"the memory {number} holds ünd 漢字 " for number in range(100_000))
    assert len(notes.documents) == 1
    assert len(notes.text()) > 3000
    assert whole.startswith(notes.text())
    assert notes.damaged() == []


# --- files joined ----------------------------------------------------------------------------------------------------


def test_files_are_joined_as_they_are(notes: MemoryFile, trained: TextAutoencoder, tmp_path: Path) -> None:
    other = MemoryFile.create(tmp_path / "other.memory", trained, [("a", STREAM), ("", ""), ("b", "漢字")], name="name")
    before = notes.memories().vectors
    notes.extend(other)
    assert notes.text() == "the text before. " + other.text()
    assert [one.name for one in notes.documents] == ["before", "a", "", "b"]
    assert notes.damaged() == []
    assert np.array_equal(notes.memories().vectors[len(before) :], other.memories().vectors)
    notes.extend(notes)
    assert notes.text() == ("the text before. " + other.text()) * 2


def test_what_cannot_be_joined_is_refused(
    notes: MemoryFile, trained: TextAutoencoder, untrained: TextAutoencoder, tmp_path: Path
) -> None:
    other_bits = MemoryFile.create(tmp_path / "bits.memory", trained, [("a", STREAM)], bits=4)
    with pytest.raises(ValueError, match=r"bits.memory keeps 4 bits .* 8 bits"):
        notes.extend(other_bits)
    other_encoder = MemoryFile.create(tmp_path / "encoder.memory", untrained, [("a", STREAM)])
    with pytest.raises(ValueError, match=untrained.encoder_fingerprint):
        notes.extend(other_encoder)
    damaged = MemoryFile.create(tmp_path / "damaged.memory", trained, [("a", STREAM)])
    data = bytearray(damaged.path.read_bytes())
    data[-1] ^= 1
    damaged.path.write_bytes(data)
    with pytest.raises(ValueError, match=r"damaged.memory: chunk \d+ is damaged"):
        notes.extend(MemoryFile.open(damaged.path, trained))
    assert notes.text() == "the text before. "

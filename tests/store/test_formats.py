"""Files of every version are read for ever, and can be appended to."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from memlm import MemoryFile
from memlm.store import segments
from memlm.store.chunk import FORMAT_VERSION
from memlm.store.segments import MAGIC, frame, frames
from memlm.store.store import DamagedChunkError

FIXTURES = Path(__file__).parents[1] / "fixtures"
LETTER = (FIXTURES / "letter.txt").read_text(encoding="utf-8")
DOCUMENTS = {
    "letter": LETTER,
    "mixed": "漢字 ünd\0 " * 8,
    "session": "So we beat on, boats against the current.",
}
TEXTS = {
    "english-0.1.memory": {"/tmp/fx/letter.txt": LETTER},
    "english-version-2.memory": DOCUMENTS,
    "english-version-3.memory": DOCUMENTS,
    "english-compact-version-3.memory": DOCUMENTS,
}


@pytest.fixture(params=TEXTS)
def fixture(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a file of each version."""
    return Path(shutil.copy(FIXTURES / request.param, tmp_path))


@pytest.fixture
def version_1(tmp_path: Path) -> Path:
    return Path(shutil.copy(FIXTURES / "english-0.1.memory", tmp_path))


def test_it_is_read_exactly_and_appended_to(fixture: Path) -> None:
    texts = TEXTS[fixture.name]
    with MemoryFile.open(fixture) as notes:
        vectors = notes.memories().vectors
        assert (dict(notes), notes.damaged(), notes.torn_bytes) == (texts, [], 0)
        assert notes.model.regenerate(notes.memories(0, 1)) == [
            b"".join(notes.vectors_only(0, 1)).decode(errors="replace")
        ]
        notes.append("And so on.", name="appended")
        with notes.session("session 2") as session:
            session.append("More.")
            session.flush()
            session.append(" And more.")
        assert dict(notes) == texts | {"appended": "And so on.", "session 2": "More. And more."}
        notes.forget(0, 1)
    again = MemoryFile.open(fixture)
    assert again["appended"] == "And so on."
    assert torch.equal(again.memories().vectors[: len(vectors) - 1], vectors[1:])
    assert [path.name for path in fixture.parent.iterdir()] == [fixture.name]


def test_the_first_of_version_2_are_told_damaged_too(tmp_path: Path) -> None:
    path = Path(shutil.copy(FIXTURES / "english-version-2.memory", tmp_path))
    whole, data = MemoryFile.open(path), path.read_bytes()
    begins = [place for place in range(len(data)) if data.startswith(MAGIC, place)]
    for place, message in ((begins[0] + 1, "no memory file"), (begins[0] + 60, "header is damaged")):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(ValueError, match=message):
            MemoryFile.open(path)
    place = begins[-1] + 60
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    broken = MemoryFile.open(path)
    with pytest.raises(DamagedChunkError, match=r"are lost\) is lost"):
        broken[list(whole)[-1]]


def test_version_1_is_converted_once_when_it_is_written(version_1: Path) -> None:
    reader, notes = MemoryFile.open(version_1), MemoryFile.open(version_1)
    notes.append("And so on.", name="appended")
    converted = version_1.read_bytes()
    assert converted.startswith(MAGIC)
    assert reader.text() == LETTER, "an open file is as it was"
    assert notes.about == reader.about
    reader.append("By another writer.", name="other")
    assert version_1.read_bytes().startswith(converted), "not converted again"
    assert dict(MemoryFile.open(version_1)) == dict(reader) == {**dict(notes), "other": "By another writer."}
    other = MemoryFile.create(version_1.with_name("other.memory"), notes.model, bits=8)
    other.extend(MemoryFile.open(FIXTURES / "english-0.1.memory"))
    assert other.text() == LETTER


def rewritten(path: Path, arrays: dict[str, np.ndarray] | None = None, **changes: str) -> None:
    """A file of version 1 with other arrays or another header, whatever its checksums."""
    with safe_open(path, framework="numpy") as file:
        found = {**file.metadata(), **changes}
    save_file({**load_file(path), **(arrays or {})}, path, metadata=found)


def test_damage_in_version_1_is_found_and_stays_when_it_is_converted(version_1: Path) -> None:
    vectors = load_file(version_1)["vectors"].copy()
    vectors[1, 7] ^= 4
    rewritten(version_1, {"vectors": vectors})
    notes = MemoryFile.open(version_1)
    assert notes.damaged() == [1]
    notes.append("And so on.", name="appended")
    assert MemoryFile.open(version_1).damaged() == [1]
    with pytest.raises(DamagedChunkError, match=r"chunk 1 .* is damaged"):
        notes.text()
    assert notes["appended"] == "And so on."


def test_version_1_that_is_damaged_in_its_index_or_header_is_refused(version_1: Path) -> None:
    data = version_1.read_bytes()
    for share in (0.001, 0.1, 0.5, 0.999):
        version_1.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(ValueError, match=r"english-0.1\.memory is no memory file, or .*cut short"):
            MemoryFile.open(version_1)
    version_1.write_bytes(data)
    rewritten(version_1, bits="4")
    with pytest.raises(ValueError, match="damaged in its header or its index"):
        MemoryFile.open(version_1)
    rewritten(version_1, bits="8", format_version=str(FORMAT_VERSION + 1))
    with pytest.raises(ValueError, match=r"format version 4; this memlm reads 3: upgrade memlm"):
        MemoryFile.open(version_1)
    numbers = load_file(FIXTURES / "english-0.1.memory")["chunks"].copy()
    numbers[0, 0] += 1
    rewritten(version_1, {"chunks": numbers}, format_version="1")
    with pytest.raises(ValueError, match="damaged in its header or its index"):
        MemoryFile.open(version_1)


# --- frames: whatever is damaged or missing, all others are found ---

bodies = st.lists(st.binary(max_size=40), min_size=1, max_size=5)


def found(data: bytes) -> list[tuple[int | None, bytes | None, bytes]]:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        return [(one.first_chunk, one.index, data[one.body : one.end]) for one in frames(file.fileno(), 0, len(data))]


@settings(deadline=None)
@given(bodies=bodies, damaged=st.integers(0, 4), place=st.integers(0, 60), bit=st.integers(0, 7))
def test_a_flipped_bit_hides_no_other_frame(bodies: list[bytes], damaged: int, place: int, bit: int) -> None:
    parts = [frame(number, 1, b"index %d" % number, body) for number, body in enumerate(bodies)]
    whole = [(number, b"index %d" % number, body) for number, body in enumerate(bodies)]
    assert found(b"".join(parts)) == whole
    damaged %= len(parts)
    broken = bytearray(parts[damaged])
    broken[place % len(broken)] ^= 1 << bit
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            segments, "_SEARCH_BYTES", len(MAGIC) + 3
        )  # so that a frame may begin anywhere in what is searched
        read = found(b"".join([*parts[:damaged], bytes(broken), *parts[damaged + 1 :]]))
    assert read[:damaged] == whole[:damaged]
    assert read[len(read) - (len(whole) - damaged - 1) :] == whole[damaged + 1 :]
    in_body = place % len(broken) >= len(broken) - len(bodies[damaged])
    assert read[damaged] != whole[damaged]
    assert in_body == (read[damaged][1] is not None)


@settings(deadline=None)
@given(bodies=bodies, share=st.floats(0, 1))
def test_a_frame_that_is_cut_short_is_none(bodies: list[bytes], share: float) -> None:
    parts = [frame(number, 1, b"index", body) for number, body in enumerate(bodies)]
    data = b"".join(parts)[: int(sum(map(len, parts)) * share)]
    whole = sum(sum(map(len, parts[: number + 1])) <= len(data) for number in range(len(parts)))
    assert [first for first, _, _ in found(data)] == list(range(whole))

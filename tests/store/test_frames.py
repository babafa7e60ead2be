"""Whatever is damaged or missing in a file of frames, all others are found."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memlm.store import segments
from memlm.store.segments import MAGIC, frame, frames

bodies = st.lists(st.binary(max_size=40), min_size=1, max_size=5)


def found(data: bytes, folder: Path) -> list[tuple[int | None, bytes | None, bytes]]:
    (path := folder / "frames").write_bytes(data)
    with path.open("rb") as file:
        return [(one.first_chunk, one.index, data[one.body : one.end]) for one in frames(file.fileno(), 0, len(data))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("frames")


@settings(deadline=None)
@given(bodies=bodies, damaged=st.integers(0, 4), place=st.integers(0, 60), bit=st.integers(0, 7))
def test_a_flipped_bit_hides_no_other_frame(
    folder: Path, bodies: list[bytes], damaged: int, place: int, bit: int
) -> None:
    parts = [frame(number, 1, b"index %d" % number, body) for number, body in enumerate(bodies)]
    whole = [(number, b"index %d" % number, body) for number, body in enumerate(bodies)]
    assert found(b"".join(parts), folder) == whole
    damaged %= len(parts)
    broken = bytearray(parts[damaged])
    broken[place % len(broken)] ^= 1 << bit
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            segments, "_SEARCH_BYTES", len(MAGIC) + 3
        )  # so that a frame may begin anywhere in what is searched
        read = found(b"".join([*parts[:damaged], bytes(broken), *parts[damaged + 1 :]]), folder)
    assert read[:damaged] == whole[:damaged]
    assert read[len(read) - (len(whole) - damaged - 1) :] == whole[damaged + 1 :]
    in_body = place % len(broken) >= len(broken) - len(bodies[damaged])
    assert read[damaged] != whole[damaged]
    assert in_body == (read[damaged][1] is not None)


@settings(deadline=None)
@given(bodies=bodies, share=st.floats(0, 1))
def test_a_frame_that_is_cut_short_is_none(folder: Path, bodies: list[bytes], share: float) -> None:
    parts = [frame(number, 1, b"index", body) for number, body in enumerate(bodies)]
    data = b"".join(parts)[: int(sum(map(len, parts)) * share)]
    whole = sum(sum(map(len, parts[: number + 1])) <= len(data) for number in range(len(parts)))
    assert [first for first, _, _ in found(data, folder)] == list(range(whole))

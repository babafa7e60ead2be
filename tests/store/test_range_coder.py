"""What was coded is decoded, in as few bytes as its probabilities say, and what was not is told."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from memlm.store.range_coder import STATE_BYTES, RangeDecoder, are_codes_of, coded

TOTAL = 1 << 24
Intervals = list[tuple[int, int]]


@st.composite
def intervals(draw: st.DrawFn) -> Intervals:
    """Of some tokens, as narrow and as wide as they can be."""
    sizes = draw(st.lists(st.integers(0, 24).flatmap(lambda bits: st.integers(1, 1 << bits)), max_size=130))
    return [(draw(st.integers(0, TOTAL - size)), size) for size in sizes]


@st.composite
def texts(draw: st.DrawFn) -> tuple[list[bytes], NDArray[np.int64], NDArray[np.int64], list[int]]:
    """Several, the longest first: checksums, starts, sizes and lengths."""
    rows = sorted(draw(st.lists(intervals(), min_size=1, max_size=4)), key=len, reverse=True)
    starts, sizes = np.zeros((2, len(rows), len(rows[0])), np.int64)
    for row, some in enumerate(rows):
        if some:
            starts[row, : len(some)], sizes[row, : len(some)] = zip(*some, strict=True)
    checks = draw(st.lists(st.binary(min_size=4, max_size=8), min_size=len(rows), max_size=len(rows)))
    return checks, starts, sizes, [*map(len, rows)]


@settings(deadline=None)
@given(some=texts())
def test_what_was_coded_is_decoded(some: tuple[list[bytes], NDArray[np.int64], NDArray[np.int64], list[int]]) -> None:
    checks, starts, sizes, lengths = some
    codes = coded(*some)
    assert are_codes_of(codes, *some)
    for row, (code, length) in enumerate(zip(codes, lengths, strict=True)):
        bits = sum(24 - math.log2(size) for size in sizes[row, :length])
        assert len(code) <= STATE_BYTES + bits / 8 + 0.01 * length + 1
        decoder = RangeDecoder([code])
        for start, size in zip(starts[row, :length], sizes[row, :length], strict=True):
            assert start <= decoder.places(1)[0] < start + size
            decoder.take(np.array([start]), np.array([size]))
        assert decoder.end_with([checks[row]]) == [True], "alone as with the others"


@settings(deadline=None)
@given(some=texts(), data=st.data())
def test_a_changed_code_is_told(
    some: tuple[list[bytes], NDArray[np.int64], NDArray[np.int64], list[int]], data: st.DataObject
) -> None:
    codes = coded(*some)
    row = data.draw(st.integers(0, len(codes) - 1))
    changed = bytearray(codes[row])
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    for other in (bytes(changed), bytes(changed) + b"\0", codes[row][:-1]):
        assert not are_codes_of([*codes[:row], other, *codes[row + 1 :]], *some)


@settings(deadline=None)
@given(code=st.binary(max_size=40), sizes=st.lists(st.integers(1, TOTAL), max_size=40))
def test_any_bytes_are_read_to_an_end(code: bytes, sizes: list[int]) -> None:
    decoder = RangeDecoder([code])
    for size in sizes:
        place = decoder.places(1)
        assert 0 <= place[0] < TOTAL
        decoder.take(np.minimum(place, TOTAL - size), np.array([size]))
    decoder.end_with([b"0000"])


def test_codes_are_what_they_were() -> None:
    """Files are read for ever."""
    starts, sizes = np.array([[0, 70_000, TOTAL - 5], [9, 0, 0]]), np.array([[1, 1 << 20, 5], [TOTAL - 9, 0, 0]])
    assert [code.hex() for code in coded([b"memo", b"ry!!"], starts, sizes, [3, 1])] == [
        "049100000006116ffc6d6f",
        "0172792e2c",
    ]

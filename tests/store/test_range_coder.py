"""What was coded is decoded, in as few bytes as its probabilities say, and what was not is told."""

import math
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from memlm.store.range_coder import STATE_BYTES, RangeDecoder, coded, is_code_of

TOTAL = 1 << 24
checks = st.binary(min_size=4, max_size=8)


@st.composite
def intervals(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Of some tokens, as narrow and as wide as they can be."""
    sizes = draw(st.lists(st.integers(0, 24).flatmap(lambda bits: st.integers(1, 1 << bits)), max_size=130))
    return [(draw(st.integers(0, TOTAL - size)), size) for size in sizes]


@settings(deadline=None)
@given(tokens=intervals(), check=checks)
def test_what_was_coded_is_decoded(tokens: list[tuple[int, int]], check: bytes) -> None:
    starts, sizes = [start for start, _ in tokens], [size for _, size in tokens]
    code, bits = coded(check, starts, sizes), sum(24 - math.log2(size) for size in sizes)
    assert is_code_of(code, check, starts, sizes)
    assert len(code) <= STATE_BYTES + bits / 8 + 0.01 * len(tokens) + 1


@settings(deadline=None)
@given(tokens=intervals(), check=checks, place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_changed_code_is_told(tokens: list[tuple[int, int]], check: bytes, place: int, bit: int) -> None:
    starts, sizes = [start for start, _ in tokens], [size for _, size in tokens]
    code = bytearray(coded(check, starts, sizes))
    code[place % len(code)] ^= 1 << bit
    assert not is_code_of(bytes(code), check, starts, sizes)
    assert not is_code_of(bytes(code) + b"\0", check, starts, sizes)
    assert not is_code_of(coded(check, starts, sizes)[:-1], check, starts, sizes)


class Wide(NamedTuple):
    """An interval that lies around any place."""

    size: int

    def at(self, place: int) -> tuple[int, int, int]:
        assert 0 <= place < TOTAL
        return 0, min(place, TOTAL - self.size), self.size


@given(code=st.binary(max_size=40), sizes=st.lists(st.integers(1, TOTAL), max_size=40))
def test_any_bytes_are_read_to_an_end(code: bytes, sizes: list[int]) -> None:
    decoder = RangeDecoder(code)
    assert len(decoder.tokens(map(Wide, sizes))) == len(sizes)
    decoder.ends_with(b"0000")

"""What was coded is decoded, in as few bytes as its probabilities say, and what was not is told."""

import itertools
import math
from importlib.util import find_spec

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from memlm.store.intervals import Expected
from memlm.store.range_coder import STATE_BYTES, Codes, coded, is_code_of

TOTAL = 1 << 24
HAS_NUMBA = find_spec("numba") is not None
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


def expected(rows: int, vocab_size: int, seed: int) -> Expected:
    """Of a decoder that is sure of every second token."""
    random = np.random.default_rng(seed)
    ends = np.sort(random.integers(1, TOTAL, (rows, vocab_size), dtype=np.int32), axis=1)
    divided = np.where(np.arange(rows) % 2, np.arange(rows), -1)
    return Expected(random.integers(vocab_size, size=rows), divided, ends, TOTAL - vocab_size, vocab_size - 1)


@settings(deadline=None)
@given(
    codes=st.lists(st.binary(max_size=40), min_size=1, max_size=4),
    rows=st.integers(0, 40),
    vocab_size=st.integers(1, 50),
    seed=st.integers(0, 99),
)
def test_any_bytes_are_read_to_an_end(codes: list[bytes], rows: int, vocab_size: int, seed: int) -> None:
    """Compiled or not, one at a time or several."""
    whole, which = expected(rows, vocab_size, seed), np.random.default_rng(seed).integers(len(codes), size=rows)
    found = []
    for compiled, at_once in itertools.product((False, *[True] * HAS_NUMBA), (1, 40)):
        reader, tokens = Codes(codes, compiled=compiled), list[int]()
        for start in range(0, rows, at_once):
            some = slice(start, start + at_once)
            part = whole._replace(best=whole.best[some], divided=whole.divided[some])
            tokens += reader.tokens(which[some], part).tolist()
        assert all(0 <= token < vocab_size for token in tokens)
        found.append((tokens, [reader.ends_with(number, b"0000") for number in range(len(codes))]))
    assert all(each == found[0] for each in found)

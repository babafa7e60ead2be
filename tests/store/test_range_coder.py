"""What was coded is decoded, in as few bytes as its probabilities say, and what was not is told."""

import itertools
import math
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memlm.store.intervals import Expected
from memlm.store.range_coder import STATE_BYTES, Codes, coded

TOTAL = 1 << 24
HAS_NUMBA = find_spec("numba") is not None
checks = st.binary(min_size=4, max_size=8)


Intervals = list[tuple[int, int]]


@st.composite
def intervals(draw: st.DrawFn) -> Intervals:
    """Of some tokens, as narrow and as wide as they can be."""
    sizes = draw(st.lists(st.integers(0, 24).flatmap(lambda bits: st.integers(1, 1 << bits)), max_size=130))
    return [(draw(st.integers(0, TOTAL - size)), size) for size in sizes]


def codes_of(texts: list[Intervals], check: bytes, *, compiled: bool) -> list[bytes]:
    starts, sizes = np.array([*itertools.chain(*texts)], np.int64).reshape(-1, 2).T.copy()
    return coded([check] * len(texts), [*map(len, texts)], starts, sizes, compiled=compiled)


def is_read(code: bytes, tokens: Intervals, check: bytes, *, compiled: bool = False) -> bool:
    """Whether a code reads as these tokens: each the second of three."""
    ends = np.array([(start, start + size, TOTAL) for start, size in tokens], np.int32).reshape(-1, 3)
    which = np.zeros(len(tokens), np.int64)
    reader, rows = Codes([code], compiled=compiled), Expected(which, which + np.arange(len(which)), ends, TOTAL - 3, 2)
    return bool((reader.tokens(which, rows) == 1).all()) and reader.ends_with(0, check)


@settings(deadline=None)
@given(texts=st.lists(intervals(), min_size=1, max_size=3), check=checks)
def test_what_was_coded_is_decoded(texts: list[Intervals], check: bytes) -> None:
    """Compiled or not."""
    codes = codes_of(texts, check, compiled=False)
    for code, tokens in zip(codes, texts, strict=True):
        bits = sum(24 - math.log2(size) for _, size in tokens)
        assert is_read(code, tokens, check, compiled=HAS_NUMBA)
        assert len(code) <= STATE_BYTES + bits / 8 + 0.01 * len(tokens) + 1
    assert codes_of(texts, check, compiled=HAS_NUMBA) == codes


@settings(deadline=None)
@given(tokens=intervals(), check=checks, place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_changed_code_is_told(tokens: Intervals, check: bytes, place: int, bit: int) -> None:
    (code,) = codes_of([tokens], check, compiled=False)
    changed = bytearray(code)
    changed[place % len(code)] ^= 1 << bit
    assert is_read(code, tokens, check)
    assert not is_read(bytes(changed), tokens, check)
    assert not is_read(code + b"\0", tokens, check)
    assert not is_read(code[:-1], tokens, check)


def test_what_cannot_be_read_is_not_written() -> None:
    with pytest.raises(AssertionError, match="can be read"):
        codes_of([[(TOTAL, 1)]], b"0000", compiled=False)


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

"""A range coder of whole numbers (range ANS, Duda 2013): tokens, given their frequencies, as bytes.

The coder's state begins as the checksum of the text and ends as the first bytes of the code. So whoever decodes all
tokens comes back to the checksum, which takes no bytes of its own.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from memlm.models.exact import TOTAL_BITS
from memlm.models.exact_fused import load_kernels
from memlm.store.intervals import Expected

_CHECK_BYTES = 4
"""Of the checksum, its first."""
_LEAST = 1 << (TOTAL_BITS + 8)
"""A state lies from here to 256 times as much."""
STATE_BYTES = 5
"""Of a code that tells nothing but the checksum."""
_MASK = (1 << TOTAL_BITS) - 1


def coded(check: bytes, starts: Sequence[int], sizes: Sequence[int]) -> bytes:
    """The code of some tokens: of each its interval of [0, 2^24), which begins at `start` and is `size` wide."""
    state, tail = _first_state(check), bytearray()
    for start, size in zip(reversed(starts), reversed(sizes), strict=True):
        while state >= size << 16:
            tail.append(state & 0xFF)
            state >>= 8
        state = (state // size << TOTAL_BITS) + state % size + start
    return state.to_bytes(STATE_BYTES, "big") + bytes(reversed(tail))


def is_code_of(code: bytes, check: bytes, starts: Sequence[int], sizes: Sequence[int]) -> bool:
    """Whether these are the tokens and the checksum that a code gives back."""
    state, rest = int.from_bytes(code[:STATE_BYTES], "big"), iter(code[STATE_BYTES:])
    for start, size in zip(starts, sizes, strict=True):
        behind = (state & _MASK) - start
        if not 0 <= behind < size:
            return False
        state = size * (state >> TOTAL_BITS) + behind
        while state < _LEAST and (byte := next(rest, None)) is not None:
            state = state << 8 | byte
    return state == _first_state(check) and next(rest, None) is None


class Codes:
    """Reads codes side by side, token by token; `compiled` by numba nine times as fast, of tokens that are expected."""

    def __init__(self, codes: Sequence[bytes], *, compiled: bool = False) -> None:
        states = [int.from_bytes(code[:STATE_BYTES], "big") for code in codes]
        stops = np.cumsum([max(len(code) - STATE_BYTES, 0) for code in codes], dtype=np.int64).tolist()
        rest = b"".join(code[STATE_BYTES:] for code in codes)
        self._compiled = compiled
        self._states, self._at, self._stops = map(self._numbers, (states, [0, *stops][: len(stops)], stops))
        self._rest: Any = np.frombuffer(bytearray(rest + b"\0"), np.uint8) if compiled else rest

    def tokens(self, which: Int[ndarray, " row"], expected: Expected) -> Int[ndarray, " row"]:
        """The next token of one code after the other, each a row of what is expected."""
        read: Callable[..., None] = _compiled_reader() if self._compiled else _read
        found = self._numbers([0] * len(which))
        rows: Any = which, expected.best, expected.divided
        rows = rows if self._compiled else [each.tolist() for each in rows]
        codes = self._states, self._at, self._stops, self._rest
        read(*codes, *rows, expected.ends, expected.leading, expected.last, found)
        return np.asarray(found, np.int64)

    def ends_with(self, number: int, check: bytes) -> bool:
        """Whether all of a code was read, and what was decoded has this checksum."""
        return bool(self._at[number] == self._stops[number] and self._states[number] == _first_state(check))

    def _numbers(self, numbers: list[int]) -> Any:
        return np.array(numbers, np.int64) if self._compiled else numbers


def _first_state(check: bytes) -> int:
    return _LEAST + int.from_bytes(check[:_CHECK_BYTES], "big")


def _read(
    states: Any,
    at: Any,
    stops: Any,
    rest: Any,
    which: Any,
    best: Any,
    divided: Any,
    ends: Any,
    leading: int,
    last: int,
    found: Any,
) -> None:
    """One token of each row into `found`. Of lists or, compiled, of arrays."""
    for row in range(len(which)):
        code, token = which[row], best[row]
        state = states[code]
        place = state & _MASK
        if divided[row] >= 0:
            some = ends[divided[row]]
            token = min(int(np.searchsorted(some, place, side="right")), last)
            start = int(some[token - 1]) if token else 0
            size = int(some[token]) - start
        elif place < token:
            token, start, size = place, place, 1
        elif place < token + leading:
            start, size = token, leading
        else:
            token = min(place - leading + 1, last)
            start, size = token + leading - 1, 1
        state = size * (state >> TOTAL_BITS) + place - start
        while state < _LEAST and at[code] < stops[code]:
            state = state << 8 | rest[at[code]]
            at[code] += 1
        states[code], found[row] = state, token


@functools.cache
def _compiled_reader() -> Callable[..., None]:
    numbers, number = ("i8[::1]",) * 3, "i8"
    types = (*numbers, "u1[::1]", *numbers, "i4[:, ::1]", number, number, "i8[::1]")
    compiled: Callable[..., None] = load_kernels().compiled(*types)(_read)
    return compiled

"""A range coder of whole numbers (range ANS, Duda 2013): tokens, given their frequencies, as bytes.

The coder's state begins as the checksum of the text and ends as the first bytes of the code. So whoever decodes all
tokens comes back to the checksum, which takes no bytes of its own.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from functools import partial
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
_MOST_BYTES = 3
"""That a token adds."""
_MASK = (1 << TOTAL_BITS) - 1


def coded(
    checks: Sequence[bytes],
    lengths: Sequence[int],
    starts: Int[ndarray, " token"],
    sizes: Int[ndarray, " token"],
    *,
    compiled: bool = False,
) -> list[bytes]:
    """The codes of texts of so many tokens, with their checksums: of each token its interval of [0, 2^24), which begins
    at `start` and is `size` wide. Each is read again; `compiled` as in `Codes`."""
    write: Callable[..., None] = _compiled_writer() if compiled else _write
    kind = partial(np.array, dtype=np.int64) if compiled else list
    states, stops, begins = map(kind, ([*map(_first_state, checks)], np.cumsum(lengths).tolist(), [-1] * len(lengths)))
    rows: Any = (starts, sizes) if compiled else (starts.tolist(), sizes.tolist())
    room = bytearray(_MOST_BYTES * len(starts) + STATE_BYTES * len(lengths))
    write(states, stops, *rows, np.frombuffer(room, np.uint8) if compiled else room, begins)
    assert min(begins, default=0) >= 0, "what is written can be read"
    return [bytes(room[begin:end]) for begin, end in itertools.pairwise([*begins, len(room)])]


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


def _write(states: Any, stops: Any, starts: Any, sizes: Any, room: Any, begins: Any) -> None:
    """Codes into `room`, one behind the other, from its end to its beginning, and where each begins; -1 where it does
    not read as what was written. Of lists or, compiled, of arrays."""
    at = len(room)
    for code in range(len(stops) - 1, -1, -1):
        first, end, state = stops[code - 1] if code else 0, at, states[code]
        for row in range(stops[code] - 1, first - 1, -1):
            size = sizes[row]
            while state >= size << 16:
                at -= 1
                room[at] = state & 0xFF
                state >>= 8
            state = (state // size << TOTAL_BITS) + state % size + starts[row]
        begin = at - STATE_BYTES
        for place in range(STATE_BYTES):
            at -= 1
            room[at] = state >> 8 * place & 0xFF
        at += STATE_BYTES
        for row in range(first, stops[code]):
            behind = (state & _MASK) - starts[row]
            if not 0 <= behind < sizes[row]:
                break
            state = sizes[row] * (state >> TOTAL_BITS) + behind
            while state < _LEAST and at < end:
                state = state << 8 | room[at]
                at += 1
        if state == states[code] and at == end:
            begins[code] = begin
        at = begin


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
def _compiled_writer() -> Callable[..., None]:
    numbers = "i8[::1]"
    compiled: Callable[..., None] = load_kernels().compiled(*[numbers] * 4, "u1[::1]", numbers)(_write)
    return compiled


@functools.cache
def _compiled_reader() -> Callable[..., None]:
    numbers, number = ("i8[::1]",) * 3, "i8"
    types = (*numbers, "u1[::1]", *numbers, "i4[:, ::1]", number, number, "i8[::1]")
    compiled: Callable[..., None] = load_kernels().compiled(*types)(_read)
    return compiled

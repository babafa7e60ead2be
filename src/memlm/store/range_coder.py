"""A range coder of whole numbers (range ANS, Duda 2013): tokens, given their frequencies, as bytes.

The coder's state begins as the checksum of the text and ends as the first bytes of the code. So whoever decodes all
tokens comes back to the checksum, which takes no bytes of its own.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from memlm.models.exact import TOTAL_BITS

_CHECK_BYTES = 4
"""Of the checksum, its first."""
_LEAST = 1 << (TOTAL_BITS + 8)
"""A state lies from here to 256 times as much."""
STATE_BYTES = 5
"""Of a code that tells nothing but the checksum."""
_MASK = (1 << TOTAL_BITS) - 1


def coded(check: bytes, starts: Sequence[int], sizes: Sequence[int]) -> bytes:
    """The code of some tokens: of each its interval of [0, 2^24), which begins at `start` and is `size` wide."""
    state, tail = _LEAST + int.from_bytes(check[:_CHECK_BYTES], "big"), bytearray()
    for start, size in zip(reversed(starts), reversed(sizes), strict=True):
        while state >= size << 16:
            tail.append(state & 0xFF)
            state >>= 8
        state = (state // size << TOTAL_BITS) + state % size + start
    return state.to_bytes(STATE_BYTES, "big") + bytes(reversed(tail))


class Row(Protocol):
    """What may come next, as intervals of [0, 2^24)."""

    def at(self, place: int) -> tuple[int, int, int]:
        """The token in whose interval a place lies, where that begins, and how wide it is."""


def is_code_of(code: bytes, check: bytes, starts: Sequence[int], sizes: Sequence[int]) -> bool:
    """Whether these are the tokens and the checksum that a code gives back."""
    decoder = RangeDecoder(code)
    return all(decoder.tokens(map(_Only, starts, sizes))) and decoder.ends_with(check)


class _Only(NamedTuple):
    """One interval; the token is whether a place lies in it."""

    start: int
    size: int

    def at(self, place: int) -> tuple[int, int, int]:
        return 0 <= place - self.start < self.size, self.start, self.size


class RangeDecoder:
    """Reads a code, token by token."""

    def __init__(self, code: bytes) -> None:
        self._state, self._rest = int.from_bytes(code[:STATE_BYTES], "big"), memoryview(code)[STATE_BYTES:]
        self._read = 0

    def tokens(self, rows: Iterable[Row]) -> list[int]:
        """The next tokens, one of each row."""
        state, rest, read, found = self._state, self._rest, self._read, []
        for row in rows:
            place = state & _MASK
            token, start, size = row.at(place)
            found.append(token)
            state = size * (state >> TOTAL_BITS) + place - start
            while state < _LEAST and read < len(rest):
                state = state << 8 | rest[read]
                read += 1
        self._state, self._read = state, read
        return found

    def ends_with(self, check: bytes) -> bool:
        """Whether all of it was read, and what was decoded has this checksum."""
        whole = self._read == len(self._rest)
        return whole and self._state == _LEAST + int.from_bytes(check[:_CHECK_BYTES], "big")

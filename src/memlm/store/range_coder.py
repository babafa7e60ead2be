"""A range coder of whole numbers (range ANS, Duda 2013): tokens, given their frequencies, as bytes.

The coder's state begins as the checksum of the text and ends as the first bytes of the code. So whoever decodes all
tokens comes back to the checksum, which takes no bytes of its own.
"""

from collections.abc import Sequence

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


def is_code_of(code: bytes, check: bytes, starts: Sequence[int], sizes: Sequence[int]) -> bool:
    """Whether these are the tokens and the checksum that a code gives back."""
    decoder = RangeDecoder(code)
    for start, size in zip(starts, sizes, strict=True):
        if not start <= decoder.place < start + size:
            return False
        decoder.take(start, size)
    return decoder.ends_with(check)


class RangeDecoder:
    """Reads a code, token by token."""

    def __init__(self, code: bytes) -> None:
        self._state, self._rest = int.from_bytes(code[:STATE_BYTES], "big"), memoryview(code)[STATE_BYTES:]
        self._read = 0

    @property
    def place(self) -> int:
        """Where in [0, 2^24) the next token's interval lies."""
        return self._state & _MASK

    def take(self, start: int, size: int) -> None:
        """Go on behind the token whose interval this is."""
        state = size * (self._state >> TOTAL_BITS) + (self._state & _MASK) - start
        while state < _LEAST and self._read < len(self._rest):
            state = state << 8 | self._rest[self._read]
            self._read += 1
        self._state = state

    def ends_with(self, check: bytes) -> bool:
        """Whether all of it was read, and what was decoded has this checksum."""
        whole = self._read == len(self._rest)
        return whole and self._state == _LEAST + int.from_bytes(check[:_CHECK_BYTES], "big")

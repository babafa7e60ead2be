"""A range coder of whole numbers (range ANS, Duda 2013): tokens, given their frequencies, as bytes.

The coder's state begins as the checksum of the text and ends as the first bytes of the code. So whoever decodes all
tokens comes back to the checksum, which takes no bytes of its own. Many texts are coded side by side, by arrays; the
longest come first, so that those which still go on at some place are the first ones.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from memlm.models.exact import TOTAL_BITS

_CHECK_BYTES = 4
"""Of the checksum, its first."""
_LEAST = 1 << (TOTAL_BITS + 8)
"""A state lies from here to 256 times as much."""
STATE_BYTES = 5
"""Of a code that tells nothing but the checksum."""
_MASK = (1 << TOTAL_BITS) - 1
_MOST_BYTES = 3
"""That a token, of the least frequency, takes from the state at once."""

Places = Int[np.ndarray, "text token"]
Whole = Int[np.ndarray, " text"]


def num_going_on(lengths: Sequence[int]) -> list[int]:
    """How many texts have more tokens than 0, 1, ...; their lengths fall."""
    places = np.arange(max(lengths, default=0))
    return (np.array(lengths)[:, None] > places).sum(axis=0).tolist()


def coded(checks: Sequence[bytes], starts: Places, sizes: Places, lengths: Sequence[int]) -> list[bytes]:
    """The codes of texts of so many tokens, the longest first: of each token its interval of [0, 2^24), which begins at
    `start` and is `size` wide."""
    state, going_on = _first_states(checks), num_going_on(lengths)
    tails, ends = np.zeros((len(state), _MOST_BYTES * len(going_on)), np.uint8), np.zeros(len(state), np.int64)
    for place, number in reversed([*enumerate(going_on)]):
        start, size, now = starts[:number, place], sizes[:number, place], state[:number]
        while len(full := np.flatnonzero(now >= size << 16)):
            tails[full, ends[full]] = now[full] & 0xFF
            ends[full] += 1
            now[full] >>= 8
        quotient, rest = np.divmod(now, size)
        state[:number] = (quotient << TOTAL_BITS) + rest + start
    return [
        int(first).to_bytes(STATE_BYTES, "big") + tail[:end][::-1].tobytes()
        for first, tail, end in zip(state, tails, ends, strict=True)
    ]


def are_codes_of(
    codes: Sequence[bytes], checks: Sequence[bytes], starts: Places, sizes: Places, lengths: Sequence[int]
) -> bool:
    """Whether these are the tokens and the checksums that codes give back."""
    decoder = RangeDecoder(codes)
    for place, number in enumerate(num_going_on(lengths)):
        start, size = starts[:number, place], sizes[:number, place]
        behind = decoder.places(number) - start
        if (behind < 0).any() or (behind >= size).any():
            return False
        decoder.take(start, size)
    return all(decoder.end_with(checks))


class RangeDecoder:
    """Reads codes, token by token."""

    def __init__(self, codes: Sequence[bytes]) -> None:
        self._state = np.array([int.from_bytes(code[:STATE_BYTES], "big") for code in codes], np.int64)
        self._left = np.array([max(0, len(code) - STATE_BYTES) for code in codes], np.int64)
        self._rest = np.zeros((len(codes), int(self._left.max(initial=0))), np.uint8)
        for row, code in zip(self._rest, codes, strict=True):
            row[: len(code[STATE_BYTES:])][::-1] = np.frombuffer(code[STATE_BYTES:], np.uint8)

    def places(self, number: int) -> Whole:
        """Where in [0, 2^24) the next tokens' intervals lie, of the first texts."""
        return self._state[:number] & _MASK

    def take(self, starts: Whole, sizes: Whole) -> None:
        """Go on behind the tokens, of the first texts, whose intervals these are."""
        number = len(starts)
        now, left = self._state[:number], self._left[:number]
        now[:] = sizes * (now >> TOTAL_BITS) + (now & _MASK) - starts
        while len(low := np.flatnonzero((now < _LEAST) & (left > 0))):
            left[low] -= 1
            now[low] = now[low] << 8 | self._rest[low, left[low]]

    def end_with(self, checks: Sequence[bytes]) -> list[bool]:
        """Of each text, whether all of its code was read, and what was decoded has this checksum."""
        return ((self._left == 0) & (self._state == _first_states(checks))).tolist()


def _first_states(checks: Sequence[bytes]) -> Whole:
    return np.array([_LEAST + int.from_bytes(check[:_CHECK_BYTES], "big") for check in checks], np.int64)

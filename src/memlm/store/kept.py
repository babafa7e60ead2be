"""A chunk of text as it is kept: a vector and the patch that makes it exact, or raw text; and their checksums."""

import hashlib
import struct
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from memlm.store.packing import Bits, Packed, unpack

DIGEST_BYTES = 8


class Kept(NamedTuple):
    """One chunk as it is kept."""

    num_tokens: int
    num_bytes: int
    """Of its text, in UTF-8."""
    num_wrong: int
    """Tokens that the vector alone does not give back; all, where there is no vector."""
    vector: NDArray[Any] | None
    """A packed row; None where the text is kept raw."""
    scale: float
    payload: bytes
    """The patch, or the raw text, deflated."""
    text_digest: bytes
    """Of the exact text."""

    @property
    def digest(self) -> bytes:
        """Of everything that is kept."""
        numbers = struct.pack("<iii?f", *self[:3], self.vector is None, self.scale)
        vector = b"" if self.vector is None else self.vector.tobytes()
        return digest(numbers, vector, self.payload, self.text_digest)


def vectors_of(
    kept: Sequence[Kept], bits: Bits, num_slots: int, memory_dim: int
) -> Float[Tensor, "chunk {num_slots} {memory_dim}"]:
    """The memories of those chunks that have one, as they are read."""
    rows = [chunk.vector for chunk in kept if chunk.vector is not None]
    scales = [chunk.scale for chunk in kept if chunk.vector is not None]
    if not rows:
        return torch.zeros(0, num_slots, memory_dim)
    packed = Packed(np.stack(rows), np.array(scales, np.float32))
    return unpack(packed, bits, num_slots * memory_dim).reshape(len(rows), num_slots, memory_dim)


def digest(*parts: bytes) -> bytes:
    """A short BLAKE2b."""
    whole = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        whole.update(part)
    return whole.digest()


def deflated(data: bytes) -> bytes:
    """Compressed, without a header: many are short. Of nothing, nothing."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush() if data else b""


def inflated(data: bytes) -> bytes:
    """Undo `deflated`."""
    return zlib.decompress(data, -zlib.MAX_WBITS) if data else b""


def patch_of(tokens: NDArray[np.int64], places: NDArray[np.int64]) -> bytes:
    """The tokens [token] of a chunk at some places, which rise: two widths, steps between places, tokens."""
    if not len(places):
        return b""
    columns = np.diff(places, prepend=0), tokens[places]
    widths = [next(width for width in (1, 2, 4) if int(column.max()) < 256**width) for column in columns]
    return deflated(bytes(widths) + b"".join(map(_narrowed, columns, widths)))


def patched(tokens: NDArray[np.int64], patch: bytes) -> NDArray[np.int64]:
    """Regenerated tokens [token] made right."""
    if not patch:
        return tokens
    data = inflated(patch)
    count = (len(data) - 2) // (data[0] + data[1])
    steps = np.frombuffer(data, f"<u{data[0]}", count, 2)
    tokens = tokens.copy()
    tokens[np.cumsum(steps)] = np.frombuffer(data, f"<u{data[1]}", count, 2 + steps.nbytes)
    return tokens


def _narrowed(numbers: NDArray[np.int64], width: int) -> bytes:
    return numbers.astype(f"<u{width}").tobytes()

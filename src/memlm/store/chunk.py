"""A chunk as it is stored: a vector and the patch that makes it exact, or raw text; and a checksum of each."""

import hashlib
import struct
import zlib
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from memlm.store.packing import Bits, Packed, row_dtype, unpack

DIGEST_BYTES = 8


class StoredChunk(NamedTuple):
    """One chunk with everything that is stored of it."""

    num_tokens: int
    num_bytes: int
    """Of its text, in UTF-8."""
    num_wrong: int
    """Tokens that the vector alone does not give back; all, where there is no vector."""
    vector: bytes | None
    """A row of `Packed.rows`; None where the text is stored raw."""
    scale: float
    payload: bytes
    """The patch, or the raw text, deflated."""
    text_digest: bytes
    """Checksum of the exact text."""

    @property
    def digest(self) -> bytes:
        """Checksum of everything that is stored."""
        numbers = struct.pack("<iii?f", *self[:3], self.vector is None, self.scale)
        return checksum(numbers, self.vector or b"", self.payload, self.text_digest)


class ChunkInfo(NamedTuple):
    """What is known of a chunk without reading it."""

    num_tokens: int
    num_bytes: int
    """Of its text."""
    num_wrong: int
    """Tokens that the vector alone does not give back."""
    kind: Literal["exact", "patched", "raw"]
    payload_bytes: int
    """Of the patch, or of raw text, compressed."""

    @property
    def fidelity(self) -> float:
        """The share of its tokens that the vector alone gives back; of raw text, none."""
        return 0.0 if self.kind == "raw" else 1 - self.num_wrong / self.num_tokens

    @property
    def is_exact(self) -> bool:
        """Whether the vector alone gives it back."""
        return self.kind != "raw" and self.num_wrong == 0


def vectors_of(
    chunks: Sequence[StoredChunk], bits: Bits, num_slots: int, memory_dim: int
) -> Float[Tensor, "chunk {num_slots} {memory_dim}"]:
    """The memories of those chunks that have one."""
    rows = [(chunk.vector, chunk.scale) for chunk in chunks if chunk.vector is not None]
    if not rows:
        return torch.zeros(0, num_slots, memory_dim)
    packed = np.frombuffer(b"".join(vector for vector, _ in rows), row_dtype(bits)).reshape(len(rows), -1)
    scales = np.array([scale for _, scale in rows], np.float32)
    return unpack(Packed(packed, scales), bits, num_slots * memory_dim).reshape(len(rows), num_slots, memory_dim)


def checksum(*parts: bytes) -> bytes:
    """A short BLAKE2b."""
    return hashlib.blake2b(b"".join(parts), digest_size=DIGEST_BYTES).digest()


def deflated(data: bytes) -> bytes:
    """Compressed, without a header, since many are short; empty if `data` is."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush() if data else b""


def inflated(data: bytes) -> bytes:
    """Undo `deflated`."""
    return zlib.decompress(data, -zlib.MAX_WBITS) if data else b""


def patch_of(tokens: NDArray[np.int64], places: NDArray[np.int64]) -> bytes:
    """The tokens [token] of a chunk at some places, in rising order: two widths, steps between places, tokens."""
    if not len(places):
        return b""
    columns = np.diff(places, prepend=0), tokens[places]
    widths = [next(width for width in (1, 2, 4) if int(column.max()) < 256**width) for column in columns]
    narrow = (column.astype(f"<u{width}").tobytes() for column, width in zip(columns, widths, strict=True))
    return deflated(bytes(widths) + b"".join(narrow))


def patched(tokens: NDArray[np.int64], patch: bytes) -> NDArray[np.int64]:
    """Regenerated tokens [token] corrected by a patch."""
    if not patch:
        return tokens
    data = inflated(patch)
    count = (len(data) - 2) // (data[0] + data[1])
    steps = np.frombuffer(data, f"<u{data[0]}", count, 2)
    tokens = tokens.copy()
    tokens[np.cumsum(steps)] = np.frombuffer(data, f"<u{data[1]}", count, 2 + steps.nbytes)
    return tokens

"""Memory files of version 2: the same frames; in them, numbers as they are, longer checksums, and one of each text.

A chunk's record is its checksum and that of its text, then, if it is not raw, its scale and its packed vector, then its
payload. A payload is raw text or a patch of placed tokens, as in version 3, but for the text's checksum, with which a
patch begins there.
"""

import struct

import numpy as np
from numpy.typing import NDArray

from memlm.store.chunk import NUMBERS, About, Block, Coding, checksum, record_check

_DIGEST_BYTES = 8
_SCALE_BYTES = 4


def numbers_of(data: bytes, num_chunks: int) -> NDArray[np.void]:
    """`NUMBERS` [chunk] of an index, as the present version has them; `num_chunks` is not needed to read them."""
    numbers = np.frombuffer(data, NUMBERS).copy()
    numbers["payload_bytes"] += np.where(numbers["coding"] == Coding.RAW, 0, _DIGEST_BYTES).astype("<i4")
    return numbers


def record(digests: bytes, vector: bytes | None, scale: float, payload: bytes) -> bytes:
    """A chunk's record; `digests` are of the chunk and of its text."""
    return digests + (b"" if vector is None else np.array(scale, "<f4").tobytes() + vector) + payload


def record_bytes(numbers: NDArray[np.void], about: About) -> NDArray[np.int64]:
    """The size [chunk] of each record."""
    is_raw = numbers["coding"] == Coding.RAW
    around = np.where(is_raw, 2 * _DIGEST_BYTES, _DIGEST_BYTES + about.vector_bytes)
    sizes: NDArray[np.int64] = around + numbers["payload_bytes"].astype(np.int64)
    return sizes


def present(block: Block, about: About) -> Block:
    """A block with records of version 2 as the present version has it; what was damaged still is."""
    records = list[bytes]()
    for row, data in block.records(record_bytes(block.numbers, about)):
        own, proof, rest = data[:_DIGEST_BYTES], data[_DIGEST_BYTES : 2 * _DIGEST_BYTES], data[2 * _DIGEST_BYTES :]
        vector = b"" if row["coding"] == Coding.RAW else rest[: about.vector_bytes]
        payload = rest[len(vector) :]
        scale = np.frombuffer(vector, "<f4", 1)[0] if vector else 0.0
        counts = struct.pack("<iii?f", *row.tolist()[:3], not vector, scale)
        is_whole = checksum(counts, vector[_SCALE_BYTES:], payload, proof) == own
        after = vector + (proof if vector else b"") + payload
        check = record_check(row, after)
        records.append((check if is_whole else bytes(byte ^ 0xFF for byte in check)) + after)
    return Block(block.numbers, b"".join(records))

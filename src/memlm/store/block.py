"""Blocks: consecutive chunks as bytes, the form in which stores read, write and copy them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from memlm.store.chunk import DIGEST_BYTES, ChunkInfo, StoredChunk
from memlm.store.packing import Bits, row_bytes

FORMAT_VERSION = 2
TOKENS, BYTES, WRONG, RAW, PAYLOAD = range(5)
"""Columns of `Block.numbers`: tokens, bytes of text, wrong tokens, whether it is stored raw, bytes of the payload."""
_SCALE = np.dtype("<f4")


@dataclass(frozen=True, kw_only=True)
class About:
    """Which encoder made the memories, and how they are stored."""

    encoder: str
    """Its name or folder; empty where it had none."""
    fingerprint: str
    bits: Bits
    num_slots: int
    """Vectors of a chunk."""
    memory_dim: int
    """Of each."""

    @property
    def kind(self) -> str:
        """What two files must have in common for one to be appended to the other, in words."""
        return f"{self.bits} bits a dimension of encoder {self.fingerprint}"

    @property
    def vector_bytes(self) -> int:
        """Of a chunk's vectors, with their scale."""
        return row_bytes(self.bits, self.num_slots * self.memory_dim) + _SCALE.itemsize


def about_of(path: Path, header: Mapping[str, Any]) -> About:
    """What a file's header says of its memories.

    Raises:
        ValueError: it is of a newer version, or something is missing in it.
    """
    found = header.get("format_version")
    if not isinstance(found, int) or found > FORMAT_VERSION:
        raise ValueError(f"{path} has format version {found}; this memlm reads {FORMAT_VERSION}: upgrade memlm")
    names = [field.name for field in fields(About)]
    if missing := [name for name in names if name not in header]:
        raise ValueError(f"{path} is damaged in its header: it has no {', no '.join(missing)}")
    return About(**{name: header[name] for name in names})


class Block(NamedTuple):
    """Consecutive chunks.

    A chunk's record in `data` is its checksum and that of its text, then, if it is not raw, its scale as float32 and
    its packed vector, then its payload.
    """

    numbers: Int[np.ndarray, "chunk 5"]
    data: bytes

    @classmethod
    def of(cls, chunks: Sequence[StoredChunk]) -> Self:
        """These chunks as bytes."""
        numbers = [(*chunk[:3], chunk.vector is None, len(chunk.payload)) for chunk in chunks]
        records = (
            record(chunk.digest + chunk.text_digest, chunk.scale, chunk.vector, chunk.payload) for chunk in chunks
        )
        return cls(np.array(numbers, np.int32).reshape(-1, 5), b"".join(records))

    def chunks(self, about: About) -> Iterator[tuple[StoredChunk, bool]]:
        """Each chunk, and whether it is as it was written."""
        end = 0
        for numbers, size in zip(self.numbers, record_bytes(self.numbers, about).tolist(), strict=True):
            part, end = self.data[end : end + size], end + size
            own, text, rest = part[:DIGEST_BYTES], part[DIGEST_BYTES : 2 * DIGEST_BYTES], part[2 * DIGEST_BYTES :]
            vector, scale = None, 0.0
            if not numbers[RAW]:
                scale = float(np.frombuffer(rest, _SCALE, 1)[0])
                vector, rest = rest[_SCALE.itemsize : about.vector_bytes], rest[about.vector_bytes :]
            tokens, num_bytes, wrong = numbers[:RAW].tolist()
            chunk = StoredChunk(tokens, num_bytes, wrong, vector, scale, rest, text)
            yield chunk, chunk.digest == own


class Part(NamedTuple):
    """Chunks of one document."""

    name: str
    block: Block
    continues: bool = False
    """Whether they are more of the last document, instead of the first of a new one."""


def record(digests: bytes, scale: float, vector: bytes | None, payload: bytes) -> bytes:
    """A chunk as it stands in `Block.data`; `digests` are of the chunk and of its text."""
    return digests + (b"" if vector is None else np.array(scale, _SCALE).tobytes() + vector) + payload


def record_bytes(numbers: NDArray[np.int32], about: About) -> NDArray[np.int64]:
    """The size [chunk] of each record."""
    vectors = np.where(numbers[:, RAW] == 0, about.vector_bytes, 0)
    sizes: NDArray[Any] = 2 * DIGEST_BYTES + vectors + numbers[:, PAYLOAD].astype(np.int64)
    return sizes


def infos(numbers: NDArray[np.int32]) -> list[ChunkInfo]:
    """What is known of each chunk."""
    return [
        ChunkInfo(tokens, size, wrong, "raw" if raw else "patched" if payload else "exact", payload)
        for tokens, size, wrong, raw, payload in numbers.tolist()
    ]

"""Chunks as they are stored: a vector and the patch that makes it exact, or raw text, with checksums; and as bytes."""

import hashlib
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray

from memlm.store.packing import Bits, Packed, row_bytes, row_dtype, unpack
from memlm.text.memory import Memory

FORMAT_VERSION = 2
DIGEST_BYTES = 8
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
    search_dim: int = 0
    """Of these, those by which memories are searched."""

    @classmethod
    def of(cls, path: Path, header: Mapping[str, Any]) -> Self:
        """What a file's header says of its memories.

        Raises:
            ValueError: it is of a newer version, or something is missing in it.
        """
        found = header.get("format_version")
        if not isinstance(found, int) or found > FORMAT_VERSION:
            raise ValueError(f"{path} has format version {found}; this memlm reads {FORMAT_VERSION}: upgrade memlm")
        names = [field.name for field in fields(cls)]
        if missing := [name for name in names if name not in header and name != "search_dim"]:
            raise ValueError(f"{path} is damaged in its header: it has no {', no '.join(missing)}")
        return cls(**{name: header[name] for name in names if name in header})

    @property
    def vector_bytes(self) -> int:
        """Of a chunk's vectors, with their scale."""
        return row_bytes(self.bits, self.num_slots * self.memory_dim) + _SCALE.itemsize

    def memory(self, chunks: Sequence["StoredChunk"]) -> Memory:
        """The memories of those chunks that have one, as one text's."""
        found = [chunk for chunk in chunks if chunk.vector is not None]
        rows = np.frombuffer(b"".join(chunk.vector or b"" for chunk in found), row_dtype(self.bits))
        packed = Packed(rows.reshape(len(found), -1 if found else 0), np.array([chunk.scale for chunk in found], "f4"))
        vectors = unpack(packed, self.bits, self.num_slots * self.memory_dim)
        return Memory(
            vectors=vectors.reshape(len(found), self.num_slots, self.memory_dim),
            num_tokens=torch.tensor([chunk.num_tokens for chunk in found], dtype=torch.int64),
            num_chunks=(len(found),),
            encoder=self.fingerprint,
            search_dim=self.search_dim,
        )


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
    """What is known of a chunk without reading it: its row in an index."""

    num_tokens: int
    num_bytes: int
    """Of its text."""
    num_wrong: int
    """Tokens that the vector alone does not give back."""
    is_raw: bool
    payload_bytes: int
    """Of the patch, or of raw text, compressed."""

    @property
    def kind(self) -> Literal["exact", "patched", "raw", "lost"]:
        """Lost: the index of its segment is damaged, or it is missing; all numbers are 0."""
        if self.is_raw:
            return "raw" if self.num_bytes else "lost"
        return "patched" if self.payload_bytes else "exact"

    @property
    def fidelity(self) -> float:
        """The share of its tokens that the vector alone gives back; of raw text, none."""
        return 0.0 if self.is_raw else 1 - self.num_wrong / self.num_tokens

    @property
    def is_exact(self) -> bool:
        """Whether the vector alone gives it back."""
        return not self.is_raw and self.num_wrong == 0


NUMBERS = np.dtype([(name, "<i4") for name in ChunkInfo._fields])
"""`ChunkInfo` as it is stored."""


class Block(NamedTuple):
    """Consecutive chunks as bytes, the form in which files are read, written and copied.

    A chunk's record in `data` is its checksum and that of its text, then, if it is not raw, its scale as float32 and
    its packed vector, then its payload.
    """

    numbers: NDArray[np.void]
    """[chunk], of `NUMBERS`."""
    data: bytes

    @classmethod
    def of(cls, chunks: Sequence[StoredChunk]) -> Self:
        """These chunks as bytes."""
        numbers = [(*chunk[:3], chunk.vector is None, len(chunk.payload)) for chunk in chunks]
        records = (record(chunk.digest + chunk.text_digest, *chunk[3:6]) for chunk in chunks)
        return cls(np.array(numbers, NUMBERS), b"".join(records))

    def chunks(self, about: About) -> Iterator[tuple[StoredChunk, bool]]:
        """Each chunk, and whether it is as it was written."""
        end = 0
        sizes = record_bytes(self.numbers, about).tolist()
        for (num_tokens, num_bytes, num_wrong, is_raw, _), size in zip(self.numbers.tolist(), sizes, strict=True):
            part, end = self.data[end : end + size], end + size
            own, text, rest = part[:DIGEST_BYTES], part[DIGEST_BYTES : 2 * DIGEST_BYTES], part[2 * DIGEST_BYTES :]
            vector, scale = None, 0.0
            if not is_raw:
                scale = float(np.frombuffer(rest, _SCALE, 1)[0])
                vector, rest = rest[_SCALE.itemsize : about.vector_bytes], rest[about.vector_bytes :]
            chunk = StoredChunk(num_tokens, num_bytes, num_wrong, vector, scale, rest, text)
            yield chunk, chunk.digest == own


class Part(NamedTuple):
    """Chunks of one document."""

    name: str
    block: Block
    continues: bool = False
    """Whether they are more of the last document, instead of the first of a new one."""


def record(digests: bytes, vector: bytes | None, scale: float, payload: bytes) -> bytes:
    """A chunk as it stands in `Block.data`; `digests` are of the chunk and of its text."""
    return digests + (b"" if vector is None else np.array(scale, _SCALE).tobytes() + vector) + payload


def record_bytes(numbers: NDArray[np.void], about: About) -> NDArray[np.int64]:
    """The size [chunk] of each record."""
    vectors = np.where(numbers["is_raw"], 0, about.vector_bytes)
    sizes: NDArray[np.int64] = 2 * DIGEST_BYTES + vectors + numbers["payload_bytes"].astype(np.int64)
    return sizes


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

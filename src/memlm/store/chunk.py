"""Chunks as they are stored: a vector and the patch that makes it exact, or raw text, with a checksum; and as bytes."""

import hashlib
import itertools
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray

from memlm.runtime.untrusted import inflated
from memlm.store.packing import BITS, Bits, Packed, row_bytes, row_dtype, unpack
from memlm.text.memory import Memory

FORMAT_VERSION = 3
MOST_DIMS = 1 << 24
"""Of a chunk's vectors together: what is more is no memory of a chunk."""
CHECK_BYTES = 4
"""Of a chunk's checksum."""
_SCALE = np.dtype("<f4")


class Coding(IntEnum):
    """What a chunk's payload is."""

    PLACED = 0
    """The tokens that the vector does not give back, with their places (`PlacedPatches`)."""
    RAW = 1
    """The text, deflated; there is no vector."""
    CODED = 2
    """All tokens, as what the decoder did not expect (`CodedPatches`)."""
    IN_CONTEXT = 3
    """The same, of what it expects after the tokens before."""


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
    scaled: bool = True
    """Whether each chunk's vectors have a scale; those that a model rounds itself need none."""
    search_dim: int = 0
    """Of these, those by which memories are searched."""

    @classmethod
    def of(cls, path: Path, header: Any) -> Self:
        """What a file's header says of its memories.

        Raises:
            ValueError: it is of a newer version, or something is missing in it, or cannot be.
        """
        found = header.get("format_version") if isinstance(header, Mapping) else None
        if type(found) is not int or not 1 <= found <= FORMAT_VERSION:
            raise ValueError(f"{path} has format version {found}; this memlm reads {FORMAT_VERSION}: upgrade memlm")
        names = [field.name for field in fields(cls)]
        later = ("scaled", "search_dim")  # newer than the first files
        if missing := [name for name in names if name not in header and name not in later]:
            raise ValueError(f"{path} is damaged in its header: it has no {', no '.join(missing)}")
        about = cls(**{name: header[name] for name in names if name in header})
        if not _possible(about):
            raise ValueError(f"{path} is damaged in its header: there are no such memories as {about}"[:500])
        return about

    @property
    def vector_bytes(self) -> int:
        """Of a chunk's vectors, with their scale if they have one."""
        return row_bytes(self.bits, self.num_slots * self.memory_dim) + self.scaled * _SCALE.itemsize

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


def _possible(about: Any) -> bool:
    """Whether there can be such memories, whatever a file says."""
    texts, numbers = (about.encoder, about.fingerprint), (about.num_slots, about.memory_dim, about.search_dim)
    return (
        all(type(each) is str for each in texts)
        and all(type(each) is int for each in numbers)
        and type(about.scaled) is bool
        and type(about.bits) is int
        and about.bits in BITS
        and min(about.num_slots, about.memory_dim) > 0
        and about.num_slots * about.memory_dim <= MOST_DIMS
        and 0 <= about.search_dim <= about.memory_dim
    )


class StoredChunk(NamedTuple):
    """One chunk with everything that is stored of it."""

    num_tokens: int
    num_bytes: int
    """Of its text, in UTF-8."""
    num_wrong: int
    """Tokens that the vector alone does not give back; all, where there is no vector."""
    coding: Coding
    vector: bytes | None
    """A row of `Packed.rows`; None where the text is stored raw."""
    scale: float
    payload: bytes
    """The patch, which proves the text, or the raw text."""


class ChunkInfo(NamedTuple):
    """What is known of a chunk without reading it: its row in an index."""

    num_tokens: int
    num_bytes: int
    """Of its text."""
    num_wrong: int
    """Tokens that the vector alone does not give back."""
    coding: int
    """One of `Coding`."""
    payload_bytes: int
    """Of the patch, or of raw text, compressed."""

    @property
    def kind(self) -> Literal["exact", "patched", "raw", "lost"]:
        """Lost: the index of its segment is damaged, or it is missing; all numbers are 0."""
        if self.is_raw:
            return "raw" if self.num_bytes else "lost"
        return "patched" if self.num_wrong else "exact"

    @property
    def is_exact(self) -> bool:
        """Whether the vector alone gives back all of it."""
        return self.kind == "exact"

    @property
    def is_raw(self) -> bool:
        """Whether it is text, without a vector."""
        return self.coding == Coding.RAW

    @property
    def fidelity(self) -> float:
        """The share of its tokens that the vector alone gives back; of raw text, none."""
        return 0.0 if self.is_raw else 1 - self.num_wrong / self.num_tokens


NUMBERS = np.dtype([(name, "<i4") for name in ChunkInfo._fields])
"""`ChunkInfo` as it is stored."""


class Block(NamedTuple):
    """Consecutive chunks as bytes, the form in which files are read, written and copied.

    A chunk's record in `data` is its checksum, then, if it is not raw, its packed vector, after its scale as float32
    where vectors have one, then its payload. The checksum is of its row of `numbers` and of the rest of the record.
    """

    numbers: NDArray[np.void]
    """[chunk], of `NUMBERS`."""
    data: bytes

    @classmethod
    def of(cls, chunks: Sequence[StoredChunk], about: About) -> Self:
        """These chunks as bytes."""
        rows = [(*chunk[:4], len(chunk.payload)) for chunk in chunks]
        numbers = np.array(rows, NUMBERS)
        records = (_record(row, chunk, about) for row, chunk in zip(numbers, chunks, strict=True))
        return cls(numbers, b"".join(records))

    def records(self, sizes: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.void], bytes]]:
        """Each chunk's row of `numbers` and its record, of these sizes."""
        ends = np.cumsum(sizes).tolist()
        for row, (start, end) in zip(self.numbers, itertools.pairwise([0, *ends]), strict=True):
            yield row, self.data[start:end]

    def chunks(self, about: About) -> Iterator[tuple[StoredChunk, bool]]:
        """Each chunk, and whether it is as it was written."""
        for row, data in self.records(record_bytes(self.numbers, about)):
            own, rest = data[:CHECK_BYTES], data[CHECK_BYTES:]
            vector, scale, payload = None, 1.0, rest
            if row["coding"] != Coding.RAW:
                vector, payload = rest[: about.vector_bytes], rest[about.vector_bytes :]
                if about.scaled:
                    scale, vector = float(np.frombuffer(vector, _SCALE, 1)[0]), vector[_SCALE.itemsize :]
            num_tokens, num_bytes, num_wrong, coding, _ = row.tolist()
            chunk = StoredChunk(num_tokens, num_bytes, num_wrong, coding, vector, scale, payload)
            yield chunk, record_check(row, rest) == own


class Part(NamedTuple):
    """Chunks of one document."""

    name: str
    block: Block
    continues: bool = False
    """Whether they are more of the last document, instead of the first of a new one."""


def _record(row: NDArray[np.void], chunk: StoredChunk, about: About) -> bytes:
    """A chunk as it stands in `Block.data`."""
    scale = np.array(chunk.scale, _SCALE).tobytes() if about.scaled and chunk.vector is not None else b""
    rest = scale + (chunk.vector or b"") + chunk.payload
    return record_check(row, rest) + rest


def record_check(row: NDArray[np.void], rest: bytes) -> bytes:
    """The checksum of a row of `NUMBERS` and of what follows the checksum in its record."""
    return checksum(row.tobytes(), rest)[:CHECK_BYTES]


def record_bytes(numbers: NDArray[np.void], about: About) -> NDArray[np.int64]:
    """The size [chunk] of each record."""
    vectors = np.where(numbers["coding"] == Coding.RAW, 0, about.vector_bytes)
    sizes: NDArray[np.int64] = CHECK_BYTES + vectors + numbers["payload_bytes"].astype(np.int64)
    return sizes


def numbers_bytes(numbers: NDArray[np.void]) -> bytes:
    """`NUMBERS` [chunk] for an index: column by column, first all low bytes of a column, and deflated."""
    table = np.frombuffer(numbers.tobytes(), np.uint8).reshape(len(numbers), NUMBERS.itemsize)
    return deflated(table.T.tobytes())


def numbers_of(data: bytes, num_chunks: int) -> NDArray[np.void]:
    """Undo `numbers_bytes`; raises ValueError where it is more than of so many chunks."""
    table = np.frombuffer(inflated(data, num_chunks * NUMBERS.itemsize), np.uint8).reshape(NUMBERS.itemsize, -1)
    return np.frombuffer(table.T.tobytes(), NUMBERS)


def checksum(*parts: bytes) -> bytes:
    """A BLAKE2b of 8 bytes."""
    return hashlib.blake2b(b"".join(parts), digest_size=8).digest()


def deflated(data: bytes) -> bytes:
    """Compressed, without a header, since many are short; empty if `data` is."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush() if data else b""


def present(block: Block, about: About) -> Block:
    """Blocks of this version are as they are."""
    return block

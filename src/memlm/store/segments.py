"""The format of memory files, version 3: frames, the first a header and the others segments of chunks.

Damage stays where it is, and an append, which adds a segment, can be told whole. A frame is a head of 48 bytes, an
index and a body. All integers are little-endian:

    magic 8s · first chunk u64 · chunks u32 · index bytes u32 · body bytes u64 · index checksum 8s · head checksum 8s

Checksums are BLAKE2b of 8 bytes. The header's index is JSON: the format version and `About`; its body is a copy of the
header, without a body. A segment's index is a line of JSON, `[name, chunks, continues, goes_on]` of each document, then
`Block.numbers`, deflated; its body is `Block.data`. `goes_on` says whether the next part is more of the document, null
where that was not known, in a session. Damage in a body is damage of one chunk, whose checksum tells; where an index is
damaged, the chunks of its segment are lost, and no others. Version 2 had the same frames (`store.version2`).
"""

import json
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata

import numpy as np

from memlm.store.chunk import FORMAT_VERSION, About, Part, checksum, numbers_bytes

MAGIC = b"MEMLM\xff\r\n"
"""Not valid UTF-8: no text begins like this, and none that is stored raw can hold it."""
SEGMENT_CHUNKS = 256
"""Chunks after which a file that is written as a whole begins another segment."""
_DIGEST_BYTES = 8
_HEAD = struct.Struct(f"<{len(MAGIC)}sQIIQ{_DIGEST_BYTES}s{_DIGEST_BYTES}s")
_SEARCH_BYTES = 1 << 20


@dataclass(frozen=True)
class Frame:
    """Where a frame lies in its file."""

    first_chunk: int | None
    """Chunks in the frames before it; None if its head is damaged."""
    num_chunks: int
    """1 if its head is damaged: there was something."""
    index: bytes | None
    """None if it is damaged."""
    body: int
    """Where its body begins."""
    end: int


def frame(first_chunk: int, num_chunks: int, index: bytes, body: bytes) -> bytes:
    """A frame as bytes."""
    head = _HEAD.pack(MAGIC, first_chunk, num_chunks, len(index), len(body), checksum(index), bytes(_DIGEST_BYTES))
    head = head[:-_DIGEST_BYTES]
    return head + checksum(head) + index + body


def segment(first_chunk: int, parts: Sequence[Part], goes_on: bool | None) -> bytes:
    """Chunks as a frame; `goes_on` tells of the last document whether the next segment begins with more of it."""
    more = [*(part.continues for part in parts[1:]), goes_on]
    documents = [
        [part.name, len(part.block.numbers), part.continues, after] for part, after in zip(parts, more, strict=True)
    ]
    numbers = np.concatenate([part.block.numbers for part in parts])
    index = json.dumps(documents).encode() + b"\n" + numbers_bytes(numbers)
    return frame(first_chunk, len(numbers), index, b"".join(part.block.data for part in parts))


def file_frames(about: About, parts: Iterable[Part]) -> Iterator[bytes]:
    """A whole file, in segments of about `SEGMENT_CHUNKS`."""
    header = {"format_version": FORMAT_VERSION, "memlm": metadata.version("memlm"), **asdict(about)}
    index = json.dumps(header).encode()
    yield frame(0, 0, index, frame(0, 0, index, b""))
    first, group, count = 0, list[Part](), 0
    for part in parts:
        if count >= SEGMENT_CHUNKS:
            yield segment(first, group, part.continues)
            first, group, count = first + count, [], 0
        group.append(part)
        count += len(part.block.numbers)
    if group:
        yield segment(first, group, goes_on=False)


def frames(handle: int, offset: int, size: int) -> Iterator[Frame]:
    """The frames of a file of so many bytes, from one that begins at `offset`; ends before one that is cut short."""
    while offset + _HEAD.size <= size:
        head = os.pread(handle, _HEAD.size, offset)
        magic, first_chunk, num_chunks, index_bytes, body_bytes, digest, own = _HEAD.unpack(head)
        if magic != MAGIC or checksum(head[:-_DIGEST_BYTES]) != own:
            end = _next_magic(handle, offset + 1, size)
            yield Frame(None, 1, None, end, end)
        else:
            body = offset + _HEAD.size + index_bytes
            end = body + body_bytes
            if end > size:
                return
            index = os.pread(handle, index_bytes, offset + _HEAD.size)
            yield Frame(first_chunk, num_chunks, index if checksum(index) == digest else None, body, end)
        offset = end


def _next_magic(handle: int, offset: int, size: int) -> int:
    while offset < size and (data := os.pread(handle, _SEARCH_BYTES, offset)):
        place = data.find(MAGIC)
        if place >= 0:
            return offset + place
        offset += max(1, len(data) - len(MAGIC) + 1)
    return size

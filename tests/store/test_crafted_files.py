"""Memory files whose checksums are right, made to do harm: each is refused by name, in little time and memory."""

import json
import resource
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from memlm import MemoryFile, TextAutoencoder
from memlm.store.chunk import FORMAT_VERSION, NUMBERS, About, Block, Coding, StoredChunk, deflated
from memlm.store.chunk import numbers_bytes as index_of
from memlm.store.codec import Codec
from memlm.store.segments import frame
from memlm.store.store import DamagedChunkError

TEXT = "the memory of a text holds every token of it "
MEGABYTES = 1 << 20


@pytest.fixture(scope="module")
def codec(trained: TextAutoencoder) -> Codec:
    return Codec.of(trained)


@pytest.fixture(scope="module")
def block(codec: Codec) -> Block:
    """Whole chunks, as they should be."""
    return Block.of([*codec.write(TEXT * 3)], codec.about)


def header(about: About, **changed: Any) -> bytes:
    told = {"format_version": FORMAT_VERSION, "memlm": metadata.version("memlm"), **asdict(about), **changed}
    index = json.dumps(told).encode()
    return frame(0, 0, index, frame(0, 0, index, b""))


@cache
def bomb() -> bytes:
    """300 MB of zeros, deflated a thousandfold."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    pieces = [packer.compress(bytes(MEGABYTES)) for _ in range(300)]
    return b"".join([*pieces, packer.flush()])


def named(block: Block, name: object = "a", count: object = None, continues: object = False) -> bytes:
    """The line of an index."""
    return json.dumps([[name, len(block.numbers) if count is None else count, continues, False]]).encode() + b"\n"


def changed(block: Block, name: str, value: int) -> Block:
    numbers = block.numbers.copy()
    numbers[name][0] = value
    return block._replace(numbers=numbers)


def hostile(block: Block) -> Iterator[tuple[str, bytes]]:
    """Segments."""
    line, rows, count = named(block), index_of(block.numbers), len(block.numbers)
    yield "10^12 chunks before it", frame(10**12, count, line + rows, block.data)
    yield "as many as can be written", frame(2**64 - 1, count, line + rows, block.data)
    yield "4 billion chunks", frame(0, 2**32 - 1, line + rows, block.data)
    damaged = bytearray(frame(0, 2**32 - 1, line + rows, block.data))
    damaged[50] ^= 1
    yield "4 billion chunks, and a damaged index", bytes(damaged)
    yield "an index of 300 MB", frame(0, count, line + bomb(), block.data)
    yield (
        "a chunk of 2 GB",
        frame(0, count, line + index_of(changed(block, "payload_bytes", 2**31 - 1).numbers), block.data),
    )
    for name in NUMBERS.names or ():
        yield f"{name} below 0", frame(0, count, line + index_of(changed(block, name, -1).numbers), block.data)
    for what, told in {
        "deep JSON": b"[" * 100_000 + b"]" * 100_000 + b"\n",
        "no JSON": b"{\n",
        "a number for a name": named(block, 7),
        "no list": b"7\n",
        "no document": b"[7]\n",
        "a negative document": named(block, count=-1),
        "a document of 10^12 chunks": named(block, count=10**12),
        "a document of too few chunks": named(block, count=count - 1),
        "a document that goes on perhaps": named(block, continues="perhaps"),
    }.items():
        yield what, frame(0, count, told + rows, block.data)
    yield "rows that are missing", frame(0, count, line + index_of(block.numbers[1:]), block.data)
    yield "half a row", frame(0, count, line + deflated(bytes(NUMBERS.itemsize // 2)), block.data)
    yield "rows that are not packed", frame(0, count, line + b"\xff" * 40, block.data)
    yield "more body than chunks", frame(0, count, line + rows, block.data + b"more")


def test_each_hostile_segment_is_refused_by_name(codec: Codec, block: Block, tmp_path: Path) -> None:
    path, read = tmp_path / "hostile.memory", list[str]()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for what, segment in hostile(block):
        path.write_bytes(header(codec.about) + segment)
        said = "read"
        try:
            MemoryFile.open(path, codec.model).close()
        except ValueError as error:
            said = str(error)
        if not said.startswith(f"{path} is damaged: its segment at byte"):
            read.append(f"{what}: {said}")
    assert not read
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024  # KiB


@pytest.mark.parametrize(
    "wrong",
    [
        {"memory_dim": 10**12},
        {"memory_dim": 0},
        {"num_slots": -1},
        {"num_slots": 1e9},
        {"bits": 7},
        {"bits": "8"},
        {"bits": [8]},
        {"search_dim": 10**9},
        {"scaled": "no"},
        {"encoder": {"a": 1}},
        {"fingerprint": None},
        {"format_version": True},
        {"format_version": -1},
        {"memory_dim": 17},
    ],
    ids=str,
)
def test_a_header_that_cannot_be_is_refused_by_name(wrong: dict[str, Any], codec: Codec, tmp_path: Path) -> None:
    path = tmp_path / "hostile.memory"
    path.write_bytes(header(codec.about, **wrong))
    with pytest.raises(ValueError, match=r"hostile\.memory (is damaged in its header|has format version)"):
        MemoryFile.open(path, codec.model)


@pytest.mark.parametrize("index", [b"[" * 100_000, b"[]", b"7", b"{", b"null"])
def test_a_header_that_is_no_object_is_refused_by_name(index: bytes, codec: Codec, tmp_path: Path) -> None:
    path = tmp_path / "hostile.memory"
    path.write_bytes(frame(0, 0, index, frame(0, 0, index, b"")))
    with pytest.raises(ValueError, match=r"hostile\.memory"):
        MemoryFile.open(path, codec.model)


def test_each_hostile_chunk_is_damaged_and_the_others_are_read(codec: Codec, tmp_path: Path) -> None:
    whole = [*codec.write(TEXT * 3)]
    vector = next(chunk for chunk in whole if chunk.vector is not None)
    bad: list[StoredChunk] = [
        StoredChunk(8, 300 * MEGABYTES, 8, Coding.RAW, None, 1.0, bomb()),
        StoredChunk(8, 5, 8, Coding.RAW, None, 1.0, deflated(b"six of")),
        StoredChunk(8, 5, 8, Coding.RAW, None, 1.0, b"\xff\xff\xff"),
        vector._replace(num_tokens=2**31 - 1),
        vector._replace(num_tokens=codec.chunk_len + 1),
        vector._replace(coding=99),
        vector._replace(payload=b""),
        *(
            vector._replace(coding=Coding.PLACED, payload=bytes(8) + patch)
            for patch in (
                b"\xff",
                deflated(b"\0\0aaaa"),
                deflated(b"\3\3aaaaaa"),
                deflated(b"\1"),
                deflated(b"\1\4\xff\xff\xff\xff\xff"),
                bomb(),
            )
        ),
    ]
    chunks = [each for pair in zip(bad, [vector] * len(bad), strict=True) for each in pair]
    some = Block.of(chunks, codec.about)
    path = tmp_path / "hostile.memory"
    path.write_bytes(header(codec.about) + frame(0, len(chunks), named(some) + index_of(some.numbers), some.data))
    errors: list[DamagedChunkError] = []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with MemoryFile.open(path, codec.model) as notes:
        text = notes.text(on_damage=errors.append)
        assert text == codec.read([vector])[0].decode() * len(bad)  # type: ignore[union-attr]
    assert [error.number for error in errors] == [*range(0, len(chunks), 2)]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024

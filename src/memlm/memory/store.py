"""The file itself: one safetensors file, whose chunks are read one by one, and whose every bit is checked."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from memlm.files import atomic_file
from memlm.memory.kept import DIGEST_BYTES, Kept, digest
from memlm.memory.packing import Bits, empty_row

FORMAT = "memlm memory"
FORMAT_VERSION = 1
_INDEX = ("chunks", "documents", "names")
"""What says where everything is: read whole, under one checksum. Each chunk has its own."""
_NAMES = (*_INDEX, "digests", "vectors", "scales", "payloads")
Arrays = dict[str, NDArray[Any]]


def is_memory_file(path: Path) -> bool:
    """Whether it looks like one: a text cannot begin as a safetensors file does, with a length that fits in it."""
    with path.open("rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size


class Document(NamedTuple):
    """A text of the file."""

    name: str
    start_chunk: int
    stop_chunk: int
    num_bytes: int


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


@dataclass(frozen=True, kw_only=True)
class About:
    """Which encoder made the memories, and how they are kept."""

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
        """What files have to have in common to be joined, in words."""
        return f"{self.bits} bits a dimension of encoder {self.fingerprint}"

    @property
    def row_dims(self) -> int:
        """Dimensions of all vectors of a chunk."""
        return self.num_slots * self.memory_dim


class Store:
    """A file, opened: its index is in memory, its chunks are read when asked for."""

    def __init__(self, path: Path) -> None:
        """Open and check.

        Raises:
            ValueError: no such file, or it is no memory file, damaged, cut short, or of a newer version; says which.
        """
        self.path = path
        if not path.is_file():
            raise ValueError(f"there is no memory file {path}")
        try:
            # Of no type: safetensors' own methods have none.
            self._handle: Any = cast(Any, safe_open)(path, framework="numpy")
            found: Mapping[str, str] = self._handle.metadata() or {}
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{path} is no memory file, or its header is damaged or it is cut short: {error}"
            ) from None
        self.about = self._about(found)
        index = {name: self._handle.get_tensor(name) for name in _INDEX}
        if _checksum(found, index) != found.get("checksum"):
            raise ValueError(f"{path} is damaged in its header or its index of chunks: the checksum is another")
        self._numbers: NDArray[np.int32] = index["chunks"]
        self.documents = _documents(index)
        self._row = _starts(self._numbers[:, _RAW] == 0)
        self._payload = _starts(self._numbers[:, _PAYLOAD])

    def _about(self, found: Mapping[str, str]) -> About:
        if found.get("format") != FORMAT:
            raise ValueError(f"{self.path} is a safetensors file, but no memory file ({FORMAT!r})")
        version = found.get("format_version", "")
        if not version.isdecimal() or int(version) > FORMAT_VERSION:
            raise ValueError(
                f"{self.path} has format version {version}; this memlm reads {FORMAT_VERSION}: upgrade memlm"
            )
        missing = sorted({*_NAMES} - set(self._handle.keys())) + [
            field.name for field in fields(About) if field.name not in found
        ]
        if missing:
            raise ValueError(f"{self.path} is damaged in its header: it has no {', no '.join(missing)}")
        return About(
            encoder=found["encoder"],
            fingerprint=found["fingerprint"],
            bits=cast(Bits, _number(found["bits"])),
            num_slots=_number(found["num_slots"]),
            memory_dim=_number(found["memory_dim"]),
        )

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def chunks(self) -> list[ChunkInfo]:
        """What is known of each chunk."""
        return [
            ChunkInfo(tokens, size, wrong, "raw" if raw else "patched" if payload else "exact", payload)
            for tokens, size, wrong, raw, payload in self._numbers.tolist()
        ]

    def kept(self, start: int, stop: int) -> list[tuple[Kept, bool]]:
        """Chunks, and of each whether it is as it was written; nothing else of the file is read."""
        rows, payload = slice(*self._row[[start, stop]].tolist()), self._payload[start : stop + 1]
        vectors, scales = iter(self._slice("vectors", rows)), iter(self._slice("scales", rows))
        blob = self._slice("payloads", slice(int(payload[0]), int(payload[-1]))).tobytes()
        digests = self.digests(start, stop)
        chunks = []
        for place, (numbers, digests_of) in enumerate(zip(self._numbers[start:stop], digests, strict=True)):
            own, text = digests_of[:DIGEST_BYTES].tobytes(), digests_of[DIGEST_BYTES:].tobytes()
            part = blob[payload[place] - payload[0] : payload[place + 1] - payload[0]]
            vector, scale = (None, 0.0) if numbers[_RAW] else (next(vectors), float(next(scales)))
            tokens, size, wrong = numbers[:_RAW].tolist()
            chunk = Kept(tokens, size, wrong, vector, scale, part, text)
            chunks.append((chunk, chunk.digest == own))
        return chunks

    def digests(self, start: int, stop: int) -> NDArray[np.uint8]:
        """What chunks are told apart by, a row each."""
        return self._slice("digests", slice(start, stop))

    def arrays(self) -> Arrays:
        """All of it, to be written again with changes."""
        return {name: self._handle.get_tensor(name) for name in _NAMES}

    def without(self, start: int, stop: int) -> Arrays:
        """All but some chunks."""
        arrays = self.arrays()
        for name, places in (
            ("chunks", [start, stop]),
            ("digests", [start, stop]),
            ("vectors", self._row[[start, stop]]),
            ("scales", self._row[[start, stop]]),
            ("payloads", self._payload[[start, stop]]),
        ):
            arrays[name] = np.delete(arrays[name], slice(*map(int, places)), axis=0)
        gone = [max(0, min(stop, one.stop_chunk) - max(start, one.start_chunk)) for one in self.documents]
        arrays["documents"] = arrays["documents"] - np.array(gone, np.int64)
        return arrays

    def _slice(self, name: str, places: slice) -> NDArray[Any]:
        if places.start == places.stop:  # safetensors refuses such
            return np.zeros(0, np.uint8)
        return self._handle.get_slice(name)[places]


_RAW, _PAYLOAD = 3, 4
"""Columns of `chunks`; before them tokens, bytes, wrong tokens."""


def write(path: Path, about: About, arrays: Arrays) -> None:
    """Write a file, all or nothing.

    Raises:
        OSError: the disk is full or not writable; what was there still is.
    """
    found = {"format": FORMAT, "format_version": str(FORMAT_VERSION), "memlm": metadata.version("memlm")}
    found |= {field.name: str(getattr(about, field.name)) for field in fields(About)}
    found["checksum"] = _checksum(found, arrays)
    # In memory first: safetensors' own file writing leaves a file of its own when it is killed.
    data = save({name: np.ascontiguousarray(arrays[name]) for name in _NAMES}, metadata=found)
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)


def arrays_of(documents: Sequence[tuple[str, Sequence[Kept]]], about: About) -> Arrays:
    """Documents' names and chunks as arrays."""
    chunks = [chunk for _, kept in documents for chunk in kept]
    with_vector = [chunk for chunk in chunks if chunk.vector is not None]
    numbers = [(*chunk[:3], int(chunk.vector is None), len(chunk.payload)) for chunk in chunks]
    digests = b"".join(chunk.digest + chunk.text_digest for chunk in chunks)
    return {
        "chunks": np.array(numbers, np.int32).reshape(-1, 5),
        "digests": np.frombuffer(digests, np.uint8).reshape(-1, 2 * DIGEST_BYTES),
        "vectors": np.stack(
            [
                empty_row(about.bits, about.row_dims),
                *(chunk.vector for chunk in with_vector if chunk.vector is not None),
            ]
        )[1:],
        "scales": np.array([chunk.scale for chunk in with_vector], np.float32),
        "payloads": np.frombuffer(b"".join(chunk.payload for chunk in chunks), np.uint8),
        "documents": np.array([len(kept) for _, kept in documents], np.int64),
        "names": _as_bytes([name for name, _ in documents]),
    }


def joined(first: Arrays, second: Arrays) -> Arrays:
    """One after the other."""
    arrays = {name: np.concatenate([first[name], second[name]]) for name in _NAMES if name != "names"}
    return arrays | {"names": _as_bytes([*_as_names(first["names"]), *_as_names(second["names"])])}


def continued(first: Arrays, second: Arrays) -> Arrays:
    """One after the other, where the second is of one document: the first's last one goes on with it."""
    arrays = joined(first, second)
    documents = np.append(first["documents"][:-1], first["documents"][-1] + second["documents"].sum())
    return arrays | {"documents": documents, "names": first["names"]}


def _documents(index: Arrays) -> tuple[Document, ...]:
    ends = _starts(index["documents"])
    offsets = _starts(index["chunks"][:, 1])
    return tuple(
        Document(name, start, stop, int(offsets[stop] - offsets[start]))
        for name, start, stop in zip(_as_names(index["names"]), ends[:-1].tolist(), ends[1:].tolist(), strict=True)
    )


def _checksum(found: Mapping[str, str], index: Arrays) -> str:
    about = json.dumps(sorted((key, value) for key, value in found.items() if key != "checksum"))
    shapes = json.dumps([index[name].shape for name in _INDEX])
    return digest(about.encode(), shapes.encode(), *(index[name].tobytes() for name in _INDEX)).hex()


def _starts(lengths: NDArray[Any]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def _as_bytes(names: Sequence[str]) -> NDArray[np.uint8]:
    return np.frombuffer(json.dumps(names).encode(), np.uint8)


def _as_names(names: NDArray[np.uint8]) -> list[str]:
    return list(json.loads(names.tobytes()))


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else -1  # the checksum tells

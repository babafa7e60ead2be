"""The file itself: one safetensors file, whose chunks are read one by one, and whose every bit is checked."""

import json
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from memlm.runtime.files import atomic_file
from memlm.store.arrays import INDEX, NAMES, PAYLOAD, RAW, Arrays, names_of
from memlm.store.kept import DIGEST_BYTES, Kept, digest
from memlm.store.packing import Bits, empty_row, row_bytes

FORMAT = "memlm memory"
FORMAT_VERSION = 1
_READ_CHUNKS = 256
"""Chunks read at once."""
_SCALE_BYTES = 4


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
    def vector_bytes(self) -> int:
        """Of a chunk's vectors, with their scale."""
        return row_bytes(self.bits, self.num_slots * self.memory_dim) + _SCALE_BYTES

    @property
    def empty_row(self) -> NDArray[Any]:
        """A chunk's vectors, packed, if they were zeros."""
        return empty_row(self.bits, self.num_slots * self.memory_dim)


class DamagedChunkError(ValueError):
    """A chunk that cannot be given back."""

    def __init__(self, where: str, number: int, why: str) -> None:
        super().__init__(
            f"{where} is {why}; the others can be read: give a range without it, or skip it with on_damage"
        )
        self.where, self.number, self.why = where, number, why


OnDamage = Callable[[DamagedChunkError], object]
"""Hears of chunks that cannot be given back, and are then left out."""


class Store:
    """A file, opened: its index is in memory, its chunks are read when asked for."""

    def __init__(self, path: Path) -> None:
        """Open and check.

        Raises:
            ValueError: no such file, or it is no memory file, damaged, cut short, or of a newer version; says which.
        """
        self.path = path
        if path.is_dir():
            raise ValueError(f"{path} is a folder, not a memory file")
        if not path.is_file():
            raise ValueError(f"there is no memory file {path}")
        self.file_bytes = path.stat().st_size
        try:
            # Of no type: safetensors' own methods have none.
            self._opened: Any = cast(Any, safe_open)(path, framework="numpy")
            found: Mapping[str, str] = self._opened.metadata() or {}
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{path} is no memory file, or its header is damaged or it is cut short: {error}"
            ) from None
        self.about = self._about(found)
        index = {name: self._handle.get_tensor(name) for name in INDEX}
        if _checksum(found, index) != found.get("checksum"):
            raise ValueError(f"{path} is damaged in its header or its index of chunks: the checksum is another")
        self._numbers: NDArray[np.int32] = index["chunks"]
        self.documents = _documents(index)
        self._row = _starts(self._numbers[:, RAW] == 0)
        self._payload = _starts(self._numbers[:, PAYLOAD])

    def _about(self, found: Mapping[str, str]) -> About:
        if found.get("format") != FORMAT:
            raise ValueError(f"{self.path} is a safetensors file, but no memory file ({FORMAT!r})")
        version = found.get("format_version", "")
        if not version.isdecimal() or int(version) > FORMAT_VERSION:
            raise ValueError(
                f"{self.path} has format version {version}; this memlm reads {FORMAT_VERSION}: upgrade memlm"
            )
        missing = sorted({*NAMES} - set(self._handle.keys())) + [
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

    @property
    def is_closed(self) -> bool:
        """Whether only its index can be read."""
        return self._opened is None

    def close(self) -> None:
        """Let go of the file; what is in the index is still known."""
        self._opened = None

    def require_open(self) -> None:
        """Raise ValueError where the file was closed."""
        if self.is_closed:
            raise ValueError(f"{self.path} is closed; open it again")

    @property
    def _handle(self) -> Any:
        self.require_open()
        return self._opened

    @property
    def num_chunks(self) -> int:
        """Of all documents."""
        return len(self._numbers)

    @property
    def chunks(self) -> list[ChunkInfo]:
        """What is known of each chunk."""
        return [
            ChunkInfo(tokens, size, wrong, "raw" if raw else "patched" if payload else "exact", payload)
            for tokens, size, wrong, raw, payload in self._numbers.tolist()
        ]

    def read(
        self, start: int = 0, stop: int | None = None, on_damage: OnDamage | None = None
    ) -> Iterator[list[tuple[int, Kept]]]:
        """Chunks and their numbers, so many at a time; nothing else of the file is read.

        Raises:
            ValueError: there are no such chunks.
            DamagedChunkError: one of them is damaged, and there is no `on_damage` to hear of it.
        """
        start, stop = self.ends(start, stop)
        for first in range(start, stop, _READ_CHUNKS):
            numbered = []
            for number, (chunk, is_whole) in enumerate(self.kept(first, min(first + _READ_CHUNKS, stop)), first):
                if is_whole:
                    numbered.append((number, chunk))
                else:
                    self.report(number, "damaged", on_damage)
            yield numbered

    def report(self, number: int, why: str, on_damage: OnDamage | None) -> None:
        """Tell of a chunk that cannot be given back, or raise."""
        document = next(one for one in self.documents if one.start_chunk <= number < one.stop_chunk)
        error = DamagedChunkError(f"{self.path}: chunk {number} (of {document.name!r})", number, why)
        if on_damage is None:
            raise error
        on_damage(error)

    def damaged(self) -> list[int]:
        """The chunks that are not as they were written."""
        damage: list[DamagedChunkError] = []
        for _ in self.read(on_damage=damage.append):
            pass
        return [error.number for error in damage]

    def ends(self, start: int, stop: int | None) -> tuple[int, int]:
        """Both ends of a range of chunks.

        Raises:
            ValueError: there are no such chunks.
            TypeError: these are no numbers.
        """
        stop = self.num_chunks if stop is None else stop
        try:
            start, stop = operator.index(start), operator.index(stop)
        except TypeError:
            raise TypeError(
                f"chunks are counted: start and stop are whole numbers, not {start!r} and {stop!r}; "
                "by its name a text is had as notes[name]"
            ) from None
        if not 0 <= start <= stop <= self.num_chunks:
            raise ValueError(f"{self.path} has chunks 0:{self.num_chunks}, not {start}:{stop}")
        return start, stop

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
            vector, scale = (None, 0.0) if numbers[RAW] else (next(vectors), float(next(scales)))
            tokens, size, wrong = numbers[:RAW].tolist()
            chunk = Kept(tokens, size, wrong, vector, scale, part, text)
            chunks.append((chunk, chunk.digest == own))
        return chunks

    def digests(self, start: int, stop: int) -> NDArray[np.uint8]:
        """What chunks are told apart by, a row each."""
        return self._slice("digests", slice(start, stop))

    def arrays(self) -> Arrays:
        """All of it, to be written again with changes."""
        return {name: self._handle.get_tensor(name) for name in NAMES}

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


def write(path: Path, about: About, arrays: Arrays) -> None:
    """Write a file, all or nothing.

    Raises:
        OSError: the disk is full or not writable; what was there still is.
    """
    found = {"format": FORMAT, "format_version": str(FORMAT_VERSION), "memlm": metadata.version("memlm")}
    found |= {field.name: str(getattr(about, field.name)) for field in fields(About)}
    found["checksum"] = _checksum(found, arrays)
    # In memory first: safetensors' own file writing leaves a file of its own when it is killed.
    data = save({name: np.ascontiguousarray(arrays[name]) for name in NAMES}, metadata=found)
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)


def _documents(index: Arrays) -> tuple[Document, ...]:
    ends = _starts(index["documents"])
    offsets = _starts(index["chunks"][:, 1])
    return tuple(
        Document(name, start, stop, int(offsets[stop] - offsets[start]))
        for name, start, stop in zip(names_of(index["names"]), ends[:-1].tolist(), ends[1:].tolist(), strict=True)
    )


def _checksum(found: Mapping[str, str], index: Arrays) -> str:
    about = json.dumps(sorted((key, value) for key, value in found.items() if key != "checksum"))
    shapes = json.dumps([index[name].shape for name in INDEX])
    return digest(about.encode(), shapes.encode(), *(index[name].tobytes() for name in INDEX)).hex()


def _starts(lengths: NDArray[Any]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else -1  # the checksum tells

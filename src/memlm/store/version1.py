"""Memory files of version 1, safetensors files: read as they are, and converted to the present version once written."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from memlm.store.block import BYTES, PAYLOAD, RAW, Block, about_of, record
from memlm.store.chunk import checksum
from memlm.store.frames import MAGIC
from memlm.store.lock import only_writer
from memlm.store.segments import SegmentStore, SegmentWriter, write_file
from memlm.store.store import Document, parts_of, require_open

_INDEX = ("chunks", "documents", "names")
"""Read whole, under one checksum; each chunk has its own."""
_NUMBERS = ("format_version", "bits", "num_slots", "memory_dim")


class Version1Store:
    """A file of version 1, opened."""

    def __init__(self, path: Path) -> None:
        """Open and check.

        Raises:
            ValueError: it is no such file, or it is damaged or cut short.
        """
        self.path, self.file_bytes = path, path.stat().st_size
        try:
            # Of no type: safetensors' own methods have none.
            self._opened: Any = cast(Any, safe_open)(path, framework="numpy")
            found: Mapping[str, str] = self._opened.metadata() or {}
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{path} is no memory file, or its header is damaged or it is cut short: {error}"
            ) from None
        if found.get("format") != "memlm memory":
            raise ValueError(f"{path} is a safetensors file, but no memory file ('memlm memory')")
        numbers = {name: int(value) for name, value in found.items() if name in _NUMBERS and value.isdecimal()}
        self.about = about_of(path, {**found, **numbers})
        try:
            index = {name: self._opened.get_tensor(name) for name in _INDEX}
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged in its header: {error}") from None
        if _checksum(found, index) != found.get("checksum"):
            raise ValueError(f"{path} is damaged in its header or its index of chunks: the checksum is another")
        self.numbers: NDArray[np.int32] = index["chunks"]
        self.documents = tuple(_documents(index))
        self._row, self._payload = _starts(self.numbers[:, RAW] == 0), _starts(self.numbers[:, PAYLOAD])

    @property
    def torn_bytes(self) -> int:
        """None: a file that is cut short is refused."""
        return 0

    @property
    def is_closed(self) -> bool:
        """Whether only its index can be read."""
        return self._opened is None

    def close(self) -> None:
        """Let go of the file."""
        self._opened = None

    def block(self, start: int, stop: int) -> Block:
        """Some chunks."""
        require_open(self)
        numbers, payload = self.numbers[start:stop], self._payload[start : stop + 1].tolist()
        rows = slice(*self._row[[start, stop]].tolist())
        digests = self._slice("digests", slice(start, stop))
        blob = self._slice("payloads", slice(payload[0], payload[-1]))
        vectors = zip(self._slice("vectors", rows), self._slice("scales", rows), strict=True)
        records = []
        for place, raw in enumerate(numbers[:, RAW]):
            vector, scale = (None, 0.0) if raw else next(vectors)
            own = blob[payload[place] - payload[0] : payload[place + 1] - payload[0]].tobytes()
            records.append(record(digests[place].tobytes(), scale, None if vector is None else vector.tobytes(), own))
        return Block(numbers, b"".join(records))

    @contextmanager
    def writing(self) -> Iterator[SegmentWriter]:
        """Convert the file first, once, all or nothing; then as any other."""
        require_open(self)
        with only_writer(self.path) as file:
            if os.pread(file, len(MAGIC), 0) != MAGIC:  # nobody has converted it since it was opened
                current = Version1Store(self.path)
                write_file(self.path, current.about, parts_of(current))
        with SegmentStore(self.path).writing() as writer:
            yield writer

    def _slice(self, name: str, places: slice) -> NDArray[Any]:
        if places.start == places.stop:  # safetensors refuses such
            return np.zeros(0, np.uint8)
        return cast(NDArray[Any], self._opened.get_slice(name)[places])


def _documents(index: Mapping[str, NDArray[Any]]) -> Iterator[Document]:
    ends, offsets = _starts(index["documents"]).tolist(), _starts(index["chunks"][:, BYTES]).tolist()
    for name, start, stop in zip(json.loads(index["names"].tobytes()), ends[:-1], ends[1:], strict=True):
        yield Document(name, start, stop, offsets[stop] - offsets[start])


def _checksum(found: Mapping[str, str], index: Mapping[str, NDArray[Any]]) -> str:
    about = json.dumps(sorted((key, value) for key, value in found.items() if key != "checksum"))
    shapes = json.dumps([index[name].shape for name in _INDEX])
    return checksum(about.encode(), shapes.encode(), *(index[name].tobytes() for name in _INDEX)).hex()


def _starts(lengths: NDArray[Any]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])

"""Memory files of version 1, safetensors files: read whole."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from memlm.runtime.untrusted import json_of
from memlm.store.chunk import NUMBERS, About, Block, Part, checksum
from memlm.store.version2 import numbers_of, present, record

_INDEX = ("chunks", "documents", "names")
"""Under one checksum; each chunk has its own."""
_COUNTS = ("format_version", "bits", "num_slots", "memory_dim")


def read_version1(path: Path) -> tuple[About, list[Part]]:
    """What is in the file, as the present version has it.

    Raises:
        ValueError: it is no such file, or it is damaged or cut short.
    """
    try:
        with cast(Any, safe_open)(path, framework="numpy") as file:  # safetensors' own methods have no types
            header: Mapping[str, str] = file.metadata() or {}
            arrays: dict[str, NDArray[Any]] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is no memory file, or its header is damaged or it is cut short: {error}") from None
    if header.get("format") != "memlm memory":
        raise ValueError(f"{path} is a safetensors file, but no memory file ('memlm memory')")
    counts = {name: int(value) for name, value in header.items() if name in _COUNTS and value.isdecimal()}
    about = About.of(path, {**header, **counts})
    if missing := [name for name in (*_INDEX, "digests", "vectors", "scales", "payloads") if name not in arrays]:
        raise ValueError(f"{path} is damaged in its header: it has no {', no '.join(missing)}")
    if _checksum(header, arrays) != header.get("checksum"):
        raise ValueError(f"{path} is damaged in its header or its index of chunks: the checksum is another")
    try:
        return about, list(_parts(arrays, about))
    except (TypeError, ValueError, IndexError, StopIteration, RuntimeError) as error:
        raise ValueError(f"{path} is damaged: its chunks cannot be: {error}") from None


def _parts(arrays: Mapping[str, NDArray[Any]], about: About) -> Iterator[Part]:
    stored = np.ascontiguousarray(arrays["chunks"]).view(NUMBERS)[:, 0]
    numbers = numbers_of(stored.tobytes(), len(stored))
    vectors, payload = zip(arrays["vectors"], arrays["scales"], strict=True), arrays["payloads"].tobytes()
    records, end = [], 0
    for digests, is_raw, size in zip(arrays["digests"], stored["coding"], stored["payload_bytes"], strict=True):
        vector, scale = (None, 0.0) if is_raw else next(vectors)
        packed = None if vector is None else vector.tobytes()
        records.append(record(digests.tobytes(), packed, scale, payload[end : end + size]))
        end += size
    start = 0
    for name, count in zip(json_of(arrays["names"].tobytes()), arrays["documents"].tolist(), strict=True):
        some = slice(start, start + count)
        yield Part(name, present(Block(numbers[some], b"".join(records[some])), about))
        start += count


def _checksum(header: Mapping[str, str], arrays: Mapping[str, NDArray[Any]]) -> str:
    about = json.dumps(sorted((key, value) for key, value in header.items() if key != "checksum"))
    shapes = json.dumps([arrays[name].shape for name in _INDEX])
    return checksum(about.encode(), shapes.encode(), *(arrays[name].tobytes() for name in _INDEX)).hex()

"""What is kept of documents, as the arrays of a file."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memlm.store.kept import DIGEST_BYTES, Kept

Arrays = dict[str, NDArray[Any]]
INDEX = ("chunks", "documents", "names")
"""What says where everything is: read whole, under one checksum. Each chunk has its own."""
NAMES = (*INDEX, "digests", "vectors", "scales", "payloads")
RAW, PAYLOAD = 3, 4
"""Columns of `chunks`; before them tokens, bytes, wrong tokens."""


def arrays_of(documents: Sequence[tuple[str, Sequence[Kept]]], empty_row: NDArray[Any]) -> Arrays:
    """Documents' names and chunks as arrays; `empty_row` is a packed vector of the file's kind."""
    chunks = [chunk for _, kept in documents for chunk in kept]
    with_vector = [chunk for chunk in chunks if chunk.vector is not None]
    numbers = [(*chunk[:3], int(chunk.vector is None), len(chunk.payload)) for chunk in chunks]
    digests = b"".join(chunk.digest + chunk.text_digest for chunk in chunks)
    return {
        "chunks": np.array(numbers, np.int32).reshape(-1, 5),
        "digests": np.frombuffer(digests, np.uint8).reshape(-1, 2 * DIGEST_BYTES),
        "vectors": np.stack([empty_row, *(chunk.vector for chunk in with_vector if chunk.vector is not None)])[1:],
        "scales": np.array([chunk.scale for chunk in with_vector], np.float32),
        "payloads": np.frombuffer(b"".join(chunk.payload for chunk in chunks), np.uint8),
        "documents": np.array([len(kept) for _, kept in documents], np.int64),
        "names": _as_bytes([name for name, _ in documents]),
    }


def joined(first: Arrays, second: Arrays) -> Arrays:
    """One after the other."""
    arrays = {name: np.concatenate([first[name], second[name]]) for name in NAMES if name != "names"}
    return arrays | {"names": _as_bytes([*names_of(first["names"]), *names_of(second["names"])])}


def continued(first: Arrays, second: Arrays) -> Arrays:
    """One after the other, where the second is of one document: the first's last one goes on with it."""
    arrays = joined(first, second)
    documents = np.append(first["documents"][:-1], first["documents"][-1] + second["documents"].sum())
    return arrays | {"documents": documents, "names": first["names"]}


def _as_bytes(names: Sequence[str]) -> NDArray[np.uint8]:
    return np.frombuffer(json.dumps(names).encode(), np.uint8)


def names_of(names: NDArray[np.uint8]) -> list[str]:
    """Undo what `arrays_of` makes of documents' names."""
    return list(json.loads(names.tobytes()))

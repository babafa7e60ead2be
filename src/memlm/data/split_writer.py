"""Writes one split's tokens to disk, in memory that does not grow with them."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from memlm.data.documents import Document


def starts_of(lengths: Sequence[int]) -> NDArray[np.int64]:
    """Where documents of these lengths begin when laid end to end [document + 1], and where the last one ends."""
    return np.cumsum([0, *lengths], dtype=np.int64)


class SplitWriter:
    """Appends one split's documents to its files."""

    def __init__(self, folder: Path, name: str, dtype: np.dtype[np.unsignedinteger[Any]]) -> None:
        self._path, self._dtype = folder / name, dtype
        self._file = (folder / f"{name}.tokens").open("wb")
        self._digest = hashlib.sha256()
        self._names: list[str] = []
        self._lengths: list[int] = []
        self._sizes: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def num_documents(self) -> int:
        """Documents added so far."""
        return len(self._names)

    def add(self, document: Document, tokens: NDArray[np.int32]) -> None:
        """Append a document."""
        data = tokens.astype(self._dtype).tobytes()
        self._file.write(data)
        self._digest.update(data)
        self._names.append(document.name)
        self._lengths.append(len(tokens))
        self._sizes.append(document.num_bytes)

    def finish(self) -> str:
        """Write what is not yet written, and return a hash of all tokens and of where documents begin."""
        self._file.flush()
        os.fsync(self._file.fileno())  # the folder's name must not reach the disk before its content
        starts = starts_of(self._lengths)
        np.save(self._path.with_suffix(".starts.npy"), starts)
        np.save(self._path.with_suffix(".bytes.npy"), np.array(self._sizes, dtype=np.int64))
        self._path.with_suffix(".names.json").write_text(json.dumps(self._names), encoding="utf-8")
        self._digest.update(starts.tobytes())
        return self._digest.hexdigest()

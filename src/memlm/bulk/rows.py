"""Memories as rows of Arrow tables, one a chunk; what made them stands in the table's schema."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from memlm.runtime.untrusted import json_of
from memlm.text.memory import Memory

Dtype = Literal["float32", "float16", "bit"]
"""Of a memory's numbers; a bit is the sign of one."""
MEMORY = "memory"
"""The column of vectors, as fixed-size lists."""
_KEY = b"memlm"
_FORMAT = {"format": "memlm vectors", "version": 1}
_ARROW = {"float32": pa.float32(), "float16": pa.float16(), "bit": pa.uint8()}


@dataclass(frozen=True, kw_only=True)
class About:
    """Which encoder made the memories, and how they are stored."""

    encoder: str
    """Its name or folder; empty where it had none."""
    fingerprint: str
    num_slots: int
    """Vectors of a chunk."""
    memory_dim: int
    """Of each."""
    dtype: Dtype
    scale: float = 1.0
    """What a bit stands for: this number, or minus it."""
    search_dim: int = 0
    """Dimensions, the last ones, by which memories are searched by meaning; without any, all are compared."""

    @classmethod
    def of(cls, schema: pa.Schema, where: object) -> Self:
        """What a table's schema says.

        Raises:
            ValueError: it says nothing, or it is of a newer version.
        """
        said: dict[str, Any] = json_of((schema.metadata or {}).get(_KEY, b"{}"))
        if said.pop("format", None) != _FORMAT["format"]:
            raise ValueError(f"{where} holds no memories that memlm encode-corpus or export-vectors has written")
        if (version := said.pop("version")) != _FORMAT["version"]:
            raise ValueError(f"{where} is of version {version}; this memlm reads {_FORMAT['version']}: upgrade memlm")
        return cls(**said)

    @property
    def width(self) -> int:
        """Numbers of a chunk's memory."""
        return self.num_slots * self.memory_dim

    @property
    def row_bytes(self) -> int:
        """Of a chunk's memory as it is stored."""
        return -(-self.width // 8) if self.dtype == "bit" else self.width * np.dtype(self.dtype).itemsize

    def schema(self, others: Sequence[pa.Field]) -> pa.Schema:
        """Of tables with these columns before the memory."""
        item = _ARROW[self.dtype]
        field = pa.field(MEMORY, pa.list_(item, self.row_bytes // item.byte_width), nullable=False)
        return pa.schema([*others, field], metadata={_KEY: json.dumps(_FORMAT | asdict(self)).encode()})

    def column(self, vectors: Float[np.ndarray, "row width"]) -> pa.FixedSizeListArray:
        """Vectors as a table keeps them."""
        rows = np.packbits(vectors > 0, axis=1) if self.dtype == "bit" else vectors.astype(self.dtype)
        return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])

    def stored(self, rows: pa.Table) -> NDArray[Any]:
        """The memories of some rows as they are stored, [row number]; eight bits are one number."""
        column = rows.column(MEMORY)
        parts = [part.flatten().to_numpy(zero_copy_only=False) for part in column.chunks]
        item = _ARROW[self.dtype]
        flat = np.concatenate([np.zeros(0, item.to_pandas_dtype()), *parts])
        return flat.reshape(len(column), self.row_bytes // item.byte_width)

    def vectors(self, stored: NDArray[Any]) -> Float[np.ndarray, "row width"]:
        """What is stored, as numbers."""
        if self.dtype != "bit":
            return stored.astype(np.float32)
        bits = np.unpackbits(stored, axis=1, count=self.width)
        return (bits.astype(np.float32) * 2 - 1) * np.float32(self.scale)

    def memory(self, rows: pa.Table) -> Memory:
        """The memories of some rows, each a text of one chunk."""
        return self.memory_of(self.vectors(self.stored(rows)), rows.column("num_tokens").to_numpy())

    def memory_of(self, vectors: NDArray[np.float32], num_tokens: NDArray[Any]) -> Memory:
        """The same, of vectors [row number] and how many tokens they hold."""
        return Memory(
            vectors=torch.from_numpy(vectors.reshape(-1, self.num_slots, self.memory_dim)),
            num_tokens=torch.from_numpy(num_tokens.astype(np.int64)),
            num_chunks=(1,) * len(vectors),
            encoder=self.fingerprint,
            search_dim=self.search_dim,
        )


COLUMNS = (
    pa.field("document", pa.string(), nullable=False),
    pa.field("chunk", pa.int64(), nullable=False),
    pa.field("num_tokens", pa.int32(), nullable=False),
)
"""Of every table: the document's name, the chunk's number, and how many tokens it holds."""
TEXT = pa.field("text", pa.string(), nullable=False)
"""The chunk's text, where it is kept."""


def about_memories(memory: Memory, encoder: str, dtype: Dtype | None, *, signs: float | None = None) -> About:
    """How memories are stored; without a `dtype`, bits where each number is one of two, `signs` or minus it, else fp32.

    Raises:
        ValueError: bits are asked for, and numbers are more than signs.
    """
    _, slots, dim = memory.vectors.shape
    if dtype == "bit" and signs is None:
        raise ValueError(
            f"memories of encoder {encoder or memory.encoder} are more than signs: store float16 or float32, or take "
            "an encoder whose shape has num_bits 1"
        )
    return About(
        encoder=encoder,
        fingerprint=memory.encoder,
        num_slots=slots,
        memory_dim=dim,
        dtype=dtype or ("float32" if signs is None else "bit"),
        scale=1.0 if signs is None else signs,
        search_dim=memory.search_dim,
    )


def sign_size(memory: Memory) -> float | None:
    """The one size that all numbers of these memories have, if there is one: then they are signs."""
    sizes = memory.vectors.float().abs()
    size = float(sizes.max()) if sizes.numel() else 0.0
    return size if size > 0 and bool((sizes == size).all()) else None

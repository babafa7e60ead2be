"""Memories apart from their model, which can be indexed, concatenated and saved; and text regenerated from them."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, SupportsIndex

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from memlm.config import AutoencoderConfig
from memlm.runtime.files import BOXED_SEARCH, atomic_file
from memlm.runtime.untrusted import json_of
from memlm.runtime.wording import counted

_FORMAT = "memlm memories"
_VERSION = "1"
SEARCHED = "+"
"""Between the fingerprints of an encoder whose memories can be searched."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Memory:
    """The memories of some texts, one after another; `len`, indices, slices and iteration go by text.

    ```python
    memory = model.encode(["Monday", "a much longer text ..."])
    memory[0].vectors  # [chunk slot memory_dim] of "Monday"
    memory.save("notes.safetensors")
    ```

    Raises:
        ValueError: the parts do not fit together; says which.
    """

    vectors: Float[Tensor, "chunk slot memory_dim"]
    num_tokens: Int[Tensor, " chunk"]
    """Real tokens in each chunk; only a text's last chunk may be short."""
    num_chunks: tuple[int, ...]
    """Chunks of each text."""
    encoder: str
    """Fingerprint of the encoder that made these vectors; only its decoders can read them. Where memories can be
    searched, that of the text's encoder, a plus sign, and that of the part by which they are searched."""
    search_dim: int = 0
    """Dimensions by which they are searched, the last ones; 0 where they cannot be."""
    exact: Bool[Tensor, " chunk"] | None = None
    """Whether each chunk is regenerated without an error; None if that was not verified."""
    confidence: Float[Tensor, "chunk token"] | None = None
    """By how many nats each regenerated token leads the next most likely, beyond a chunk's end the end token; None if
    that was not verified."""

    def __post_init__(self) -> None:
        if self.vectors.ndim != 3:
            raise ValueError(f"vectors must be [chunk slot memory_dim], not {list(self.vectors.shape)}")
        if not 0 <= self.search_dim < max(1, self.vectors.shape[-1]):
            raise ValueError(f"of {self.vectors.shape[-1]} dimensions, {self.search_dim} cannot be searched by")
        chunks = len(self.vectors)
        for name in ("num_tokens", "exact", "confidence"):
            part: Tensor | None = getattr(self, name)
            if part is not None and len(part) != chunks:
                raise ValueError(f"{name} has {len(part)} rows for {chunks} chunks")
        if sum(self.num_chunks) != chunks or min(self.num_chunks, default=0) < 0:
            raise ValueError(
                f"num_chunks {list(self.num_chunks)} sum to {sum(self.num_chunks)}, not to {chunks} chunks"
            )

    @property
    def search_vectors(self) -> Float[Tensor, "chunk search_dim"]:
        """By which chunks are found: of length 1, and near each other where texts mean the same.

        Raises:
            ValueError: these memories cannot be searched.
        """
        if not self.search_dim:
            raise not_searchable(self.encoder)
        return F.normalize(self.vectors[..., -self.search_dim :].flatten(1).float(), dim=-1)

    @property
    def of_text(self) -> Self:
        """These memories without the dimensions by which they are searched, as the text's own encoder makes them."""
        if not self.search_dim:
            return self
        vectors, (encoder, *_) = self.vectors[..., : -self.search_dim], self.encoder.split(SEARCHED)
        return replace(self, vectors=vectors, encoder=encoder, search_dim=0)

    def __len__(self) -> int:
        """Texts."""
        return len(self.num_chunks)

    def __getitem__(self, index: SupportsIndex | slice | Sequence[int] | NDArray[np.generic] | Tensor) -> Self:
        """The memory of one text, of a range, or of those in a list (or marked in a mask).

        Raises:
            IndexError: there is no such text.
        """
        if isinstance(index, (str, float, type(None))):
            raise TypeError(f"texts go by number, slice, list or mask, not by {index!r}")
        if isinstance(index, SupportsIndex) and getattr(index, "ndim", 0) == 0:
            place = index.__index__()
            if not -len(self) <= place < len(self):
                raise IndexError(f"there is no text {place}: these are memories of {len(self)}")
            texts = np.array([place % len(self)])
        else:
            key = index if isinstance(index, slice) else np.asarray(index)
            if isinstance(key, np.ndarray) and key.ndim != 1:
                raise TypeError(f"expected a list of texts, not one of {key.ndim} dimensions")
            if isinstance(key, np.ndarray) and key.size == 0:
                key = slice(0)
            texts = np.arange(len(self))[key]
        ends = np.cumsum(self.num_chunks, dtype=np.int64)
        rows = [np.arange(ends[text] - self.num_chunks[text], ends[text]) for text in texts]
        chunks = torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *rows]))
        tensors: dict[str, Any] = {name: part[chunks] for name, part in self._tensors().items()}
        return replace(self, num_chunks=tuple(self.num_chunks[text] for text in texts), **tensors)

    def __iter__(self) -> Iterator[Self]:
        """The memory of each text."""
        return (self[text] for text in range(len(self)))

    def __repr__(self) -> str:
        chunks, slots, dim = self.vectors.shape
        size = f"{counted(len(self), 'text')}, {counted(chunks, 'chunk')} of {f'{slots} × ' if slots > 1 else ''}{dim}"
        known = "" if self.exact is None else f", {int(self.exact.sum())} exact"
        return f"Memory({size}{known}, encoder {self.encoder})"

    def numpy(self) -> Float[np.ndarray, "chunk slot memory_dim"]:
        """The vectors as an array."""
        return self.vectors.detach().cpu().numpy()

    def to(self, device: torch.device | str) -> Self:
        """These memories on a device."""
        tensors: dict[str, Any] = {name: part.to(device) for name, part in self._tensors().items()}
        return replace(self, **tensors)

    @classmethod
    def concat(cls, memories: Iterable[Self]) -> Self:
        """The texts of several memories, one after another.

        Raises:
            ValueError: there are none, or different encoders made them.
        """
        parts = list(memories)
        for place, part in enumerate(parts):
            if not isinstance(part, Memory):
                raise TypeError(f"memory {place} is {part!r:.40}, not a Memory")
        if not parts:
            raise ValueError("there are no memories to put together")
        encoders = sorted({part.encoder for part in parts})
        if len(encoders) > 1:
            raise ValueError(f"different encoders made these memories: {', '.join(encoders)}")
        rows = [part._tensors() for part in parts]
        shared = set.intersection(*map(set, rows))
        return cls(
            **{name: torch.cat([row[name] for row in rows]) for name in shared},
            num_chunks=tuple(number for part in parts for number in part.num_chunks),
            encoder=parts[0].encoder,
            search_dim=parts[0].search_dim,
        )

    def save(self, path: str | Path) -> None:
        """Write these memories into a safetensors file, all or nothing.

        Raises:
            OSError: the disk is full or not writable.
        """
        about = {"encoder": self.encoder, "num_chunks": json.dumps(self.num_chunks)}
        about |= {"search_dim": str(self.search_dim)} if self.search_dim else {}
        tensors = {name: part.detach().cpu().contiguous() for name, part in self._tensors().items()}
        header = {"format": _FORMAT, "version": _VERSION, "checksum": _checksum(tensors, about)}
        with atomic_file(Path(path)) as temporary:
            save_file(tensors, temporary, metadata=header | about)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ValueError: no such file, or it is damaged, or something else.
        """
        try:
            with safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise ValueError(f"cannot read memories from {path}: {error}") from None
        if (about.get("format"), about.get("version")) != (_FORMAT, _VERSION):
            found = about.get("format", "nothing that it names"), about.get("version", "")
            raise ValueError(f"{path} holds {' '.join(found).strip()}, not {_FORMAT} {_VERSION}")
        try:
            # Files of version 0.1 have none.
            if about.get("checksum") not in (None, _checksum(tensors, about)):
                raise ValueError("its content does not match its checksum")
            return cls(
                **tensors,
                num_chunks=tuple(json_of(about["num_chunks"])),
                encoder=about["encoder"],
                search_dim=int(about.get("search_dim", 0)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged: {error}") from None

    def _tensors(self) -> dict[str, Tensor]:
        parts = {name: getattr(self, name) for name in ("vectors", "num_tokens", "exact", "confidence")}
        return {name: part for name, part in parts.items() if part is not None}


def _checksum(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    """A hash of everything that makes up memories."""
    digest = hashlib.sha256(f"{about['encoder']} {about['num_chunks']}".encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def not_searchable(encoder: str) -> ValueError:
    """What to raise where memories hold nothing that they could be searched by."""
    return ValueError(
        f"memories of {encoder} cannot be searched by meaning: make them with {BOXED_SEARCH}, or with a model of your "
        "own (memlm train searchable)"
    )


Span = tuple[int, int]
"""Indices of characters: the first, and one after the last."""


class Regenerated(str):
    """A string that was regenerated from memories, with the spans of characters that may be wrong.

    ```python
    text = model.regenerate(memory)[0]
    text.proven  # True
    print(text.marked())  # It is a truth ⟦universally⟧ acknowledged
    ```
    """

    unsure: tuple[Span, ...]
    """Spans that may be wrong, in order; none in a proven text."""
    proven: bool
    """Whether the text encodes to the memory that it was regenerated from: then it is right."""

    def __new__(cls, text: str, unsure: tuple[Span, ...] = (), *, proven: bool = False) -> Self:
        """A text and its marks."""
        made = super().__new__(cls, text)
        made.unsure, made.proven = unsure, proven
        return made

    def marked(self, before: str = "⟦", after: str = "⟧") -> str:
        """The text with marks around the spans that may be wrong."""
        pieces, end = [], 0
        for start, stop in self.unsure:
            pieces += [self[end:start], before, self[start:stop], after]
            end = stop
        return "".join([*pieces, self[end:]])


def memory_of_vectors(vectors: object, cfg: AutoencoderConfig, encoder: str) -> Memory:
    """Vectors of any source, each a text of one chunk of an encoder whose memories hold their length.

    Raises:
        ValueError: the encoder's do not, or are of another size.
        TypeError: these are no vectors.
    """
    if not isinstance(vectors, (np.ndarray, Tensor)):
        found = type(vectors).__name__
        raise TypeError(
            f"expected a Memory, as encode makes it, or an array of vectors, not {found} (numpy.stack makes one)"
        )
    shape, given = cfg.shape, torch.as_tensor(vectors)
    if not shape.end_token:
        raise ValueError("this model's vectors do not hold their length: give a Memory, which has num_tokens")
    search_dim = cfg.search_dim if given.ndim and given.shape[-1] == cfg.vector_dim else 0
    dim = shape.memory_dim + search_dim
    width = shape.num_slots * dim
    if given.ndim == 0 or given.shape[-1] not in (dim, width) or given.numel() % width:
        raise ValueError(f"expected vectors [text {width}], not {list(given.shape)}")
    rows = given.reshape(-1, shape.num_slots, dim)
    return Memory(
        vectors=rows,
        num_tokens=torch.full((len(rows),), shape.chunk_len),
        num_chunks=(1,) * len(rows),
        encoder=encoder,
        search_dim=search_dim,
    )

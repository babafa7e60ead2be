"""Reading files of memories: any span comes back byte for byte, and what is damaged is named."""

import difflib
import itertools
from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from memlm.runtime.files import followed
from memlm.store.chunk import About, ChunkInfo, Coding
from memlm.store.codec import Codec
from memlm.store.search import Found, SearchIndex
from memlm.store.store import LOST, DamagedChunkError, Document, MemoryStore, OnDamage
from memlm.text.autoencoder import TextAutoencoder
from memlm.text.checkpoint_folder import earlier_models
from memlm.text.memory import Memory

_SHOWN = 3
"""Of many, in an error."""
_OTHERWISE = (
    "not regenerated as when it was written, though it is whole: the decoder is another, or this machine computes "
    "otherwise, which texts that memlm wrote before 0.3 depend on"
)


class MemoryReader(Mapping[str, str]):
    """What `MemoryFile` has for reading."""

    def __init__(self, store: MemoryStore, model: TextAutoencoder | None, device: str | None = None) -> None:
        """By `open` or `create`."""
        self._store, self._model, self._device = store, model, device
        self._index: SearchIndex | None = None

    @classmethod
    def open(
        cls, path: str | Path, model: str | Path | TextAutoencoder | None = None, *, device: str | None = None
    ) -> Self:
        """Open a file; only its index is read. Without a `model`, the one it names is loaded when first needed.

        A model that is loaded runs on `device`, by default on a GPU, where there is one.

        Raises:
            ValueError: no such file; no memory file, or a newer or damaged one; another encoder's.
        """
        store = MemoryStore(followed(Path(path)))
        if model is not None and not isinstance(model, TextAutoencoder):
            model = TextAutoencoder.from_pretrained(model, device=device)
        return cls(store, None if model is None else _belonging(store, model), device)

    def close(self) -> None:
        """Let go of the file; texts are then neither read nor appended, until it is opened again."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as path and model name; whoever unpickles it opens the file as it is by then.

        Raises:
            TypeError: its model has no name.
        """
        name = self._model.source if self._model else self.about.encoder
        if not name:
            raise TypeError(
                f"{self.path} is pickled as its path and its model's name, and this model has none: "
                "save it (save_pretrained) and open the file with that folder"
            )
        return partial(type(self).open, device=self._device), (self.path.absolute(), name if self._model else None)

    def __repr__(self) -> str:
        numbers = f"documents={len(self)}, chunks={self.num_chunks}, bytes={self.file_bytes}"
        closed = ", closed" if self._store.is_closed else ""
        return f"{type(self).__name__}({str(self.path)!r}, encoder={self.about.encoder!r}, {numbers}{closed})"

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._store.path

    @property
    def about(self) -> About:
        """Which encoder made the memories, and how they are stored."""
        return self._store.about

    @property
    def documents(self) -> tuple[Document, ...]:
        """Its texts: name, range of chunks, bytes."""
        return self._store.documents

    @property
    def chunks(self) -> list[ChunkInfo]:
        """What is known of each chunk."""
        return [ChunkInfo(*row) for row in self._store.numbers.tolist()]

    @property
    def num_chunks(self) -> int:
        """Of all its documents."""
        return len(self._store.numbers)

    @property
    def file_bytes(self) -> int:
        """Its size, all in all."""
        return self._store.file_bytes

    @property
    def torn_bytes(self) -> int:
        """At its end, of an append that never finished, or because the file was cut short; they cannot be read."""
        return self._store.torn_bytes

    @property
    def model(self) -> TextAutoencoder:
        """The autoencoder that made the memories.

        Raises:
            ValueError: it is nowhere to be found, or is another by now.
        """
        if self._model is None:
            about = self.about
            if not about.encoder:
                raise ValueError(f"{self.path} does not name its encoder ({about.fingerprint}): open it with the model")
            self._model = self._named(about.encoder)
        return self._model

    def _named(self, name: str) -> TextAutoencoder:
        """The model of this name that made the memories; an earlier one, where memlm ships another by now."""
        try:
            model = TextAutoencoder.from_pretrained(name, device=self._device)
        except ValueError as error:
            raise ValueError(f"{self.path} needs encoder {name!r} ({self.about.fingerprint}): {error}") from None
        for earlier in earlier_models(name):
            if model.encoder_fingerprint == self.about.fingerprint:
                break
            model = TextAutoencoder.from_pretrained(earlier, device=self._device)
        return _belonging(self._store, model)

    # --- documents by name -----------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> str:
        """The exact text of a document.

        Raises:
            KeyError: there is none of this name; says which names are close.
            ValueError: there are several; says which chunks they are. Or as `text`.
        """
        found = [one for one in self.documents if one.name == name]
        if not found:
            raise KeyError(self._no_document(name))
        if len(found) > 1:
            places = ", ".join(f"{one.start_chunk}:{one.stop_chunk}" for one in found[:_SHOWN])
            more = ", ..." if len(found) > _SHOWN else ""
            raise ValueError(
                f"{len(found)} documents of {self.path} are called {name!r}, of chunks {places}{more}: "
                "take one of them with text(start, stop)"
            )
        return self.text(found[0].start_chunk, found[0].stop_chunk)

    def __contains__(self, name: object) -> bool:
        return any(one.name == name for one in self.documents)

    def __iter__(self) -> Iterator[str]:
        return (one.name for one in self.documents)

    def __len__(self) -> int:
        return len(self.documents)

    def items(self) -> ItemsView[str, str]:
        """Names and texts in order, of documents that share a name, too."""
        return _Items(self)

    def values(self) -> ValuesView[str]:
        """Texts in order, of documents that share a name, too."""
        return _Texts(self)

    # By identity, unlike other mappings: to compare two of them would be to regenerate all their texts.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def _no_document(self, name: object) -> str:
        if not isinstance(name, str):
            return f"documents have names, and {name!r} is none; chunks are read with text(start, stop)"
        close = difflib.get_close_matches(name, self, n=_SHOWN)
        said = f"did you mean {' or '.join(map(repr, close))}?" if close else "`documents` says which there are"
        said += f"; or it is among those of lost chunks, {LOST!r}" if LOST in self else ""
        return f"{self.path} has no document {name!r}; {said}"

    # --- reading ---------------------------------------------------------------------------------------------------

    def text(self, start: int = 0, stop: int | None = None, *, on_damage: OnDamage | None = None) -> str:
        """The exact text of chunks `start` to `stop`; nothing else is read.

        With `on_damage`, chunks that cannot be given back are left out. It is called with an error for each, which says
        why, and has the chunk's `number`:

            lost = []
            rest = notes.text(on_damage=lost.append)

        Raises:
            ValueError: there are no such chunks; one of them is damaged, with its number; the file is closed.
        """
        return b"".join(self.pieces(start, stop, on_damage=on_damage)).decode()

    def pieces(self, start: int = 0, stop: int | None = None, *, on_damage: OnDamage | None = None) -> Iterator[bytes]:
        """The same as bytes, chunk by chunk, as they are read."""
        for numbered in self._store.read(start, stop, on_damage):
            texts = self._codec.read([chunk for _, chunk in numbered])
            for (number, _), data in zip(numbered, texts, strict=True):
                if data is None:
                    self._store.report(number, _OTHERWISE, on_damage)
                else:
                    yield data

    def vectors_only(
        self, start: int = 0, stop: int | None = None, *, on_damage: OnDamage | None = None
    ) -> Iterator[bytes]:
        """What the vectors alone give back, without patches; of raw chunks, nothing. It need not be UTF-8."""
        for numbered in self._store.read(start, stop, on_damage):
            yield from self._codec.read_vectors([chunk for _, chunk in numbered])

    def memories(self, start: int = 0, stop: int | None = None, *, on_damage: OnDamage | None = None) -> Memory:
        """The vectors of some chunks, as one text's, for a decoder or a memory model; needs no encoder.

        Raw chunks have no vector and are left out (`chunks` says which they are); `on_damage` and errors as `text`.
        """
        numbered = itertools.chain.from_iterable(self._store.read(start, stop, on_damage))
        return self.about.memory([chunk for _, chunk in numbered])

    def find(self, query: str, most: int = 10, *, on_damage: OnDamage | None = None) -> list[Found]:
        """The chunks that are nearest to a query by meaning, the nearest first, with their exact text.

        The first search reads the whole file, later ones what was added since. Chunks that are stored raw have no
        vector, and are encoded then. `on_damage` and errors as `text`.

        Raises:
            ValueError: the encoder's memories cannot be searched; the query is empty, or longer than a chunk; `most` is
                not positive.
        """
        if most < 1:
            raise ValueError(f"most must be a positive number of chunks, not {most}")
        (vector,) = self.model.search_vectors([query])
        if self._index is None or self._index.store is not self._store:
            self._index = SearchIndex(self._store, self.model)
        self._index.read_on(lambda number: self.text(number, number + 1, on_damage=on_damage), on_damage)
        return [
            Found(score, self._store.document_of(chunk).name, chunk, self.text(chunk, chunk + 1, on_damage=on_damage))
            for chunk, score in self._index.nearest(vector, most)
        ]

    def damaged(self) -> list[int]:
        """The chunks that are not as they were written; needs no encoder, and reads everything."""
        errors: list[DamagedChunkError] = []
        for _ in self._store.read(on_damage=errors.append):
            pass
        return [error.number for error in errors]

    def summary(self) -> dict[str, Any]:
        """Counts of chunks by kind, bytes of each part, and `fidelity`, the share of all tokens that vectors give back.

        There is no fidelity to no text: then it is None.
        """
        numbers = self._store.numbers  # as arrays: a file may have millions of chunks
        total = {name: int(numbers[name].sum(dtype=np.int64)) for name in ("num_tokens", "num_wrong", "num_bytes")}
        is_raw = numbers["coding"] == Coding.RAW
        lost, patched = is_raw & (numbers["num_bytes"] == 0), ~is_raw & (numbers["num_wrong"] > 0)
        payload = {raw: int(numbers["payload_bytes"][is_raw == raw].sum(dtype=np.int64)) for raw in (False, True)}
        return {
            "chunks": len(numbers),
            "fidelity": 1 - total["num_wrong"] / total["num_tokens"] if total["num_tokens"] else None,
            "exact_chunks": int((~is_raw & ~patched).sum()),
            "patched_chunks": int(patched.sum()),
            "raw_chunks": int((is_raw & ~lost).sum()),
            "lost_chunks": int(lost.sum()),
            "text_bytes": total["num_bytes"],
            "memory_bytes": int((~is_raw).sum()) * self.about.vector_bytes,
            "patch_bytes": payload[False],
            "raw_bytes": payload[True],
            "file_bytes": self.file_bytes,
        }

    @cached_property
    def _codec(self) -> Codec:
        return Codec.of(self.model, self.about.bits)


class _Texts(ValuesView[str]):
    """By position, since names may repeat."""

    _mapping: MemoryReader

    def __iter__(self) -> Iterator[str]:
        return (self._mapping.text(one.start_chunk, one.stop_chunk) for one in self._mapping.documents)

    def __contains__(self, text: object) -> bool:
        return any(text == one for one in self)


class _Items(ItemsView[str, str]):
    """By position, since names may repeat."""

    _mapping: MemoryReader

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return zip(self._mapping, self._mapping.values(), strict=True)

    def __contains__(self, item: object) -> bool:
        return any(item == one for one in self)


def _belonging(store: MemoryStore, model: TextAutoencoder) -> TextAutoencoder:
    about = store.about
    if model.encoder_fingerprint != about.fingerprint:
        raise ValueError(
            f"{store.path} was made by encoder {about.encoder or 'without a name'} ({about.fingerprint}), not by this "
            f"one ({model.encoder_fingerprint}); load the model that made it"
        )
    made = model.config.shape.num_slots, model.config.vector_dim
    if (about.num_slots, about.memory_dim) != made:
        raise ValueError(f"{store.path} is damaged in its header: {about.fingerprint} makes memories of {made}")
    return model

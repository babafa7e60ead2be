"""A file of memories: text is appended, any span is read back byte for byte, and what is damaged is named."""

import difflib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np
import torch

from memlm.runtime.files import followed, place_for
from memlm.runtime.progress import Advance
from memlm.store import store
from memlm.store.arrays import Arrays, arrays_of, continued, joined
from memlm.store.codec import Codec, require_target
from memlm.store.documents import Documents, named_texts, require_string
from memlm.store.kept import Kept, digest, vectors_of
from memlm.store.lock import only_writer
from memlm.store.packing import Bits, require_bits
from memlm.store.session import MemorySession
from memlm.store.store import About, ChunkInfo, Document, OnDamage, Store
from memlm.text.autoencoder import TextAutoencoder
from memlm.text.checkpoint_folder import earlier_models
from memlm.text.memory import Memory

_SHOWN = 3
"""Of many, in an error."""
_OTHERWISE = "not regenerated as when it was written, though it is whole: this machine computes otherwise"


class MemoryFile(Mapping[str, str]):
    """Texts as memories, in one file.

    ```python
    with memlm.MemoryFile.create("notes.memory", "english") as notes:
        notes.append("Call me Ishmael. ...", name="moby")
        notes["moby"] == "Call me Ishmael. ..."  # exact: what the vectors miss is kept as a patch
        notes.memories(0, 10)  # the vectors, for a decoder or a memory model
    ```

    It is a mapping of documents' names to their texts; `len` counts documents, `num_chunks` chunks. Where several have
    one name, that name comes once for each, and asking for its text is an error that says where each of them is.
    """

    def __init__(self, opened: Store, model: TextAutoencoder | None, device: str | None = None) -> None:
        """By `open` or `create`."""
        self._store, self._model, self._device = opened, model, device

    @classmethod
    def create(
        cls,
        path: str | Path,
        model: str | Path | TextAutoencoder,
        documents: Documents = (),
        *,
        name: str = "",
        bits: Bits = 8,
        target: float = 0.9,
        device: str | None = None,
        advance: Advance | None = None,
    ) -> Self:
        """Write a new file.

        Args:
            path: where.
            model: an autoencoder, or what `memlm.load` takes: then its name is kept, and `open` loads it.
            documents: to begin with, as pairs of a name and a text, or a dict of texts by name.
            name: what `open` is to load; by default what `model` was loaded by.
            bits: of each dimension of a memory: 32, 16, 8, 6 or 4.
            target: chunks of which a vector gives back less than this share of tokens are made shorter.
            device: where to run a model that is loaded here; by default on a GPU, where there is one.
            advance: hears of bytes written.

        Raises:
            ValueError: the file exists, or cannot be there; there is no such model, and there are no such bits; the
                target is no share; a text holds a lone surrogate.
            TypeError: the documents are no names and texts.
            OSError: the disk is full or not writable, or somebody else is writing this file.
        """
        path = place_for("file", Path(path))
        _refuse_existing(path)
        require_bits(bits)
        require_target(target)
        named = named_texts(documents)
        if not isinstance(model, TextAutoencoder):
            model = TextAutoencoder.from_pretrained(model, device=device)
        shape = model.config.shape
        about = About(
            encoder=name or model.source,
            fingerprint=model.encoder_fingerprint,
            bits=bits,
            num_slots=shape.num_slots,
            memory_dim=shape.memory_dim,
        )
        with only_writer(path):  # from the start: that it cannot be written should not turn out at the end
            _refuse_existing(path)
            store.write(path, about, _written(Codec(model, bits, target), about, named, advance))
        return cls(Store(path), model)

    @classmethod
    def open(
        cls, path: str | Path, model: str | Path | TextAutoencoder | None = None, *, device: str | None = None
    ) -> Self:
        """Open a file; only its index is read. Without a `model`, the one it names is loaded when first needed.

        A model that is loaded runs on `device`, by default on a GPU, where there is one.

        Raises:
            ValueError: no such file; no memory file, or a newer, damaged or truncated one; another encoder's.
        """
        opened = Store(followed(Path(path)))
        if model is not None and not isinstance(model, TextAutoencoder):
            model = TextAutoencoder.from_pretrained(model, device=device)
        return cls(opened, None if model is None else _belonging(opened, model), device)

    def close(self) -> None:
        """Let go of the file; texts are then neither read nor appended, until it is opened again."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        numbers = f"documents={len(self)}, chunks={self.num_chunks}, bytes={self.file_bytes}"
        closed = ", closed" if self._store.is_closed else ""
        return f"MemoryFile({str(self.path)!r}, encoder={self.about.encoder!r}, {numbers}{closed})"

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._store.path

    @property
    def about(self) -> About:
        """Which encoder made the memories, and how they are kept."""
        return self._store.about

    @property
    def documents(self) -> tuple[Document, ...]:
        """Its texts: name, range of chunks, bytes."""
        return self._store.documents

    @property
    def vector_bytes(self) -> int:
        """Of one memory, with its scale."""
        return self.about.vector_bytes

    @property
    def chunks(self) -> list[ChunkInfo]:
        """What is known of each chunk."""
        return self._store.chunks

    @property
    def num_chunks(self) -> int:
        """Of all its documents."""
        return self._store.num_chunks

    @property
    def file_bytes(self) -> int:
        """Its size, all in all."""
        return self._store.file_bytes

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

    # Not by what they hold, as other mappings: to compare two of them would be to regenerate all their texts.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def _no_document(self, name: object) -> str:
        if not isinstance(name, str):
            return f"documents have names, and {name!r} is none; chunks are read with text(start, stop)"
        close = difflib.get_close_matches(name, self, n=_SHOWN)
        said = f"did you mean {' or '.join(map(repr, close))}?" if close else "`documents` says which there are"
        return f"{self.path} has no document {name!r}; {said}"

    # --- reading ---------------------------------------------------------------------------------------------------

    def text(self, start: int = 0, stop: int | None = None, *, on_damage: OnDamage | None = None) -> str:
        """The exact text of chunks `start` to `stop`, and of nothing else is anything read.

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
            texts = self._codec().read([chunk for _, chunk in numbered])
            for (number, chunk), data in zip(numbered, texts, strict=True):
                if digest(data) == chunk.text_digest:
                    yield data
                else:
                    self._store.report(number, _OTHERWISE, on_damage)

    def vectors_only(
        self, start: int = 0, stop: int | None = None, *, on_damage: OnDamage | None = None
    ) -> Iterator[bytes]:
        """What the vectors alone give back, without patches; of raw chunks, nothing. It need not be UTF-8."""
        for numbered in self._store.read(start, stop, on_damage):
            yield from self._codec().read_vectors([chunk for _, chunk in numbered])

    def memories(self, start: int = 0, stop: int | None = None, *, on_damage: OnDamage | None = None) -> Memory:
        """The vectors of some chunks, as one text's, for a decoder or a memory model; needs no encoder.

        Raw chunks have no vector and are left out (`chunks` says which they are); `on_damage` and errors as `text`.
        """
        about, parts, num_tokens = self.about, [torch.zeros(0, self.about.num_slots, self.about.memory_dim)], []
        for numbered in self._store.read(start, stop, on_damage):
            kept = [chunk for _, chunk in numbered]
            parts.append(vectors_of(kept, about.bits, about.num_slots, about.memory_dim))
            num_tokens += [chunk.num_tokens for chunk in kept if chunk.vector is not None]
        return Memory(
            vectors=torch.cat(parts),
            num_tokens=torch.tensor(num_tokens, dtype=torch.int64),
            num_chunks=(len(num_tokens),),
            encoder=about.fingerprint,
        )

    def damaged(self) -> list[int]:
        """The chunks that are not as they were written; needs no encoder, and reads everything."""
        return self._store.damaged()

    # --- writing ---------------------------------------------------------------------------------------------------

    def append(self, text: str, *, name: str = "", target: float = 0.9) -> None:
        """Add a text, as a document of its own: wholly, or not at all.

        Raises:
            ValueError: the text holds a lone surrogate; the target is no share; the file is closed.
            TypeError: text or name are no strings.
            OSError: the disk is full or not writable, or somebody else is writing; what was there still is.
        """
        self.append_all([(name, text)], target=target)

    def append_all(self, documents: Documents, *, target: float = 0.9, advance: Advance | None = None) -> None:
        """Add documents, as `create` takes them: all, or none; same errors as `append`."""
        arrays = _written(self._codec(target), self.about, named_texts(documents), advance)
        with only_writer(self.path):
            self._rewrite(lambda now: joined(now.arrays(), arrays))

    @contextmanager
    def session(self, name: str = "", *, target: float = 0.9) -> Iterator[MemorySession]:
        """Append a document as its text streams in; nobody else writes the file meanwhile. Same errors as `append`.

        What is pending is written when the block ends, by an error too.
        """

        def write(kept: list[Kept]) -> None:
            arrays = arrays_of([(name, kept)], self.about.empty_row)
            self._rewrite(lambda now: (continued if len(now.documents) > before else joined)(now.arrays(), arrays))

        require_string("a document's name", name)
        codec = self._codec(target)
        with only_writer(self.path):
            self._store = self._current()
            before = len(self.documents)
            session = MemorySession(codec, write, lambda: Store(self.path).num_chunks)
            try:
                yield session
            finally:
                session.close()

    def extend(self, other: "MemoryFile") -> None:
        """Add another file's documents, as they are kept there; nothing is encoded anew. Same errors as `append`.

        Raises:
            ValueError: the other file was made by another encoder, or keeps other bits; one of its chunks is damaged.
        """
        if other.about.kind != self.about.kind:
            raise ValueError(
                f"{other.path} keeps {other.about.kind}, {self.path} {self.about.kind}: remember its text anew"
            )
        if damaged := other.damaged():
            raise ValueError(f"{other.path}: chunk {damaged[0]} is damaged; forget it first")
        arrays = other._store.arrays()
        with only_writer(self.path):
            self._rewrite(lambda now: joined(now.arrays(), arrays))

    def forget(self, start: int, stop: int) -> None:
        """Rewrite the file without some chunks; documents stay, if empty. Same errors as `append` and `text`.

        Raises:
            ValueError: these chunks are others by now, since somebody has forgotten some.
        """
        start, stop = self._store.ends(start, stop)
        meant = self._store.digests(start, stop)
        with only_writer(self.path):
            now = self._current()
            if stop > now.num_chunks or not np.array_equal(now.digests(start, stop), meant):
                raise ValueError(
                    f"chunks {start}:{stop} of {self.path} are others than when it was opened: open it again"
                )
            self._rewrite(lambda current: current.without(start, stop))

    def _rewrite(self, change: Callable[[Store], Arrays]) -> None:
        """Write what becomes of the file, all or nothing, and of what is in it now, perhaps by another writer."""
        store.write(self.path, self.about, change(self._current()))
        self._store = Store(self.path)

    def _current(self) -> Store:
        self._store.require_open()
        current = Store(self.path)
        if current.about != self.about:
            raise ValueError(f"{self.path} was replaced by memories of another kind since it was opened")
        return current

    def _codec(self, target: float = 0.9) -> Codec:
        self._store.require_open()
        return Codec(self.model, self.about.bits, target)


def _written(codec: Codec, about: About, named: Iterator[tuple[str, str]], advance: Advance | None) -> Arrays:
    return arrays_of([(name, list(codec.write(text, advance))) for name, text in named], about.empty_row)


def _belonging(opened: Store, model: TextAutoencoder) -> TextAutoencoder:
    about = opened.about
    if model.encoder_fingerprint != about.fingerprint:
        raise ValueError(
            f"{opened.path} was made by encoder {about.encoder or 'without a name'} ({about.fingerprint}), not by this "
            f"one ({model.encoder_fingerprint}); load the model that made it"
        )
    return model


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise ValueError(f"{path} exists; open it and append to it, or choose another name")

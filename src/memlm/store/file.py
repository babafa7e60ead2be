"""A file of memories: text is appended, all at once or as it streams in, and comes back exactly."""

import reprlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import Self

from memlm.data.documents import utf8
from memlm.runtime.files import place_for
from memlm.runtime.progress import Advance
from memlm.store.chunk import Block, Part, StoredChunk
from memlm.store.codec import DEFAULT_BITS, Codec, require_options
from memlm.store.packing import Bits
from memlm.store.reader import MemoryReader
from memlm.store.segments import SEGMENT_CHUNKS
from memlm.store.store import MemoryStore
from memlm.store.writer import Writer, refuse_existing, write_file, writing
from memlm.text.autoencoder import TextAutoencoder

Text = str | Iterator[str]
"""Whole, or in pieces: a generator, or a file that is open for reading text."""
Documents = Mapping[str, Text] | Iterable[tuple[str, Text]]
"""Names and texts: a dict, or pairs."""
_WAY_OUT = "give pairs, [('a name', 'a text')], or a dict of texts by name"
_CHUNKS_AT_ONCE = 16
"""Text is encoded when there is enough for so many chunks at one character per token: in batches, which is fast."""


class MemorySession:
    """Text on its way into a file, as one document; made by `MemoryFile.session`.

    ```python
    with notes.session("chat") as session:
        for piece in stream:
            session.append(piece)
    ```

    Full chunks are appended to the file several at a time. A process that is killed loses `pending` and no more.
    """

    def __init__(self, codec: Codec, writer: Writer, name: str) -> None:
        self._codec, self._writer, self._name = codec, writer, name
        self._documents_before = len(writer.store.documents)
        self._enough = _CHUNKS_AT_ONCE * codec.chunk_len
        self.pending = ""
        """Text that is not written yet, since it does not fill a chunk, or too few."""
        self._is_closed = False

    def append(self, text: str) -> None:
        """Add text; writes the chunks that it fills, several at a time.

        Raises:
            TypeError: it is not a string.
            ValueError: the text holds a lone surrogate; it is left out. Or the session is over.
            OSError: the disk is full or not writable; what could not be written is still `pending`.
        """
        self._require_open()
        _require_string("text", text)
        utf8(text)
        self.pending += text
        if len(self.pending) >= self._enough:
            self._write_pending(whole_chunks=True)
            self._enough = len(self.pending) + _CHUNKS_AT_ONCE * self._codec.chunk_len

    def flush(self) -> None:
        """Write all of it, even if the last chunk is not full. Same errors as `append`."""
        self._require_open()
        self._write_pending(whole_chunks=False)

    def close(self) -> None:
        """Write what is pending and end the session, as the end of the block does. Same errors as `flush`.

        A session without text is an empty document, as it is for `MemoryFile.append`.
        """
        if not self._is_closed:
            try:
                self._write_pending(whole_chunks=False, goes_on=False)
            finally:
                self._is_closed = True

    def _require_open(self) -> None:
        if self._is_closed:
            raise ValueError("this session is over; begin another with the file's session()")

    def _write_pending(self, *, whole_chunks: bool, goes_on: bool | None = None) -> None:
        chunks, store = list(self._codec.write(self.pending, whole_chunks=whole_chunks)), self._writer.store
        continues = len(store.documents) > self._documents_before
        if not chunks and (whole_chunks or continues):
            return
        before, rest = len(store.numbers), self.pending.encode()[sum(chunk.num_bytes for chunk in chunks) :].decode()
        try:
            self._writer.append([Part(self._name, Block.of(chunks, store.about), continues)], goes_on)
        finally:
            if len(store.numbers) > before:  # an interruption may come when all is written
                self.pending = rest


class MemoryFile(MemoryReader):
    """Texts as memories, in one file.

    ```python
    with memlm.MemoryFile.create("notes.memory", "english") as notes:
        notes.append("Call me Ishmael. ...", name="moby")
        notes["moby"] == "Call me Ishmael. ..."  # exact: what the vectors miss is stored as a patch
        notes.memories(0, 10)  # the vectors, for a decoder or a memory model
    ```

    It is a mapping of documents' names to their texts; `len` counts documents, `num_chunks` chunks. Where several have
    one name, that name comes once for each, and asking for its text is an error that says where each of them is.
    """

    @classmethod
    def create(
        cls,
        path: str | Path,
        model: str | Path | TextAutoencoder,
        documents: Documents = (),
        *,
        name: str = "",
        bits: Bits | None = None,
        target: float | None = None,
        device: str | None = None,
        advance: Advance | None = None,
    ) -> Self:
        """Write a new file.

        Args:
            path: where.
            model: an autoencoder, or what `memlm.load` takes: then its name is stored, and `open` loads it.
            documents: to begin with, as pairs of a name and a text, or a dict of texts by name. A text that does not
                fit in memory is given in pieces: any iterator of strings, such as a file opened with newline="".
            name: what `open` is to load; by default what `model` was loaded by.
            bits: of each dimension of a memory: 32, 16, 8, 6, 4, 3, 2 or 1. By default those that the model was trained
                for (`num_bits`), else 8.
            target: chunks of which a vector gives back less than this share of tokens are made shorter. By default
                0.9; at the bits that the model was trained for there is none, and only bytes count.
            device: where to run a model that is loaded here; by default on a GPU, where there is one.
            advance: called with the bytes of text that were encoded.

        Raises:
            ValueError: the file exists, or cannot be there; there is no such model, and there are no such bits; the
                target is not a share; a text holds a lone surrogate.
            TypeError: the documents are not names and texts.
            OSError: the disk is full or not writable.
        """
        path = place_for("file", Path(path))
        refuse_existing(path)
        require_options(DEFAULT_BITS if bits is None else bits, target)
        named = _named_texts(documents)
        if not isinstance(model, TextAutoencoder):
            model = TextAutoencoder.from_pretrained(model, device=device)
        codec = Codec.of(model, bits, target)
        about = replace(codec.about, encoder=name or model.source)
        write_file(path, about, _encoded(codec, named, advance), new=True)
        return cls(MemoryStore(path), model)

    def append(self, text: str, *, name: str = "", target: float | None = None) -> None:
        """Add a text, as a document of its own: wholly, or not at all; nothing that is stored is written again.

        Raises:
            ValueError: the text holds a lone surrogate; the target is not a share; the file is closed.
            TypeError: text or name are not strings.
            OSError: the disk is full or not writable, or somebody else is writing; what was there still is.
        """
        self.append_all([(name, text)], target=target)

    def append_all(self, documents: Documents, *, target: float | None = None, advance: Advance | None = None) -> None:
        """Add documents, as `create` takes them: all, or none; same errors as `append`."""
        parts = [*_encoded(self._writing_codec(target), _named_texts(documents), advance)]
        with self._writing() as writer:
            writer.append(parts)

    @contextmanager
    def session(self, name: str = "", *, target: float | None = None) -> Iterator[MemorySession]:
        """Append a document as its text streams in; nobody else writes the file meanwhile. Same errors as `append`.

        What is pending is written when the block ends; without any text, an empty document. If it ends by an error,
        what was written before the error is kept, pending text too: nothing is taken back.
        """
        _require_string("a document's name", name)
        codec = self._writing_codec(target)
        with self._writing() as writer:
            self._store = writer.store
            session = MemorySession(codec, writer, name)
            try:
                yield session
            finally:
                session.close()

    def extend(self, other: MemoryReader) -> None:
        """Add another file's documents, as they are stored there; nothing is encoded anew. Same errors as `append`.

        Raises:
            ValueError: the other file was made by another encoder, or with other bits; one of its chunks is damaged.
        """
        theirs, ours = (
            f"{one.about.bits} bits a dimension of encoder {one.about.fingerprint}" for one in (other, self)
        )
        if theirs != ours:
            raise ValueError(f"{other.path} keeps {theirs}, {self.path} {ours}: remember its text anew")
        if damaged := other.damaged():
            raise ValueError(f"{other.path}: chunk {damaged[0]} is damaged; forget it first")
        parts = [*other._store.parts()]
        with self._writing() as writer:
            writer.append(parts)

    def forget(self, start: int, stop: int) -> None:
        """Rewrite the file without some chunks, and without documents of which nothing is left.

        Documents that were empty before stay. Same errors as `append` and `text`.

        Raises:
            ValueError: these chunks are others by now, since somebody has forgotten some.
        """
        opened = self._store
        start, stop = opened.chunk_range(start, stop)
        with self._writing() as writer:
            if not writer.store.has_chunks_of(opened, start, stop):
                raise ValueError(
                    f"chunks {start}:{stop} of {self.path} are others than when it was opened: open it again"
                )
            writer.replace(writer.store.parts(without=(start, stop)))

    @contextmanager
    def _writing(self) -> Iterator[Writer]:
        """Within this, nobody else writes; afterwards, this is the file as it is then."""
        with writing(self._store) as writer:
            if writer.store.about != self.about:
                raise ValueError(f"{self.path} was replaced by memories of another kind since it was opened")
            yield writer
            self._store = writer.store

    def _writing_codec(self, target: float | None) -> Codec:
        self._store.require_open()
        return Codec.of(self.model, self.about.bits, target)


def _named_texts(documents: Documents) -> Iterator[tuple[str, Text]]:
    """Documents as names and texts; those of a list or a dict are checked before the first is given.

    Raises:
        TypeError: they are no names and texts; says what is there instead, and what should be.
    """
    given: object = documents
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise TypeError(f"documents are names and texts, not {reprlib.repr(given)}; {_WAY_OUT}")
    pairs = documents.items() if isinstance(documents, Mapping) else documents
    checked = map(_pair, pairs)
    return iter([*checked]) if isinstance(documents, (list, tuple, dict)) else checked


def _require_string(what: str, value: object) -> None:
    """Raise TypeError where something is not a string."""
    if not isinstance(value, str):
        hint = "; decode it first" if isinstance(value, (bytes, bytearray)) else ""
        raise TypeError(f"{what} is a string, not {reprlib.repr(value)}{hint}")


def _pair(document: object) -> tuple[str, Text]:
    # A string of two letters can be taken apart, too.
    if not isinstance(document, (tuple, list)) or len(document) != 2:
        raise TypeError(f"a document is a name and a text, not {reprlib.repr(document)}; {_WAY_OUT}")
    name, text = document
    _require_string("a document's name", name)
    if not isinstance(text, Iterator):
        _require_string(f"the text of document {name!r}", text)
    return name, text


def _encoded(codec: Codec, named: Iterator[tuple[str, Text]], advance: Advance | None) -> Iterator[Part]:
    """Documents as they are stored, so many chunks at a time."""
    names = dict[int, str]()

    def texts() -> Iterator[Text]:
        for number, (name, text) in enumerate(named):
            names[number] = name
            yield text

    for number, written in groupby(codec.write_all(texts(), advance), key=itemgetter(0)):
        name, chunks, continues = names.pop(number), list[StoredChunk](), False
        for chunk in chain.from_iterable(some for _, some in written):
            chunks.append(chunk)
            if len(chunks) == SEGMENT_CHUNKS:
                yield Part(name, Block.of(chunks, codec.about), continues)
                chunks, continues = [], True
        if chunks or not continues:
            yield Part(name, Block.of(chunks, codec.about), continues)

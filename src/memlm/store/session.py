"""A document written as its text streams in: chunks as soon as they are full, the rest at its end."""

from memlm.store.chunk import Block, Part
from memlm.store.codec import Codec
from memlm.store.texts import require_string, utf8
from memlm.store.writer import Writer

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
        require_string("text", text)
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
                self.flush()
            finally:
                self._is_closed = True

    def _require_open(self) -> None:
        if self._is_closed:
            raise ValueError("this session is over; begin another with the file's session()")

    def _write_pending(self, *, whole_chunks: bool) -> None:
        chunks, store = list(self._codec.write(self.pending, whole_chunks=whole_chunks)), self._writer.store
        continues = len(store.documents) > self._documents_before
        if not chunks and (whole_chunks or continues):
            return
        before, rest = len(store.numbers), self.pending.encode()[sum(chunk.num_bytes for chunk in chunks) :].decode()
        try:
            self._writer.append([Part(self._name, Block.of(chunks), continues)])
        finally:
            if len(store.numbers) > before:  # an interruption may come when all is written
                self.pending = rest

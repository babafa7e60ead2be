"""A document written as its text streams in: chunks as soon as they are full, the rest at its end."""

from collections.abc import Callable

from memlm.store.codec import Codec
from memlm.store.documents import require_string
from memlm.store.kept import Kept
from memlm.store.tokenized import encoded

_LEAST_CHUNKS = 16
"""Text is looked at again when there is as much more of it as this many chunks have at a character a token,"""
_REWRITES = 64
"""or a share of all chunks, so that a file is not rewritten more often than this while it grows by its own length."""


class MemorySession:
    """Text on its way into a file, as one document; by `MemoryFile.session`.

    ```python
    with notes.session("chat") as session:
        for piece in stream:
            session.append(piece)
    ```

    Full chunks are written as they come, all or nothing; the longer the file, the more at a time, for it is rewritten.
    A process that is killed loses `pending` and no more.
    """

    def __init__(self, codec: Codec, write: Callable[[list[Kept]], None], num_chunks: Callable[[], int]) -> None:
        """`write` is given chunks, in order, and keeps them; `num_chunks` counts all that are kept."""
        self._codec, self._write, self._num_chunks = codec, write, num_chunks
        self._enough = self._step()
        self.pending = ""
        """Text that does not fill a chunk yet, or too few."""
        self._is_closed = False

    def append(self, text: str) -> None:
        """Add text; writes the chunks that it fills, several at a time.

        Raises:
            TypeError: it is no string.
            ValueError: the text holds a lone surrogate; it is left out. Or the session is over.
            OSError: the disk is full or not writable; what could not be written is still `pending`.
        """
        self._require_open()
        require_string("text", text)
        encoded(text)
        self.pending += text
        if len(self.pending) >= self._enough:
            self._keep(whole_chunks=True)
            self._enough = len(self.pending) + self._step()

    def flush(self) -> None:
        """Write all of it, if the last chunk is not full either. Same errors as `append`."""
        self._require_open()
        self._keep(whole_chunks=False)

    def close(self) -> None:
        """Write what is pending; nothing more can be appended, since others may write the file. Same errors as `flush`.

        The end of the block does it.
        """
        if not self._is_closed:
            try:
                self.flush()
            finally:
                self._is_closed = True

    def _require_open(self) -> None:
        if self._is_closed:
            raise ValueError("this session is over; begin another with the file's session()")

    def _keep(self, *, whole_chunks: bool) -> None:
        kept = list(self._codec.write(self.pending, whole_chunks=whole_chunks))
        if not kept:
            return
        before, rest = self._num_chunks(), self.pending.encode()[sum(chunk.num_bytes for chunk in kept) :].decode()
        try:
            self._write(kept)
        finally:
            if self._num_chunks() > before:  # an interruption may come when all is written
                self.pending = rest

    def _step(self) -> int:
        """Characters of text to wait for."""
        return max(_LEAST_CHUNKS, self._num_chunks() // _REWRITES) * self._codec.chunk_len

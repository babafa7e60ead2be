"""A document written as its text streams in: chunks as soon as they are full, the rest at its end."""

from collections.abc import Callable

from memlm.memory.codec import Codec
from memlm.memory.kept import Kept

_TRIED_CHUNKS = 16
"""Text is looked at again when there is as much more of it as this many chunks have at a byte a token."""


class MemorySession:
    """Text on its way into a file, as one document; by `MemoryFile.session`.

    ```python
    with notes.session("chat") as session:
        for piece in stream:
            session.append(piece)
    ```

    Full chunks are written as they come, all or nothing; a process that is killed loses `pending` and no more.
    """

    def __init__(self, codec: Codec, write: Callable[[list[Kept]], None]) -> None:
        """`write` is given chunks, in order, and keeps them."""
        self._codec, self._write = codec, write
        self._step = _TRIED_CHUNKS * codec.chunk_len
        self._enough = self._step
        self.pending = ""
        """Text that does not fill a chunk yet."""

    def append(self, text: str) -> None:
        """Add text; writes the chunks that it fills, several at a time.

        Raises:
            ValueError: the text holds a lone surrogate; it is left out.
            OSError: the disk is full or not writable; what could not be written is still `pending`.
        """
        text.encode()
        self.pending += text
        if len(self.pending) >= self._enough:
            self._keep(whole_chunks=True)
            self._enough = len(self.pending) + self._step

    def flush(self) -> None:
        """Write all of it, if the last chunk is not full either. Same errors as `append`."""
        self._keep(whole_chunks=False)

    def _keep(self, *, whole_chunks: bool) -> None:
        kept = list(self._codec.write(self.pending, whole_chunks=whole_chunks))
        if kept:
            self._write(kept)
            num_bytes = sum(chunk.num_bytes for chunk in kept)
            self.pending = self.pending.encode()[num_bytes:].decode()

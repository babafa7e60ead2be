"""An answer on its way from the thread that writes it to the client that reads it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Generic, TypeVar

Piece = TypeVar("Piece")


class Writing(Generic[Piece]):
    """Pieces that one thread writes, and an event loop reads."""

    def __init__(self, write: Callable[[Callable[[], bool]], Iterator[Piece]]) -> None:
        """To be made where it is read; `write` is given what says whether nobody reads it any more."""
        self._write, self._loop = write, asyncio.get_running_loop()
        self._come: asyncio.Queue[Piece | Exception | None] = asyncio.Queue()
        self._is_left = False

    def run(self) -> None:
        """Write all of it, or as much as somebody reads."""
        end: Exception | None = None
        try:
            for piece in self._write(lambda: self._is_left):
                if self._is_left:
                    return
                self._tell(piece)
        except Exception as error:
            end = error
        self._tell(end)

    async def pieces(self) -> AsyncIterator[Piece]:
        """The pieces as they come.

        Raises:
            Exception: the one that ended the writing.
        """
        while (piece := await self._come.get()) is not None:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    def leave(self) -> None:
        """Nobody reads it any more."""
        self._is_left = True

    def _tell(self, piece: Piece | Exception | None) -> None:
        self._loop.call_soon_threadsafe(self._come.put_nowait, piece)


def write_all(writings: Sequence[Writing[Piece]]) -> list[None]:
    """The work of a batch."""
    for writing in writings:
        writing.run()
    return [None] * len(writings)

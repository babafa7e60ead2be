"""What is printed may be read in part: `memlm recall notes.memory | head`."""

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


@contextmanager
def readers_may_leave() -> Iterator[None]:
    """End quietly, as done, when whoever reads our output has closed the pipe; an exit code stays what it is.

    What is buffered is written at the end of the block: later, when Python ends, nobody could catch what goes wrong.
    """
    code: object = None
    try:
        try:
            yield
        except SystemExit as end:
            if end.code == 1 and isinstance(end.__context__, BrokenPipeError):  # so does rich end the process, itself
                raise end.__context__ from None
            code = end.code
        for stream in _streams():
            stream.flush()
    except BrokenPipeError:
        for stream in _streams():
            _silence(stream)
    if code is not None:
        sys.exit(code)  # type: ignore[arg-type]


def reader_has_left() -> bool:
    """Whether nobody reads our output any more, so that a broken pipe is that one, and no other."""
    return any(_is_closed(stream) for stream in _streams())


def _streams() -> list[TextIO]:
    return [stream for stream in (sys.stdout, sys.stderr) if stream is not None]


def _is_closed(stream: TextIO) -> bool:
    try:
        poll = select.poll()
        poll.register(stream, 0)
    except (OSError, ValueError):  # no file, as in tests
        return False
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _silence(stream: TextIO) -> None:
    """What it still holds goes nowhere."""
    if _is_closed(stream):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)

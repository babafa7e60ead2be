"""The command line; nothing heavy is imported before a command needs it."""

import json
import os
import re
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import TextIO

from memlm.cli.command import Command, FlawError
from memlm.cli.parser import parse
from memlm.runtime.cpu import wait_without_spinning
from memlm.runtime.files import place_for
from memlm.runtime.wording import printable


@contextmanager
def _readers_may_leave() -> Iterator[None]:
    """End quietly, as done, when whoever reads our output has closed the pipe (`memlm recall notes.memory | head`).

    An exit code stays what it is.

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


@_readers_may_leave()
def main() -> None:
    """Run the command that was typed."""
    wait_without_spinning()
    if sys.stdout is None:  # closed: nobody would see what is wrong either
        sys.exit(2)
    if sys.stdin is None:
        sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115  # until the process ends
    try:
        flaw = _run(parse(sys.argv[1:]))
        sys.stdout.flush()
        if flaw:
            _fail(flaw)
    except (ValueError, OSError, FloatingPointError) as error:
        _fail(error)
    except RuntimeError as error:
        if "allocate memory" not in str(error) and "out of memory" not in str(error):
            raise
        _fail(ValueError(f"this model does not fit in memory; make it smaller ({str(error).splitlines()[0]})"))
    except KeyboardInterrupt:
        print("memlm: interrupted", file=sys.stderr)
        sys.exit(130)


def _run(command: Command) -> FlawError | None:
    """Run a command and print its answer; returns what is wrong in spite of it."""
    folder, flaw = getattr(command, "out", None), None
    if command.out_is_folder and isinstance(folder, Path):
        place_for("folder", folder)  # refused before anything is done
    try:
        answer = command.run()
    except FlawError as error:
        answer, flaw = error.answer, error
    except ValueError as error:
        raise ValueError(_as_typed(str(error), command)) from error
    if command.json and answer:
        print(json.dumps(answer))
    elif command.answer_is_output and answer:
        print(json.dumps(answer, indent=2))
    return flaw


def _as_typed(message: str, command: Command) -> str:
    """An error's message with arguments as one types them here: `errors='replace'` → `--errors replace`."""
    options = "|".join(field.name for field in fields(command))
    argument = rf"(?<![\w.])({options})='([^']*)'"
    return re.sub(argument, lambda found: f"--{found[1].replace('_', '-')} {found[2]}", message)


def _fail(error: Exception) -> None:
    if isinstance(error, BrokenPipeError) and any(map(_is_closed, _streams())):
        raise error  # of nobody reading our output any more
    with suppress(BrokenPipeError):
        print(f"memlm: {printable(str(error))}", file=sys.stderr)
    sys.exit(2)

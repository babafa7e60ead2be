"""The command line; nothing heavy is imported before a command needs it."""

import json
import os
import re
import sys
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

from memlm.cli.command import Command, FlawError
from memlm.cli.parser import parse
from memlm.cli.pipe import reader_has_left, readers_may_leave
from memlm.runtime.cpu import wait_without_spinning
from memlm.runtime.files import place_for


@readers_may_leave()
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
        sys.exit(130)


def _run(command: Command) -> FlawError | None:
    """Run a command and print its answer; returns what is wrong in spite of it."""
    _check_folder(command)
    flaw = None
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


def _check_folder(command: Command) -> None:
    """Raise ValueError where the output folder cannot be one, before anything is done."""
    folder = getattr(command, "out", None)
    if command.out_is_folder and isinstance(folder, Path):
        place_for("folder", folder)


def _as_typed(message: str, command: Command) -> str:
    """An error's message with arguments as one types them here: `errors='replace'` → `--errors replace`."""
    options = "|".join(field.name for field in fields(command))
    argument = rf"(?<![\w.])({options})='([^']*)'"
    return re.sub(argument, lambda found: f"--{found[1].replace('_', '-')} {found[2]}", message)


def _fail(error: Exception) -> None:
    if isinstance(error, BrokenPipeError) and reader_has_left():
        raise error
    with suppress(BrokenPipeError):
        print(f"memlm: {error}", file=sys.stderr)
    sys.exit(2)

"""The command line, generated from dataclasses; nothing heavy is imported before a command needs it."""

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Union

import tyro

import memlm
from memlm.cli.command import Command, FlawError
from memlm.cli.generate import Generate
from memlm.cli.jobs import Evaluate, Recipes, Regenerate, Train
from memlm.cli.memory import Inspect, Recall, Remember
from memlm.cli.pipe import reader_has_left, readers_may_leave
from memlm.runtime.files import place_for

# Options may follow a subcommand's name, where people look for them: memlm train demo --out runs/mine
CONFIG = (tyro.conf.FlagCreatePairsOff, tyro.conf.CascadeSubcommandArgs)
COMMANDS: Mapping[str, type] = {
    "train": Train,
    "recipe": Recipes,
    "evaluate": Evaluate,
    "regenerate": Regenerate,
    "generate": Generate,
    "remember": Remember,
    "recall": Recall,
    "inspect": Inspect,
}
"""The library's own commands, by name."""
PLUGINS = "memlm.commands"
"""The entry points of commands that other packages add, such as memlm_evidence: name → a `Command`, or a group."""


@readers_may_leave()
def main() -> None:
    """memlm: measure, make and use vectors that hold a whole chunk of text. (memlm --version prints the version.)"""
    # Read when torch is loaded. Threads that spin while they wait make a core that is shared ten times as slow.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
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


def parse(arguments: Sequence[str]) -> Any:
    """The command that was typed; what is wrong with it, or its help, is printed, and the process ends."""
    match arguments:
        case ["--version"]:
            print(f"memlm {memlm.__version__}")
            sys.exit(0)
    known = commands()
    named = tuple(Annotated[command, tyro.conf.subcommand(name)] for name, command in known.items())
    choices: Any = Union[named]  # noqa: UP007  # made of the commands there are
    if arguments and (typed := getattr(known.get(arguments[0]), "typed", None)):
        arguments = typed(arguments)
    return tyro.cli(choices, prog="memlm", description=main.__doc__, config=CONFIG, args=arguments)


def commands() -> dict[str, type]:
    """Every command there is, by name: the library's own, and those that other packages add."""
    return dict(sorted({**COMMANDS, **{entry.name: entry.load() for entry in entry_points(group=PLUGINS)}}.items()))


def _run(chosen: Any) -> FlawError | None:
    """Run a command and print its answer; returns what is wrong in spite of it."""
    command = _within(chosen)
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


def _within(chosen: Any) -> Command:
    """The command itself, where it is one of a group."""
    return chosen if isinstance(chosen, Command) else chosen.command


def _check_folder(command: Command) -> None:
    """Raise ValueError where the output folder cannot be one, before anything is done."""
    if isinstance(command, Remember):  # it writes a file
        return
    folder = getattr(command, "out", None)
    if isinstance(folder, Path):
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

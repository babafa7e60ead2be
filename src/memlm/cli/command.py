"""What every command has."""

import json
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from memlm.runtime.files import atomic_write

if TYPE_CHECKING:
    from rich.console import Console

    from memlm.config import FileCorpus
    from memlm.runtime.executor import Workers
    from memlm.runtime.results import Record, Result

Answer = Mapping[str, Any]
Configuration = TypeVar("Configuration", bound=Any)


class FlawError(ValueError):
    """Something is wrong with what a command was given, but it has an answer, which is printed all the same."""

    def __init__(self, message: str, answer: Answer) -> None:
        super().__init__(message)
        self.answer = answer


@dataclass(frozen=True, kw_only=True)
class Command:
    """What every command has."""

    json: bool = False
    """Print the result as one JSON object on standard output, and everything else on standard error."""

    answer_is_output: ClassVar[bool] = False
    """Whether the answer is printed as JSON without `--json` too."""
    out_is_folder: ClassVar[bool] = True
    """Whether `--out`, if there is one, is a folder: then it is looked at before anything is done."""

    recipes: ClassVar[Collection[str]] = ()
    """The recipes of which the first argument may be one, if it takes one."""

    def run(self) -> Answer:
        """Do it; returns what `--json` prints."""
        raise NotImplementedError

    def configured(self, defaults: Configuration) -> Configuration:
        """A dataclass with those of its fields that are options of this command as they were given."""
        options = {option.name for option in fields(self)}
        return replace(defaults, **{name: getattr(self, name) for name in vars(defaults) if name in options})

    def console(self) -> "Console":
        """Where tables and marked text go: to standard output, or with `--json` to standard error."""
        from memlm.runtime.progress import console

        return console(stderr=self.json)

    def say(self, text: str, *, aside: bool = False) -> None:
        """A line for people; one that is no part of what was asked for, aside, never stands on standard output."""
        print(text, file=sys.stderr if self.json or aside else sys.stdout)


class Group:
    """Commands under one name; its docstring is their help."""

    commands: ClassVar[Mapping[str, str]]
    """Name → module:class."""
    default: ClassVar[str] = ""
    """The command that is called where none is named."""


@dataclass(frozen=True, kw_only=True)
class UsesModel(Command):
    """What every command has that runs a trained model."""

    device: str | None = None
    """Where to run the model, such as cuda, cuda:1, mps or cpu. By default the GPU, or the CPU if there is none."""


@dataclass(frozen=True, kw_only=True)
class HasWorkers(Command):
    """What every command has whose work is done by workers; each has its own `workers`."""

    ray_address: str | None = None
    """Run the workers on Ray. auto or an address: on that cluster, whose machines must all see the same files. local:
    on a Ray started for this command on this machine. By default the workers are plain processes. Needs pip install
    'memlm[ray]'."""

    def who(self, workers: int) -> "Workers":
        """So many workers, there."""
        return {"num_workers": workers, "ray_address": self.ray_address}


@dataclass(frozen=True, kw_only=True)
class ReadsText(Command):
    """What every command has that reads files of text."""

    encoding: str = "utf-8"
    """The encoding of the text files: utf-8, latin-1, utf-16 or any other that Python knows."""
    errors: Literal["strict", "replace"] = "strict"
    """What to do with bytes that are invalid in this encoding. strict stops and says where the first one is. replace
    reads U+FFFD in place of each."""

    def corpus(self, paths: tuple[str, ...]) -> "FileCorpus":
        """The files of these paths and globs, as this command reads them."""
        from memlm.config import FileCorpus

        return FileCorpus(paths=paths, encoding=self.encoding, errors=self.errors)

    def documents(self, paths: tuple[str, ...]) -> list[str]:
        """The texts of the documents in these files."""
        from memlm.data.corpus import read_documents

        return [document.text for document in read_documents(self.corpus(paths))]


def write_result(result: "Result | Record", path: Path) -> None:
    """Write a result to a file, whole or not at all."""
    atomic_write(path, json.dumps(result.to_dict(), indent=2) + "\n")

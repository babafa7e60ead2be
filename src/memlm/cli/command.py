"""What every command has."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memlm.files import atomic_write
from memlm.results import Result

Answer = Mapping[str, Any]


class FlawError(ValueError):
    """Something is wrong with what a command was given, but it has an answer, which is printed all the same."""

    def __init__(self, message: str, answer: Answer) -> None:
        super().__init__(message)
        self.answer = answer


@dataclass(frozen=True, kw_only=True)
class Command:
    """What every command has."""

    json: bool = False
    """Print one JSON object on standard output, and everything else on standard error."""

    def run(self) -> Answer:
        """Do it; returns what `--json` prints."""
        raise NotImplementedError

    def say(self, text: str, *, aside: bool = False) -> None:
        """A line for people; one that is no part of what was asked for, aside, never stands on standard output."""
        print(text, file=sys.stderr if self.json or aside else sys.stdout)


def keep(result: Result, path: Path) -> None:
    """Write a result to a file, whole or not at all."""
    atomic_write(path, json.dumps(result.to_dict(), indent=2) + "\n")

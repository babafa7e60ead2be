"""What every command has."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Answer = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Command:
    """What every command has."""

    json: bool = False
    """Print one JSON object on standard output, and everything else on standard error."""

    def run(self) -> Answer:
        """Do it; returns what `--json` prints."""
        raise NotImplementedError

    def say(self, text: str) -> None:
        """A line for people."""
        print(text, file=sys.stderr if self.json else sys.stdout)

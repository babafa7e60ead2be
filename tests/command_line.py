"""The command line, called in this process; the fixture `memlm` calls it."""

import io
import json
import sys
from collections.abc import Callable
from pkgutil import resolve_name
from typing import Any, NamedTuple

import pytest

from memlm import cli
from memlm.cli.command import Group
from memlm.cli.parser import commands


def every_command() -> dict[str, str]:
    """Every command there is, with those of groups: words that are typed → module:class."""
    found: dict[str, str] = {}
    for name, address in commands().items():
        group = resolve_name(address)
        within = group.commands if issubclass(group, Group) else {}
        found |= {f"{name} {each}": where for each, where in within.items()} or {name: address}
    return found


class Outcome(NamedTuple):
    """What a command ended with, and what it wrote."""

    code: object
    data: bytes
    err: str

    @property
    def out(self) -> str:
        return self.data.decode()

    def json(self) -> dict[str, Any]:
        """The one JSON object that standard output must be."""
        assert self.code == 0, self.err
        assert self.out.count("\n") == 1
        return json.loads(self.out, parse_constant=pytest.fail)


Memlm = Callable[..., Outcome]


def called(patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[bytes]) -> Memlm:
    """memlm, with arguments and what stands on standard input."""

    def call(*arguments: object, stdin: bytes = b"") -> Outcome:
        patch.setattr(sys, "argv", ["memlm", *map(str, arguments)])
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capture.readouterr()
        code: object = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        sys.stdout.flush()
        out, err = capture.readouterr()
        return Outcome(code, out, err.decode())

    return call


def assert_refused(outcome: Outcome, *words: str) -> None:
    """Exit code 2, one line that says what is wrong, and nothing on standard output."""
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith("memlm: ")
    assert outcome.err.count("\n") == 1
    assert all(word in outcome.err for word in words), outcome.err

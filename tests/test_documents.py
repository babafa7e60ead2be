"""What the documents show is run: each page's blocks in order, in one namespace and one folder.

A block below `<!-- skip: next "why" -->` is not run; that its commands and options exist is checked all the same.
"""

import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from unittest import SkipTest

import pytest
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

from command_line import every_command
from memlm.cli.parser import parse
from memlm.cli.train import Train, with_corpus
from memlm.runtime.files import boxed_folder

ROOT = Path(__file__).parents[1]
UNRUN = {"results.md", "log.md"}
"""What was measured, with the commands of that day."""
PAGES = [ROOT / "README.md", *sorted(path for path in ROOT.glob("docs/**/*.md") if path.name not in UNRUN)]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@each_page
def test_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("docs", "examples", "src"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    for example in Sybil([PythonCodeBlockParser(), CodeBlockParser("bash", in_a_shell), SkipParser()]).parse(page):
        with suppress(SkipTest):
            example.evaluate()


def in_a_shell(example: Example) -> str | None:
    """What went wrong, if anything."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    options = {"env": {**os.environ, "PATH": path}, "capture_output": True, "text": True, "timeout": 600}
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", example.parsed], check=False, **options)
    return done.stderr[-3000:] or "no word" if done.returncode else None


@each_page
def test_commands_exist(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in commands(page):
        try:
            command = parse(arguments)
        except SystemExit:
            pytest.fail(f"{page.name} shows memlm {shlex.join(arguments)}\n{capsys.readouterr().err}")
        if isinstance(command, Train):
            # Raises where there is no such field.
            with_corpus(command.recipe, None, command.dataset).with_values(command.set)


@each_page
def test_commands_in_sentences_exist(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They may leave out what is required, but have no option that does not exist."""
    for command in re.findall(r"`memlm ([a-z][^`]*)`", page.read_text(encoding="utf-8")):
        words = shlex.split(command.replace("...", ""))
        options = [word for word in words if word.startswith("--")]
        before = words[: words.index(options[0])] if options else words
        for arguments in (before, [*before, "--help"]):
            with suppress(SystemExit):
                parse(arguments)
        said = capsys.readouterr()
        assert "Unrecognized" not in said.err, f"{page.name} names memlm {command}"
        shown = re.findall(r"--[a-z][a-z-]*", said.out)
        assert set(options) <= set(shown), f"{page.name} names memlm {command}"


@each_page
def test_files_named_in_commands_exist(page: Path) -> None:
    """A file that a command reads is in the repository, or was made above it on the page."""
    made: set[str] = set()
    for example in page_blocks(page):
        if example.region.lexemes["arguments"] == "python":
            made |= set(re.findall(r"""(?:Path|create)\(f?"([^"{]+)""", example.parsed))
            continue
        for arguments in [line.split() for line in example.parsed.splitlines() if line.startswith("cp ")]:
            assert is_there(arguments[1], made)
            made.add(arguments[2])
        for arguments in commands_of(example):
            for name in files_read(arguments):
                assert is_there(name, made), f"{page.name}: memlm {shlex.join(arguments)}: there is no {name}"
            made |= {value for option in ("--out", "-o") for value in values(arguments, option)}


@each_page
def test_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^(\S+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make (\S+?)(?=`|\s|$)", page.read_text(encoding="utf-8"), re.MULTILINE)) <= targets


@each_page
def test_every_block_says_what_it_is(page: Path) -> None:
    """One that does not would not be looked at."""
    fences = re.findall(r"^ *```(.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(fences[::2]) <= {"python", "bash"}
    assert set(fences[1::2]) <= {""}


def test_what_is_not_run_is_the_exception() -> None:
    blocks = [found for page in PAGES for found in page_blocks(page)]
    unrun = [(page, why) for page in PAGES for why in re.findall(r"<!-- skip: next(.*) -->", page.read_text("utf-8"))]
    assert all(re.fullmatch(r' "\S.*"', why) for _, why in unrun), "each says why"
    assert len(unrun) < len(blocks) / 2, [f"{page.name}:{why}" for page, why in unrun]


def test_the_command_line_page_has_every_command() -> None:
    page = (ROOT / "docs/reference/command-line.md").read_text(encoding="utf-8")
    for address in every_command().values():
        assert f"::: {address.split(':')[0]}\n" in page or f"::: {address.replace(':', '.')}\n" in page


def test_files_named_in_links_exist() -> None:
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name} names {target}"


def page_blocks(page: Path) -> Iterator[Example]:
    """Every block that a page shows, run or not."""
    return iter(Sybil([CodeBlockParser("python", str), CodeBlockParser("bash", str)]).parse(page))


def commands(page: Path) -> Iterator[list[str]]:
    """The arguments of every memlm that a page's shell blocks call."""
    for example in page_blocks(page):
        if example.region.lexemes["arguments"] == "bash":
            yield from commands_of(example)


def commands_of(example: Example) -> Iterator[list[str]]:
    """The arguments of every memlm that a shell block calls."""
    for line in example.parsed.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        command: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("();<>|&"):
                if "memlm" in command:
                    yield command[command.index("memlm") + 1 :]
                command = []
            else:
                command.append(word)


def files_read(arguments: list[str]) -> Iterator[str]:
    """The files and checkpoint folders that a memlm command reads; not models known by a name, or standard input."""
    for option in ("--text", "--memory", "--encoder-from"):
        yield from (value for value in values(arguments, option) if value != "-" and boxed_folder(value) is None)
    positional = list(itertools.takewhile(lambda word: not word.startswith("-"), arguments))
    if positional[0] in ("remember", "recall", "inspect", "report"):
        yield from positional[1:]
    elif positional[0] == "find":  # in a file, what is behind it
        yield positional[1]
    elif positional[0] in ("evaluate", "regenerate", "generate", "probe") or positional[:2] == ["bench", "recall"]:
        yield from (name for name in positional[1:] if "/" in name)


def values(arguments: list[str], option: str) -> Iterator[str]:
    """What stands behind an option."""
    for place, word in enumerate(arguments):
        if word == option:
            yield from itertools.takewhile(lambda value: value == "-" or value[0] != "-", arguments[place + 1 :])


def is_there(name: str, made: set[str]) -> bool:
    """Whether a path or pattern is in the repository, or is or lies in what was made."""
    return any(ROOT.glob(name)) or any(name == path or name.startswith(f"{path.rstrip('/')}/") for path in made)

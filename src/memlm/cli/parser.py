"""From typed arguments to a command; only the module of the command that was typed is imported."""

import ast
import inspect
import io
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from difflib import get_close_matches
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name

import tyro

import memlm
from memlm.cli.command import Command, Group

COMMANDS: Mapping[str, str] = {
    "adapt": "memlm.cli.reader:Adapt",
    "app": "memlm.cli.app:App",
    "ask": "memlm.cli.reader:Ask",
    "export-prompt": "memlm.cli.reader:ExportPrompt",
    "context": "memlm.cli.context:Context",
    "train": "memlm.cli.train:Train",
    "recipe": "memlm.cli.train:Recipes",
    "evaluate": "memlm.cli.model:Evaluate",
    "regenerate": "memlm.cli.model:Regenerate",
    "generate": "memlm.cli.model:Generate",
    "remember": "memlm.cli.memory:Remember",
    "recall": "memlm.cli.memory:Recall",
    "inspect": "memlm.cli.memory:Inspect",
    "find": "memlm.cli.find:Find",
    "encode-corpus": "memlm.cli.bulk:EncodeCorpus",
    "export-vectors": "memlm.cli.vectors:ExportVectors",
    "nearest": "memlm.cli.vectors:Nearest",
    "invert": "memlm.cli.invert:Invert",
    "serve": "memlm.cli.serve:Serve",
}
"""The library's own commands: name → module:class."""
Topics = Mapping[str, tuple[str, ...]]
TOPICS: Topics = {
    "Begin here": ("demo", "app"),
    "Measure what vectors hold": ("evaluate", "regenerate", "probe", "invert", "leak", "settle"),
    "Train": ("train", "recipe", "sweep", "context"),
    "Keep text in memory files": ("remember", "recall", "inspect", "find"),
    "Encode and search corpora": ("encode-corpus", "export-vectors", "nearest"),
    "Let language models read memories": ("generate", "adapt", "ask", "export-prompt", "serve"),
    "Check the claims": ("reproduce", "report", "bench"),
}
"""How `memlm --help` lists the commands; those that it does not know come last."""
PLUGINS = "memlm.commands"
"""The entry points of commands that other packages add, such as memlm_evidence: name → a `Command`, or a `Group`."""
# Options may follow a subcommand's name, where people look for them: memlm train demo --out runs/mine
CONFIG = (tyro.conf.FlagCreatePairsOff, tyro.conf.CascadeSubcommandArgs)
_HELP = frozenset({"-h", "--help", "help"})
PIPE_COLUMNS = "120"
"""Width of help that is read through a pipe."""

ABOUT = "Measure, make and use memories: vectors that hold a whole chunk of text. memlm --version prints the version."


def parse(arguments: Sequence[str]) -> Command:
    """The command that was typed; what is wrong with it, or its help, is printed, and the process ends."""
    if list(arguments[:1]) == ["--version"]:
        print(f"memlm {memlm.__version__}")
        sys.exit(0)
    if not sys.stdout.isatty():
        os.environ.setdefault("COLUMNS", PIPE_COLUMNS)
        if not _HELP.isdisjoint(arguments):
            with _wrapped():
                return _parse("memlm", ABOUT, commands(), arguments, topics=TOPICS)
    return _parse("memlm", ABOUT, commands(), arguments, topics=TOPICS)


def _joined(helptext: str) -> str:
    """Paragraphs, each on one line for the terminal to wrap."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", helptext.strip()))


# tyro's own keeps line breaks before indented lines, which all but the first of an attribute's docstring are.
tyro._strings.remove_single_line_breaks = _joined


@contextmanager
def _wrapped() -> Iterator[None]:
    """Wrap the paragraphs of what is printed to the width of its boxes, which tyro leaves to the terminal."""
    # Of the same encoding, which decides whether boxes are drawn.
    written = io.TextIOWrapper(io.BytesIO(), encoding=sys.stdout.encoding)
    try:
        with redirect_stdout(written):
            yield
    finally:
        width = shutil.get_terminal_size().columns
        written.seek(0)
        for line in written.read().splitlines():
            print(line if len(line) <= width else textwrap.fill(line, width, break_on_hyphens=False))


def commands() -> dict[str, str]:
    """Every command and group that may follow `memlm`: name → module:class."""
    added = {entry.name: entry.value for entry in entry_points(group=PLUGINS)}
    return dict(sorted({**COMMANDS, **added}.items()))


def _parse(
    prog: str,
    about: str,
    table: Mapping[str, str],
    arguments: Sequence[str],
    default: str = "",
    topics: Topics | None = None,
) -> Command:
    """The command among those of a table that the first argument names, with the others as its options."""
    word, *rest = arguments or [""]
    if word in _HELP and rest and not rest[0].startswith("-"):  # memlm help train
        return _parse(prog, about, table, [*rest, "--help"], default, topics)
    if word in table:
        prog, chosen = f"{prog} {word}", resolve_name(table[word])
        if issubclass(chosen, Group):
            return _parse(prog, inspect.getdoc(chosen) or "", chosen.commands, rest, chosen.default)
        if chosen.recipes and rest and rest[0] not in chosen.recipes and not rest[0].startswith("-"):
            raise _unknown("recipe", rest[0], chosen.recipes, prog)
        return tyro.cli(chosen, prog=prog, args=rest, config=CONFIG)
    if default:
        others = "\n".join(f"{prog} {name}: {summary(table[name])}\n" for name in table if name != default)
        chosen = resolve_name(table[default])
        about = f"{inspect.getdoc(chosen)}\n\nOther commands:\n\n{others}"
        return tyro.cli(chosen, prog=prog, args=list(arguments), description=about, config=CONFIG)
    if arguments and word not in _HELP:
        if word.startswith("-"):
            raise ValueError(f"{prog} has no option {word}; {prog} --help lists its commands")
        raise _unknown("command", word or "''", table, prog)
    print(_listed(prog, about, table, topics or {}), file=sys.stdout if arguments else sys.stderr)
    sys.exit(0 if arguments else 2)


def _unknown(kind: str, word: str, names: Collection[str], prog: str) -> ValueError:
    close = get_close_matches(word, names, n=1)
    remedy = f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}"
    return ValueError(f"no such {kind}: {prog} {word}; {remedy}")


def _listed(prog: str, about: str, table: Mapping[str, str], topics: Topics) -> str:
    """What commands there are, by topic; those without one come last."""
    known = {name for names in topics.values() for name in names}
    topics = {**topics, "More" if topics else "Commands": tuple(name for name in table if name not in known)}
    column = 4 + max(map(len, table))
    width = shutil.get_terminal_size().columns
    lines = [f"usage: {prog} COMMAND [OPTIONS]; {prog} COMMAND --help explains one", "", textwrap.fill(about, width)]
    for topic, names in topics.items():
        if there := [name for name in names if name in table]:
            lines += ["", f"{topic}:"]
            lines += [
                textwrap.fill(
                    summary(table[name]),
                    width,
                    initial_indent=f"  {name}".ljust(column),
                    subsequent_indent=" " * column,
                    break_on_hyphens=False,
                )
                for name in there
            ]
    return "\n".join(lines)


def summary(address: str) -> str:
    """The first paragraph of a class's docstring, read from its file: importing it may take seconds."""
    module, name = address.split(":")
    found = find_spec(module)
    assert found is not None
    assert found.origin is not None
    for node in ast.parse(Path(found.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return re.sub(r"\s+", " ", (ast.get_docstring(node) or "").split("\n\n")[0])
    raise LookupError(f"{address} is not there")

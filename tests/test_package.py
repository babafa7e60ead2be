"""What is released: an archive of the sources, and a wheel made of it that has all that memlm needs."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_MOST_BYTES = 100_000_000
"""That the package index takes."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the archive, as by whoever installs from sources."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT], check=True)
    (archive,) = out.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml", "CHANGELOG.md", "tests/conftest.py"} <= names
    assert not [name for name in names if name.split("/")[0] in {".venv", "runs", "site", "dist", "demo"}]
    (made,) = out.glob("*.whl")
    return made


def test_the_wheel_has_everything(wheel: Path) -> None:
    assert wheel.stat().st_size < _MOST_BYTES
    files = {path for path in (ROOT / "src").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    names = {*zipfile.ZipFile(wheel).namelist()}
    assert {str(path.relative_to(ROOT / "src")) for path in files} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_what_is_installed_from_it_works(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "MEMLM_HOME": str(tmp_path / "home")}
    code = (
        "import memlm; model = memlm.load('english', device='cpu'); text = 'Call me Ishmael.'; "
        "assert model.regenerate(model.encode([text])) == [text]; print(memlm.__file__, memlm.__version__)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, check=True, capture_output=True, text=True
    )
    place, version = told.stdout.split()
    assert Path(place).is_relative_to(tmp_path / "site")
    assert version in wheel.name
    command = [sys.executable, "-m", "memlm", "bench", "--help"]  # of the other package, by its entry point
    shown = subprocess.run(command, env=environment, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "everyday" in shown.stdout

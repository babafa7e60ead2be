"""One writer at a time, and no trace of it afterwards, however it ends."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from memlm.runtime import files
from memlm.store import writer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("0")
    return tmp_path / "file"


def test_a_lock_leaves_nothing_behind(path: Path) -> None:
    with writer.only_writer(path) as handle:
        assert os.pread(handle, 1, 0) == b"0"
        assert list(path.parent.iterdir()) == [path]
    with pytest.raises(KeyboardInterrupt), writer.only_writer(path):
        raise KeyboardInterrupt
    with writer.only_writer(path):
        pass
    assert list(path.parent.iterdir()) == [path]


HOLDER = """
import sys, time
from pathlib import Path
from memlm.store.writer import only_writer
with only_writer(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(600)
"""


def test_a_lock_ends_with_its_holder(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_PATIENCE", 0)
    with subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "locked\n"
        with pytest.raises(OSError, match=f"is being written by process {child.pid};"), writer.only_writer(path):
            pass
        child.kill()
    with writer.only_writer(path):
        pass
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_was_replaced_meanwhile_is_locked_anew(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flock, calls = files.fcntl.flock, iter(range(100))

    def replaced_before(handle: int, operation: int) -> None:
        if next(calls) == 0:  # as by the writer before, between our opening and our locking it
            path.with_name("new").write_text("1")
            path.with_name("new").replace(path)
        flock(handle, operation)

    monkeypatch.setattr(files.fcntl, "flock", replaced_before)
    with writer.only_writer(path) as handle:
        assert os.pread(handle, 1, 0) == b"1"


def test_many_writers_never_meet(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_PAUSE", 0)

    def count_up(number: int) -> None:
        with writer.only_writer(path):
            count = int(path.read_text())
            if number % 2:
                path.with_name(f"new {number}").write_text(str(count + 1))
                path.with_name(f"new {number}").replace(path)
            else:
                path.write_text(str(count + 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count_up, range(200)))
    assert path.read_text() == "200"
    assert [one.name for one in path.parent.iterdir()] == ["file"]


def test_a_file_that_is_not_writable_is_refused(path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"), writer.only_writer(path.with_name("nowhere")):
        pass

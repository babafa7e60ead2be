"""One writer at a time, and no trace of it afterwards."""

import fcntl
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from memlm.store import lock


def test_a_lock_leaves_nothing_behind(tmp_path: Path) -> None:
    with lock.only_writer(tmp_path / "file"):
        assert [path.name for path in tmp_path.iterdir()] == [".file.lock"]
    assert list(tmp_path.iterdir()) == []

    def failing() -> None:
        with lock.only_writer(tmp_path / "file"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        failing()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_holder_left_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / ".file.lock").write_text("process 1 on a machine that is gone, whatever its name")
    with lock.only_writer(tmp_path / "file"):
        assert (tmp_path / ".file.lock").read_text().startswith(f"process {os.getpid()} on ")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_was_removed_on_the_way_is_taken_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flock, calls = fcntl.flock, iter(range(100))

    def removed_before(handle: int, operation: int) -> None:
        if next(calls) == 0:
            (tmp_path / ".file.lock").unlink()  # as its holder does, between our opening and our locking it
        flock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", removed_before)
    monkeypatch.setattr(lock, "PATIENCE", 0.1)
    with lock.only_writer(tmp_path / "file"):
        with pytest.raises(OSError, match="is being written by process"), lock.only_writer(tmp_path / "file"):
            pass
        assert (tmp_path / ".file.lock").exists()


def test_many_writers_never_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_PAUSE", 0)  # as often as can be at the moment when a lock is removed
    path = tmp_path / "count"
    path.write_text("0")

    def count_up(_: int) -> None:
        with lock.only_writer(path):
            number = int(path.read_text())
            path.write_text(str(number + 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count_up, range(200)))
    assert path.read_text() == "200"
    assert [one.name for one in tmp_path.iterdir()] == ["count"]


def test_a_link_in_the_locks_place_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / ".file.lock").symlink_to("victim")
    with pytest.raises(OSError, match="lock"), lock.only_writer(tmp_path / "file"):
        pass
    assert (tmp_path / "victim").read_text() == "precious"

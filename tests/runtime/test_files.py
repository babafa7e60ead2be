import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from safetensors import SafetensorError

from memlm.runtime import files
from memlm.runtime.files import atomic_file, atomic_folder, atomic_write, is_in_use, make_folder, only_one_in


@pytest.fixture
def umask() -> Iterator[int]:
    before = os.umask(0o027)
    yield 0o027
    os.umask(before)


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def write_folder(folder: Path, **texts: str) -> None:
    with atomic_folder(folder) as temporary:
        for name, text in texts.items():
            (temporary / name).write_text(text)


def test_a_folder_appears_whole_and_is_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "parent" / "folder"
    with atomic_folder(folder) as temporary:
        (temporary / "a").write_text("1")
        assert not folder.exists()
    assert contents(tmp_path) == {"parent/folder/a": "1"}
    write_folder(folder, b="2")
    assert contents(tmp_path) == {"parent/folder/b": "2"}


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (RuntimeError("broken"), RuntimeError, "^broken$"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
        (OSError(errno.ENOSPC, "No space left on device"), OSError, "could not write .*folder: .*No space left"),
        (SafetensorError("Error while serializing: I/O error: No space left"), OSError, "could not write .*folder"),
    ],
)
def test_a_failure_leaves_the_old_folder_and_nothing_else(
    error: BaseException, raised: type[BaseException], message: str | None, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    write_folder(folder, a="old")

    def fail() -> None:
        with atomic_folder(folder) as temporary:
            (temporary / "a").write_text("new")
            raise error

    with pytest.raises(raised, match=message):
        fail()
    assert contents(tmp_path) == {"folder/a": "old"}
    assert list(tmp_path.iterdir()) == [folder]


def test_a_failure_of_the_last_renaming_puts_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    write_folder(folder, a="old")
    rename = Path.rename

    def fail_at_the_new(path: Path, target: Path) -> Path:
        if target == folder and path.parent == folder.parent:
            raise OSError(errno.EIO, "i/o")
        return rename(path, target)

    monkeypatch.setattr(files, "_renamed", lambda *_: False)  # a system that cannot exchange two folders
    monkeypatch.setattr(Path, "rename", fail_at_the_new)
    with pytest.raises(OSError, match="nothing was changed there"):
        write_folder(folder, a="new")
    assert contents(tmp_path) == {"folder/a": "old"}
    assert list(tmp_path.iterdir()) == [folder]


def test_a_replaced_folder_is_there_at_every_instant(tmp_path: Path) -> None:
    folder, over, missed = tmp_path / "folder", Event(), list[str]()
    write_folder(folder, a="0")

    def watch() -> None:
        while not over.is_set():
            if not folder.exists():
                missed.append("gone")

    watcher = Thread(target=watch)
    watcher.start()
    for number in range(100):
        write_folder(folder, a=str(number))
    over.set()
    watcher.join()
    assert not missed
    assert contents(tmp_path) == {"folder/a": "99"}


def test_where_folders_cannot_be_exchanged_they_are_replaced_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_renamed", lambda *_: False)
    for number in range(3):
        write_folder(tmp_path / "folder", a=str(number))
        assert contents(tmp_path) == {"folder/a": str(number)}
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


@pytest.mark.parametrize("system", ["renames to new names alone", "does not"])
def test_a_new_file_leaves_one_that_was_made_meanwhile(
    system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if system == "does not":
        monkeypatch.setattr(files, "_renamed", lambda *_: False)

    def write_second() -> None:
        with atomic_file(tmp_path / "file", new=True) as temporary:
            temporary.write_text("second")
            (tmp_path / "file").write_text("first")

    with pytest.raises(FileExistsError):
        write_second()
    assert contents(tmp_path) == {"file": "first"}
    with atomic_file(tmp_path / "other", new=True) as temporary:
        temporary.write_text("new")
    assert contents(tmp_path) == {"file": "first", "other": "new"}


def test_one_at_a_time_is_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_PATIENCE", 0)
    with only_one_in(tmp_path):
        assert is_in_use(tmp_path)
        with pytest.raises(ValueError, match="somebody else is at work in"), only_one_in(tmp_path):
            pass
    assert not is_in_use(tmp_path)
    with pytest.raises(KeyboardInterrupt), only_one_in(tmp_path):
        raise KeyboardInterrupt
    with only_one_in(tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "parent" / "file.txt"
    atomic_write(path, "ünd\n")
    assert path.read_text(encoding="utf-8") == "ünd\n"

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(files, "sync", full)
    with pytest.raises(OSError, match=r"could not write .*file\.txt: .*No space left"):
        atomic_write(path, "new")
    assert contents(tmp_path) == {"parent/file.txt": "ünd\n"}


KILLED = """
import sys, time
from pathlib import Path
from memlm.runtime import files
with getattr(files, sys.argv[1])(Path(sys.argv[2])) as temporary:
    (temporary if temporary.is_dir() else temporary.parent).joinpath("half").touch()
    print(flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("write", [atomic_file, atomic_folder])
def test_what_was_killed_is_removed_and_what_goes_on_is_not(write: Callable[..., Any], tmp_path: Path) -> None:
    path, others = (
        tmp_path / "new",
        {".new.backup", ".other.new.0a0a0a0a.memlm-unfinished", ".new.0a0a.memlm-unfinished"},
    )
    for other in others:
        (tmp_path / other).mkdir()

    def replace() -> set[str]:
        with write(path) as temporary:
            temporary.joinpath("a").touch() if temporary.is_dir() else temporary.touch()
        return {each.name for each in tmp_path.iterdir()} - others - {"new"}

    with subprocess.Popen(
        [sys.executable, "-c", KILLED, write.__name__, path], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        (left,) = replace()
        assert (tmp_path / left / "half").exists()
        child.kill()
    assert replace() == set()
    assert path.exists()
    assert {each.name for each in tmp_path.iterdir()} == others | {"new"}


def test_what_is_cleared_before_it_is_locked_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mkdir, cleared = Path.mkdir, list[Path]()

    def made_and_cleared(folder: Path, *given: Any, **named: Any) -> None:
        mkdir(folder, *given, **named)
        if folder.name.endswith(files.UNFINISHED) and not cleared:
            cleared.append(folder)
            folder.rmdir()

    monkeypatch.setattr(Path, "mkdir", made_and_cleared)
    atomic_write(tmp_path / "file", "1")
    assert cleared
    assert contents(tmp_path) == {"file": "1"}


def test_where_nothing_can_be_locked_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tmp_path / ".folder.0a0a0a0a.memlm-unfinished"
    left.mkdir()

    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", none)
    write_folder(tmp_path / "folder", a="1")
    assert left.exists()


def test_others_may_read_what_the_umask_lets_them(tmp_path: Path, umask: int) -> None:
    for _ in range(2):  # new, and replaced
        write_folder(tmp_path / "folder", a="1")
        atomic_write(tmp_path / "file", "1")
        assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o777 & ~umask
        assert (tmp_path / "folder" / "a").stat().st_mode & 0o777 == 0o666 & ~umask
        assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~umask


# --- places of another kind ---


def write_file(path: Path) -> None:
    atomic_write(path, "new")


WRITERS = [write_file, lambda path: write_folder(path, a="new"), make_folder]


@pytest.mark.parametrize("write", WRITERS, ids=["file", "folder", "folder to fill"])
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("file/below", "file is a file, not a folder"),
        ("file/far/below", "file is a file, not a folder"),
        ("pipe", "neither file nor folder is there"),
    ],
)
def test_what_is_no_place_to_write_is_refused_untouched(
    path: str, message: str, write: Callable[[Path], object], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("old")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match=message):
        write(tmp_path / path)
    assert {one.name for one in tmp_path.iterdir()} == {"file", "pipe"}
    assert (tmp_path / "file").read_text() == "old"


@pytest.mark.parametrize("write", WRITERS[1:], ids=["folder", "folder to fill"])
def test_a_file_is_not_replaced_by_a_folder(write: Callable[[Path], object], tmp_path: Path) -> None:
    (tmp_path / "place").write_text("old")
    with pytest.raises(ValueError, match=r"cannot write a folder at .*place: a file is there; give another path"):
        write(tmp_path / "place")
    assert contents(tmp_path) == {"place": "old"}


def test_a_folder_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    write_folder(tmp_path / "place", a="old")
    with pytest.raises(ValueError, match=r"cannot write a file at .*place: a folder is there; give another path"):
        write_file(tmp_path / "place")
    assert contents(tmp_path) == {"place/a": "old"}


def test_what_a_link_leads_to_is_replaced_and_not_the_link(tmp_path: Path) -> None:
    write_folder(tmp_path / "real" / "folder", a="old")
    for name in ("file", "folder"):
        (tmp_path / name).symlink_to(Path("real") / name)
    write_file(tmp_path / "file")
    write_folder(tmp_path / "folder", a="new")
    assert (tmp_path / "file").is_symlink()
    assert (tmp_path / "folder").is_symlink()
    assert contents(tmp_path / "real") == {"file": "new", "folder/a": "new"}


def test_a_folder_without_a_name_is_filled_but_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    for path in (Path(), Path("..")):
        assert make_folder(path) == path
        with pytest.raises(ValueError, match="is no name for a new folder"):
            write_folder(path, a="new")
    write_file(Path("file"))
    assert contents(tmp_path) == {"inner/file": "new"}

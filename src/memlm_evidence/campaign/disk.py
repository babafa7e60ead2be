"""A small file system of its own, which can be full or read-only."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOM = 1 << 29
"""Bytes that are enough."""


@dataclass(frozen=True)
class Disk:
    """A small file system, where this process may mount one; else a folder like any other."""

    path: Path
    mounted: bool

    def resize(self, num_bytes: int) -> None:
        """Let so many bytes fit; without a file system nothing."""
        if self.mounted:
            _run("mount", "-o", f"remount,size={num_bytes}", str(self.path))

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """A block in which nothing here can be written, except by those whom permissions do not bind."""
        self._set_writable(False)
        try:
            yield
        finally:
            self._set_writable(True)

    def _set_writable(self, is_writable: bool) -> None:
        if self.mounted:
            _run("mount", "-o", f"remount,{'rw' if is_writable else 'ro'}", str(self.path))
            return
        for folder in (self.path, *(path for path in self.path.rglob("*") if path.is_dir())):
            folder.chmod(0o755 if is_writable else 0o555)


@contextmanager
def disk(path: Path) -> Iterator[Disk]:
    """A disk at a path, for a block."""
    path.mkdir()
    with suppress(OSError, subprocess.CalledProcessError):
        _run("mount", "-t", "tmpfs", "-o", f"size={ROOM}", "memlm", str(path))
    try:
        yield Disk(path, mounted=path.is_mount())
    finally:
        unmount(path)
        shutil.rmtree(path)


def unmount(path: Path) -> None:
    """Unmount what is mounted at a path, if anything."""
    if path.is_mount():
        _run("umount", str(path))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)

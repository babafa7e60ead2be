"""`memlm serve` in a process of its own, watched from outside."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

_STOP_SECONDS = 90


@dataclass(frozen=True)
class Server:
    """One that answers."""

    address: str
    process: "subprocess.Popen[str]"

    def cpu_seconds(self) -> dict[str, float]:
        """Of its first thread, which reads and writes HTTP, and of the others, which run the model."""
        threads = {each.id: each.user_time + each.system_time for each in psutil.Process(self.process.pid).threads()}
        http = threads.pop(self.process.pid)  # as Linux numbers them
        return {"http": http, "model": sum(threads.values())}

    def resident_bytes(self) -> int:
        """Of memory."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def stop(self) -> int:
        """Tell it to end; returns how many requests it says it has answered.

        Raises:
            RuntimeError: it failed.
        """
        self.process.terminate()
        _, said = self.process.communicate(timeout=_STOP_SECONDS)
        stopped = re.search(r"^stopped; requests answered: (\d+)$", said, re.MULTILINE)
        if self.process.returncode or not stopped:
            raise RuntimeError(f"the server ended with {self.process.returncode}:\n{said}")
        return int(stopped[1])


@contextmanager
def serving(model: str, *options: str, threads: int) -> Iterator[Server]:
    """A server of a model, which is ended with the block."""
    command = [sys.executable, "-m", "memlm", "serve", "--model", model, "--port", "0", *options]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )
    assert process.stderr
    try:
        said = process.stderr.readline()
        if not (started := re.fullmatch(r"serving .* at (\S+)\n", said)):
            raise RuntimeError(f"the server does not start:\n{said}{process.stderr.read()}")
        yield Server(started[1], process)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()

"""`memlm serve` in a process of its own, watched from outside."""

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

_SECONDS = 120
"""That it may take to start, and to stop."""


@dataclass(frozen=True)
class Server:
    """One that answers."""

    address: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def cpu_seconds(self) -> dict[str, float]:
        """Of its first thread, which reads and writes HTTP, and of the others, which run the model."""
        threads = {each.id: each.user_time + each.system_time for each in psutil.Process(self.process.pid).threads()}
        http = threads.pop(self.process.pid)  # as Linux numbers them
        return {"http": http, "model": sum(threads.values())}

    def resident_bytes(self) -> int:
        """Of memory."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def answered(self) -> int:
        """Requests, of any route and status, and this one."""
        with urllib.request.urlopen(f"{self.address}/metrics") as response:
            said = response.read().decode()
        return 1 + sum(
            int(float(number)) for number in re.findall(r"^memlm_requests_total{.*} (.+)$", said, re.MULTILINE)
        )

    def said(self) -> str:
        """All that it has printed."""
        return self.log.read_text(encoding="utf-8")

    def stop(self) -> int:
        """Tell it to end; returns how many requests it says it has answered.

        Raises:
            RuntimeError: it failed, or has said something else besides.
        """
        self.process.terminate()
        code = self.process.wait(_SECONDS)
        stopped = re.fullmatch(r"serving .*\nstopped; requests answered: (\d+)\n", self.said())
        if code or not stopped:
            raise RuntimeError(f"the server ended with {code}:\n{self.said()}")
        return int(stopped[1])


@contextmanager
def serving(model: str, *, threads: int, device: str | None = None) -> Iterator[Server]:
    """A server of a model, which is ended with the block.

    Raises:
        RuntimeError: it does not start.
    """
    command = [sys.executable, "-m", "memlm", "serve", "--model", model, "--port", "0"]
    command += ["--device", device] if device else []
    with TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                command,
                stdout=subprocess.DEVNULL,
                stderr=file,
                env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            )
        try:
            yield Server(_address(process, log), process, log)
        finally:
            process.kill()
            process.wait()


def _address(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """Where it answers, as soon as it does."""
    end = time.monotonic() + _SECONDS
    while process.poll() is None and time.monotonic() < end:
        if started := re.fullmatch(r"serving .* at (\S+)\n", log.read_text(encoding="utf-8")):
            return started[1]
        time.sleep(0.05)
    raise RuntimeError(f"the server does not start:\n{log.read_text(encoding='utf-8')}")

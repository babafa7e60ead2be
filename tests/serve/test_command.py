"""`memlm serve` as it is typed."""

import os
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from command_line import Memlm, assert_refused
from memlm import TextAutoencoder


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_under_load_loses_no_request_that_was_accepted(
    stop: signal.Signals, model: TextAutoencoder, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model.save_pretrained(tmp_path / "model")
    command = [sys.executable, "-m", "memlm", "serve", "--model", str(tmp_path / "model"), "--port", "0"]
    environment = {**os.environ, "MEMLM_API_KEY": "secret", "PYTHONPATH": os.pathsep.join(sys.path)}
    server = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    request.addfinalizer(server.kill)  # where something below fails
    started = re.fullmatch(r"serving \S+ at (\S+)\n", server.stderr.readline())
    assert started, server.stderr.read()
    asked = {"model": str(tmp_path / "model"), "input": ["the memory"] * 4}

    def ask_until_stopped(number: int) -> int:
        """How many answers came."""
        with httpx.Client(headers={"Authorization": "Bearer secret"}, timeout=60) as client:
            for answered in range(10_000):
                try:
                    response = client.post(f"{started[1]}/v1/embeddings", json=asked)
                except httpx.TransportError:
                    return answered
                assert response.status_code == 200, response.text
                assert len(response.json()["data"]) == 4
                if number == 0 and answered == 5:
                    server.send_signal(stop)
        return pytest.fail("it does not stop")

    with ThreadPoolExecutor(8) as threads:
        answered = sum(threads.map(ask_until_stopped, range(8)))
    assert server.wait(60) == 0
    assert answered >= 6
    assert f"stopped; requests answered: {answered}\n" in server.stderr.read()
    server.stderr.close()


def test_what_cannot_be_served_is_refused(memlm: Memlm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_refused(memlm("serve", "--port", 0, "--model", tmp_path), str(tmp_path), "not a memlm checkpoint")
    assert_refused(memlm("serve", "--port", 0, "--model", "smollm2-english"), "smollm2-english", "reader")
    assert_refused(memlm("serve", "--port", 0, "--queue", 0), "--queue must be at least 1, not 0")
    assert_refused(memlm("serve", "--port", 0, "--api-key", ""), "--api-key must not be empty")
    assert_refused(memlm("serve", "--port", 99999), "99999")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert_refused(memlm("serve", "--port", taken.getsockname()[1]), "--port", "in use")
    monkeypatch.setitem(sys.modules, "starlette", None)
    assert_refused(memlm("serve", "--port", 0), "memlm serve needs starlette: pip install 'memlm[serve]'")

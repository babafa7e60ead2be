import io
import time

import pytest

from memlm.runtime.progress import track, watched


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, set by the test."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_elsewhere_than_on_a_terminal_a_plain_line_is_printed_now_and_then(
    capsys: pytest.CaptureFixture[str], clock: list[float]
) -> None:
    with track("Tokenizing [x]", total=4_000_000, unit="bytes", completed=1_000_000) as advance:
        for _ in range(20):
            clock[0] += 1
            advance(100_000, note="loss [1.25]")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "Tokenizing [x]: 2.0 MB of 4.0 MB, 100.0 kB/s, 0:00:20 left, loss [1.25]",
        "Tokenizing [x]: 3.0 MB of 4.0 MB, 100.0 kB/s, 0:00:10 left, loss [1.25]",
        "Tokenizing [x]: 3.0 MB of 4.0 MB, 100.0 kB/s, done, loss [1.25]",
    ]


def test_an_unknown_total_shows_no_time_left(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    with track("Reading", total=None, unit="tokens") as advance:
        clock[0] += 10
        advance(5000)
    assert capsys.readouterr().err.splitlines()[0] == "Reading: 5.0 k tokens, 500 tokens/s"


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    with track("Tokenizing", total=10, unit="tokens", quiet=True) as advance:
        clock[0] += 100
        advance(10)
    assert capsys.readouterr() == ("", "")


def test_a_failure_passes_through_and_is_not_called_done(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), track("Tokenizing", total=10, unit="tokens"):
        raise KeyError
    assert "done" not in capsys.readouterr().err


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with track("Training", total=100, unit="tokens", completed=50) as advance:
        advance(50, note="loss 1.2")
    assert "100 tokens of 100 tokens" in terminal.getvalue()
    assert "loss 1.2" in terminal.getvalue()


def test_a_watch_hears_of_all_work_and_can_end_it(capsys: pytest.CaptureFixture[str]) -> None:
    heard: list[tuple[str, int, int | None]] = []

    def watch(title: str, done: int, total: int | None) -> None:
        heard.append((title, done, total))
        if done == 3:
            raise KeyboardInterrupt

    def work() -> None:
        with watched(watch), track("Reading", total=5, unit="tokens") as advance:
            for _ in range(5):
                advance(1)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert heard == [("Reading", done, 5) for done in range(4)]
    assert capsys.readouterr().err == ""
    with track("Reading", total=5, unit="tokens", quiet=True) as advance:
        advance(1)
    assert len(heard) == 4

import io
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_run import SAMPLES, result
from rich.console import Console

import memlm
from memlm.cli.show import print_metrics, print_samples
from memlm.runtime.progress import console


def printed(samples: list[dict[str, object]], **options: object) -> str:
    console = Console(file=io.StringIO(), width=80, **options)  # type: ignore[arg-type]
    print_samples(console, samples)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_without_colour_errors_are_marked() -> None:
    text = printed(SAMPLES)
    assert "Four score [-ant-] {+and+} seven" in text
    assert "[-[/red]-]" in text
    assert "\x1b" not in text
    assert "{+and+}" in printed(SAMPLES, force_terminal=True, color_system="truecolor", no_color=True)


def test_with_colour_errors_are_struck_and_red() -> None:
    text = printed(SAMPLES, force_terminal=True, color_system="standard", no_color=False)
    assert "\x1b[9;31mant\x1b[0m \x1b[4;32mand\x1b[0m" in text
    assert "\x1b[31m" not in text.replace("\x1b[9;31m", "")


@given(st.text(max_size=40), st.text(max_size=40))
def test_text_is_shown_and_never_obeyed(one: str, two: str) -> None:
    text = printed([{"document": one, "pieces": [[one, one], [one, two]]}])
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)


RESULTS = [result(bits_per_dim=0.97), result("random_tokens", 0.3, bits_per_dim=0.2)]


def table(width: int, names: tuple[str, ...] = ("held_out", "random_tokens")) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_metrics(console, [replace(each, name=name) for each, name in zip(RESULTS, names, strict=True)])
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [1, 10, 30, 36, 40, 57, 58, 60, 79, 80, 200])
def test_numbers_are_whole_however_narrow_the_terminal(width: int) -> None:
    text = table(width)
    for number in ("0.9987", "[0.9982, 0.9988]", "0.9897", "7.79", "0.97", "0.3000", "[0.2995, 0.3001]", "0.20"):
        assert re.search(rf"(?<!\S){re.escape(number)}(?!\S)", text), number
    # A single number and what it belongs to need 35 columns here.
    assert all(len(line) <= max(width, 35) for line in text.splitlines())
    assert "Random tokens" in text


def test_a_table_that_fits_is_one_table() -> None:
    assert table(80).count("token accuracy") == 1
    assert table(40).count("token accuracy") == len(RESULTS)  # each result by itself


def test_long_names_give_way_before_numbers_do() -> None:
    assert all(len(line) <= 60 for line in table(60, ("a" * 200, "some words " * 20)).splitlines())


def test_a_pipe_is_as_wide_as_need_be(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    print_metrics(console(), RESULTS)
    print_samples(console(), [{"document": "long", "pieces": [["word " * 100, "word " * 100]]}])
    out = capsys.readouterr().out
    assert out.count("Random tokens") == 1
    assert "word " * 99 in out


def test_a_terminal_is_as_wide_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert console().width == 30
    assert console(stderr=True).width > 10_000


def test_consoles_are_made_in_one_place() -> None:
    sources = Path(memlm.__file__).parent.rglob("*.py")
    assert [path.name for path in sources if re.search(r"\bConsole\(", path.read_text())] == ["progress.py"]

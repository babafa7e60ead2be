import io
import re

from hypothesis import given
from hypothesis import strategies as st
from made_up_run import SAMPLES, result
from rich.console import Console

from memlm.report.terminal import print_metrics, print_samples


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


def test_metrics_fit_a_narrow_terminal() -> None:
    console = Console(file=io.StringIO(), width=80)
    print_metrics(console, [result(bits_per_dim=0.97), result("random_tokens", 0.3, bits_per_dim=0.2)])
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    for said in ("0.9987", "[0.9982, 0.9988]", "Random tokens", "bits/token", "0.97"):
        assert said in text
    assert all(len(line) <= 80 for line in text.splitlines())

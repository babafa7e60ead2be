import re
import xml.etree.ElementTree as ET

import pytest
from made_up_run import result

from memlm_evidence.pages.demo import accuracy_by_position, learning_curves
from memlm_evidence.pages.figures import Figure, Line, line_figure

ROWS = [{"tokens": tokens, "token_accuracy": tokens / 3e6} for tokens in (1_000_000, 2_000_000, 3_000_000)]


def svg_of(figure: Figure | None) -> str:
    assert figure is not None
    return figure.svg


def test_a_figure_takes_its_colours_from_the_page() -> None:
    svg = svg_of(learning_curves({"ours": ROWS, "theirs": ROWS}))
    ET.fromstring(svg)
    assert svg.startswith("<svg")
    assert "currentColor" in svg
    assert "var(--series-2)" in svg
    assert "#0101" not in svg
    assert "#0102" not in svg
    assert not re.search(r'(href|src)="http', svg)
    assert "<metadata" not in svg
    assert "<style" not in svg


def test_the_same_data_give_the_same_bytes() -> None:
    assert learning_curves({"ours": ROWS}) == learning_curves({"ours": ROWS})


def test_of_rows_written_twice_the_last_counts() -> None:
    resumed = [{"tokens": 2_000_000, "token_accuracy": 0.1}, *ROWS, {"tokens": 4, "token_accuracy": None}]
    assert learning_curves({"ours": resumed}) == learning_curves({"ours": ROWS})


@pytest.mark.parametrize("label", ["$x^2$ and $y", "_hidden", "<b>&", "\x1b[31m", ""])
def test_any_label_is_plain_text(label: str) -> None:
    svg = svg_of(accuracy_by_position([result(label), result("other")]))
    text = "".join(ET.fromstring(svg).itertext())
    assert label.replace("\x1b", "␛").replace("_", " ").strip() in text


def test_bands_logarithms_and_many_lines() -> None:
    x, y = [1, 10, 100_000], [0.1, 0.01, 0.001]
    lines = [Line(f"line {index}", x, y, low=[0.5 * v for v in y], high=[2 * v for v in y]) for index in range(9)]
    svg = line_figure(lines, "alt", x_label="parameters", y_label="error", log_x=True, log_y=True).svg
    assert all(f"line {index}" in svg for index in range(9))
    assert "var(--series-6)" in svg


@pytest.mark.parametrize("rows", [[], ROWS[:1]])
def test_a_curve_of_nothing_or_of_one_point(rows: list[dict[str, float]]) -> None:
    ET.fromstring(svg_of(learning_curves({"ours": rows})))

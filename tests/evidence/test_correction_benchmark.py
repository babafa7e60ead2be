"""What a thorough search adds, measured."""

from pathlib import Path

import pytest

from command_line import Memlm
from tiny import SENTENCE


def test_rows_say_what_came_back_with_and_without_a_search(memlm: Memlm, finished_run: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(f"{SENTENCE} " * 20, encoding="utf-8")
    answer = memlm("bench", "correction", finished_run / "model", "--text", text, "--chunks", "4", "--json").json()
    (row,) = answer["rows"]
    assert row["chunks"] == 4
    assert row["token_accuracy"] >= row["usual_token_accuracy"]
    assert row["exact_match"] >= max(row["usual_exact_match"], row["proven"])
    assert row["proven_wrong"] == 0
    low, high = row["intervals"]["exact_match"]
    assert low <= row["exact_match"] <= high
    assert answer["provenance"]["settings"]["encoder"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--chunks", "0"], "--chunks must be at least 1, not 0"),
        ([], "text has no full chunk of 16 tokens: give a longer text"),
    ],
)
def test_what_cannot_be_measured_is_told(
    memlm: Memlm, finished_run: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("two words", encoding="utf-8")
    outcome = memlm("bench", "correction", finished_run / "model", "--text", text, *arguments)
    assert outcome.code == 2
    assert message in outcome.err

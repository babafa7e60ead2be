import json
from importlib import metadata
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memlm.runtime.results import Interval, Provenance, Result, json_lines, read_json_lines


def result() -> Result:
    return Result(
        name="held_out",
        measures={"token_accuracy": 0.9, "accuracy_by_position": [1.0, None], "num_chunks": 3},
        intervals={"token_accuracy": Interval(0.8, 0.95)},
        provenance=Provenance.here(seed=3, model={"recipe": {"name": "tiny"}}),
    )


def test_a_result_comes_back_from_json() -> None:
    row = json.loads(json.dumps(result().to_dict()))
    assert Result.from_dict(row) == result()
    assert row["token_accuracy"] == 0.9
    assert row["intervals"] == {"token_accuracy": [0.8, 0.95]}
    bare = Result(name="x", measures={"a": 1})
    assert Result.from_dict(bare.to_dict()) == bare


def test_measures_are_attributes() -> None:
    assert result().token_accuracy == 0.9
    with pytest.raises(AttributeError, match="'held_out' has no measure 'exact_match'"):
        _ = result().exact_match


def test_a_result_is_shown_in_a_few_lines() -> None:
    shown = repr(result())
    assert shown.splitlines() == [
        "Result 'held_out'",
        "  token_accuracy 0.9 [0.8, 0.95]",
        "  num_chunks 3",
        "  and 1 more in .measures",
    ]
    assert str(result()) == shown
    many = {f"measure_{number}": [0.123456789] * 1000 if number % 2 else 0.5 for number in range(50)}
    flood = Result(name="x", measures={**many, "text": "word " * 500, "token_accuracy": 0.999_987, "exact_match": 1.0})
    assert repr(flood).splitlines()[1:3] == ["  token_accuracy 0.999987", "  exact_match 1"]
    assert len(repr(flood)) < 500
    assert repr(flood).count("\n") < 8


def test_provenance_says_what_made_it() -> None:
    made = Provenance.here(seed=3)
    assert made.settings == {"seed": 3}
    assert made.torch == torch.__version__
    assert all((made.memlm, made.python, made.machine, made.num_threads))
    assert bool(made.commit) == Path(__file__).parents[2].joinpath(".git").exists()


def test_sources_that_are_not_installed_have_a_provenance_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        if package == "memlm":
            raise metadata.PackageNotFoundError
        return "1"

    monkeypatch.setattr(metadata, "version", version)
    assert Provenance.here().memlm == "uninstalled"


@given(st.lists(st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=5)), max_size=4), st.data())
def test_json_lines_come_back_but_for_a_last_one_cut_short(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, int | str]], data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "rows.jsonl"
    text = json_lines(rows)
    path.write_text(text, encoding="utf-8")
    assert read_json_lines(path) == rows
    cut = text[: data.draw(st.integers(0, len(text)))]
    path.write_text(cut, encoding="utf-8")
    assert read_json_lines(path) == rows[: cut.count("\n")]


def test_no_file_has_no_rows(tmp_path: Path) -> None:
    assert read_json_lines(tmp_path / "none.jsonl") == []

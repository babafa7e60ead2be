"""The page on memory models, of made-up results."""

import json
from pathlib import Path
from typing import Any

import pytest

from memlm_evidence.experiments.memory_model.page import CONDITIONS
from tiny import made_up_comparison, recorded, report_of


def recalled(seed: int) -> dict[str, Any]:
    rates = {"combined": {"1": 0.99, "2": 0.98 - seed / 100}, "causal": {"1": 0.0, "2": 0.0}}
    return recorded("recall") | {"recall": rates, "chance": {"combined": 0.0, "causal": 0.0}}


def write(folder: Path, name: str, row: dict[str, Any]) -> None:
    (folder / name).write_text(json.dumps(row))


@pytest.mark.parametrize("full", [False, True])
def test_one_seed_is_shown_with_its_intervals(tmp_path: Path, full: bool) -> None:
    write(tmp_path, "memory-model-seed-0.json", made_up_comparison(0, full=full).to_dict())
    page = report_of(tmp_path)
    for name in CONDITIONS:
        assert (name.replace("_", " ") in page) == (full or name not in ("encoder_decoder", "oracle"))
    assert "[0.100, 0.140]" in page
    assert "0.9987" in page
    assert "6.00e+11" in page  # the curriculum's operations with the autoencoder's
    assert ("cross attention" in page) == full
    assert ("Retention against prediction" in page) == full
    assert "Recall" not in page


def test_several_seeds_are_shown_as_mean_and_range(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        write(tmp_path, f"memory-model-seed-{seed}.json", made_up_comparison(seed, full=seed == 1).to_dict())
        write(tmp_path, f"recall-seed-{seed}.json", recalled(seed))
    page = report_of(tmp_path)
    assert "3.010" in page
    assert "[3.000, 3.020]" in page
    assert "[0.9600, 0.9800]" in page
    assert "Recall of exact strings" in page
    assert "encoder decoder" in page  # of the one seed that has it


def test_recall_alone_has_a_page(tmp_path: Path) -> None:
    write(tmp_path, "recall-seed-0.json", recalled(0))
    assert "Recall of exact strings" in report_of(tmp_path)


def test_a_seed_may_lack_a_model(tmp_path: Path) -> None:
    write(tmp_path, "recall-seed-0.json", recalled(0))
    without = recalled(1)
    del without["recall"]["causal"]
    write(tmp_path, "recall-seed-1.json", without)
    page = report_of(tmp_path)
    assert "[0.9700, 0.9800]" in page
    assert "causal" in page


def test_what_is_broken_is_named(tmp_path: Path) -> None:
    (tmp_path / "memory-model-seed-0.json").write_text("{")
    with pytest.raises(ValueError, match=r"memory-model-seed-0.json is not a result that memlm wrote"):
        report_of(tmp_path)
    assert not (tmp_path / "report.html").exists()

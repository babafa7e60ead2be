"""The page on known sources, of made-up results."""

import json
from pathlib import Path

import pytest

from memlm_evidence.experiments.non_invertible.page import write_known_sources_report
from tiny import made_up_known_sources


def page_of(folder: Path, *seeds: int) -> str:
    for seed in seeds:
        result = made_up_known_sources(seed).to_dict()
        (folder / f"non-invertible-seed-{seed}.json").write_text(json.dumps(result))
    return write_known_sources_report(folder).read_text()


def test_one_seed_is_shown_with_its_intervals(tmp_path: Path) -> None:
    page = page_of(tmp_path, 0)
    for said in ("[19.5, 20.5]", "not reached", "half erased", "predictive state", "2.0794415", "−0.8%"):
        assert said in page


def test_several_seeds_are_shown_as_mean_and_range(tmp_path: Path) -> None:
    page = page_of(tmp_path, 1, 2)
    assert "[18.0, 19.0]" in page
    assert "0.321, 0.321" in page
    assert "means over 2 seeds" in page


def test_what_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`memlm reproduce non-invertible` makes it"):
        write_known_sources_report(tmp_path)
    (tmp_path / "non-invertible-seed-0.json").write_text("{")
    with pytest.raises(ValueError, match=r"seed-0.json is not a result that memlm wrote"):
        write_known_sources_report(tmp_path)
    assert not (tmp_path / "report.html").exists()

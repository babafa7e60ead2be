"""The page on known sources, of made-up results."""

import json
from pathlib import Path

from tiny import made_up_known_sources, report_of


def page_of(folder: Path, *seeds: int) -> str:
    for seed in seeds:
        result = made_up_known_sources(seed).to_dict()
        (folder / f"non-invertible-seed-{seed}.json").write_text(json.dumps(result))
    return report_of(folder)


def test_one_seed_is_shown_with_its_intervals(tmp_path: Path) -> None:
    page = page_of(tmp_path, 0)
    for said in ("[19.5, 20.5]", "not reached", "half erased", "predictive state", "2.0794415", "−0.8%"):
        assert said in page


def test_several_seeds_are_shown_as_mean_and_range(tmp_path: Path) -> None:
    page = page_of(tmp_path, 1, 2)
    assert "[18.0, 19.0]" in page
    assert "0.321, 0.321" in page

import json
from pathlib import Path

import pytest
from made_up_run import SAMPLES, metrics, result

from memlm.results import write_json_lines


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run with two evaluation sets and two samples."""
    results = [result(), result("code", 0.61)]
    write_json_lines(tmp_path / "results.jsonl", [each.to_dict() for each in results])
    write_json_lines(tmp_path / "metrics.jsonl", metrics())
    write_json_lines(tmp_path / "samples.jsonl", SAMPLES)
    return tmp_path


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A recorded run of the reference."""
    path = tmp_path / "recorded.json"
    row = result(token_accuracy=0.31).to_dict()
    path.write_text(json.dumps({"results": [row], "metrics": metrics(0.3), "recorded": True}), encoding="utf-8")
    return path

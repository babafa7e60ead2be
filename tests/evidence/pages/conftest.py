import json
from pathlib import Path

import pytest
from made_up_run import SAMPLES, metrics, result

from memlm.runtime.results import json_lines


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run with two evaluation sets and two samples."""
    results = [result(), result("code", 0.61)]
    (tmp_path / "results.jsonl").write_text(json_lines([each.to_dict() for each in results]))
    (tmp_path / "metrics.jsonl").write_text(json_lines(metrics()))
    (tmp_path / "samples.jsonl").write_text(json_lines(SAMPLES))
    return tmp_path


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A recorded run of the reference."""
    path = tmp_path / "recorded.json"
    row = result(token_accuracy=0.31).to_dict()
    path.write_text(json.dumps({"results": [row], "metrics": metrics(0.3), "recorded": True}), encoding="utf-8")
    return path

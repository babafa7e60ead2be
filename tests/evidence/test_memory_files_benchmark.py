"""The benchmark of memory files, run small."""

from pathlib import Path

import pytest

from memlm_evidence.benchmarks import memory_files as bench
from memlm_evidence.benchmarks.memory_files import MemoryFiles


def test_files_are_measured(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "ROUNDS", 1)
    monkeypatch.setattr(bench, "MANY_CHUNKS", 500)
    text = tmp_path / "text.txt"
    text.write_text("the memory holds one long text and the vector reads short chunk whole text. " * 30)
    answer = MemoryFiles(model=str(finished_run / "model"), text=(str(text),)).run()
    assert answer["num_bytes"] == text.stat().st_size
    speeds = answer["mb_per_s"]
    assert answer["limit_ratio"].keys() == speeds.keys()
    assert all(0 < ratio < 1 for ratio in answer["limit_ratio"].values())
    assert min(answer["operations_per_second"].values()) > 0
    assert speeds.keys() == {"encode", "regenerate", "remember", "recall"}
    assert min(speeds.values()) > 0
    shares = answer["operation_shares"]
    assert 0 < answer["matrix_product_share"] == shares["matrix products"] < 1
    assert sum(shares.values()) <= 1 + 1e-9
    by_bits = {row["bits"]: row for row in answer["by_bits"]}
    assert list(by_bits) == [32, 16, 8, 6, 4]
    assert by_bits[32]["token_accuracy"] >= by_bits[4]["token_accuracy"] - 0.05
    assert by_bits[32]["file_bytes"] > by_bits[16]["file_bytes"] > by_bits[4]["file_bytes"]
    assert by_bits[8]["bits_per_character"] == 8 * by_bits[8]["file_bytes"] / len(text.read_text())
    assert answer["random_access_chunks"] >= 500
    assert answer["random_access_ratio"] > 0

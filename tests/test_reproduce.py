import json
from pathlib import Path

import pytest

from memlm.reproduce.embeddings import OBJECTIVES, Plan, reproduce_embeddings
from memlm.training import language_model


@pytest.mark.slow
def test_embeddings_are_compared_at_equal_tokens_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(
        chunk_len=16,
        dim=64,
        num_tokens=60_000,
        dims=(16, 64),
        budgets=(30_000, 60_000),
        grid=True,
        cross=True,
        reading_steps=60,
        reading_chunks=1000,
    )
    result = reproduce_embeddings(tmp_path / "runs", plan, cache=tmp_path / "cache", quiet=True)
    json.dumps(result.to_dict())
    assert tuple(result.token_accuracy) == tuple(result.retained_fraction) == OBJECTIVES
    for row in result.rows[1:]:
        assert row["num_tokens"] == pytest.approx(60_000, rel=0.05)
    assert result.intervals["slope_data"].low <= result.slope_data <= result.intervals["slope_data"].high
    assert {(row["objective"], row["pooling"]) for row in result.pooling_table} == {
        (objective, pooling) for objective in OBJECTIVES for pooling in ("last", "mean", "positional")
    }
    assert result.retained_fraction["autoencoder"] > result.retained_fraction["causal"]
    monkeypatch.setattr(language_model, "fit", None)  # nothing is trained again
    again = reproduce_embeddings(tmp_path / "runs", plan, cache=tmp_path / "cache", quiet=True)
    assert again.measures == result.measures

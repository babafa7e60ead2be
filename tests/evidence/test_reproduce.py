import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memlm.training import language_model
from memlm.training import memory_model as training_memory_model
from memlm_evidence.experiments.embeddings.run import OBJECTIVES, Plan, reproduce_embeddings
from memlm_evidence.experiments.exact_recall.run import RecallPlan, reproduce_recall
from memlm_evidence.experiments.memory_model import conditions as arms
from memlm_evidence.experiments.memory_model.run import BOUNDS, WITH_MEMORIES, reproduce_memory_model


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


@pytest.mark.slow
def test_memory_models_are_compared_at_equal_tokens_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = arms.Plan(
        chunk_len=16,
        memory_dim=64,
        dim=32,
        num_tokens=20_000,
        autoencoder_tokens=60_000,
        reading_steps=60,
        reading_chunks=1000,
        full=True,
        sweep_tokens=5_000,
        weights=(0.0, 0.5),
        dims=(32, 48),
        insertions=(("prefix", 1), ("cross_attention", 2)),
    )
    result = reproduce_memory_model(tmp_path / "runs", plan, cache=tmp_path / "cache", quiet=True)
    json.dumps(result.to_dict())
    assert tuple(result.causal_nats) == (*plan.arms, *BOUNDS)
    assert [row["retention_weight"] for row in result.trade_off] == [0.0, 0.5]
    assert [(row["dim"], row["objective"], "gap" in row) for row in result.by_size] == [
        (dim, objective, objective == "combined") for dim in (32, 48) for objective in ("causal", "combined")
    ]
    assert [row["decoder_positions_per_chunk"] for row in result.by_insertion] == [1, 0]
    assert tuple(result.retention_accuracy) == tuple(result.own_retention_accuracy) == WITH_MEMORIES
    for name in {*plan.arms, *BOUNDS} - {"curriculum"}:
        assert result.tokens[name] == pytest.approx(20_000, rel=0.05)
    assert result.train_flops["no_memory"] < result.train_flops["causal"] < result.train_flops["combined"]
    assert result.own_retention_accuracy["curriculum"] > result.own_retention_accuracy["causal"]
    low, high = result.gain["full_context"]["interval"]
    assert low <= result.gain["full_context"]["value"] <= high
    monkeypatch.setattr(training_memory_model, "fit", None)  # nothing is trained again
    again = reproduce_memory_model(tmp_path / "runs", plan, cache=tmp_path / "cache", quiet=True)
    assert again.measures == result.measures


@pytest.mark.slow
def test_models_are_asked_for_what_they_have_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = RecallPlan(memory_dim=64, dim=32, num_positions=2, num_tokens=8_000, num_texts=2)
    result = reproduce_recall(tmp_path, plan, quiet=True)
    json.dumps(result.to_dict())
    assert tuple(result.recall) == tuple(result.chance) == plan.models
    for by_distance in result.recall.values():
        assert list(by_distance) == ["1", "2", "3"]
    monkeypatch.setattr(training_memory_model, "fit", None)  # nothing is trained again
    assert reproduce_recall(tmp_path, plan, quiet=True).measures == result.measures


@given(num_tokens=st.integers(0, 300))
def test_operations_add_up_over_phases(num_tokens: int) -> None:
    arm = arms.Arm(None, [arms.Stretch(100, 2.0), arms.Stretch(50, 3.0)], 150, None)  # type: ignore[arg-type]
    spent = sum(2.0 if token < 100 else 3.0 for token in range(num_tokens))
    assert arm.flops_until(num_tokens) == pytest.approx(spent)

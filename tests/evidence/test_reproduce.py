import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memlm_evidence.experiments import embeddings, memory_model
from memlm_evidence.experiments.embeddings.run import OBJECTIVES, compare
from memlm_evidence.experiments.exact_recall import RecallPlan
from memlm_evidence.experiments.exact_recall.run import run as run_recall
from memlm_evidence.experiments.memory_model.run import WITH_MEMORIES
from memlm_evidence.experiments.memory_model.run import compare as compare_memory_models
from memlm_evidence.experiments.memory_model.training import StageCost, Trained


@pytest.mark.slow
def test_embeddings_are_compared_at_equal_tokens_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = embeddings.Plan(
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
    result = compare(tmp_path / "runs", plan)
    json.dumps(result.to_dict())
    assert tuple(result.token_accuracy) == tuple(result.retained_fraction) == OBJECTIVES
    for row in result.rows[1:]:
        assert row.num_tokens == pytest.approx(60_000, rel=0.05)
    assert result.intervals["slope_data"].low <= result.slope_data <= result.intervals["slope_data"].high
    assert {(row.objective, row.pooling) for row in result.pooling_table} == {
        (objective, pooling) for objective in OBJECTIVES for pooling in ("last", "mean", "positional")
    }
    assert result.retained_fraction["autoencoder"] > result.retained_fraction["causal"]
    monkeypatch.setattr("memlm.training.train.fit", None)  # nothing is trained again
    again = compare(tmp_path / "runs", plan)
    assert again == replace(result, provenance=again.provenance)


@pytest.mark.slow
def test_memory_models_are_compared_at_equal_tokens_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = memory_model.Plan(
        chunk_len=16,
        memory_dim=64,
        dim=32,
        num_tokens=20_000,
        autoencoder_tokens=60_000,
        reading_steps=60,
        reading_chunks=1000,
        full=True,
        variant_tokens=5_000,
        weights=(0.0, 0.5),
        dims=(32, 48),
        insertions=(("prefix", 1), ("cross_attention", 2)),
    )
    result = compare_memory_models(tmp_path / "runs", plan)
    json.dumps(result.to_dict())
    assert tuple(result.causal_nats) == plan.compared
    assert [row.retention_weight for row in result.trade_off] == [0.0, 0.5]
    assert [(row.dim, row.objective, row.gap is not None) for row in result.by_size] == [
        (dim, objective, objective == "combined") for dim in (32, 48) for objective in ("causal", "combined")
    ]
    assert [row.decoder_positions_per_chunk for row in result.by_insertion] == [1, 0]
    assert tuple(result.retention_accuracy) == tuple(result.own_retention_accuracy) == WITH_MEMORIES
    for name in {*plan.compared} - {"curriculum"}:
        assert result.tokens[name] == pytest.approx(20_000, rel=0.05)
    assert result.train_flops["no_memory"] < result.train_flops["causal"] < result.train_flops["combined"]
    assert result.own_retention_accuracy["curriculum"] > result.own_retention_accuracy["causal"]
    gain = result.gain["full_context"]
    assert gain.interval.low <= gain.value <= gain.interval.high
    monkeypatch.setattr("memlm.training.train.fit", None)  # nothing is trained again
    again = compare_memory_models(tmp_path / "runs", plan)
    assert again == replace(result, provenance=again.provenance)


@pytest.mark.slow
def test_models_are_asked_for_what_they_have_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = RecallPlan(memory_dim=64, dim=32, num_positions=2, num_tokens=8_000, num_texts=2)
    result = run_recall(tmp_path, plan)
    json.dumps(result.to_dict())
    assert tuple(result.recall) == tuple(result.chance) == plan.models
    for by_distance in result.recall.values():
        assert list(by_distance) == ["1", "2", "3"]
    monkeypatch.setattr("memlm.training.train.fit", None)  # nothing is trained again
    again = run_recall(tmp_path, plan)
    assert again == replace(result, provenance=again.provenance)


@given(num_tokens=st.integers(0, 300))
def test_operations_add_up_over_phases(num_tokens: int) -> None:
    trained = Trained(None, [StageCost(100, 2.0), StageCost(50, 3.0)], 150, None)  # type: ignore[arg-type]
    spent = sum(2.0 if token < 100 else 3.0 for token in range(num_tokens))
    assert trained.flops_until(num_tokens) == pytest.approx(spent)

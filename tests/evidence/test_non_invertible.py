"""What next-token prediction keeps of a past whose every bit is counted, and whether the counting can be trusted."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from memlm_evidence.experiments.non_invertible import NonInvertiblePlan, NonInvertibleResult
from memlm_evidence.experiments.non_invertible.run import ImpossibleError, job, run
from memlm_evidence.known_sources.calibration import CalibrationRun
from memlm_evidence.known_sources.measured import CalibrationPlan, DistortionPlan, DistortionRow, StatePlan
from memlm_evidence.known_sources.rate_distortion import (
    AFTERWARDS,
    NOISY_ROUNDED,
    DistortionRun,
    distortion_runs,
    ideal_over_stored,
)
from memlm_evidence.known_sources.retained_state import OBJECTIVES, StateRun
from memlm_evidence.known_sources.sources import Lookup, random_markov, uniform
from tiny import report_of

TINY = NonInvertiblePlan(
    state=StatePlan(chunk_lens=(8, 4), chunk_len=8, steps=2, reading_steps=2, num_windows=8),
    distortion=DistortionPlan(chunk_len=4, dims=(8, 12), steps=2, num_chunks=8),
    calibration=CalibrationPlan(chunk_lens=(4,), steps=2, num_sets=2, set_chunks=4),
    num_workers=1,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("non-invertible")


@pytest.fixture(scope="module")
def result(folder: Path) -> NonInvertibleResult:
    return run(folder, TINY)


def test_every_source_and_objective_has_a_row_on_the_possible_side(result: NonInvertibleResult, tmp_path: Path) -> None:
    expected = [(source.name, length, objective) for source, length in TINY.state.sources() for objective in OBJECTIVES]
    assert [(row.source, row.num_tokens, row.objective) for row in result.rows] == expected
    for row in (*result.rows, *result.distortion):
        assert row.violations == 0
        for name, (low, high) in row.intervals.items():
            assert low <= getattr(row, name) <= high
    assert all(row.state_bits <= row.entropy_bits for row in result.rows)
    assert all(row.oracle_nats == pytest.approx(row.entropy_rate_nats, abs=1e-6) for row in result.oracle)

    (tmp_path / "non-invertible-seed-0.json").write_text(json.dumps(result.to_dict()))
    page = report_of(tmp_path)
    for said in ("predictive state", "Bits stored and tokens lost", "even process", "half erased", NOISY_ROUNDED):
        assert said in page


def test_a_point_on_the_impossible_side_fails_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("memlm_evidence.known_sources.retained_state.noisy_capacity", lambda dims, noise: -1e6)
    with pytest.raises(ImpossibleError, match=r"impossible side of a bound.*'uniform 8'"):
        run(tmp_path, TINY)


def test_what_was_measured_is_not_measured_again(
    result: NonInvertibleResult, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in (StateRun, DistortionRun, CalibrationRun):
        monkeypatch.setattr(kind, "rows", None)
    monkeypatch.setattr("memlm_evidence.experiments.non_invertible.run._oracles", lambda *_: result.oracle)
    assert replace(run(folder, TINY), provenance=result.provenance) == result
    names = {job(each).name for seed in (0, 1) for each in distortion_runs(DistortionPlan(seed=seed))}
    assert len(names) == 2 * len(distortion_runs(DistortionPlan()))


def test_the_ratio_is_that_of_the_fewest_bits_with_few_errors() -> None:
    measured = {"num_dims": 1, "bits_per_dim": 1, "least_error": 0.0, "ideal_bits": 1.0, "ideal_over_stored": 1.0}

    def row(method: str, stored: int, error: float) -> DistortionRow:
        point = {"method": method, "num_tokens": 32, "stored_bits": stored, "token_error": error, "retained_bits": 1.0}
        return DistortionRow.from_dict({**measured, **point, "intervals": {}, "violations": 0})

    rows = [
        row(AFTERWARDS, 192, 0.02),
        row(AFTERWARDS, 288, 0.0),
        row(AFTERWARDS, 384, 0.0),
        row(NOISY_ROUNDED, 96, 0.5),
    ]
    found = ideal_over_stored(rows, vocab_size=8)
    assert found[AFTERWARDS] == pytest.approx(32 * 2.8911 / 288, rel=1e-4)  # R(0.01) of eight equally likely tokens
    assert found[NOISY_ROUNDED] is None


@pytest.mark.slow
def test_prediction_keeps_the_state_and_regeneration_everything() -> None:
    chain, plan = random_markov(8, concentration=0.2), StatePlan()
    (causal,), (combined,) = (StateRun(chain, 16, name, plan).rows() for name in ("causal", "combined"))
    assert causal.state_share > 0.9 > 0.3 > causal.rest_share
    assert combined.share > 0.9


@pytest.mark.slow
def test_prediction_keeps_what_will_be_asked_for() -> None:
    (causal,) = StateRun(Lookup(8, 4), 16, "causal", StatePlan()).rows()
    assert causal.state_share > 0.9 > 0.5 > causal.rest_share


@pytest.mark.slow
def test_readers_find_what_there_is() -> None:
    for row in CalibrationRun(uniform(8), 16, CalibrationPlan()).rows():
        assert abs(row.bias) < 0.05
        assert row.coverage_of_estimate > 0.85


@pytest.mark.slow
def test_a_bit_a_dimension_can_hold_as_many_bits_of_text() -> None:
    (row,) = DistortionRun(NOISY_ROUNDED, 96, (1,), DistortionPlan()).rows()
    assert row.token_error < 0.02
    assert row.ideal_over_stored > 0.9

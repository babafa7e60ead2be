"""What next-token prediction keeps of a past whose every bit is counted."""

import json

import pytest

from memlm.data.sources import Lookup, random_markov
from memlm.reproduce.non_invertible import (
    OBJECTIVES,
    ImpossibleError,
    NonInvertiblePlan,
    _Cell,
    reproduce_non_invertible,
)

TINY = NonInvertiblePlan(chunk_lens=(8,), steps=2, reading_steps=2, num_windows=8)


def test_every_source_and_objective_has_a_row_on_the_possible_side() -> None:
    result = reproduce_non_invertible(TINY, quiet=True)
    json.dumps(result.to_dict())
    cells = [(source.name, length, objective) for source, length in TINY.sources() for objective in OBJECTIVES]
    assert [(row["source"], row["num_tokens"], row["objective"]) for row in result.rows] == cells
    for row in result.rows:
        assert row["violations"] == 0
        assert row["state_bits"] <= row["entropy_bits"]
        for name, (low, high) in row["intervals"].items():
            assert low <= row[name] <= high


def test_a_point_on_the_impossible_side_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memlm.reproduce.non_invertible.noisy_capacity", lambda dims, noise: -1e6)
    with pytest.raises(ImpossibleError, match=r"impossible side of a bound.*'uniform 8'"):
        reproduce_non_invertible(TINY, quiet=True)


@pytest.mark.slow
def test_prediction_keeps_the_state_and_regeneration_everything() -> None:
    plan = NonInvertiblePlan(chunk_lens=(16,))
    cell = _Cell(random_markov(8, concentration=0.2), 16, plan)
    causal, combined = cell.row("causal"), cell.row("combined")
    assert causal["state_share"] > 0.9 > 0.3 > causal["rest_share"]
    assert combined["state_share"] > 0.9
    assert combined["rest_share"] > 0.9


@pytest.mark.slow
def test_prediction_keeps_what_will_be_asked_for() -> None:
    causal = _Cell(Lookup(8, 4), 16, NonInvertiblePlan(chunk_lens=(16,))).row("causal")
    assert causal["state_share"] > 0.9 > 0.5 > causal["rest_share"]

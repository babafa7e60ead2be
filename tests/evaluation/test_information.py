import math

import numpy as np
import pytest

from memlm.evaluation.bootstrap import bootstrap_interval
from memlm.evaluation.information import entropy_ratio, random_logits_nats, retained_bits, unconditional_log_probs


def test_the_papers_normalizer_is_9_03_nats_for_8000_types_and_is_what_random_logits_cost() -> None:
    assert random_logits_nats(8000) == pytest.approx(9.03, abs=0.005)
    logits = np.random.default_rng(0).random((500, 8000))
    nats = np.log(np.exp(logits).sum(axis=1)) - logits[:, 0]
    assert random_logits_nats(8000) == pytest.approx(nats.mean(), abs=4 * nats.std() / math.sqrt(500))
    assert entropy_ratio(0.0, 8000) == 1
    assert entropy_ratio(random_logits_nats(8000), 8000) == 0


def test_a_perfect_reader_of_uniform_tokens_retains_every_bit() -> None:
    assert retained_bits(0.0, math.log(1024)) == pytest.approx(10)
    assert retained_bits(2.0, 2.0) == 0
    np.testing.assert_allclose(
        retained_bits(np.array([1.0, 3.0]), np.array([2.0, 2.0])), [1 / math.log(2), -1 / math.log(2)]
    )


def ratio(totals: np.ndarray) -> np.ndarray:
    return totals[:, 0] / totals[:, 1]


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    truth, num_units, trials = 0.7, 40, 150
    covered = 0
    for trial in range(trials):
        sizes = rng.integers(20, 200, size=num_units)
        sums = np.stack([rng.binomial(sizes, truth), sizes], axis=1)
        low, high = bootstrap_interval(sums, ratio, seed=trial)
        assert low < high
        covered += low <= truth <= high
    assert 0.88 <= covered / trials <= 0.99


def test_intervals_are_over_units_and_repeat_exactly() -> None:
    many = np.array([[1.0, 1.0], [0.0, 1.0]] * 50)
    few = np.array([[50.0, 50.0], [0.0, 50.0]])  # the same tokens, but in two documents
    narrow, wide = bootstrap_interval(many, ratio), bootstrap_interval(few, ratio)
    assert narrow == bootstrap_interval(many, ratio) != bootstrap_interval(many, ratio, seed=1)
    assert narrow.low == pytest.approx(0.5 - 0.098, abs=0.015)  # 1.96 · sqrt(0.25 / 100)
    assert narrow.high == pytest.approx(0.5 + 0.098, abs=0.015)
    assert wide == (0, 1)


def test_a_lone_unit_says_nothing_about_spread() -> None:
    with pytest.raises(ValueError, match="at least two units, not 1"):
        bootstrap_interval(np.ones((1, 2)), ratio)


def test_the_unconditional_reader_knows_a_known_sources_entropy() -> None:
    weights = 1 / np.arange(1, 257)
    source = weights / weights.sum()
    entropy = -(source * np.log(source)).sum()
    tokens = np.random.default_rng(0).choice(256, p=source, size=200_000).astype(np.uint16)
    table = unconditional_log_probs(tokens, 300)
    assert np.exp(table).sum() == pytest.approx(1)
    assert np.isfinite(table).all()  # tokens that never occurred can still be scored
    cross_entropy = -(source * table[:256]).sum()
    assert entropy < cross_entropy < 1.001 * entropy  # no reader can be better than the source

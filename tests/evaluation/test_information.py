import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memlm.evaluation.bootstrap import bootstrap_interval
from memlm.evaluation.information import (
    entropy_ratio,
    fano_nats,
    hamming_distortion,
    hamming_rate,
    least_error,
    noisy_capacity,
    quantized_capacity,
    random_logits_nats,
    retained_bits,
    unconditional_log_probs,
)


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


@given(error=st.floats(0, 1), vocab_size=st.integers(2, 100_000))
def test_fanos_bound_and_its_inverse_agree(error: float, vocab_size: int) -> None:
    nats = fano_nats(error, vocab_size)
    assert 0 <= nats <= math.log(vocab_size) + 1e-9
    assert least_error(min(nats, math.log(vocab_size)), vocab_size) <= error + 1e-6
    below = min(error, 1 - 1 / vocab_size)
    assert fano_nats(least_error(fano_nats(below, vocab_size), vocab_size), vocab_size) == pytest.approx(
        fano_nats(below, vocab_size), abs=1e-9
    )


@given(st.data())
@settings(deadline=None)
def test_no_guess_from_any_channel_beats_fano(data: st.DataObject) -> None:
    vocab_size = data.draw(st.integers(2, 6))
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    joint = random.dirichlet(np.full(vocab_size * 4, 0.3)).reshape(vocab_size, 4)  # of a token and what is kept of it
    kept = joint.sum(0)
    posterior = joint / np.where(kept > 0, kept, 1)
    nats = -(joint * np.log(np.where(posterior > 0, posterior, 1))).sum()
    error = 1 - joint.max(0).sum()
    assert nats <= fano_nats(error, vocab_size) + 1e-9
    assert error >= least_error(min(nats, math.log(vocab_size)), vocab_size) - 1e-9


def test_rate_distortion_is_that_of_the_textbook() -> None:
    assert hamming_rate(0.0, 16) == pytest.approx(4 * math.log(2))
    assert hamming_rate(0.11, 2) == pytest.approx(0.5 * math.log(2), abs=1e-3)  # h(0.11) is nearly half a bit
    assert hamming_rate(0.95, 16) == hamming_rate(1 - 1 / 16, 16) == 0
    for rate in (0.0, 0.3, 1.0, math.log(16)):
        assert hamming_rate(hamming_distortion(rate, 16), 16) == pytest.approx(rate, abs=1e-9)
    assert hamming_distortion(9.0, 16) == pytest.approx(0, abs=1e-9)


def test_sending_some_tokens_and_guessing_the_others_lies_above_the_curve() -> None:
    for share in (0.1, 0.5, 0.9):
        distortion = (1 - share) * (1 - 1 / 8)
        assert share * math.log(8) > hamming_rate(distortion, 8)


def test_capacities() -> None:
    assert quantized_capacity(256, 1) == pytest.approx(256 * math.log(2))
    assert noisy_capacity(2, 1.0) == pytest.approx(math.log(2))
    assert noisy_capacity(2, 0.01) > noisy_capacity(2, 0.1)


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        (lambda: fano_nats(1.5, 4), r"an error rate lies in \[0, 1\], not 1.5"),
        (lambda: fano_nats(0.5, 1), "two tokens to choose from, not 1"),
        (lambda: least_error(9.0, 4), "between 0 and ln 4 nats a token can be open, not 9.0"),
        (lambda: noisy_capacity(4, 0.0), "noise_std must be positive, not 0.0"),
    ],
)
def test_what_has_no_bound_is_refused(measure: Callable[[], float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure()

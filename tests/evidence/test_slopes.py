import numpy as np
import pytest
from scipy import stats

from memlm_evidence.experiments.embeddings.run import fit_slopes


def grid() -> tuple[np.ndarray, np.ndarray]:
    sizes, tokens = np.meshgrid([4.0, 5.0, 6.0], [5.0, 5.5, 6.0])
    return sizes.ravel(), tokens.ravel()


def test_known_slopes_are_found() -> None:
    sizes, tokens = grid()
    found = fit_slopes(sizes, tokens, 0.1 + 0.02 * sizes - 0.03 * tokens)
    assert found.compute == pytest.approx(0.02)
    assert found.data == pytest.approx(-0.03)
    assert found.compute_interval.high - found.compute_interval.low < 1e-9


def test_one_slope_alone_has_the_interval_of_a_simple_regression() -> None:
    random = np.random.default_rng(0)
    sizes, tokens = np.repeat([4.0, 5.0, 6.0], 40), np.tile([5.0, 6.0], 60)  # uncorrelated with each other
    values = 0.05 * sizes + random.normal(size=120) * 0.01
    found, simple = fit_slopes(sizes, tokens, values), stats.linregress(sizes, values)
    assert found.compute == pytest.approx(simple.slope)
    width = found.compute_interval.high - found.compute_interval.low
    assert width == pytest.approx(2 * simple.stderr * stats.t.ppf(0.975, 118), rel=0.05)


def test_95_of_100_intervals_hold_the_truth() -> None:
    sizes, tokens = grid()
    random = np.random.default_rng(1)
    truth = 0.02 * sizes
    found = [fit_slopes(sizes, tokens, truth + random.normal(size=9) * 0.01) for _ in range(400)]
    inside = [low <= 0.02 <= high for low, high in (each.compute_interval for each in found)]
    assert 0.92 < np.mean(inside) < 0.98


def test_too_few_points_or_too_alike_are_refused() -> None:
    with pytest.raises(ValueError, match="3 points do not give two slopes"):
        fit_slopes(np.arange(3.0), np.array([0.0, 1.0, 0.0]), np.arange(3.0))
    with pytest.raises(ValueError, match="vary size and data"):
        fit_slopes(np.arange(6.0), np.zeros(6), np.arange(6.0))

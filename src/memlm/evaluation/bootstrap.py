"""Confidence intervals: a bootstrap over documents, and of shares."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from memlm.runtime.results import Interval

NUM_RESAMPLES = 2000


def sums_by_unit(
    columns: Sequence[Any], unit: Int[np.ndarray, " row"], num_units: int = 0
) -> Float[np.ndarray, "unit quantity"]:
    """Rows' quantities, each a column [row], summed over the rows of each unit (document)."""
    return np.stack([np.bincount(unit, weights=column, minlength=num_units) for column in columns], axis=1)


def bootstrap_interval(
    sums: Float[np.ndarray, "unit quantity"],
    statistic: Callable[[Float[np.ndarray, "resample quantity"]], Float[np.ndarray, " resample"]],
    *,
    seed: int = 0,
) -> Interval:
    """95% percentile bootstrap of a statistic of totals: units (documents) are drawn with replacement.

    `sums` holds each unit's sums of every quantity; `statistic` turns resampled totals into the number asked for.

    Raises:
        ValueError: fewer than two units, which say nothing about spread.
    """
    num_units = len(sums)
    if num_units < 2:
        raise ValueError(f"a bootstrap needs at least two units, not {num_units}")
    draws = np.random.default_rng(seed).multinomial(num_units, np.full(num_units, 1 / num_units), NUM_RESAMPLES)
    values = statistic(draws @ sums)
    low, high = np.nanquantile(values, [0.025, 0.975])
    return Interval(float(low), float(high))


def ratio_interval(sums: Float[np.ndarray, "unit 2"]) -> Interval:
    """`bootstrap_interval` of the first quantity's total over the second's."""
    return bootstrap_interval(sums, lambda rows: rows[:, 0] / rows[:, 1])


def mean_interval(values: Float[np.ndarray, " unit"]) -> Interval:
    """`bootstrap_interval` of the mean over units."""
    return ratio_interval(np.column_stack((values, np.ones(len(values)))))


def ratio_intervals(name: str, sums: Float[np.ndarray, "unit 2"]) -> dict[str, Interval]:
    """`ratio_interval` by its measure's name, of the units that have anything to divide by; none of a lone unit."""
    counted = sums[sums[:, 1] > 0]
    return {name: ratio_interval(counted)} if len(counted) > 1 else {}


def share_interval(hits: int, total: int) -> Interval:
    """The 95% score interval (Wilson 1927) of a share of independent trials; never empty, even where all are hits."""
    from scipy.stats import binomtest  # takes a second to import

    low, high = binomtest(hits, total).proportion_ci(method="wilson")
    return Interval(float(low), float(high))

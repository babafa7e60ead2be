"""Slopes with intervals: how a measure changes with size and data."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from memlm.runtime.results import Interval


class Slopes(NamedTuple):
    """Change of a measure for ten times the parameters (`compute`) or the tokens (`data`), with 95% intervals."""

    compute: float
    data: float
    compute_interval: Interval
    data_interval: Interval
    num_points: int


def fit_slopes(
    log_sizes: Float[np.ndarray, " point"], log_tokens: Float[np.ndarray, " point"], values: Float[np.ndarray, " point"]
) -> Slopes:
    """Least squares of values on log10 of parameters and of tokens, together; Student-t intervals of the residuals.

    Raises:
        ValueError: fewer than four points, or points that do not vary in both.
    """
    from scipy.stats import t

    design = np.column_stack([np.ones(len(values)), log_sizes, log_tokens])
    freedom = len(values) - design.shape[1]
    if freedom < 1 or np.linalg.matrix_rank(design) < design.shape[1]:
        raise ValueError(f"{len(values)} points do not give two slopes: vary size and data, at four points or more")
    coefficients, *_ = np.linalg.lstsq(design, values, rcond=None)
    residual = values - design @ coefficients
    covariance = np.linalg.inv(design.T @ design) * (residual @ residual) / freedom
    reach = t.ppf(0.975, freedom) * np.sqrt(np.diag(covariance))
    intervals = [Interval(float(at - by), float(at + by)) for at, by in zip(coefficients, reach, strict=True)]
    return Slopes(float(coefficients[1]), float(coefficients[2]), intervals[1], intervals[2], len(values))

"""How a measure changes with size and data."""

import numpy as np
from jaxtyping import Float
from scipy.stats import t

from memlm.runtime.results import Interval
from memlm_evidence.experiments.embeddings import Slopes

Points = Float[np.ndarray, " point"]


def fit_slopes(log_sizes: Points, log_tokens: Points, values: Points) -> Slopes:
    """Least squares of values on log10 of parameters and of tokens, together; Student-t intervals of the residuals.

    Raises:
        ValueError: fewer than four points, or points that do not vary in both.
    """
    design = np.column_stack([np.ones(len(values)), log_sizes, log_tokens])
    freedom = len(values) - design.shape[1]
    if freedom < 1 or np.linalg.matrix_rank(design) < design.shape[1]:
        raise ValueError(f"{len(values)} points do not give two slopes: vary size and data, at four points or more")
    coefficients, *_ = np.linalg.lstsq(design, values, rcond=None)
    residual = values - design @ coefficients
    covariance = np.linalg.inv(design.T @ design) * (residual @ residual) / freedom
    reach = t.ppf(0.975, freedom) * np.sqrt(np.diag(covariance))
    _, compute, data = coefficients.tolist()
    _, by_compute, by_data = (
        Interval(float(at - by), float(at + by)) for at, by in zip(coefficients, reach, strict=True)
    )
    return Slopes(
        compute=compute, data=data, compute_interval=by_compute, data_interval=by_data, num_points=len(values)
    )

"""What is measured on known sources, a row for each point; `violations` counts those beyond a bound, which are bugs."""

from collections.abc import Mapping
from dataclasses import dataclass

from memlm.runtime.results import Interval, Record


@dataclass(frozen=True, kw_only=True)
class Point(Record):
    """A measured point, with 95% intervals over texts."""

    num_tokens: int
    """Of a text."""
    violations: int
    intervals: Mapping[str, Interval]


@dataclass(frozen=True, kw_only=True)
class StateRow(Point):
    """What a memory of one source, by one objective, retains of the predictive state and of everything else."""

    source: str
    objective: str
    entropy_bits: float
    """Of a text."""
    state_bits: float
    """Of the predictive state after it."""
    capacity_bits: float
    """Of the noisy channel that memories are read through."""
    retained_bits: float
    retained_state_bits: float
    retained_rest_bits: float
    """That readers find in the memory."""
    next_token_excess_bits: float
    """A token of the text that follows, above what one pays who knows all."""
    share: float
    state_share: float | None
    rest_share: float | None
    """Of what there is to retain; None where there is nothing."""


@dataclass(frozen=True, kw_only=True)
class DistortionRow(Point):
    """Errors of an autoencoder of uniform tokens by bits stored, beside the least that are possible."""

    method: str
    num_dims: int
    bits_per_dim: int
    stored_bits: int
    token_error: float
    least_error: float
    ideal_bits: float
    ideal_over_stored: float
    retained_bits: float


@dataclass(frozen=True, kw_only=True)
class CalibrationRow(Point):
    """Bits that a reader finds in a channel's output, beside exact mutual information."""

    source: str
    channel: str
    exact_bits: float
    exact_bits_error: float
    estimated_bits: float
    bias: float
    missed_bits: float
    coverage_of_truth: float
    coverage_of_estimate: float
    interval_width: float


@dataclass(frozen=True, kw_only=True)
class OracleRow(Record):
    """What the next token costs one who knows the source and all that went before, beside the entropy rate."""

    source: str
    entropy_rate_nats: float
    oracle_nats: float


@dataclass(frozen=True, kw_only=True)
class LimitRow(Record):
    """A point of the rate-distortion curve."""

    bits_per_token: float
    error: float

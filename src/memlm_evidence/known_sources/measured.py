"""What is measured on known sources, and how large."""

from collections.abc import Mapping
from dataclasses import dataclass

from memlm.runtime.results import Interval, Record
from memlm_evidence.known_sources.sources import Lookup, Source, even_process, random_markov, uniform, zipf
from memlm_evidence.known_sources.unifilar import Unifilar


@dataclass(frozen=True, kw_only=True)
class StatePlan:
    """What to train on what, and how it is read."""

    chunk_lens: tuple[int, ...] = (64, 32, 16)
    """Of the Markov chain."""
    chunk_len: int | None = 32
    """Of the other sources; None leaves them out."""
    dims_per_token: int = 6
    """Memory dimensions for each token of a chunk."""
    noise_std: float = 0.6
    """Of the channel that memories of root mean square 1 are read through."""
    weight_decay: float = 0.13
    """Of the matrices of every model."""
    steps: int = 600
    """Of training, of 32 windows of two chunks."""
    reading_steps: int = 200
    """Of each reader, of 64 chunks."""
    num_windows: int = 1024
    """That everything is measured on; units of the bootstrap."""
    seed: int = 0

    def sources(self) -> list[tuple[Source, int]]:
        """Every source with a chunk length."""
        chain = random_markov(8, concentration=0.2)
        of_chain: list[tuple[Source, int]] = [(chain, length) for length in self.chunk_lens]
        if self.chunk_len is None:
            return of_chain
        others: list[Source] = [uniform(8), even_process(), Lookup(8, 4), Lookup(8, 8)]
        return [*of_chain, *((source, self.chunk_len) for source in others)]


@dataclass(frozen=True, kw_only=True)
class DistortionPlan:
    """What to train, and how it is rounded."""

    vocab_size: int = 8
    chunk_len: int = 32
    dims: tuple[int, ...] = (48, 64, 80, 96, 112, 128)
    """Of memories that are rounded to a bit a dimension in training."""
    afterwards: tuple[int, ...] = (1, 2, 3, 4)
    """Bits a dimension that memories trained without rounding are rounded to; they have three dimensions a token."""
    noise_std: float = 1.0
    """Of Gaussian noise on memories in training, where there is any."""
    steps: int = 1000
    """Of training, of 128 chunks."""
    num_chunks: int = 2048
    """That errors are counted on; units of the bootstrap."""
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class CalibrationPlan:
    """What to read, and how often to measure it."""

    chunk_lens: tuple[int, ...] = (32, 8)
    steps: int = 120
    """Of each reader, of 64 chunks."""
    num_sets: int = 100
    """Independent test sets: an interval is made from each."""
    set_chunks: int = 100
    """Of each."""
    seed: int = 0

    def sources(self) -> list[Unifilar]:
        """Independent tokens, equally likely and not, and tokens that depend on those before."""
        return [uniform(8), zipf(8), random_markov(8), even_process()]


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

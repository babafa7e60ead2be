"""Which pasts to read, with what model."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SubstitutionPlan:
    """As `benchmarks.substitution.Substitution` has them."""

    chunk_len: int = 256
    num_positions: int = 4
    dim: int = 256
    num_layers: int = 4
    contexts: tuple[int, ...] = (1024, 4096, 16384)

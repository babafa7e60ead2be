"""What memories in place of tokens were found to save."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from memlm_evidence.claims import ExperimentResult


@dataclass(frozen=True, kw_only=True)
class ContextRow:
    """Costs of one past; ratios are above 1 where memories cost less (`benchmarks.substitution` says what of)."""

    context_tokens: int
    ttft_ratio_cold: float
    ttft_ratio_cached: float
    decode_ratio: float
    cache_bytes_ratio: float
    flops_ratio_cold: float
    flops_ratio_cached: float
    position_limit: float
    memory_bytes: int
    seconds: Mapping[str, float]
    decode_tokens_per_second: Mapping[str, float]
    cache_bytes: Mapping[str, int]
    flops: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class SubstitutionResult(ExperimentResult):
    """By length of the past."""

    name: ClassVar[str] = "substitution"
    rows: Sequence[ContextRow]
    model: Mapping[str, Any]
    precision: str
    new_tokens: int
    device: str
    num_threads: int

    @property
    def longest(self) -> ContextRow:
        """The row of the longest past."""
        return max(self.rows, key=lambda row: row.context_tokens)

"""Memories in place of tokens save time, operations and cache."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from memlm_evidence.claims import Claim, ExperimentResult, Measured
from memlm_evidence.experiments.experiment import Experiment, deferred


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


SUBSTITUTION = Experiment[Mapping[str, Any], SubstitutionResult](
    name=SubstitutionResult.name,
    folder="substitution",
    presets=dict.fromkeys(("quick", "standard"), lambda _: {"contexts": (1024, 4096, 16384)}),
    run=deferred("memlm_evidence.experiments.substitution.run:run"),
    page=deferred("memlm_evidence.experiments.substitution.page:page"),
    result=SubstitutionResult,
    claims=(
        Claim(
            name="memories-save-time",
            statement="A past as memories is read sooner than as tokens, encoding included.",
            quantity="seconds to the first token of the longest past, as tokens over as memories",
            threshold=3.0,
            measure=lambda result: Measured.exactly(result.longest.ttft_ratio_cold),
        ),
        Claim(
            name="memories-save-compute",
            statement="They take fewer operations, encoding included.",
            quantity="operations to the first token of the longest past, as tokens over as memories",
            threshold=3.0,
            measure=lambda result: Measured.exactly(result.longest.flops_ratio_cold),
        ),
        Claim(
            name="memories-save-cache",
            statement="They leave a smaller cache.",
            quantity="bytes of keys and values of the longest past, as tokens over as memories",
            threshold=10.0,
            measure=lambda result: Measured.exactly(result.longest.cache_bytes_ratio),
        ),
    ),
    seeded=False,
    timed=True,
)

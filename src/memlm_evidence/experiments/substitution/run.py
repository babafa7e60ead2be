"""Claim: memories in place of tokens save time, operations and cache."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memlm_evidence.benchmarks.substitution import Substitution
from memlm_evidence.experiments.substitution import SubstitutionResult


def run(_: Path, options: Mapping[str, Any]) -> SubstitutionResult:
    """Measure, with these options of the benchmark; nothing is trained."""
    return SubstitutionResult.from_dict(Substitution(**options).run())

"""Claim: memories in place of tokens save time, operations and cache."""

from pathlib import Path

from memlm_evidence.benchmarks.substitution import Substitution
from memlm_evidence.experiments.substitution.plan import SubstitutionPlan
from memlm_evidence.experiments.substitution.result import SubstitutionResult


def run(_: Path, plan: SubstitutionPlan) -> SubstitutionResult:
    """Measure; nothing is trained."""
    return SubstitutionResult.from_dict(Substitution(**vars(plan)).run())

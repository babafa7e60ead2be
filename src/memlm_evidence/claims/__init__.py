"""Claims, what decides each, and what results say of them. Made from result files alone."""

from memlm_evidence.claims.claim import Claim, Decision, ExperimentResult, Measured, Verdict, decide

__all__ = ["Claim", "Decision", "ExperimentResult", "Measured", "Verdict", "decide"]

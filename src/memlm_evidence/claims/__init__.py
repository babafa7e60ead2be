"""The paper's claims, what decides each, and what results say of them. Made from result files alone."""

from memlm_evidence.claims.claim import Claim, Decision, Measured, Row, Verdict, decide
from memlm_evidence.claims.paper import CLAIMS

__all__ = ["CLAIMS", "Claim", "Decision", "Measured", "Row", "Verdict", "decide"]

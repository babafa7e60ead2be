"""What attacks recovered from a causal model's states."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from memlm_evidence.attacks.results import AttackRow
from memlm_evidence.claims import ExperimentResult


@dataclass(frozen=True, kw_only=True)
class SettlingResult(ExperimentResult):
    """Attacks, and what they say of the claim (`attacks.settle`)."""

    name: ClassVar[str] = "settle-causal"
    encoder: str
    chunk_len: int
    layer: int
    attacks: Sequence[AttackRow]
    claim: str
    verdict: str

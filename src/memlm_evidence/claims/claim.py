"""A claim, the number that decides it, and what results say of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal, NamedTuple

Verdict = Literal["holds", "fails", "undecided"]
Row = Mapping[str, Any]
"""A result, as `Result.to_dict` gives it."""


class Measured(NamedTuple):
    """A number, and the interval it lies in; of several seeds their mean, and an interval that holds all theirs."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement, and the number that decides it."""

    name: str
    statement: str
    experiment: str
    """The file of results that decides it, without its seed and ending."""
    quantity: str
    """What is measured."""
    threshold: float
    at_least: bool
    """Whether the claim asks for at least the threshold, or for at most."""
    measure: Callable[[Row], Measured]

    def is_measured(self, result: Row) -> bool:
        """Whether a result has the number."""
        try:
            self.measure(result)
        except (KeyError, StopIteration, ValueError):
            return False
        return True

    def measured(self, results: Sequence[Row]) -> Measured:
        """Over the results of all seeds."""
        found = [self.measure(result) for result in results]
        return Measured(
            fmean(each.value for each in found), min(each.low for each in found), max(each.high for each in found)
        )

    def verdict(self, measured: Measured) -> Verdict:
        """Holds or fails if the whole interval does, and is otherwise undecided."""
        low, high = measured.low, measured.high
        holds, fails = (low >= self.threshold, high < self.threshold)
        if not self.at_least:
            holds, fails = (high <= self.threshold, low > self.threshold)
        return "holds" if holds else "fails" if fails else "undecided"


class Decision(NamedTuple):
    """A claim, and what came of it."""

    claim: Claim
    measured: Measured
    verdict: Verdict
    num_seeds: int
    seconds: float | None
    """That the experiment took, over all seeds; None if nobody wrote it down."""

    def to_dict(self) -> dict[str, Any]:
        """As one JSON object."""
        return {
            "name": self.claim.name,
            "verdict": self.verdict,
            "value": self.measured.value,
            "interval": [self.measured.low, self.measured.high],
            "threshold": self.claim.threshold,
            "at_least": self.claim.at_least,
            "seconds": self.seconds,
            "num_seeds": self.num_seeds,
        }


def decide(results: Mapping[str, Sequence[Row]], claims: Sequence[Claim]) -> list[Decision]:
    """What results, by experiment and seed, say of each of these claims that they can decide.

    A result of an older or a smaller experiment, which has not measured what a claim asks for, does not decide it.
    """
    decisions = []
    for claim in claims:
        of_claim = [row for row in results.get(claim.experiment, ()) if claim.is_measured(row)]
        if of_claim:
            measured = claim.measured(of_claim)
            seconds = [row["seconds"] for row in of_claim if isinstance(row.get("seconds"), float | int)]
            took = sum(seconds) if len(seconds) == len(of_claim) else None
            decisions.append(Decision(claim, measured, claim.verdict(measured), len(of_claim), took))
    return decisions

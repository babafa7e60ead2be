"""Claims, the number that decides each, and what results say of them: made from result files alone."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

from memlm.runtime.results import Interval, Provenance, Record

Verdict = Literal["holds", "fails", "undecided"]


@dataclass(frozen=True, kw_only=True)
class ExperimentResult(Record):
    """What an experiment found with one seed; what it measures are the fields of its own class."""

    name: ClassVar[str]
    """Of the experiment."""
    provenance: Provenance
    seconds: float | None = None
    """That measuring took; None of older results, where nobody wrote it down."""

    def to_dict(self) -> dict[str, Any]:
        """As one JSON object, with the experiment's name."""
        return {"name": self.name, **super().to_dict()}

    def lines(self) -> Iterable[str]:
        """What to say of it in a terminal."""
        return ()


Found = TypeVar("Found", bound=ExperimentResult)


class Measured(NamedTuple):
    """A number, and the interval it lies in."""

    value: float
    low: float
    high: float

    @staticmethod
    def exactly(value: float) -> "Measured":
        """A number without an interval."""
        return Measured(value, value, value)

    @staticmethod
    def of(row: Any, name: str) -> "Measured":
        """A measure of a row that has `intervals` of its measures."""
        return Measured(getattr(row, name), *row.intervals[name])

    def over(self, whole: float) -> "Measured":
        """As a share of something known."""
        return Measured(*(each / whole for each in self))

    @staticmethod
    def over_seeds(found: Sequence["Measured"]) -> "Measured":
        """The mean, and an interval that holds all of theirs."""
        value, low, high = zip(*found, strict=True)
        return Measured(fmean(value), min(low), max(high))


@dataclass(frozen=True, kw_only=True)
class Difference(Record):
    """Between two models on the same documents, with its paired 95% interval over these."""

    value: float
    interval: Interval

    @property
    def measured(self) -> Measured:
        """As claims take it."""
        return Measured(self.value, *self.interval)


@dataclass(frozen=True, kw_only=True)
class Claim(Generic[Found]):
    """A statement, and the number that decides it."""

    name: str
    statement: str
    quantity: str
    """What is measured."""
    threshold: float
    at_least: bool = True
    """Whether the claim asks for at least the threshold, or for at most."""
    measure: Callable[[Found], Measured | None]
    """The number in a result; None where the result says that it was not measured."""
    experiment: str = ""
    """The file of results that decides it, without its seed and ending. The table of experiments says it of theirs."""

    def verdict(self, measured: Measured) -> Verdict:
        """Holds or fails if the whole interval does, and is otherwise undecided."""
        low, high = measured.low, measured.high
        holds, fails = (low >= self.threshold, high < self.threshold)
        if not self.at_least:
            holds, fails = (high <= self.threshold, low > self.threshold)
        return "holds" if holds else "fails" if fails else "undecided"


def claim(
    quantity: str, *, at_least: float | None = None, at_most: float | None = None
) -> Callable[[Callable[[Found], Measured | None]], Claim[Found]]:
    """What makes a claim of the function that measures its quantity: the function's name and docstring are the claim's.

    Either `at_least` or `at_most` is the threshold.
    """

    def made(measure: Callable[[Found], Measured | None]) -> Claim[Found]:
        (threshold,) = (each for each in (at_least, at_most) if each is not None)
        about = {"name": measure.__name__.replace("_", "-"), "statement": " ".join((measure.__doc__ or "").split())}
        return Claim(**about, quantity=quantity, threshold=threshold, at_least=at_most is None, measure=measure)

    return made


class Decision(NamedTuple):
    """A claim, and what came of it."""

    claim: Claim[Any]
    by_seed: Sequence[Measured]
    seconds: float | None
    """That the experiment took, over all seeds; None if nobody wrote it down."""

    @property
    def measured(self) -> Measured:
        """Over all seeds."""
        return Measured.over_seeds(self.by_seed)

    @property
    def num_seeds(self) -> int:
        """That it was measured with."""
        return len(self.by_seed)

    @property
    def verdict(self) -> Verdict:
        """What that says of the claim."""
        return self.claim.verdict(self.measured)

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


def decide(results: Mapping[str, Sequence[ExperimentResult]], claims: Sequence[Claim[Any]]) -> list[Decision]:
    """What results, by experiment and seed, say of each of these claims that they can decide."""
    decisions = []
    for claim in claims:
        found = [(result, each) for result in results.get(claim.experiment, ()) if (each := claim.measure(result))]
        if found:
            seconds = [result.seconds for result, _ in found if result.seconds is not None]
            took = sum(seconds) if len(seconds) == len(found) else None
            decisions.append(Decision(claim, [each for _, each in found], took))
    return decisions

"""Next-token prediction asks a memory for the past's predictive state alone, regeneration for the whole text."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from memlm_evidence.claims import Claim, ExperimentResult, Measured
from memlm_evidence.experiments.experiment import Experiment, deferred
from memlm_evidence.known_sources.plans import CalibrationPlan, DistortionPlan, StatePlan
from memlm_evidence.known_sources.rows import CalibrationRow, DistortionRow, LimitRow, OracleRow, StateRow


@dataclass(frozen=True, kw_only=True)
class NonInvertiblePlan:
    """The three parts of the measurement; as it is, the standard preset's."""

    state: StatePlan = field(default_factory=StatePlan)
    distortion: DistortionPlan = field(default_factory=DistortionPlan)
    calibration: CalibrationPlan = field(default_factory=CalibrationPlan)
    num_workers: int | None = field(default=None, repr=False)
    """Processes, as `run_jobs` takes them, of which no result depends; None is one for each thread that there is."""

    @classmethod
    def quick(cls, seed: int) -> "NonInvertiblePlan":
        """As small as the claims can be decided."""
        return cls(
            state=StatePlan(chunk_lens=(64,), chunk_len=None, seed=seed),
            distortion=DistortionPlan(dims=(96,), seed=seed),
            calibration=CalibrationPlan(chunk_lens=(8,), num_sets=20, seed=seed),
        )

    @classmethod
    def standard(cls, seed: int) -> "NonInvertiblePlan":
        """All sources and lengths."""
        return cls(
            state=StatePlan(seed=seed), distortion=DistortionPlan(seed=seed), calibration=CalibrationPlan(seed=seed)
        )


@dataclass(frozen=True, kw_only=True)
class NonInvertibleResult(ExperimentResult):
    """What memories retain, how near they come to the rate-distortion limit, and whether readers find what there is."""

    name: ClassVar[str] = "non-invertible"
    rows: Sequence[StateRow]
    """By source, length of texts and objective; the Markov chain that claims are about comes first."""
    distortion: Sequence[DistortionRow]
    calibration: Sequence[CalibrationRow]
    oracle: Sequence[OracleRow]
    distortion_limit: Sequence[LimitRow]
    ideal_over_stored: Mapping[str, float | None]
    """By method: ideal over stored bits at 1% of tokens wrong; None where no number of bits was enough."""

    def longest(self, objective: str) -> StateRow:
        """The row of an objective and the longest texts of the first source."""
        source = self.rows[0].source
        rows = [row for row in self.rows if (row.source, row.objective) == (source, objective)]
        return max(rows, key=lambda row: row.num_tokens)

    def lines(self) -> Iterator[str]:
        """What to say of it in a terminal."""
        for row in self.rows:
            yield (
                f"{row.source}, {row.num_tokens} tokens, {row.objective}: "
                f"{row.retained_bits:.1f} of {row.entropy_bits:.1f} bits, "
                f"of the state {row.retained_state_bits:.2f} of {row.state_bits:.2f}"
            )


def _kept_state(result: NonInvertibleResult) -> Measured:
    row = result.longest("causal")
    return _share(Measured.of(row, "retained_state_bits"), row.state_bits)


def _kept_rest(result: NonInvertibleResult) -> Measured:
    row = result.longest("causal")
    return _share(Measured.of(row, "retained_rest_bits"), row.entropy_bits - row.state_bits)


def _kept_by_both(result: NonInvertibleResult) -> Measured:
    row = result.longest("combined")
    return _share(Measured.of(row, "retained_bits"), row.entropy_bits)


def _share(bits: Measured, whole_bits: float) -> Measured:
    return Measured(*(end / whole_bits for end in bits))


NON_INVERTIBLE = Experiment[NonInvertiblePlan, NonInvertibleResult](
    name=NonInvertibleResult.name,
    folder="non-invertible",
    presets={"quick": NonInvertiblePlan.quick, "standard": NonInvertiblePlan.standard},
    run=deferred("memlm_evidence.experiments.non_invertible.run:run"),
    page=deferred("memlm_evidence.experiments.non_invertible.page:page"),
    result=NonInvertibleResult,
    claims=(
        Claim(
            name="prediction-keeps-the-state",
            statement="Causal training keeps what the future needs of a past whose every bit is counted.",
            quantity="share of the predictive state's bits",
            threshold=0.9,
            measure=_kept_state,
        ),
        Claim(
            name="prediction-is-not-invertible",
            statement="Causal training keeps little of everything else.",
            quantity="share of all other bits",
            threshold=0.2,
            at_least=False,
            measure=_kept_rest,
        ),
        Claim(
            name="both-objectives-keep-all",
            statement="Trained to regenerate as well, nearly all of it is kept.",
            quantity="share of all bits",
            threshold=0.95,
            measure=_kept_by_both,
        ),
    ),
)

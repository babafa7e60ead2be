"""What is measured on known sources: the three parts, and how large each is."""

from dataclasses import dataclass, field

from memlm_evidence.known_sources.plans import CalibrationPlan, DistortionPlan, StatePlan


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

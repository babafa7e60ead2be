"""Claim: next-token prediction asks a memory for the past's predictive state alone, regeneration for the whole text.

Shown on sources of which everything is known (`data.sources`, docs/theory.md), with what bounds the measurement: how
near memories come to the rate-distortion limit, and whether what readers find is what there is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path

from memlm.runtime.cache import digest
from memlm.runtime.executor import Job, Row, run_jobs
from memlm.runtime.results import Provenance, Result
from memlm_evidence.known_sources.calibration import CalibrationPlan, CalibrationRun
from memlm_evidence.known_sources.rate_distortion import DistortionPlan, DistortionRun, ideal_over_stored, limit
from memlm_evidence.known_sources.retained_state import StatePlan, StateRun
from memlm_evidence.known_sources.sources import golden_mean, random_unifilar
from memlm_evidence.known_sources.unifilar import Unifilar


class ImpossibleError(RuntimeError):
    """A measured point lies where none can: a bug, never a discovery."""


@dataclass(frozen=True, kw_only=True)
class NonInvertiblePlan:
    """The three parts of the measurement."""

    state: StatePlan = field(default_factory=StatePlan)
    distortion: DistortionPlan = field(default_factory=DistortionPlan)
    calibration: CalibrationPlan = field(default_factory=CalibrationPlan)


def reproduce_non_invertible(
    out: Path, plan: NonInvertiblePlan | None = None, *, num_workers: int = 1, quiet: bool = False
) -> Result:
    """Measure. What was measured into the folder before is not measured again.

    Returns:
        `rows`, one for each source, length and objective: `entropy_bits` of a chunk, `state_bits` of the predictive
        state after it; `retained_bits`, `retained_state_bits` and `retained_rest_bits` of them that readers find in its
        memory, with `intervals`; `share`, `state_share` and `rest_share` of what there is; `next_token_excess_bits`, a
        token of the chunk that follows, above what one pays who knows all; `capacity_bits` of the channel; and
        `violations`, how many of these lie on the impossible side of a bound. `oracle`, what that one pays, beside the
        entropy rate. `distortion`, errors by bits stored, with the
        `distortion_limit`, and `ideal_over_stored` by method. `calibration`, estimates
        beside exact mutual information.

    Raises:
        ImpossibleError: a point lies on the impossible side of a bound.
    """
    plan = plan or NonInvertiblePlan()
    parts: dict[str, Sequence[Run]] = {
        "rows": plan.state.runs(),
        "distortion": plan.distortion.runs(),
        "calibration": plan.calibration.runs(),
    }
    jobs = [job(run) for runs in parts.values() for run in runs]
    done = iter(run_jobs(jobs, out / "runs", num_workers=num_workers, title="Measuring known sources", quiet=quiet))
    found = {name: [row for _ in runs for row in next(done)["rows"]] for name, runs in parts.items()}
    impossible = [row for rows in found.values() for row in rows if row.get("violations")]
    if impossible:
        raise ImpossibleError(f"on the impossible side of a bound: {impossible}")
    values = {
        **found,
        "oracle": list(_oracles(plan)),
        "distortion_limit": limit(plan.distortion),
        "ideal_over_stored": ideal_over_stored(found["distortion"], plan.distortion.vocab_size),
    }
    return Result(name="non-invertible", measures=values, provenance=Provenance.here(plan=asdict(plan)))


Run = StateRun | DistortionRun | CalibrationRun


def job(run: Run) -> Job:
    """A run as a job; its `repr` says all that its rows depend on."""
    return Job(name=digest(f"{version('memlm')} {run!r}"), run=partial(_rows, run), num_tokens=run.num_tokens)


def _rows(run: Run) -> Row:
    return {"rows": run.rows()}


def _oracles(plan: NonInvertiblePlan) -> Iterator[Row]:
    """What the token after a long text costs one who knows the source and that text: in the mean, exactly."""
    sources = {source.name: source for source in plan.calibration.sources()}
    sources |= {source.name: source for source, _ in plan.state.sources() if isinstance(source, Unifilar)}
    for source in (*sources.values(), golden_mean(), random_unifilar(3, 2)):
        nats = source.block_entropy(200) - source.block_entropy(199)
        yield {"source": source.name, "entropy_rate_nats": source.entropy_rate, "oracle_nats": nats}

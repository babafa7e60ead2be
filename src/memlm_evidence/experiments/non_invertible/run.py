"""Claim: next-token prediction asks a memory for the past's predictive state alone, regeneration for the whole text.

Shown on sources of which everything is known (`known_sources`, docs/theory.md), with what bounds the measurement: how
near memories come to the rate-distortion limit, and whether what readers find is what there is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch

from memlm.runtime.cache import digest
from memlm.runtime.executor import Job, Row, Workers, run_jobs
from memlm.runtime.results import Provenance
from memlm.runtime.wording import installed_version
from memlm_evidence.experiments.non_invertible import NonInvertiblePlan, NonInvertibleResult
from memlm_evidence.known_sources.calibration import CalibrationRun, calibration_runs
from memlm_evidence.known_sources.measured import OracleRow
from memlm_evidence.known_sources.rate_distortion import DistortionRun, distortion_runs, ideal_over_stored, limit
from memlm_evidence.known_sources.retained_state import StateRun, state_runs
from memlm_evidence.known_sources.sources import golden_mean, random_unifilar
from memlm_evidence.known_sources.unifilar import Unifilar

Run = StateRun | DistortionRun | CalibrationRun


class ImpossibleError(RuntimeError):
    """A measured point lies where none can: a bug, never a discovery."""


def run(out: Path, plan: NonInvertiblePlan) -> NonInvertibleResult:
    """Measure. What was measured into the folder before is not measured again.

    Its models are so small that a process for each of this one's threads is better than the threads.

    Raises:
        ImpossibleError: a point lies on the impossible side of a bound.
    """
    workers = torch.get_num_threads() if plan.num_workers is None else plan.num_workers
    parts: dict[str, Sequence[Run]] = {
        "rows": state_runs(plan.state),
        "distortion": distortion_runs(plan.distortion),
        "calibration": calibration_runs(plan.calibration),
    }
    jobs = [job(each) for runs in parts.values() for each in runs]
    folder = out / f"seed-{plan.state.seed}"
    who = Workers(num_workers=workers, ray_address=plan.ray_address)
    done = iter(run_jobs(jobs, folder, **who, title="Measuring known sources"))
    rows = {name: [row for _ in runs for row in next(done)["rows"]] for name, runs in parts.items()}
    if impossible := [row for part in rows.values() for row in part if row["violations"]]:
        raise ImpossibleError(f"on the impossible side of a bound: {impossible}")
    made_by = Provenance.here(plan=asdict(replace(plan, ray_address=None)))
    rest = {"oracle": list(_oracles(plan)), "distortion_limit": limit(plan.distortion), "ideal_over_stored": {}}
    result = NonInvertibleResult.from_dict({**rows, **rest, "provenance": made_by})
    return replace(result, ideal_over_stored=ideal_over_stored(result.distortion, plan.distortion.vocab_size))


def job(run: Run) -> Job:
    """A run as a job; its `repr` says all that its rows depend on."""
    return Job(name=digest(f"{installed_version('memlm')} {run!r}"), run=partial(_rows, run), num_tokens=run.num_tokens)


def _rows(run: Run) -> Row:
    return {"rows": [row.to_dict() for row in run.rows()]}


def _oracles(plan: NonInvertiblePlan) -> Iterator[OracleRow]:
    """What the token after a long text costs one who knows the source and that text: in the mean, exactly."""
    sources = {source.name: source for source in plan.calibration.sources()}
    sources |= {source.name: source for source, _ in plan.state.sources() if isinstance(source, Unifilar)}
    for source in (*sources.values(), golden_mean(), random_unifilar(3, 2)):
        nats = source.block_entropy(200) - source.block_entropy(199)
        yield OracleRow(source=source.name, entropy_rate_nats=source.entropy_rate, oracle_nats=nats)

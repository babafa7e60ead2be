"""Every claim in one go: the experiments of a preset, each measured once and kept."""

import difflib
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from memlm.runtime.files import atomic_write, make_folder
from memlm.runtime.lanes import side_by_side
from memlm.training.accelerator import is_main_process, world_size
from memlm_evidence.claims import CLAIMS, Claim
from memlm_evidence.experiments.experiments import PRESETS, Experiment

RESULTS = "results"
"""Folder of the results, in that of a reproduction."""


class Job(NamedTuple):
    """An experiment with a seed, and its result's file."""

    experiment: Experiment
    seed: int

    @property
    def name(self) -> str:
        """Of the result; an experiment without seeds is measured once for all."""
        return f"{self.experiment.name}-seed-{self.seed}" if self.experiment.seeded else self.experiment.name

    @property
    def key(self) -> str:
        """Of the plan."""
        return hashlib.sha256(repr(self.experiment.plan).encode()).hexdigest()[:16]

    def path(self, out: Path) -> Path:
        """Where the result is."""
        return out / RESULTS / f"{self.name}.json"


def reproduce_claims(
    out: Path,
    preset: str = "quick",
    names: Sequence[str] = (),
    *,
    seeds: Sequence[int] = (0,),
    num_workers: int = 1,
    say: Callable[[str], None] = print,
) -> list[Claim]:
    """Measure what decides claims, all of them or those named, into `out`; returns the claims that can be decided now,
    which are none where several processes have only trained.

    What was measured before is not measured again. An experiment that was interrupted goes on where it was: what it
    trains is in `out` too, and shared between experiments. With several workers, experiments that share nothing are
    measured side by side, in processes with a share of the cores each; what is timed is measured alone. `say` is told
    what is begun, and is pickled for workers.

    Raises:
        ValueError: an unknown claim or preset, or one that does not decide any of these claims; another run is at work
            in the folder; it holds results of another preset or version.
        OSError: the disk is full, or a worker was killed; what was measured is kept.
    """
    claims = named(names)
    if preset not in PRESETS:
        raise ValueError(f"there is no preset {preset!r}; there are {', '.join(PRESETS)}")
    if world_size() > 1 and preset != "paper":
        raise ValueError(f"the preset {preset} runs in one process, not in {world_size()}: leave out torchrun")
    wanted = _wanted(preset, claims, seeds)
    if not wanted:
        raise ValueError(f"the preset {preset} measures nothing that decides {', '.join(names)}; take another preset")
    make_folder(out)
    try:
        with _mine(out):
            _take(out, preset)
            left = [job for job in wanted if not _is_measured(job, out)]
            lanes = [[partial(_measure, job, out, say) for job in lane] for lane in _lanes(left)]
            side_by_side(lanes, num_workers)
            for job in left:
                if job.experiment.timed:
                    _measure(job, out, say)
    except Timeout:
        raise ValueError(f"another run is at work in {out}; wait for it, or give another folder") from None
    return claims if world_size() == 1 else []


def _mine(out: Path) -> AbstractContextManager[Any]:
    """The folder for this run alone; of several processes the first holds it for all."""
    return FileLock(out / ".lock", timeout=0) if is_main_process() else nullcontext()


def named(names: Sequence[str]) -> list[Claim]:
    """The claims of these names, in the order of the argument; all, without any.

    Raises:
        ValueError: there is no such claim; says which is nearest.
    """
    known = {claim.name: claim for claim in CLAIMS}
    for name in names:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise ValueError(f"there is no claim {name!r}; did you mean {nearest}? There are {', '.join(known)}")
    return [claim for claim in CLAIMS if not names or claim.name in names]


def _take(out: Path, preset: str) -> None:
    """Mark the folder as this preset's, by this version."""
    mark, path = {"preset": preset, "memlm": version("memlm")}, out / "preset.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else mark
    except ValueError:
        found = None
    if found != mark:
        raise ValueError(f"{path} says {found}, this is {mark}; give another folder, or delete {out}")
    if is_main_process():
        atomic_write(path, json.dumps(mark) + "\n")


def _wanted(preset: str, claims: Sequence[Claim], seeds: Sequence[int]) -> list[Job]:
    """The experiments that decide these claims, all of one seed before the next."""
    deciding = {claim.experiment for claim in claims}
    return [
        Job(experiment, seed)
        for number, seed in enumerate(seeds)
        for experiment in PRESETS[preset](seed)
        if experiment.name in deciding and (experiment.seeded or number == 0)
    ]


def _lanes(jobs: Sequence[Job]) -> list[list[Job]]:
    """Those that share a folder and a seed, and so what they train, together; without what is timed."""
    lanes: dict[tuple[str, int], list[Job]] = {}
    for job in jobs:
        if not job.experiment.timed:
            lanes.setdefault((job.experiment.folder, job.seed), []).append(job)
    return list(lanes.values())


def _is_measured(job: Job, out: Path) -> bool:
    path = job.path(out)
    if not path.exists():
        return False
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get("plan")
    except (AttributeError, ValueError):
        found = None
    if found != job.key:
        raise ValueError(f"{path} was measured by another plan, or is damaged; delete it to measure again")
    return True


def _measure(job: Job, out: Path, say: Callable[[str], None]) -> None:
    say(f"Measuring {job.name}")
    started = time.monotonic()
    result = job.experiment.measure(out / job.experiment.folder, job.experiment.plan)
    if result is None:
        say(f"Trained what {job.name} needs; the same command without torchrun measures it")
        return
    row = {**result.to_dict(), "seconds": time.monotonic() - started, "plan": job.key}
    atomic_write(job.path(out), json.dumps(row, indent=2) + "\n")

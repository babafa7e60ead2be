"""Every claim in one go: the experiments of a preset, each measured once and kept."""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from memlm.runtime.cache import digest
from memlm.runtime.executor import Job, Row, require_workers, run_jobs
from memlm.runtime.files import atomic_write, make_folder
from memlm.runtime.wording import installed_version
from memlm.training.accelerator import is_main_process, world_size
from memlm_evidence.claims import Claim, ExperimentResult
from memlm_evidence.experiments.experiment import Experiment
from memlm_evidence.experiments.table import EXPERIMENTS, PRESETS, named

RESULTS = "results"
"""Folder of the results, in that of a reproduction."""
Say = Callable[[str], None]


def reproduce_claims(
    out: Path,
    preset: str = "quick",
    names: Sequence[str] = (),
    *,
    seeds: Sequence[int] = (0,),
    num_workers: int = 1,
    ray_address: str | None = None,
    say: Say = print,
) -> list[Claim[Any]]:
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
    require_workers(num_workers, ray_address)
    claims = named(names)
    if preset not in PRESETS:
        raise ValueError(f"there is no preset {preset!r}; there are {', '.join(PRESETS)}")
    if world_size() > 1 and preset != "paper":
        raise ValueError(f"the preset {preset} runs in one process, not in {world_size()}: leave out torchrun")
    wanted = _jobs(out, preset, claims, seeds, say)
    if not wanted:
        raise ValueError(f"the preset {preset} measures nothing that decides {', '.join(names)}; take another preset")
    make_folder(out)
    try:
        # The folder is for this run alone; of several processes the first holds it for all.
        with FileLock(out / ".lock", timeout=0) if is_main_process() else nullcontext():
            _take(out, preset)
            if world_size() == 1:
                run_jobs(wanted, out / RESULTS, num_workers=num_workers, ray_address=ray_address, quiet=True)
            else:
                for job in wanted:
                    job.run()
    except Timeout:
        raise ValueError(f"another run is at work in {out}; wait for it, or give another folder") from None
    return claims if world_size() == 1 else []


def _take(out: Path, preset: str) -> None:
    """Mark the folder as this preset's, by this version."""
    mark, path = {"preset": preset, "memlm": installed_version("memlm")}, out / "preset.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else mark
    except ValueError:
        found = None
    if found != mark:
        raise ValueError(f"{path} says {found}, this is {mark}; give another folder, or delete {out}")
    if is_main_process():
        atomic_write(path, json.dumps(mark) + "\n")


def _jobs(out: Path, preset: str, claims: Sequence[Claim[Any]], seeds: Sequence[int], say: Say) -> list[Job]:
    """The experiments that decide these claims, all of one seed before the next."""
    deciding = {claim.experiment for claim in claims}
    return [
        _job(experiment, preset, seed, out, say)
        for number, seed in enumerate(seeds)
        for experiment in EXPERIMENTS
        if experiment.name in deciding and preset in experiment.presets and (experiment.seeded or number == 0)
    ]


def _job(experiment: Experiment[Any, Any], preset: str, seed: int, out: Path, say: Say) -> Job:
    """Experiments of one seed that share a folder, and so what they train, are a group."""
    name = f"{experiment.name}-seed-{seed}" if experiment.seeded else experiment.name
    plan = experiment.presets[preset](seed)
    return Job(
        name=name,
        run=partial(_measure, experiment.run, out / experiment.folder, plan, name, say),
        plan=digest(repr(plan)),
        group=f"{experiment.folder}-seed-{seed}",
        exclusive=experiment.timed,
    )


def _measure(run: Callable[..., ExperimentResult | None], folder: Path, plan: Any, name: str, say: Say) -> Row:
    say(f"Measuring {name}")
    started = time.monotonic()
    result = run(folder, plan)
    if result is None:
        say(f"Trained what {name} needs; the same command without torchrun measures it")
        return {}
    return {**result.to_dict(), "seconds": time.monotonic() - started}

"""Every claim in one go: the experiments of a preset, each measured once and kept."""

import difflib
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from memlm.claims import CLAIMS, Claim
from memlm.files import atomic_write
from memlm.reproduce.experiments import PRESETS, Experiment
from memlm.training.accelerator import is_main_process, world_size

RESULTS = "results"
"""Folder of the results, in that of a reproduction."""


def reproduce_claims(
    out: Path,
    preset: str = "quick",
    names: Sequence[str] = (),
    *,
    seeds: Sequence[int] = (0,),
    say: Callable[[str], None] = print,
) -> list[Claim]:
    """Measure what decides claims, all of them or those named, into `out`; returns the claims that can be decided now,
    which are none where several processes have only trained.

    What was measured before is not measured again. An experiment that was interrupted goes on where it was: what it
    trains is in `out` too, and shared between experiments. `say` is told what is begun.

    Raises:
        ValueError: an unknown claim or preset, or one that does not decide any of these claims; another run is at work
            in the folder; it holds results of another preset or version.
    """
    claims = named(names)
    if preset not in PRESETS:
        raise ValueError(f"there is no preset {preset!r}; there are {', '.join(PRESETS)}")
    if world_size() > 1 and preset != "paper":
        raise ValueError(f"the preset {preset} runs in one process, not in {world_size()}: leave out torchrun")
    wanted = _wanted(preset, claims, seeds)
    if not wanted:
        raise ValueError(f"the preset {preset} measures nothing that decides {', '.join(names)}; take another preset")
    out.mkdir(parents=True, exist_ok=True)
    try:
        with _mine(out):
            _take(out, preset)
            for experiment, seed in wanted:
                _measure(experiment, seed, out, say)
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


def _wanted(preset: str, claims: Sequence[Claim], seeds: Sequence[int]) -> list[tuple[Experiment, int]]:
    """The experiments that decide these claims, all of one seed before the next."""
    deciding = {claim.experiment for claim in claims}
    return [
        (experiment, seed)
        for number, seed in enumerate(seeds)
        for experiment in PRESETS[preset](seed)
        if experiment.name in deciding and (experiment.seeded or number == 0)
    ]


def _measure(experiment: Experiment, seed: int, out: Path, say: Callable[[str], None]) -> None:
    name = f"{experiment.name}-seed-{seed}" if experiment.seeded else experiment.name
    path, key = out / RESULTS / f"{name}.json", hashlib.sha256(repr(experiment.plan).encode()).hexdigest()[:16]
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8")).get("plan")
        except (AttributeError, ValueError):
            found = None
        if found != key:
            raise ValueError(f"{path} was measured by another plan, or is damaged; delete it to measure again")
        return
    say(f"Measuring {name}")
    started = time.monotonic()
    result = experiment.measure(out / experiment.folder, experiment.plan)
    if result is None:
        say(f"Trained what {name} needs; the same command without torchrun measures it")
        return
    row = {**result.to_dict(), "seconds": time.monotonic() - started, "plan": key}
    atomic_write(path, json.dumps(row, indent=2) + "\n")

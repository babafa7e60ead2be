"""A sweep into a folder that any number of processes may share: each run is claimed, measured and kept once."""

import os
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NamedTuple

from memlm.runtime.executor import Job, Row, Workers, require_workers, run_jobs
from memlm.runtime.files import atomic_write, place_for
from memlm.runtime.results import read_json_lines
from memlm_evidence.sweep.config import Run, SweepConfig
from memlm_evidence.sweep.page import sweep_page
from memlm_evidence.sweep.rows import RUNS, SWEEP, read_run, read_sweep


class Shard(NamedTuple):
    """Every `of`-th run, from `number` on."""

    number: int = 0
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read `0/4`, the first of four.

        Raises:
            ValueError: it is no such thing, or beyond the last.
        """
        number, _, of = text.partition("/")
        if not (number.isdecimal() and of.isdecimal() and int(of)):
            raise ValueError(f"a shard is one of so many, as 0/4 is the first of four, not {text!r}")
        if int(number) >= int(of):
            raise ValueError(f"there is no shard {text}: {of} shards are 0/{of} to {int(of) - 1}/{of}")
        return cls(int(number), int(of))


def run_sweep(
    sweep: SweepConfig,
    out: Path,
    *,
    shard: Shard = Shard(),  # noqa: B008  # it cannot be changed
    num_workers: int = 1,
    ray_address: str | None = None,
    retry: bool = False,
    quiet: bool = False,
) -> Path:
    """Measure every run that has not been yet, and write `report.html`; returns its path.

    `out` receives `sweep.json`, and of each run `cells/KEY.json` and `cells/KEY/` with its model. A run that cannot be
    trained, or diverges, is kept as failed, and with `retry` measured again. Other processes and machines may be at
    work in the folder, each with a `shard` of the runs, and with workers of its own as `run_jobs` takes them.

    Raises:
        ValueError: a value fits in no run, there is no text, or `out` holds something else.
        OSError: the disk is full, or workers were killed; what was measured is kept.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            "a sweep's models are trained by one process each: start it without torchrun, with several workers"
        )
    require_workers(num_workers, ray_address)
    runs = sweep.runs()
    _check(out)
    share = [run for run in runs[shard.number :: shard.of] if run.recipe]
    jobs = {run.key: _job(run, out) for run in share}
    if retry:
        for run in share:
            if "failed" in (read_run(out, run) or {}):
                jobs[run.key].path(out / RUNS).unlink()
    _prepare([run for run in share if not jobs[run.key].path(out / RUNS).exists()], quiet)
    atomic_write(out / SWEEP, sweep.to_json())
    who = Workers(num_workers=num_workers, ray_address=ray_address)
    run_jobs([*jobs.values()], out / RUNS, **who, title=f"Sweeping {sweep.name}", quiet=quiet)
    return sweep_page(read_sweep(out)).write(out)


def _check(out: Path) -> None:
    """Raise ValueError where there is no folder to be, or it holds something else."""
    place_for("folder", out)
    others = sorted(path.name for path in out.iterdir() if path.name[0] != ".") if out.exists() else []
    if others and SWEEP not in others:
        raise ValueError(f"{out} holds something else than a sweep ({others[0]}): give another folder")


def _prepare(runs: Sequence[Run], quiet: bool) -> None:
    """Tokenize each corpus once, before workers would do so at the same time."""
    if not runs:
        return
    from memlm.data.token_store import prepare

    corpora = list(dict.fromkeys(run.recipe.data for run in runs if run.recipe))
    for data in corpora:
        try:
            prepare(data, quiet=quiet)
        except ValueError:
            if len(corpora) == 1:  # otherwise only some of the runs will fail of it
                raise


def _job(run: Run, out: Path) -> Job:
    folder = out / RUNS / run.key
    return Job(
        name=run.key,
        run=partial(_row, run, folder),
        num_tokens=run.num_tokens,
        tokens_done=partial(_tokens, run, folder),
    )


def _row(run: Run, folder: Path) -> Row:
    """A run's measures, or why it has none."""
    from memlm_evidence.sweep.measure import measure

    assert run.recipe
    about = {"key": run.key, "values": dict(run.values), "recipe": asdict(run.recipe)}
    try:
        return {**about, **measure(run.recipe, folder).to_dict()}
    # Those of the recipe, also too large a one. A full disk, or an interruption, says nothing of the run.
    except (ValueError, ArithmeticError, MemoryError, RuntimeError) as error:
        return {**about, "failed": (str(error) or repr(error)).splitlines()[0]}


def _tokens(run: Run, folder: Path) -> int:
    """That an unfinished run has been trained on."""
    try:
        rows = read_json_lines(folder / "metrics.jsonl")
        return min(int(rows[-1].get("tokens", 0)), run.num_tokens) if rows else 0
    except (OSError, ValueError):  # it is being written
        return 0

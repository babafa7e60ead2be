"""A sweep into a folder that any number of processes may share: each cell is claimed, measured and kept once."""

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple

from filelock import FileLock, Timeout

from memlm.runtime.files import atomic_write, place_for
from memlm.runtime.progress import track
from memlm.runtime.results import read_json_lines
from memlm_evidence.sweep.config import Cell, SweepConfig
from memlm_evidence.sweep.page import write_sweep_report
from memlm_evidence.sweep.rows import SWEEP, Row, cell_folder, read_row, row_path

_PATIENCE = 0.5
"""Seconds between looks at what others are doing."""


class Shard(NamedTuple):
    """Every `of`-th cell, from `number` on."""

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
    retry: bool = False,
    quiet: bool = False,
) -> Path:
    """Measure every cell that has not been yet, and write `report.html`; returns its path.

    `out` receives `sweep.json`, and of each cell `cells/KEY.json` and `cells/KEY/` with its model. A cell that cannot
    be trained, or diverges, is kept as failed.

    Args:
        sweep: what to measure.
        out: a folder, which other processes and machines may be at work in.
        shard: the share of the cells to measure here.
        num_workers: processes, each of one thread; 1 measures in this one, 0 is one for each core. Small models gain
            more from a core each than from all cores together.
        retry: measure cells again that have failed.
        quiet: show no progress.

    Raises:
        ValueError: a value fits in no cell, there is no text, or `out` holds something else.
        OSError: the disk is full, or workers were killed; what was measured is kept.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            "a sweep's cells are trained by one process each: start it without torchrun, with several workers"
        )
    if num_workers < 0:
        raise ValueError(f"there cannot be {num_workers} workers; 0 is one for each core")
    cells = sweep.cells()
    _check(out)
    share = [cell for cell in cells[shard.number :: shard.of] if cell.recipe]
    if retry:
        for cell in share:
            if "failed" in (read_row(out, cell) or {}):
                row_path(out, cell).unlink()
    if left := _unmeasured(share, out):
        _prepare(left, quiet)
    atomic_write(out / SWEEP, sweep.to_json())
    if left:
        (out / "cells").mkdir(exist_ok=True)
        with _watched(share, out, sweep.name, quiet):
            _measure_all(left, out, num_workers)
    return write_sweep_report(out)


def _check(out: Path) -> None:
    """Raise ValueError where there is no folder to be, or it holds something else."""
    place_for("folder", out)
    others = sorted(path.name for path in out.iterdir() if path.name[0] != ".") if out.exists() else []
    if others and SWEEP not in others:
        raise ValueError(f"{out} holds something else than a sweep ({others[0]}): give another folder")


def _unmeasured(cells: Sequence[Cell], out: Path) -> list[Cell]:
    return [cell for cell in cells if not row_path(out, cell).exists()]


def _prepare(cells: Sequence[Cell], quiet: bool) -> None:
    """Tokenize each corpus once, before workers would do so at the same time."""
    from memlm.data.token_store import prepare

    corpora = list(dict.fromkeys(cell.recipe.data for cell in cells if cell.recipe))
    for data in corpora:
        try:
            prepare(data, quiet=quiet)
        except ValueError:
            if len(corpora) == 1:  # otherwise only some of the cells will fail of it
                raise


def _measure_all(cells: Sequence[Cell], out: Path, num_workers: int) -> None:
    num_workers = min(num_workers or os.cpu_count() or 1, len(cells))
    if num_workers == 1:
        work(cells, out)
        return
    # Not a pool, which ends altogether when one of its processes is killed: here the others do what it has left.
    workers = [get_context("spawn").Process(target=_worker, args=(cells, out), daemon=True) for _ in range(num_workers)]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        for worker in workers:
            worker.kill()
    if left := _unmeasured(cells, out):
        codes = ", ".join(str(worker.exitcode) for worker in workers)
        raise ChildProcessError(
            f"{len(left)} cells are not measured: the workers ended with exit codes {codes} (-9 is killed, as when "
            "memory runs out: then give fewer workers); run it again to go on"
        )


def _worker(cells: Sequence[Cell], out: Path) -> None:
    import torch

    torch.set_num_threads(1)
    with suppress(KeyboardInterrupt):
        work(cells, out)


def work(cells: Sequence[Cell], out: Path) -> None:
    """Measure what nobody else is measuring, until all cells have a row."""
    while cells:
        left = [cell for cell in cells if not _attempt(cell, out)]
        if len(left) == len(cells):  # others are at all of them; one that is killed leaves its cell to us
            time.sleep(_PATIENCE)
        cells = left


def _attempt(cell: Cell, out: Path) -> bool:
    """Measure a cell unless somebody else does; returns whether it has a row."""
    path = row_path(out, cell)
    if path.exists():
        return True
    parent = parent_process()
    if parent and not parent.is_alive():
        raise KeyboardInterrupt  # nobody waits for this worker any more
    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    try:
        if not path.exists():
            atomic_write(path, json.dumps(_row(cell, out)) + "\n")
    finally:
        lock.release()
    return True


def _row(cell: Cell, out: Path) -> Row:
    """A cell's measures, or why it has none."""
    from memlm_evidence.sweep.measure import measure

    assert cell.recipe
    about = {"key": cell.key, "values": dict(cell.values), "recipe": asdict(cell.recipe)}
    try:
        return {**about, **measure(cell.recipe, cell_folder(out, cell)).to_dict()}
    # Those of the recipe, also too large a one. A full disk, or an interruption, says nothing of the cell.
    except (ValueError, ArithmeticError, MemoryError, RuntimeError) as error:
        return {**about, "failed": (str(error) or repr(error)).splitlines()[0]}


@contextmanager
def _watched(cells: Sequence[Cell], out: Path, name: str, quiet: bool) -> Iterator[None]:
    """Show how far all processes together are, as their files tell."""
    unfinished, over = list(cells), Event()

    def look() -> int:
        unfinished[:] = _unmeasured(unfinished, out)
        done = total - sum(cell.num_tokens for cell in unfinished)
        return done + sum(_tokens(cell, out) for cell in unfinished)

    def watch() -> None:
        before, ended = begin, False
        while not ended:
            ended = over.wait(_PATIENCE)
            now = look()
            advance(now - before, f"{len(cells) - len(unfinished)} of {len(cells)} cells")
            before = now

    total = sum(cell.num_tokens for cell in cells)
    begin = look()
    with track(f"Sweeping {name}", total=total, unit="tokens", completed=begin, quiet=quiet) as advance:
        watcher = Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()


def _tokens(cell: Cell, out: Path) -> int:
    """That an unfinished cell has been trained on."""
    try:
        rows = read_json_lines(cell_folder(out, cell) / "metrics.jsonl")
        return min(int(rows[-1].get("tokens", 0)), cell.num_tokens) if rows else 0
    except (OSError, ValueError):  # it is being written
        return 0

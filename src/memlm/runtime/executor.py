"""Jobs in workers, of this machine or of Ray: each done once and its row written, whoever shares the folder or is
killed."""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any, TypedDict

from filelock import FileLock, Timeout

from memlm.runtime.cluster import in_ray_workers, require_ray
from memlm.runtime.files import atomic_write, make_folder
from memlm.runtime.progress import track

Row = dict[str, Any]


class Workers(TypedDict):
    """Who does jobs, as `run_jobs` takes it."""

    num_workers: int
    ray_address: str | None


_PATIENCE = 0.5
"""Seconds between looks at what others are doing."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One piece of work, whose row does not depend on any other's."""

    name: str
    """Of the row's file; where several plans have jobs of one name, `plan` tells them apart."""
    run: Callable[[], Row]
    """Does it; pickled for workers. What it leaves in a folder of its own, another attempt may go on from."""
    plan: str = ""
    """Digest of all that the row depends on, unless the name says it; a row by another plan is refused."""
    num_tokens: int = 0
    """How much work it is, for the progress bar."""
    tokens_done: Callable[[], int] | None = None
    """How much of it has been done, where a job tells while it runs."""
    group: str = ""
    """Jobs of one group share a folder: they run in order, in one process."""
    exclusive: bool = False
    """Whether it is time that is measured: it runs alone, in this process, after all others."""

    def path(self, folder: Path) -> Path:
        """Where its row is."""
        return folder / f"{self.name}.json"

    def row(self, folder: Path) -> Row | None:
        """Its row; None if it is yet to be done. Same errors as `read_row`."""
        return read_row(self.path(folder), self.plan)


def read_row(path: Path, plan: str = "") -> Row | None:
    """The row in a file; None if there is none.

    Raises:
        ValueError: the file is damaged, or was not made by the plan.
    """
    if not path.exists():
        return None
    try:
        row: Row = json.loads(path.read_text(encoding="utf-8"))
        if plan and row.get("plan") != plan:
            raise ValueError(f"{row.get('plan')} is not {plan}")
        return {**row}
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} was measured by another plan, or is damaged ({error}); remove it to measure again"
        ) from None


def num_processes(asked: int) -> int:
    """So many processes; 0 is one for each core.

    Raises:
        ValueError: it is negative.
    """
    if asked < 0:
        raise ValueError(f"there cannot be {asked} workers; 0 is one for each core")
    return asked or os.cpu_count() or 1


def require_workers(num_workers: int, ray_address: str | None = None) -> None:
    """Raise ValueError where `run_jobs` cannot have such workers: before anything that takes long is begun."""
    num_processes(num_workers)
    if ray_address is not None:
        require_ray(ray_address, "--ray-address")


def run_jobs(
    jobs: Sequence[Job],
    folder: Path,
    *,
    num_workers: int = 1,
    ray_address: str | None = None,
    title: str = "Measuring",
    quiet: bool = False,
) -> list[Row]:
    """Do all jobs that have no row in the folder yet; returns the rows of all, in order.

    Any number of processes and machines may share the folder, which gets a file for each row: a job is claimed by a
    file lock, which is let go when its holder dies. `num_workers` are processes, each with a share of the threads; 1
    does everything in this one, 0 is one for each core. Small models gain more from a core each than from all together.

    With a `ray_address` they are Ray's (`local`, or a cluster's, whose machines all share the folder), and 0 is one for
    each GPU, or core, that Ray has. Where a worker is lost, of this machine or of Ray, others do what it was at.

    Raises:
        ValueError: a negative number of workers, no such Ray, or the row that is damaged; and whatever a job raises,
            which ends all.
        ChildProcessError: workers were killed; names what killed one that worked alone, and is not done.
    """
    require_workers(num_workers, ray_address)
    make_folder(folder)
    left = [job for job in jobs if job.row(folder) is None]
    groups: dict[str, list[Job]] = {}
    for job in left:
        if not job.exclusive:
            groups.setdefault(job.group or job.name, []).append(job)
    with _progress(jobs, folder, title, quiet):
        _do([*groups.values()], folder, num_workers, ray_address)
        _work([[job] for job in left if job.exclusive], folder)
    return [row for job in jobs if (row := job.row(folder)) is not None]


def _do(groups: list[list[Job]], folder: Path, num_workers: int, ray_address: str | None) -> None:
    """Do all groups, by whoever is asked for."""
    number = num_workers if ray_address is not None else min(num_processes(num_workers), len(groups))
    if ray_address is not None or number > 1:
        _in_workers(groups, folder, number, ray_address)
    else:
        _work(groups, folder)


def claim(group: Sequence[Job], folder: Path) -> bool:
    """Do the jobs of a group that have no row yet; returns False if another process is at work on it."""
    try:
        held = FileLock(_lock(group, folder), timeout=0).acquire()
    except Timeout:
        return False
    with held:
        _lock(group, folder).touch()  # opening an empty file again need not: `_begun`
        for job in _not_done(group, folder):
            row = {**job.run(), **({"plan": job.plan} if job.plan else {})}
            atomic_write(job.path(folder), json.dumps(row, indent=2) + "\n")
    return True


def _lock(group: Sequence[Job], folder: Path) -> Path:
    return folder / f".{group[0].group or group[0].name}.lock"


def _not_done(group: Sequence[Job], folder: Path) -> list[Job]:
    return [job for job in group if not job.path(folder).exists()]


def _work(groups: list[list[Job]], folder: Path, *, begun_last: bool = False) -> None:
    """Claim all groups, again and again: others may be at work on some, and leave them to us when killed.

    What was begun may have killed who began it: taken last, it keeps nobody from the others.
    """
    while groups:
        in_order = sorted(groups, key=lambda group: begun_last and _lock(group, folder).exists())
        left = [group for group in in_order if not claim(group, folder)]
        if len(left) == len(groups):
            time.sleep(_PATIENCE)
        groups = left


def _in_workers(groups: list[list[Job]], folder: Path, num_workers: int, ray_address: str | None) -> None:
    """The same in several processes, which share the folder as any others do.

    Where some are killed, others do what is left, fewer of them, since it may be memory that ran out. What one that
    worked alone was killed at is given up.

    Raises:
        ChildProcessError: something was given up; names it.
    """
    given_up = list[list[Job]]()
    while groups:
        if ray_address is not None:
            lost = _in_ray(groups, folder, num_workers, ray_address)
        else:
            lost = _in_pool(groups, folder, min(num_workers, len(groups)))
        groups = [group for group in groups if _not_done(group, folder)]
        if groups and num_workers == 1:
            given_up.append(max(groups, key=lambda group: _begun(group, folder)))
            groups.remove(given_up[-1])
        num_workers = max(1, num_workers - lost)
    if names := ", ".join(job.name for group in given_up for job in _not_done(group, folder)):
        raise ChildProcessError(
            f"not done: {names}; all workers were killed, as when memory runs out: then give fewer workers; run it "
            "again to go on"
        )


def _in_pool(groups: list[list[Job]], folder: Path, num_workers: int) -> int:
    """In processes of this machine; all end where one is killed. Returns how many were lost."""
    from joblib.externals.loky import ProcessPoolExecutor, as_completed
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    begin = (max(1, num_processes(0) // num_workers), os.getpid())
    pool = ProcessPoolExecutor(num_workers, initializer=_begin_worker, initargs=begin)
    try:
        for done in as_completed([pool.submit(_work, groups, folder, begun_last=True) for _ in range(num_workers)]):
            done.result()  # whatever fails ends all, at once
    except TerminatedWorkerError:
        return 1
    finally:
        pool.shutdown(kill_workers=True)
    return 0


def _in_ray(groups: list[list[Job]], folder: Path, num_workers: int, address: str) -> int:
    """In Ray's workers, of which the others go on where one is lost. Returns how many were lost."""
    folder = folder.resolve()

    def is_done() -> bool:
        return not any(_not_done(group, folder) for group in groups)

    work = partial(_work, groups, folder, begun_last=True)
    return in_ray_workers(work, folder, is_done, num_workers=num_workers, at_most=len(groups), address=address)


def _begun(group: Sequence[Job], folder: Path) -> float:
    """When it was begun last."""
    lock = _lock(group, folder)
    return lock.stat().st_mtime if lock.exists() else 0.0


def _begin_worker(num_threads: int, parent: int) -> None:
    """Give this process so many threads, and end it with its parent: nobody else may find a folder free that it works
    on in."""
    import torch

    torch.set_num_threads(num_threads)

    def end_with_parent() -> None:
        while os.getppid() == parent:
            time.sleep(_PATIENCE)
        os._exit(1)

    Thread(target=end_with_parent, daemon=True).start()


@contextmanager
def _progress(jobs: Sequence[Job], folder: Path, title: str, quiet: bool) -> Iterator[None]:
    """Show how far all processes together are, as their files tell."""
    total, over = sum(job.num_tokens for job in jobs), Event()
    unfinished = _not_done(jobs, folder)
    if quiet or not unfinished or not total:
        yield
        return

    def done() -> int:
        unfinished[:] = _not_done(unfinished, folder)
        left = sum(job.num_tokens for job in unfinished)
        return total - left + sum(job.tokens_done() for job in unfinished if job.tokens_done)

    def watch() -> None:
        before, ended = begin, False
        while not ended:
            ended = over.wait(_PATIENCE)
            now = done()
            advance(now - before, f"{len(jobs) - len(unfinished)} of {len(jobs)}")
            before = now

    begin = done()
    with track(title, total=total, unit="tokens", completed=begin) as advance:
        watcher = Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

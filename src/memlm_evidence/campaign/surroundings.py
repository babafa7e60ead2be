"""Work where the disk is full, a folder read-only, the clock jumps, or somebody else does the same at once."""

import os
from pathlib import Path

from memlm_evidence.campaign.disk import ROOM, Disk
from memlm_evidence.campaign.part import REFUSALS, Part
from memlm_evidence.campaign.processes import SIGNALS, USUAL, Surroundings, begin
from memlm_evidence.campaign.workshop import Case

_LEAST_BYTES = 1 << 12
_SAID = {
    "full": ("no space left", "file too large"),
    "read-only": ("read-only file system", "permission denied"),
    "taken": ("somebody else is", "is being written by", "exists; open it"),
}
"""What a refusal names."""
_YEARS = 3e8
"""Seconds by which files' times are wrong."""


def full_disk(part: Part, case: Case, place: Disk, folder: Path) -> tuple[str, int]:
    """A disk that is too small, or a limit on the size of files; then there is room."""
    size = part.rng.randint(_LEAST_BYTES, max(2 * _LEAST_BYTES, case.num_bytes))
    place.resize(size)
    said = begin(case.work, folder, Surroundings(file_bytes=None if place.mounted else size)).end()
    if fault := case.work.lost(folder):
        raise AssertionError(f"on a full disk: {fault}")
    place.resize(ROOM)
    _finish(case, folder)
    where = "a small disk" if place.mounted else "a limit on the size of files"
    return f"{where}: {_refused(said, 'full')}", 1


def read_only(part: Part, case: Case, place: Disk, folder: Path) -> tuple[str, int]:
    """A folder that becomes read-only somewhere on the way; then it can be written again."""
    begin(case.work, folder).stop(part.rng.uniform(0, case.usual_seconds), part.rng.choice(SIGNALS))
    done = case.work.result(folder) is not None
    with place.read_only():
        if place.mounted or not os.access(folder, os.W_OK):
            outcome = f"a read-only folder: {_while_read_only(case, folder, done)}"
        else:
            outcome = "not tried: this user may write everywhere, and mount nothing"
    _finish(case, folder)
    return outcome, 1


def _while_read_only(case: Case, folder: Path, done: bool) -> str:
    said = begin(case.work, folder).end()
    if fault := case.work.lost(folder):
        raise AssertionError(f"while it cannot be written: {fault}")
    if said is None and not done:
        raise AssertionError("it was done in a folder that cannot be written")
    return _refused(said, "read-only")


def jumping_clock(part: Part, case: Case, place: Disk, folder: Path) -> tuple[str, int]:
    """Each look at the clock shows another day, and so do the files that are gone on from."""
    running = begin(case.work, folder, Surroundings(clock_seed=part.rng.randrange(1 << 30)))
    running.stop(part.rng.uniform(0, case.usual_seconds), part.rng.choice(SIGNALS))
    for path in folder.rglob("*"):
        now = path.stat().st_mtime + part.rng.uniform(-_YEARS, _YEARS)
        os.utime(path, (now, now))
    _finish(case, folder, Surroundings(clock_seed=part.rng.randrange(1 << 30)))
    return "a clock that jumps: done", 1


def two_writers(part: Part, case: Case, place: Disk, folder: Path) -> tuple[str, int]:
    """Two do the same at once."""
    both = [begin(case.work, folder, Surroundings(writer=number)) for number in range(2)]
    said = [running.end() for running in both]
    if all(said):
        raise AssertionError(f"neither was let: {said}")
    outcome = _refused(next(filter(None, said), None), "taken")
    # Who was refused has a turn.
    for number in range(2):
        _finish(case, folder, Surroundings(writer=number))
    return f"two writers: {'both kept' if outcome == 'done' else outcome}", 1


def _finish(case: Case, folder: Path, surroundings: Surroundings = USUAL) -> None:
    if fault := begin(case.work, folder, surroundings).end():
        raise AssertionError(f"gone on with, it fails: {fault}")


def _refused(said: str | None, why: str) -> str:
    """What to call the end of a process that must either be done, or say why it is not."""
    if said is None:
        return "done"
    if not said.startswith(tuple(f"{kind.__name__}: " for kind in REFUSALS)) or not any(
        word in said.lower() for word in _SAID[why]
    ):
        raise AssertionError(f"not refused by name: {said}")
    return "refused by name"

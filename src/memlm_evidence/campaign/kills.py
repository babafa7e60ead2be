"""Processes killed at random moments: what they said was done is done, and what they go on with ends the same."""

from pathlib import Path

from memlm_evidence.campaign.disk import Disk
from memlm_evidence.campaign.part import Part
from memlm_evidence.campaign.processes import SIGNALS, begin
from memlm_evidence.campaign.workshop import Case


def killed(part: Part, case: Case, place: Disk, folder: Path) -> tuple[str, int]:
    """Killed again and again until it is done, by one signal; what is finished is not made again."""
    number, work = part.rng.choice(SIGNALS), case.work
    kills, before = 0, work.finished(folder)
    while begin(work, folder).stop(_moment(part, case, kills), number):
        kills += 1
        now = work.finished(folder)
        again = [name for name, written in before.items() if now.get(name) != written]
        if fault := work.lost(folder) or (f"made again: {', '.join(again)}" if again else None):
            raise AssertionError(f"killed {kills} times by {number.name}: {fault}")
        before = now
    return f"killed by {number.name}", kills


def _moment(part: Part, case: Case, kills: int) -> float | None:
    """When to kill, in seconds: later after many kills, which may have left nothing; when time is over not at all."""
    if part.is_over and (kills or part.found.tries):
        return None
    return part.rng.uniform(0, case.usual_seconds * (1 + kills / 4))

"""What a campaign found, as a table."""

from collections.abc import Mapping
from typing import Any

from memlm.runtime.tables import Table

_WHAT = {
    "kills-append": "appends to a file, killed",
    "kills-replace": "folders being replaced, killed",
    "kills-encode": "bulk encoding, killed",
    "kills-probe": "probes, killed",
    "kills-train": "trainings of four kinds, killed",
    "full-disk": "the same work on a full disk",
    "read-only": "in a folder that becomes read-only",
    "clock": "by a clock that jumps",
    "two-writers": "by two at once",
    "surrogates": "texts that UTF-8 cannot say",
    "checkpoints": "damaged checkpoints",
    "regenerated": "hard texts through vectors alone",
    "long-lines": "very long lines",
    "memory-files": "damaged memory files",
    "remembered": "hard texts through memory files",
}
"""What each part tries."""


def campaign_table(answer: Mapping[str, Any]) -> Table:
    """A row for each part of what `memlm bench campaign` gives."""
    rows = [
        [
            _WHAT[part["part"]],
            f"{part['tries']:,}",
            f"{part['wanted']:,}",
            f"{len(part['faults']):,}",
            _rate(part["tries"], part["seconds"]),
        ]
        for part in answer["parts"]
    ]
    return Table(["what was tried", "times", "of", "faults", "a second"], rows)


def _rate(tries: int, seconds: float) -> str:
    rate = tries / max(seconds, 1e-9)
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2f}"

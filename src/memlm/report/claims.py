"""Every claim with what was measured, its threshold and its verdict: a table, and a page."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from memlm.claims import Decision, Row
from memlm.files import atomic_write
from memlm.report.blocks import Definitions, KeyNumbers, Table
from memlm.report.page import Page, Section
from memlm.report.text import number


def read_results(folders: Sequence[Path]) -> Mapping[str, list[Row]]:
    """The results in folders, by experiment, a row for each seed.

    A file is named by its experiment, and by its seed if it is one of several: `recall.json`, `recall-seed-2.json`. It
    holds one result, or a list of them.

    Raises:
        ValueError: a folder that does not exist, or a file that is not JSON.
    """
    found: dict[str, list[Row]] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"there is no folder {folder}; give one that `memlm reproduce` has written into")
        for path in sorted(folder.glob("*.json")):
            try:
                read = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise ValueError(f"{path} is not a result that memlm wrote: {error}") from None
            found.setdefault(path.stem.split("-seed-")[0], []).extend(read if isinstance(read, list) else [read])
    return found


def write_claims_report(decisions: Sequence[Decision], folder: Path) -> Path:
    """Write `claims.html` and `claims.md`, each whole or not at all, and return the page's path."""
    page = claims_page(decisions)
    atomic_write(folder / "claims.md", page.to_markdown())
    atomic_write(folder / "claims.html", page.to_html())
    return folder / "claims.html"


def claims_page(decisions: Sequence[Decision]) -> Page:
    """The page of all claims that were decided."""
    verdicts = [decision.verdict for decision in decisions]
    counts = [(str(verdicts.count(verdict)), verdict) for verdict in ("holds", "fails", "undecided")]
    lead = (
        "Next-token-trained language models store little of their input in a vector; autoencoders store nearly all of "
        "it, and memory models can use that. Each claim has a number that decides it, and a threshold."
    )
    told = Definitions([(decision.claim.statement, decision.claim.quantity) for decision in decisions])
    return Page(
        "What is claimed, and what was measured",
        lead,
        [
            Section("In short", "", [KeyNumbers(counts)]),
            Section("Claims", "", [claims_table(decisions)]),
            Section("What decides each", "", [told]),
        ],
    )


def claims_table(decisions: Sequence[Decision]) -> Table:
    """A row for each claim."""
    header = ["claim", "measured", "interval", "wanted", "verdict", "seeds"]
    rows = [
        [
            claim.name,
            number(measured.value, 4),
            "—" if measured.low == measured.high else f"[{number(measured.low, 4)}, {number(measured.high, 4)}]",
            f"{'≥' if claim.at_least else '≤'} {claim.threshold:g}",
            verdict,
            str(num_seeds),
        ]
        for claim, measured, verdict, num_seeds in decisions
    ]
    caption = (
        "Measured: the mean over seeds; the interval holds the 95% intervals of all of them. A claim holds, or fails, "
        "if the whole interval does."
    )
    return Table(header, rows, caption)

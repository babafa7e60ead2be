"""Every claim with what was measured, its threshold and its verdict: a table, and a page with what is behind each."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from memlm.runtime.files import atomic_write
from memlm.runtime.results import Provenance
from memlm.runtime.tables import Table
from memlm.runtime.wording import duration, human, number
from memlm_evidence.claims import Decision, ExperimentResult
from memlm_evidence.experiments.table import EXPERIMENTS
from memlm_evidence.pages.figures import interval_figure
from memlm_evidence.pages.page import Page

Results = Mapping[str, Sequence[ExperimentResult]]
"""By experiment, one for each seed."""


def write_claims_report(decisions: Sequence[Decision], results: Results, folder: Path) -> Path:
    """Write `report.html` and `report.md`, each whole or not at all, and return the page's path."""
    page = claims_page(decisions, results)
    atomic_write(folder / "report.md", page.to_markdown())
    return page.write(folder)


def claims_page(decisions: Sequence[Decision], results: Results) -> Page:
    """The page of claims that were decided, and of results, those that decided them among them."""
    verdicts = [decision.verdict for decision in decisions]
    parts = (experiment.page(results[experiment.name]) for experiment in EXPERIMENTS if experiment.name in results)
    data = {
        "counts": [(str(verdicts.count(verdict)), verdict) for verdict in ("holds", "fails", "undecided")],
        "claims": claims_table(decisions),
        "decided": list(map(_decided, decisions)),
        "evidence": list(filter(None, parts)),
        "costs": _costs(results),
    }
    return Page("experiments/claims", data)


def claims_table(decisions: Sequence[Decision]) -> Table:
    """A row for each claim."""
    header = ["claim", "verdict", "measured", "interval", "wanted", "seeds", "took"]
    rows = [
        [
            found.claim.name,
            found.verdict,
            number(found.measured.value, 4),
            _interval(found.measured.low, found.measured.high),
            _wanted(found),
            str(found.num_seeds),
            duration(found.seconds),
        ]
        for found in decisions
    ]
    caption = (
        "Measured: the mean over seeds; the interval holds the 95% intervals of all of them. A claim holds, or fails, "
        "if the whole interval does. What an experiment took is said of each claim that it decides."
    )
    return Table(header, rows, caption)


def _decided(decision: Decision) -> Mapping[str, Any]:
    """A claim: its statement, its verdict, and the number that decides it, seed by seed."""
    claim, measured = decision.claim, decision.by_seed
    names = [f"run {place}" for place in range(1, len(measured) + 1)]
    cells = [
        [name, number(each.value, 4), _interval(each.low, each.high)]
        for name, each in zip(names, measured, strict=True)
    ]
    alt = f"{claim.quantity}: {number(decision.measured.value, 4)}, wanted {_wanted(decision)}: {decision.verdict}."
    return {
        "title": human(claim.name.replace("-", " ")).capitalize(),
        "statement": claim.statement,
        "verdict": decision.verdict,
        "wanted": _wanted(decision),
        "figure": interval_figure(names, measured, alt, threshold=claim.threshold, x_label=claim.quantity),
        "table": Table(["", claim.quantity, "95% interval"], cells),
    }


def _costs(results: Results) -> Table:
    """What made each result, and how long it took."""
    header = ["experiment", "took", "memlm", "torch", "machine", "settings"]
    rows = [
        [name, duration(row.seconds), *_provenance(row.provenance)] for name, seeds in results.items() for row in seeds
    ]
    return Table(header, rows)


def _provenance(made: Provenance) -> Iterator[str]:
    yield f"{made.memlm}{f', {made.commit}' if made.commit else ''}"
    yield made.torch
    yield f"{made.machine}, {made.num_threads} {'thread' if made.num_threads == 1 else 'threads'}"
    yield json.dumps(made.settings)


def _interval(low: float, high: float) -> str:
    return "—" if low == high else f"[{number(low, 4)}, {number(high, 4)}]"


def _wanted(decision: Decision) -> str:
    return f"{'≥' if decision.claim.at_least else '≤'} {decision.claim.threshold:g}"

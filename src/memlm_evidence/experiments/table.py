"""All experiments and their claims, in the order of the argument."""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from memlm.runtime.files import atomic_write
from memlm.runtime.tables import Table
from memlm.runtime.untrusted import json_of
from memlm.runtime.wording import duration, human, number
from memlm_evidence.claims import Claim, Decision, ExperimentResult
from memlm_evidence.experiments.costs import MEMORY_TRAINING, SUBSTITUTION
from memlm_evidence.experiments.embeddings import EMBEDDINGS
from memlm_evidence.experiments.exact_recall import EXACT_RECALL
from memlm_evidence.experiments.experiment import Experiment
from memlm_evidence.experiments.foreign_text import FOREIGN_TEXT
from memlm_evidence.experiments.long_generation import LONG_GENERATION
from memlm_evidence.experiments.memory_model import MEMORY_MODEL
from memlm_evidence.experiments.mixers import MIXERS_COMPARED
from memlm_evidence.experiments.non_invertible import NON_INVERTIBLE
from memlm_evidence.experiments.settle_causal import SETTLE_CAUSAL
from memlm_evidence.pages.figures import interval_figure
from memlm_evidence.pages.page import Page, Section, made_by

EXPERIMENTS: tuple[Experiment[Any, Any], ...] = (
    EMBEDDINGS,
    FOREIGN_TEXT,
    MIXERS_COMPARED,
    MEMORY_MODEL,
    EXACT_RECALL,
    LONG_GENERATION,
    SUBSTITUTION,
    MEMORY_TRAINING,
    NON_INVERTIBLE,
    SETTLE_CAUSAL,
)
CLAIMS: tuple[Claim[Any], ...] = tuple(
    replace(claim, experiment=experiment.name) for experiment in EXPERIMENTS for claim in experiment.claims
)
PRESETS = ("quick", "standard", "paper")


def named(names: Sequence[str]) -> list[Claim[Any]]:
    """The claims of these names, in the order of the argument; all, without any.

    Raises:
        ValueError: there is no such claim; says which is nearest.
    """
    known = [claim.name for claim in CLAIMS]
    for name in names:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise ValueError(f"there is no claim {name!r}; did you mean {nearest}? There are {', '.join(known)}")
    return [claim for claim in CLAIMS if not names or claim.name in names]


def read_results(folders: Sequence[Path]) -> Mapping[str, list[Any]]:
    """The results in folders, by experiment, one for each seed.

    A file is named by its experiment, and by its seed if it is one of several: `recall.json`, `recall-seed-2.json`. It
    holds one result, or a list of them. Files of other names are left alone.

    Raises:
        ValueError: a folder that does not exist, or the file that is no such result: names the field that is absent.
    """
    known = {experiment.name: experiment.result for experiment in EXPERIMENTS}
    found: dict[str, list[Any]] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"there is no folder {folder}; give one that `memlm reproduce` has written into")
        for path in sorted(folder.glob("*.json")):
            name = path.stem.split("-seed-")[0]
            if name in known:
                found.setdefault(name, []).extend(_read(path, known[name]))
    return found


def _read(path: Path, result: type[ExperimentResult]) -> list[ExperimentResult]:
    try:
        read = json_of(path.read_text(encoding="utf-8"))
        return [result.from_dict(row) for row in (read if isinstance(read, list) else [read])]
    except ValueError as error:
        raise ValueError(f"{path} is not a result that memlm wrote: {error}") from None


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
        "sections": [Section("Claims", table=claims_table(decisions)), *map(_decided, decisions)],
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
        "Measured: the mean over seeds. The interval holds the 95% intervals of all seeds; a claim holds, or fails, if "
        "the whole interval does. Took: the time of the whole experiment, shown at each claim that it decides."
    )
    return Table(header, rows, caption)


def _decided(decision: Decision) -> Section:
    """A claim: its statement, its verdict, and the number that decides it, seed by seed."""
    claim, measured = decision.claim, decision.by_seed
    names, wanted = [f"run {place}" for place in range(1, len(measured) + 1)], _wanted(decision)
    cells = [
        [name, number(value, 4), _interval(low, high)] for name, (value, low, high) in zip(names, measured, strict=True)
    ]
    alt = f"{claim.quantity}: {number(decision.measured.value, 4)}, wanted {wanted}: {decision.verdict}."
    return Section(
        human(claim.name.replace("-", " ")).capitalize(),
        f"{claim.statement} {decision.verdict.capitalize()}: {wanted} was wanted.",
        [interval_figure(names, measured, alt, threshold=claim.threshold, x_label=claim.quantity)],
        Table(["", claim.quantity, "95% interval"], cells),
    )


def _costs(results: Results) -> Table:
    """What made each result, and how long it took."""
    header = ["experiment", "took", "memlm", "torch, Python", "machine", "settings"]
    rows = [
        [
            name,
            duration(row.seconds),
            *(told for _, told in made_by(row.provenance)[:3]),
            json.dumps(row.provenance.settings),
        ]
        for name, seeds in results.items()
        for row in seeds
    ]
    return Table(header, rows)


def _interval(low: float, high: float) -> str:
    return "—" if low == high else f"[{number(low, 4)}, {number(high, 4)}]"


def _wanted(decision: Decision) -> str:
    return f"{'≥' if decision.claim.at_least else '≤'} {decision.claim.threshold:g}"

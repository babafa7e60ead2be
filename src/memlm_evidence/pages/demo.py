"""The demo's page: how much of a text comes back from its memories, ours beside the reference."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

from memlm.runtime.results import Provenance, Result, read_json_lines
from memlm.runtime.tables import fill_table, metrics_table, set_name
from memlm.runtime.wording import in_words
from memlm_evidence.pages.figures import Figure, Line, line_figure
from memlm_evidence.pages.page import Page, made_by, meanings

REFERENCE = Path(str(resources.files("memlm_evidence") / "recordings" / "demo_reference.json"))
"""The recorded run of the demo's reference."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a training run left behind."""

    results: Mapping[str, Result]
    """By evaluation set, in the file's order; of results written twice the last counts."""
    metrics: Sequence[Mapping[str, Any]]
    samples: Sequence[Mapping[str, Any]] = ()
    recorded: bool = False
    """Whether the run was not made here but came as a record."""

    @property
    def name(self) -> str:
        """What the run is called as a reference."""
        return "Reference, recorded" if self.recorded else "Reference"

    @property
    def main(self) -> Result:
        """The result on held-out text, else the first."""
        return self.results.get("held_out") or next(iter(self.results.values()))

    @property
    def validation(self) -> list[Mapping[str, Any]]:
        """The rows of the validation curve; may be empty."""
        return [row for row in self.metrics if row.get("split") == "validation"]

    @property
    def provenance(self) -> Provenance | None:
        """What made the run, as far as its results say."""
        return next((result.provenance for result in self.results.values() if result.provenance), None)

    def reached(self, name: str) -> Any:
        """The last value of a training row's `name`, such as `tokens` or `seconds`; None if never written."""
        return next((row[name] for row in reversed(self.metrics) if row.get(name) is not None), None)


def read_run(path: Path) -> Run:
    """The run in a folder, or of a JSON file that records one (results, metrics, recorded).

    Raises:
        ValueError: there are no results, or a file is damaged; names it.
    """
    parts: dict[str, Any]
    if path.is_dir():
        parts = {name: read_json_lines(path / f"{name}.jsonl") for name in ("results", "metrics", "samples")}
    else:
        parts = json.loads(path.read_text(encoding="utf-8"))
    if not parts["results"]:
        raise ValueError(f"no results in {path}; `memlm demo` makes them")
    try:
        results = {result.name: result for result in map(Result.from_dict, parts["results"])}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        damaged = path / "results.jsonl" if path.is_dir() else path
        raise ValueError(f"{damaged} is damaged: a row is no result ({error!r})") from None
    return Run(**{**parts, "results": results})


_COMPARED = ("token_accuracy", "exact_match", "bits_per_byte", "retained_bits_per_token", "entropy_ratio")
_BY_DOCUMENTS = "Below a number: its 95% interval, from resampling whole documents."


def demo_page(folder: Path, reference: Path | None = None) -> Page:
    """The page of a demo run, beside a `reference`: a run's folder or a recorded run.

    Raises:
        ValueError: one of them has no results.
    """
    run, other = read_run(folder), read_run(reference) if reference else None
    results, validation = list(run.results.values()), run.validation
    curves = {"This recipe": validation} | ({other.name: other.validation} if other else {})
    data = {
        "run": run,
        "other": other,
        "own_set": set_name(run.main).lower(),
        "by_set": metrics_table(results, first="evaluation set", caption=f"By evaluation set. {_BY_DOCUMENTS}"),
        "meanings": meanings(results),
        "by_length": fill_table(results, _BY_DOCUMENTS),
        "by_position": accuracy_by_position(results),
        "learning": learning_curves({label: rows for label, rows in curves.items() if rows}),
        "comparison": _comparison(run, other) if other else None,
        "first_length": validation[0].get("chunk_len") if validation else None,
        "growth": [
            (before["tokens"], after["chunk_len"])
            for before, after in pairwise(validation)
            if before.get("chunk_len") != after.get("chunk_len")
        ],
        "fallen": _fallen(run),
        "made_by": made_by(run.provenance, run.reached("tokens_per_second")),
        "other_made_by": made_by(other.provenance, other.reached("tokens_per_second")) if other else [],
    }
    return Page("demo", data)


def learning_curves(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure | None:
    """Token accuracy over training, a curve for each run; of rows written twice (a resumed run) the last counts."""
    if not curves:
        return None
    lines = []
    for label, rows in curves.items():
        found = {row["tokens"]: row["token_accuracy"] for row in rows if row.get("token_accuracy") is not None}
        points = sorted(found.items())
        lines.append(Line(label, [tokens for tokens, _ in points], [accuracy for _, accuracy in points]))
    ends = "; ".join(f"{line.label} ends at {in_words(line.y[-1] if line.y else None)}" for line in lines)
    alt = f"Token accuracy on validation text over training: {ends}."
    return line_figure(lines, alt, x_label="training tokens", y_label="token accuracy", y_limits=(0.0, 1.0))


def accuracy_by_position(results: Sequence[Result]) -> Figure | None:
    """Token accuracy at each position of a chunk, a curve for each evaluation set."""
    curves = {set_name(each): each.measures.get("accuracy_by_position") for each in results}
    lines = [Line(label, range(1, len(values) + 1), values) for label, values in curves.items() if values]
    if not lines:
        return None
    ends = []
    for line in lines:
        low, high = in_words(min(line.y)), in_words(max(line.y))
        ends.append(f"{line.label} {low if low == high else f'from {low} to {high}'}")
    alt = f"Token accuracy by position in the chunk: {'; '.join(ends)}."
    return line_figure(lines, alt, x_label="position in the chunk", y_label="token accuracy", y_limits=(0.0, 1.0))


def _comparison(run: Run, other: Run) -> Any:
    models = [
        Result(name=name, measures=each.main.measures, intervals=each.main.intervals)
        for name, each in (("This recipe", run), (other.name, other))
    ]
    caption = f"On {set_name(run.main).lower()}. Below a number: its 95% interval."
    return metrics_table(models, measures=_COMPARED, first="model", caption=caption)


def _fallen(run: Run) -> list[tuple[float, str]]:
    """Token accuracy on evaluation sets where it reads lower than on held-out text, highest first."""
    own = run.main.measures.get("token_accuracy") or 0.0
    found = [(each.measures.get("token_accuracy"), set_name(each).lower()) for each in run.results.values()]
    return sorted(
        (
            (value, name)
            for value, name in found
            if value is not None and value < own and in_words(value) != in_words(own)
        ),
        reverse=True,
    )

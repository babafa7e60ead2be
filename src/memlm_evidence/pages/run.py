"""A run's result files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from memlm.runtime.results import Provenance, Result, read_json_lines

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

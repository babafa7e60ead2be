"""A run's result files, read and checked."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from memlm.runtime.results import Provenance, Result, read_json_lines

REFERENCE = Path(str(resources.files("memlm_evidence") / "recordings" / "demo_reference.json"))
"""The recorded run of the demo's reference."""

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a training run left behind."""

    results: Mapping[str, Result]
    """By evaluation set, in the file's order; of results written twice the last counts."""
    metrics: Rows
    samples: Rows = ()
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


def read_run(folder: Path, *, with_samples: bool = True) -> Run:
    """The run in a folder.

    Raises:
        ValueError: the file that is missing, empty or broken.
    """
    samples = _rows(folder, "samples.jsonl") if with_samples else []
    return _run(folder, _rows(folder, "results.jsonl"), _rows(folder, "metrics.jsonl"), samples)


def read_reference(path: Path) -> Run:
    """The reference: a folder like any run's, or a JSON file of a recorded run.

    Raises:
        ValueError: what is missing or broken.
    """
    if path.is_dir():
        return read_run(path, with_samples=False)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return _run(path, record["results"], record["metrics"], (), recorded=bool(record["recorded"]))
    except OSError as error:
        raise ValueError(f"no reference run at {path}: {error.strerror}") from None
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a recorded run (results, metrics, recorded): {error!r}") from None


def _run(source: Path, results: Rows, metrics: Rows, samples: Rows, *, recorded: bool = False) -> Run:
    if not results:
        raise ValueError(f"no results in {source}; `memlm demo` makes them")
    try:
        by_name = {result.name: result for result in map(Result.from_dict, results)}
        for sample in samples:
            [(sample["document"], original, regenerated) for original, regenerated in sample["pieces"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"a row in {source} is not what it should be: {error!r}") from None
    return Run(results=by_name, metrics=metrics, samples=samples, recorded=recorded)


def _rows(folder: Path, name: str) -> list[dict[str, Any]]:
    if not (folder / name).is_file():
        raise ValueError(f"no {name} in {folder}; `memlm demo` makes it")
    try:
        return read_json_lines(folder / name)
    except ValueError as error:
        raise ValueError(f"{folder / name}: {error}") from None

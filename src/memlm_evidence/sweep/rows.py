"""A sweep's folder, read: what is varied, and the rows of its runs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from memlm.runtime.executor import Row, read_row
from memlm.runtime.results import Interval
from memlm.runtime.wording import human
from memlm_evidence.sweep.config import SEED, Run, SweepConfig

SWEEP, RUNS = "sweep.json", "cells"
"""Its configuration; the folder of its runs, which has always been called that."""
LESS_IS_BETTER = "causal_nats_per_token"
HEADLINES = (LESS_IS_BETTER, "token_accuracy")
"""What runs are compared by: the first of these that they have."""


def read_run(folder: Path, run: Run) -> Row | None:
    """A run's row, by this sweep's values; None if it has not been measured yet.

    Raises:
        ValueError: the file that is broken.
    """
    about: Row = {"key": run.key, "values": dict(run.values)}
    if run.recipe is None:
        return {**about, "failed": run.fault}
    row = read_row(folder / RUNS / f"{run.key}.json")
    return row and {**row, **about}


@dataclass(frozen=True)
class Combination:
    """The rows of one combination of values, one for each seed."""

    values: Mapping[str, str]
    """By axis."""
    rows: Sequence[Row]

    def all(self, name: str) -> list[Any]:
        """A measure, by seed."""
        return [row.get(name) for row in self.rows]

    def mean(self, name: str) -> float:
        """Of a measure, over seeds."""
        return fmean(self.all(name))

    def interval(self, name: str) -> Interval | None:
        """Of a single seed's measure, over documents."""
        found = self.rows[0].get("intervals", {}).get(name)
        return Interval(*found) if found and len(self.rows) == 1 else None


@dataclass(frozen=True)
class SweepResult:
    """What is known of a sweep."""

    sweep: SweepConfig
    rows: Sequence[Row]
    """Of runs that were measured, in the sweep's order."""
    failed: Sequence[Row]
    num_left: int
    """Runs yet to be measured."""

    @cached_property
    def names(self) -> dict[str, str]:
        """Axes as a reader calls them: a field without its path, unless two are then called alike."""
        short = {axis.name: human(axis.name.split(",")[0].split(".")[-1]) for axis in self.sweep.axes}
        known = list(short.values())
        return {name: each if known.count(each) == 1 else name for name, each in short.items()}

    def said(self, values: Mapping[str, str]) -> str:
        """Swept values as a reader calls them."""
        return ", ".join(f"{self.names.get(name, name)} {value_label(value)}" for name, value in values.items())

    @property
    def failures(self) -> list[tuple[str, str]]:
        """Each failed run, and why."""
        return [(self.said(row["values"]), row["failed"]) for row in self.failed]

    @property
    def headlines(self) -> list[str]:
        """The measures that tell runs apart; the first orders them."""
        return [name for name in HEADLINES if any(name in row for row in self.rows)]

    @cached_property
    def combinations(self) -> list[Combination]:
        """Best first, by the mean over seeds."""
        by_values: dict[tuple[tuple[str, str], ...], list[Row]] = {}
        for row in self.rows:
            by_values.setdefault(tuple((name, row["values"][name]) for name in self.names), []).append(row)
        found = [Combination(dict(values), rows) for values, rows in by_values.items()]
        name = next(iter(self.headlines), "")
        return sorted(found, key=lambda each: each.mean(name) * (1 if name == LESS_IS_BETTER else -1))


def read_sweep(folder: Path) -> SweepResult:
    """What a folder tells of its sweep.

    Raises:
        ValueError: it holds none, or the file that is broken.
    """
    sweep = SweepConfig.read(folder / SWEEP)
    runs = sweep.runs()
    rows = [row for row in (read_run(folder, run) for run in runs) if row]
    measured = [row for row in rows if "failed" not in row]
    failed = [row for row in rows if "failed" in row]
    return SweepResult(sweep, measured, failed, len(runs) - len(rows))


def seeds_of(rows: Sequence[Row]) -> list[str]:
    """The seeds there are, if seeds are swept."""
    return list(dict.fromkeys(row["values"][SEED] for row in rows if SEED in row["values"]))


def value_label(value: str) -> str:
    """A swept value; of a variant, its kind and what it is told."""
    try:
        found: Any = json.loads(value)
    except json.JSONDecodeError:
        return human(value)
    if not isinstance(found, dict) or "kind" not in found:
        return value
    told = ", ".join(f"{human(key)} {each}" for key, each in found.items() if key != "kind")
    return human(str(found["kind"])) + (f" ({told})" if told else "")

"""Results of several seeds: read from a folder, and shown as their mean and range."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from memlm.runtime.results import Result
from memlm_evidence.pages.figures import Line


def read_seeds(folder: Path, pattern: str) -> list[Result]:
    """The results whose files' names match.

    Raises:
        ValueError: the file that is broken.
    """
    found = []
    for path in sorted(folder.glob(pattern)):
        try:
            found.append(Result.from_dict(json.loads(path.read_text(encoding="utf-8"))))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not a result that memlm wrote: {error!r}") from None
    return found


def over_seeds(values: Sequence[Any], show: Callable[[Any], str], interval: Sequence[float] | None = None) -> str:
    """The mean, and below it the range, or with one seed its interval if it has one; a dash where a seed lacks it."""
    if any(value is None for value in values):
        return show(None)
    ends = (min(values), max(values)) if len(values) > 1 else interval
    return show(fmean(values)) + ("\n[{}, {}]".format(*map(show, ends)) if ends else "")


def named_over_seeds(rows: Sequence[Mapping[str, Any]], name: str, show: Callable[[Any], str]) -> str:
    """The same of a measure, from each seed's row with its `intervals`."""
    return over_seeds([row[name] for row in rows], show, rows[0]["intervals"].get(name))


def line_over_seeds(label: str, x: Sequence[float], values: Sequence[Sequence[float]]) -> Line:
    """The mean over seeds at each x, and their range."""
    band = len(values[0]) > 1
    low, high = ([end(each) for each in values] if band else None for end in (min, max))
    return Line(label, x, [fmean(each) for each in values], low, high)

"""Results of several seeds, shown as their mean and range."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from memlm.runtime.tables import Table
from memlm.runtime.wording import with_interval
from memlm_evidence.pages.figures import Line

CAPTION = "Below a number: its range over seeds; with one seed, its 95% interval over documents."


def over_seeds(values: Sequence[Any], show: Callable[[Any], str], interval: Sequence[float] | None = None) -> str:
    """The mean, and below it the range, or with one seed its interval if it has one; a dash where a seed lacks it."""
    if any(value is None for value in values):
        return show(None)
    return with_interval(show, fmean(values), (min(values), max(values)) if len(values) > 1 else interval)


def line_over_seeds(
    label: str, x: Sequence[float], values: Sequence[Sequence[float]], *, band: bool | None = None
) -> Line:
    """The mean over seeds at each x, and where there are several seeds (`band`) their range."""
    band = len(values[0]) > 1 if band is None else band
    low, high = ([end(each) for each in values] if band else None for end in (min, max))
    return Line(label, x, [fmean(each) for each in values], low, high)


def of(name: str, show: Callable[[Any], str]) -> Callable[[Sequence[Any]], str]:
    """A column of `seeds_table`: a measure over seeds, with its interval if rows have `intervals`."""
    return lambda same: over_seeds(
        [getattr(row, name) for row in same], show, getattr(same[0], "intervals", {}).get(name)
    )


def seeds_table(
    seeds: Sequence[Sequence[Any]], columns: Mapping[str, Callable[[Sequence[Any]], str]], caption: str = CAPTION
) -> Table:
    """A row for each thing measured: `columns` say, by their headers, what to show of its rows, one for each seed."""
    return Table([*columns], [[show(same) for show in columns.values()] for same in zip(*seeds, strict=True)], caption)

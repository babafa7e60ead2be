"""A probe's rows as pages show them: what was read, numbers as text, and means over seeds."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any, NamedTuple

from memlm.config import Quantization
from memlm.probing.results import ProbeResult, ProbeRow
from memlm.runtime.measures import Measure, measure
from memlm.runtime.wording import with_interval

_DIGITS = 3
GROUP = ("view", "reader", "chunk_len")
"""What rows have in common that differ in their seed only, or in what was put on the embedding."""

Rows = Sequence[ProbeRow]


class Spread(NamedTuple):
    """A measure over seeds: its mean and range; of one seed its value and 95% interval, if it has one."""

    mean: float
    low: float
    high: float


def view(row: ProbeRow) -> str:
    """Which of the encoder's embeddings was read."""
    return row.pooling if row.pooling in ("memory", "sentence") else f"layer {row.layer}, {row.pooling}"


def degradation(row: ProbeRow) -> str:
    """What was put on the embedding; empty where nothing was."""
    if row.degradation is None:
        return ""
    if isinstance(row.degradation, Quantization):
        return f"{row.degradation.num_bits} {'bit' if row.degradation.num_bits == 1 else 'bits'}"
    return f"noise {row.degradation.std:g}"


def property_of(row: ProbeRow, name: str) -> Any:
    """A field, or the row's `view`."""
    return view(row) if name == "view" else getattr(row, name)


def value(row: ProbeRow, name: str) -> float | None:
    """A measure, if it is a finite number."""
    found = getattr(row, name)
    return found if isinstance(found, int | float) and math.isfinite(found) else None


def shown(row: ProbeRow, name: str) -> str:
    """A measure as text, marked where it is a lower bound, its interval below."""
    text = with_interval(in_few_digits(name).show, value(row, name), row.intervals.get(name))
    return at_least(text) if row.lower_bound else text


def in_few_digits(name: str) -> Measure:
    """A measure with no more digits than a few test documents bear."""
    own = measure(name)
    return replace(own, digits=min(own.digits, _DIGITS))


def at_least(text: str) -> str:
    """A number marked as a lower bound: `≥0.95`; `>0.9999` says so already, and below 0 it goes without saying."""
    if text.startswith("<"):
        first, *below = text[1:].split("\n")
        return "\n".join([f"≥{re.sub('[1-9]', '0', first)}", *below])
    return f"≥{text}" if text[:1].isdecimal() else text


def plain(result: ProbeResult) -> list[ProbeRow]:
    """The rows of embeddings as they are."""
    return [row for row in result.rows if row.degradation is None]


def best(result: ProbeResult) -> list[ProbeRow]:
    """The plain rows, by seed, of the view, reader and chunk length with the highest token accuracy."""
    return max(grouped(plain(result), *GROUP).values(), key=accuracy)


def grouped(rows: Iterable[ProbeRow], *names: str) -> dict[tuple[Any, ...], list[ProbeRow]]:
    """Rows by these of their properties, in the order in which they first occur."""
    groups: dict[tuple[Any, ...], list[ProbeRow]] = {}
    for row in rows:
        groups.setdefault(tuple(property_of(row, name) for name in names), []).append(row)
    return groups


def spread(rows: Rows, name: str) -> Spread | None:
    """A measure over rows that differ in their seed only; None where none has it."""
    found = [(number, row.intervals.get(name)) for row in rows if (number := value(row, name)) is not None]
    if not found:
        return None
    numbers = [number for number, _ in found]
    interval = found[0][1] if len(found) == 1 else None
    return Spread(fmean(numbers), *(interval or (min(numbers), max(numbers))))


def accuracy(rows: Rows) -> float:
    """Token accuracy over seeds, to find the best by; -1 where there is none."""
    found = spread(rows, "token_accuracy")
    return found.mean if found else -1.0

"""A probe's result, read and checked: its rows, and means over seeds."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any, NamedTuple, Self

from memlm.runtime.measures import Measure, measure
from memlm.runtime.results import Interval, Result
from memlm.runtime.wording import with_interval

_DIGITS = 3
"""No more than a few test documents bear."""
GROUP = ("view", "reader", "chunk_len")
"""What rows have in common that differ in their seed only, or in what was put on the embedding."""


@dataclass(frozen=True, kw_only=True)
class ProbeRow:
    """What one reader made of one view of an encoder, or of a control."""

    layer: int
    pooling: str
    reader: str
    chunk_len: int
    seed: int = 0
    num_bits: int | None = None
    noise: float | None = None
    control: str = ""
    lower_bound: bool = False
    measures: Mapping[str, Any] = field(default_factory=dict)
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    by_position: Mapping[float, float] = field(default_factory=dict)
    """Token accuracy at each position of the chunk, from 1."""
    by_training: Mapping[float, float] = field(default_factory=dict)
    """Token accuracy on validation text after so many training tokens."""

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Self:
        """From a row of probe.json."""
        degradation = row.get("degradation") or {}
        return cls(
            layer=int(row["layer"]),
            pooling=str(row["pooling"]),
            reader=str(row["reader"]),
            chunk_len=int(row["chunk_len"]),
            seed=int(row.get("seed", 0)),
            num_bits=degradation.get("num_bits"),
            noise=degradation.get("std"),
            control=str(row.get("control") or ""),
            lower_bound=bool(row.get("lower_bound")),
            measures=row,
            intervals={name: Interval(*map(float, pair)) for name, pair in row.get("intervals", {}).items()},
            by_position=_points(enumerate(row.get("accuracy_by_position") or (), 1)),
            by_training=_points((each["tokens"], each.get("token_accuracy")) for each in row.get("curve") or ()),
        )

    @property
    def view(self) -> str:
        """Which of the encoder's embeddings was read."""
        return self.pooling if self.pooling in ("memory", "sentence") else f"layer {self.layer}, {self.pooling}"

    @property
    def degradation(self) -> str:
        """What was put on the embedding; empty where nothing was."""
        if self.num_bits is not None:
            return f"{self.num_bits} {'bit' if self.num_bits == 1 else 'bits'}"
        return f"noise {self.noise:g}" if self.noise is not None else ""

    @property
    def useless(self) -> bool:
        """Whether validation text said that the reader does best to ignore the embedding."""
        return self.value("trust") == 0

    def value(self, name: str) -> float | None:
        """A measure, if it is a finite number."""
        value = self.measures.get(name)
        return value if isinstance(value, int | float) and math.isfinite(value) else None

    def shown(self, name: str) -> str:
        """A measure as text, marked where it is a lower bound, its interval below."""
        text = with_interval(in_few_digits(name).show, self.value(name), self.intervals.get(name))
        return at_least(text) if self.lower_bound else text


def _points(found: Iterable[tuple[float, float | None]]) -> dict[float, float]:
    return {float(x): float(y) for x, y in found if y is not None and math.isfinite(y)}


class Spread(NamedTuple):
    """A measure over seeds: its mean and range; of one seed its value and 95% interval, if it has one."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What was read of one encoder."""

    encoder: str
    rows: Sequence[ProbeRow]
    controls: Sequence[ProbeRow]
    baselines: Mapping[int, Mapping[str, Any]]
    """By chunk length."""
    round_trips: bool

    @classmethod
    def of(cls, result: Result) -> Self:
        """The result, checked.

        Raises:
            ValueError: it is not a probe's.
        """
        found = result.measures
        try:
            controls = found.get("control_rows") or found.get("controls", {}).values()
            probed = cls(
                encoder=str(found["encoder"]),
                rows=[ProbeRow.read(row) for row in found["rows"]],
                controls=[ProbeRow.read(row) for row in controls],
                baselines={int(length): dict(row) for length, row in found.get("baselines", {}).items()},
                round_trips=bool(found.get("round_trips", True)),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"this is not a probe's result (encoder, rows, controls, baselines): {error!r}") from None
        if not probed.plain:
            raise ValueError("this probe's result has no rows; `memlm probe` makes them")
        return probed

    @property
    def plain(self) -> list[ProbeRow]:
        """The rows of embeddings as they are."""
        return [row for row in self.rows if not row.degradation]

    @property
    def best(self) -> list[ProbeRow]:
        """The plain rows, by seed, of the view, reader and chunk length with the highest token accuracy."""
        return max(grouped(self.plain, *GROUP).values(), key=accuracy)

    def twin(self, control: ProbeRow) -> ProbeRow | None:
        """The plain row that a control is compared with."""
        key = [getattr(control, name) for name in (*GROUP, "seed")]
        return next((row for row in self.plain if [getattr(row, name) for name in (*GROUP, "seed")] == key), None)


def in_few_digits(name: str) -> Measure:
    """A measure with no more digits than a few test documents bear."""
    own = measure(name)
    return replace(own, digits=min(own.digits, _DIGITS))


def at_least(text: str) -> str:
    """A number marked as a lower bound: `≥0.95`; `>0.9999` says so already, and below 0 it goes without saying."""
    if text.startswith("<"):
        shown, *below = text[1:].split("\n")
        return "\n".join([f"≥{re.sub('[1-9]', '0', shown)}", *below])
    return f"≥{text}" if text[:1].isdecimal() else text


def grouped(rows: Iterable[ProbeRow], *names: str) -> dict[tuple[Any, ...], list[ProbeRow]]:
    """Rows by these of their properties, in the order in which they first occur."""
    groups: dict[tuple[Any, ...], list[ProbeRow]] = {}
    for row in rows:
        groups.setdefault(tuple(getattr(row, name) for name in names), []).append(row)
    return groups


def spread(rows: Sequence[ProbeRow], name: str) -> Spread | None:
    """A measure over rows that differ in their seed only; None where none has it."""
    found = [(value, row.intervals.get(name)) for row in rows if (value := row.value(name)) is not None]
    if not found:
        return None
    values = [value for value, _ in found]
    interval = found[0][1] if len(found) == 1 else None
    return Spread(fmean(values), *(interval or (min(values), max(values))))


def accuracy(rows: Sequence[ProbeRow]) -> float:
    """Token accuracy over seeds, to find the best by; -1 where there is none."""
    found = spread(rows, "token_accuracy")
    return found.mean if found else -1.0

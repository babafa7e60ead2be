"""A probe's result, read and checked: its readings, what its controls say, and means over seeds."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self

from memlm.runtime.results import Interval, Result
from memlm.runtime.wording import in_words, number
from memlm_evidence.pages.measures import measure

_DIGITS = 3
POSITIVE_ACCURACY = 0.98
"""A reader strong enough regenerates at least this share of the positive control's tokens."""
CONTROLS: Mapping[str, str] = {
    "shuffled": "Each embedding beside another chunk's text: nothing may be retained (0 within the interval).",
    "constant": "The same embedding for every text: nothing may be retained (0 within the interval).",
    "positive": "An autoencoder's memories, made to be read: the reader must regenerate at least "
    f"{POSITIVE_ACCURACY:.0%} of the tokens, else it is too weak to say anything.",
    "untrained": "The same encoder with fresh weights: what it retains is not owed to training.",
    "random_tokens": "Random tokens, read by the reader trained on text: what comes back of them was in the embedding, "
    "not guessed.",
}
"""What each control is, and what it must show."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What one reader made of one view of an encoder, or of a control."""

    layer: int
    pooling: str
    reader: str
    chunk_len: int
    seed: int = 0
    num_bits: int | None = None
    noise: float | None = None
    control: str | None = None
    lower_bound: bool = False
    measures: Mapping[str, Any] = field(default_factory=dict)
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    by_position: Mapping[float, float] = field(default_factory=dict)
    """Token accuracy at each position of the chunk, from 1."""
    by_training: Mapping[float, float] = field(default_factory=dict)
    """Token accuracy on validation text after so many training tokens."""

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
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
            control=row.get("control"),
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
        text = show(name, self.value(name))
        interval = self.intervals.get(name)
        below = f"\n[{show(name, interval.low)}, {show(name, interval.high)}]" if interval else ""
        return (at_least(text) if self.lower_bound else text) + below


def _points(found: Iterable[tuple[float, float | None]]) -> dict[float, float]:
    return {float(x): float(y) for x, y in found if y is not None and math.isfinite(y)}


class Spread(NamedTuple):
    """A measure over seeds: its mean and range; of one seed its value and 95% interval, if it has one."""

    mean: float
    low: float
    high: float


class Verdict(NamedTuple):
    """What a control says."""

    reading: Reading
    words: str
    failed: bool = False


@dataclass(frozen=True, kw_only=True)
class Probed:
    """A probe's result."""

    encoder: str
    readings: Sequence[Reading]
    controls: Sequence[Reading]
    baselines: Mapping[int, Mapping[str, Any]]
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
                readings=[Reading.from_row(row) for row in found["rows"]],
                controls=[Reading.from_row(row) for row in controls],
                baselines={int(length): dict(row) for length, row in found.get("baselines", {}).items()},
                round_trips=bool(found.get("round_trips", True)),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"this is not a probe's result (encoder, rows, controls, baselines): {error!r}") from None
        if not probed.plain:
            raise ValueError("this probe's result has no rows; `memlm probe` makes them")
        return probed

    @property
    def plain(self) -> list[Reading]:
        """The readings of embeddings as they are."""
        return [reading for reading in self.readings if not reading.degradation]

    @property
    def best(self) -> list[Reading]:
        """The plain readings, by seed, of the view, reader and chunk length with the highest token accuracy."""
        groups = grouped(self.plain, "view", "reader", "chunk_len").values()
        return max(groups, key=lambda group: getattr(spread(group, "token_accuracy"), "mean", -1.0))

    def verdicts(self) -> list[Verdict]:
        """What each control says, in the order of `CONTROLS`; a control that is not known comes last."""
        order = list(CONTROLS)
        place = {name: index for index, name in enumerate(order)}
        controls = sorted(self.controls, key=lambda reading: place.get(str(reading.control), len(order)))
        return [self._verdict(reading) for reading in controls]

    def _verdict(self, reading: Reading) -> Verdict:
        match reading.control:
            case "shuffled" | "constant":
                return _nothing(reading)
            case "positive":
                return _everything(reading)
            case "untrained" | "random_tokens":
                return Verdict(reading, self._compared(reading))
            case _:
                return Verdict(reading, "not judged")

    def _compared(self, control: Reading) -> str:
        same = ("view", "reader", "chunk_len", "seed")
        twins = [each for each in self.plain if all(getattr(each, name) == getattr(control, name) for name in same)]
        name = "token_accuracy" if control.control == "random_tokens" else "retained_bits_per_token"
        own, other = (twins[0].value(name) if twins else None), control.value(name)
        if own is None or other is None:
            return "cannot be judged: nothing to compare with"
        if control.control == "random_tokens":
            return f"for comparison: {in_words(other)} of random tokens come back, {in_words(own)} of text"
        if own > other and not _overlap(twins[0], control, name):
            return f"training adds {number(own - other)} bits/token"
        if own < other and not _overlap(twins[0], control, name):
            return f"training costs {number(other - own)} bits/token: the architecture alone holds more"
        return f"training adds nothing to speak of ({number(own - other)} bits/token)"


def _nothing(reading: Reading) -> Verdict:
    interval = reading.intervals.get("retained_bits_per_token")
    if interval is None:
        return Verdict(reading, "cannot be judged: no interval")
    if interval.low > 0:
        return Verdict(reading, "FAILED: bits are retained where there are none; trust no number here", failed=True)
    if interval.high < 0:
        return Verdict(reading, "FAILED: below 0; what the reader learnt misleads it on new text", failed=True)
    return Verdict(reading, "as it must be: nothing is retained")


def _everything(reading: Reading) -> Verdict:
    accuracy = reading.value("token_accuracy")
    if accuracy is None:
        return Verdict(reading, "cannot be judged: no token accuracy")
    if accuracy < POSITIVE_ACCURACY:
        return Verdict(reading, "FAILED: the reader is too weak to say anything", failed=True)
    return Verdict(reading, "as it must be: the reader reads what is there")


def _overlap(one: Reading, other: Reading, name: str) -> bool:
    a, b = one.intervals.get(name), other.intervals.get(name)
    return a is not None and b is not None and a.low <= b.high and b.low <= a.high


def show(name: str, value: float | None) -> str:
    """A measure's value as text, with no more digits than a few test documents bear."""
    own = measure(name)
    return replace(own, digits=min(own.digits, _DIGITS)).show(value)


def at_least(text: str) -> str:
    """A number marked as a lower bound: `≥0.95`; `>0.9999` says so already, and below 0 it goes without saying."""
    if text.startswith("<"):
        return f"≥{re.sub('[1-9]', '0', text[1:])}"
    return f"≥{text}" if text[:1].isdecimal() else text


def grouped(readings: Iterable[Reading], *names: str) -> dict[tuple[Any, ...], list[Reading]]:
    """Readings by these of their properties, in the order in which they first occur."""
    groups: dict[tuple[Any, ...], list[Reading]] = {}
    for reading in readings:
        groups.setdefault(tuple(getattr(reading, name) for name in names), []).append(reading)
    return groups


def spread(readings: Sequence[Reading], name: str) -> Spread | None:
    """A measure over readings that differ in their seed only; None where none has it."""
    found = [(value, reading) for reading in readings if (value := reading.value(name)) is not None]
    values = [value for value, _ in found]
    if len(found) != 1:
        return Spread(sum(values) / len(values), min(values), max(values)) if values else None
    interval = found[0][1].intervals.get(name)
    return Spread(values[0], *(interval or (values[0], values[0])))

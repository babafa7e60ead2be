"""The page on a sweep: every run, best first, and what each swept field does."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from textwrap import fill

from memlm.runtime.tables import Measure, Table, measure
from memlm.runtime.wording import duration, quantity
from memlm_evidence.pages.figures import Figure, Line, line_figure
from memlm_evidence.pages.page import Page
from memlm_evidence.pages.seeds import line_over_seeds, over_seeds
from memlm_evidence.sweep.config import Axis
from memlm_evidence.sweep.rows import HEADLINES, LESS_IS_BETTER, Combination, SweepResult, seeds_of, value_label

_MAX_LINES = 6
"""In one figure; beyond it a line is the mean over all other fields."""
_SHOWN = (*HEADLINES, "exact_match", "retained_bits_per_token")
_NEXT_TOKENS = Measure(
    "next-token nats", "Cross-entropy of each token given those before it, and memories of earlier text if it has them."
)
_TICK_LETTERS = 56
"""That fit below a figure, side by side."""


def sweep_page(swept: SweepResult) -> Page:
    """The page of what has been measured so far."""
    best = swept.combinations[0] if swept.rows else None
    counts = ((len(swept.failed), "failed"), (swept.num_left, "left"))
    shown = [name for name in _SHOWN if any(name in row for row in swept.rows)]
    headlines = [(_measure(name), best.mean(name)) for name in swept.headlines] if best else []
    data = {
        "sweep": swept.sweep,
        "varied": ", ".join(swept.names.values()) or "its seed",
        "key_numbers": [
            *((shown.show(value), f"{shown.header}, best run") for shown, value in headlines),
            (str(len(swept.rows)), "runs measured"),
            *((str(count), what) for count, what in counts if count),
        ],
        "best": swept.said(best.values) or "the recipe" if best else "",
        "best_model": f"cells/{best.rows[0]['key']}/model" if best else "",
        "runs": _runs(swept, shown),
        "meanings": [(_measure(name).header, _measure(name).meaning) for name in shown],
        "effects": [(swept.names[axis.name], list(_effects(swept, axis))) for axis in swept.sweep.axes],
        "failed": swept.failures,
        "made_by": _made_by(swept),
    }
    return Page("sweep/page", data)


def best_of(swept: SweepResult) -> str:
    """The best combination and what it reaches, in one line; empty if nothing was measured."""
    if not swept.rows:
        return ""
    best, name = swept.combinations[0], swept.headlines[0]
    return f"{swept.said(best.values)}: {_measure(name).header} {_measure(name).show(best.mean(name))}"


def _measure(name: str) -> Measure:
    return _NEXT_TOKENS if name == LESS_IS_BETTER else measure(name)


def _runs(swept: SweepResult, shown: Sequence[str]) -> Table:
    header = [*swept.names.values(), *(_measure(name).header for name in shown)]
    cells = [
        [
            *map(value_label, each.values.values()),
            *(over_seeds(each.all(name), _measure(name).show, each.interval(name)) for name in shown),
            quantity(each.rows[0]["parameters"]),
            quantity(each.rows[0]["tokens_trained"]),
            duration(each.mean("seconds")),
        ]
        for each in swept.combinations
    ]
    seeds = len(seeds_of(swept.rows))
    below = f"the range over {seeds} seeds" if seeds > 1 else "its 95% interval over documents"
    return Table([*header, "parameters", "tokens", "training"], cells, f"Below a number: {below}.")


def _effects(swept: SweepResult, axis: Axis) -> Iterator[Figure]:
    """What one axis does, a figure for each headline; none where a single value was measured."""
    combinations, short = swept.combinations, swept.names[axis.name]
    labels = [label for label in axis.options if any(each.values[axis.name] == label for each in combinations)]
    if len(labels) < 2:
        return
    places, ticks, log_x = _scale(labels)
    for name in swept.headlines:
        lines, caption = _lines(swept, axis, dict(zip(labels, places, strict=True)), name)
        header = _measure(name).header
        yield line_figure(
            lines, f"{header} by {short}.", caption, x_label=short, y_label=header, x_ticks=ticks, log_x=log_x
        )


def _lines(swept: SweepResult, axis: Axis, places: Mapping[str, float], name: str) -> tuple[list[Line], str]:
    """A line for each combination of the other axes; their mean, where these are many."""
    groups: dict[str, list[Combination]] = {}
    for each in swept.combinations:
        others = {other: value for other, value in each.values.items() if other != axis.name}
        groups.setdefault(swept.said(others), []).append(each)
    if len(groups) > _MAX_LINES:
        mean = _line("", swept.combinations, axis, places, name)
        return [mean], "Mean over all other fields and seeds, and the range."
    lines = [_line(label, group, axis, places, name) for label, group in sorted(groups.items())]
    many = any(len(each.rows) > 1 for each in swept.combinations)
    return lines, "Mean over seeds, and the range." if many else ""


def _line(label: str, group: Sequence[Combination], axis: Axis, places: Mapping[str, float], name: str) -> Line:
    by_place: dict[float, list[float]] = {}
    for each in group:
        by_place.setdefault(places[each.values[axis.name]], []).extend(each.all(name))
    x = sorted(by_place)
    return line_over_seeds(label, x, [by_place[place] for place in x], band=True)


def _scale(labels: Sequence[str]) -> tuple[list[float], dict[float, str], bool]:
    """Where each value stands, what is written there, and whether the axis is logarithmic."""
    try:
        numbers = list(map(float, labels))
    except ValueError:
        numbers = []
    if numbers and all(map(math.isfinite, numbers)) and len(set(numbers)) == len(numbers):
        least_gap = min(later - earlier for earlier, later in itertools.pairwise(sorted(numbers)))
        log_x = min(numbers) > 0 and max(numbers) >= 8 * min(numbers)
        if log_x or max(numbers) - min(numbers) <= 8 * least_gap:  # labels would lie on one another
            return numbers, dict(zip(numbers, labels, strict=True)), log_x
    places = [float(place) for place in range(len(labels))]
    width = max(6, _TICK_LETTERS // len(labels))
    return places, {place: fill(value_label(each), width) for place, each in zip(places, labels, strict=True)}, False


def _made_by(swept: SweepResult) -> list[tuple[str, str]]:
    """Runs may have been measured on several machines."""
    made = [row["provenance"] for row in swept.rows if row.get("provenance")]

    def every(*names: str) -> str:
        return "; ".join(dict.fromkeys(", ".join(str(each[name]) for name in names if each[name]) for each in made))

    items = [
        ("memlm, commit", every("memlm", "commit")),
        ("torch, Python", every("torch", "python")),
        ("machine, threads", every("machine", "num_threads")),
        ("data", "; ".join(dict.fromkeys(each["settings"]["data"] for each in made))),
        ("training, all runs", duration(sum(row["seconds"] for row in swept.rows))),
        ("seeds", ", ".join(seeds_of(swept.rows)) or "the recipe's"),
        ("what is not varied", "sweep.json; each run's whole recipe is in its own file, cells/KEY.json"),
    ]
    return [(what, told) for what, told in items if told]

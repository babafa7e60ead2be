"""A probe's rows over seeds, and its curves: by length, layer, precision, noise, position, and over training."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from statistics import fmean
from typing import Any

from memlm.config import Noise, Quantization
from memlm.probing.results import ProbeResult, ProbeRow
from memlm.runtime.tables import Measure, Table, measure
from memlm_evidence.claims import Measured
from memlm_evidence.pages.figures import Figure, Line, line_figure
from memlm_evidence.pages.page import Section
from memlm_evidence.pages.seeds import line_over_seeds

GROUP = ("view", "reader", "chunk_len")
"""What rows have in common that differ in their seed only, or in what was put on the embedding."""
_DIGITS, _MOST_LINES, _MOST_TICKS = 3, 6, 9
_UNDEGRADED_BITS = 32
_COARSER = "How precisely an embedding must be stored: every dimension rounded to a few bits, or with noise added."
_LEARNT = "A curve that still rises at its end belongs to a reader that needs more training."

Rows = Sequence[ProbeRow]


def in_few_digits(name: str) -> Measure:
    """A measure with no more digits than a few test documents bear."""
    own = measure(name)
    return replace(own, digits=min(own.digits, _DIGITS))


def spread(rows: Rows, name: str) -> Measured | None:
    """A measure's mean and range over seeds, of one seed its 95% interval; None where no row has a finite number."""
    having = [row for row in rows if isinstance(value := getattr(row, name), float) and math.isfinite(value)]
    if not having:
        return None
    values = [getattr(row, name) for row in having]
    interval = having[0].intervals.get(name) if len(having) == 1 else None
    return Measured(fmean(values), *(interval or (min(values), max(values))))


def best(result: ProbeResult) -> list[ProbeRow]:
    """The plain rows, by seed, of the view, reader and chunk length with the highest token accuracy."""
    return max(_grouped(result.plain, *GROUP).values(), key=_accuracy)


def _accuracy(rows: Rows) -> float:
    found = spread(rows, "token_accuracy")
    return found.value if found else -1.0


def _grouped(rows: Iterable[ProbeRow], *names: str) -> dict[Any, list[ProbeRow]]:
    """Rows by these of their properties, in the order in which they first occur."""
    groups: dict[Any, list[ProbeRow]] = {}
    for row in rows:
        groups.setdefault(attrgetter(*names)(row), []).append(row)
    return groups


def figure_sections(result: ProbeResult, degraded: Table | None = None) -> list[Section]:
    """Curves by length, layer, precision, noise and position, and over training, where there are two points of one;
    with a table of what was read of `degraded` embeddings."""
    lengths, layers, noise = "tokens per chunk (log scale)", "layer", "noise, in standard deviations of a dimension"
    bits, bits_per_dim = "bits stored a dimension (log scale)", "bits_per_dim"
    of_layers = [row for row in result.plain if row.view != row.pooling]
    several = len({row.chunk_len for row in result.plain}) > 1

    def along(row: ProbeRow) -> dict[float, float]:
        return {place: share for place, share in enumerate(row.accuracy_by_position, 1) if share is not None}

    def learnt(row: ProbeRow) -> dict[float, float]:
        return {each["tokens"]: each["token_accuracy"] for each in row.curve}

    def by_length(name: str) -> Figure | None:
        return _measured(result.plain, name, GROUP[:2], lambda row: row.chunk_len, lengths, log_x=True)

    def num_bits(row: ProbeRow) -> float:
        return getattr(row.degradation, "num_bits", _UNDEGRADED_BITS)

    by_layer = _measured(of_layers, "retained_fraction", ("pooling", *GROUP[1:]), lambda row: row.layer, layers)
    by_bits = _measured(_beside(result, Quantization), bits_per_dim, GROUP, num_bits, bits, log_x=True)
    noised = _beside(result, Noise)
    by_noise = _measured(noised, bits_per_dim, GROUP, lambda row: getattr(row.degradation, "std", 0.0), noise)
    by_position = _curves(result, ("chunk_len",) if several else GROUP, along, "", "position in the chunk")
    by_training = _curves(result, ("reader", "chunk_len"), learnt, " on validation text", "training tokens")
    both = [by_length("token_accuracy"), by_length("retained_fraction")]
    found = [
        ("By chunk length", "The longer the chunk, the more the same embedding has to hold.", both, None),
        ("By layer", "From which layers the text can still be read.", [by_layer], None),
        ("Made coarser", _COARSER, [by_bits, by_noise], degraded),
        ("Along the chunk", "Is some part of a chunk harder to read than the rest?", [by_position], None),
        ("How the readers learnt", _LEARNT, [by_training], None),
    ]
    sections = [Section(title, text, list(filter(None, drawn)), table) for title, text, drawn, table in found]
    return [section for section in sections if section.figures or section.table]


def _beside(result: ProbeResult, kind: type) -> list[ProbeRow]:
    """Rows degraded so, and those of the same embeddings as they are; none where nothing was degraded so."""
    found = [row for row in result.rows if isinstance(row.degradation, kind)]
    plain_rows = _grouped(result.plain, *GROUP)
    return [*found, *(row for key in _grouped(found, *GROUP) for row in plain_rows.get(key, []))]


def _curves(
    result: ProbeResult, names: Sequence[str], curve: Callable[[ProbeRow], dict[float, float]], of: str, x_label: str
) -> Figure | None:
    """The rows' own curves of token accuracy, of the most accurate group for each combination of properties `names`."""
    highest: dict[Any, list[ProbeRow]] = {}
    for group in _grouped(result.plain, *GROUP).values():
        key = attrgetter(*names)(group[0])
        if _accuracy(group) > _accuracy(highest.get(key, [])):
            highest[key] = group
    lines = []
    for label, group in _labelled(list(highest.values()), GROUP).items():
        curves = list(map(curve, group))
        places = sorted({place for each in curves for place in each})
        values = [[each[place] for each in curves if place in each] for place in places]
        lines.append(line_over_seeds(label, places, values, band=len(curves) > 1))
    return _drawn(lines, f"token accuracy{of}", "token_accuracy", x_label)


def _measured(
    rows: Rows, name: str, names: Sequence[str], x: Callable[[ProbeRow], float], x_label: str, *, log_x: bool = False
) -> Figure | None:
    """A measure against `x`, a line for each combination of the properties `names`."""
    lines = []
    for label, group in _labelled(list(_grouped(rows, *names).values()), names).items():
        by_place: dict[float, Measured] = {}
        for place in sorted(set(map(x, group))):
            found = spread([row for row in group if x(row) == place], name)
            by_place |= {place: found} if found else {}
        mean, low, high = ([getattr(each, end) for each in by_place.values()] for end in Measured._fields)
        lines.append(Line(label, list(by_place), mean, low, high))
    places = sorted({place for line in lines for place in line.x})
    every = -(-len(places) // _MOST_TICKS) if places else 1  # so that labels do not touch
    ticks = {place: f"{place:g}" for place in places[::every]}
    if places and places[-1] == _UNDEGRADED_BITS and "bits" in x_label:
        ticks[places[-1]] = "as it is"
    return _drawn(lines, measure(name).header, name, x_label, x_ticks=ticks, log_x=log_x)


def _labelled(groups: Sequence[list[ProbeRow]], names: Sequence[str]) -> dict[str, list[ProbeRow]]:
    """Groups by what tells them apart."""
    told = [name for name in names if len({getattr(group[0], name) for group in groups}) > 1] or names[:1]
    say: Mapping[str, str] = {"chunk_len": "{} tokens", "reader": "{} reader"}
    return {", ".join(say.get(name, "{}").format(getattr(group[0], name)) for name in told): group for group in groups}


def _drawn(lines: Sequence[Line], y_label: str, name: str, x_label: str, **options: Any) -> Figure | None:
    """A figure of the highest lines; none without a line of two points at least."""
    if all(len(line.x) < 2 for line in lines):
        return None
    highest = sorted((line for line in lines if line.x), key=lambda line: max(line.y), reverse=True)[:_MOST_LINES]
    shown = [line for line in lines if line in highest]
    least = min(min(line.low or line.y) for line in shown)
    limits = (0.0, 1.0) if measure(name).is_share and least >= 0 else None
    show = in_few_digits(name).show
    ends = "; ".join(f"{line.label} from {show(line.y[0])} to {show(line.y[-1])}" for line in shown)
    left = f"The {len(shown)} highest of {len(lines)} lines. " if len(shown) < len(lines) else ""
    wide = any(line.low is not None and list(line.low) != list(line.high or ()) for line in shown)
    band = "Band: the range over seeds, or with one seed the 95% interval." if wide else ""
    alt = f"{y_label} by {x_label}: {ends}."
    return line_figure(shown, alt, left + band, x_label=x_label, y_label=y_label, y_limits=limits, **options)

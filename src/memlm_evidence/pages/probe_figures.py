"""A probe's curves: what is retained against chunk length, layer, precision, noise, position, and training."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from memlm_evidence.pages.blocks import Figure
from memlm_evidence.pages.figures import Line, line_figure
from memlm_evidence.pages.measures import measure
from memlm_evidence.pages.probe_rows import Probed, Reading, Spread, grouped, show, spread

_MOST_LINES, _MOST_TICKS = 6, 9
_UNDEGRADED_BITS = 32.0
_GROUP = ("view", "reader", "chunk_len")

Places = Mapping[float, str]


def by_chunk_len(probed: Probed, name: str) -> Figure | None:
    """A measure against chunk length, a line for each view and reader."""
    readings, names = probed.plain, ("view", "reader")
    return _measured(readings, name, names, _chunk_len, "tokens per chunk (log scale)", log_x=True)


def by_layer(probed: Probed, name: str) -> Figure | None:
    """A measure against layer, a line for each pooling, reader and chunk length; only of poolings of layers."""
    readings = [reading for reading in probed.plain if reading.view != reading.pooling]
    return _measured(readings, name, ("pooling", "reader", "chunk_len"), _layer, "layer")


def by_precision(probed: Probed, name: str) -> Figure | None:
    """A measure against bits stored a dimension; the embedding as it is stands at the right end."""
    readings = _beside(probed, lambda reading: reading.num_bits is not None)
    label, last = "bits stored a dimension (log scale)", {_UNDEGRADED_BITS: "as it is"}
    return _measured(readings, name, _GROUP, _bits, label, log_x=True, labels=last)


def by_noise(probed: Probed, name: str) -> Figure | None:
    """A measure against the noise on every dimension; the embedding as it is stands at 0."""
    readings = _beside(probed, lambda reading: reading.noise is not None)
    return _measured(readings, name, _GROUP, _noise, "noise, in standard deviations of a dimension")


def by_position(probed: Probed) -> Figure | None:
    """Token accuracy by position: for each chunk length the best view and reader, or of one length all of them."""
    several = len({reading.chunk_len for reading in probed.plain}) > 1
    groups = _best_groups(probed.plain, ("chunk_len",) if several else _GROUP)
    lines = [_line(label, [each.by_position for each in group]) for label, group in _labelled(groups).items()]
    return _drawn(lines, "token accuracy", "token_accuracy", "position in the chunk")


def by_training(probed: Probed) -> Figure | None:
    """Learning curves: for each reader and chunk length that of the best view."""
    groups = _best_groups(probed.plain, ("reader", "chunk_len"))
    lines = [_line(label, [each.by_training for each in group]) for label, group in _labelled(groups).items()]
    return _drawn(lines, "token accuracy on validation text", "token_accuracy", "training tokens")


def _chunk_len(reading: Reading) -> float:
    return float(reading.chunk_len)


def _layer(reading: Reading) -> float:
    return float(reading.layer)


def _bits(reading: Reading) -> float:
    return _UNDEGRADED_BITS if reading.num_bits is None else float(reading.num_bits)


def _noise(reading: Reading) -> float:
    return 0.0 if reading.noise is None else float(reading.noise)


def _beside(probed: Probed, degraded: Callable[[Reading], bool]) -> list[Reading]:
    """Readings degraded so, and those of the same embeddings as they are; none where nothing was degraded so."""
    found = [reading for reading in probed.readings if degraded(reading)]
    same = grouped(found, *_GROUP)
    return [*found, *(each for each in probed.plain if (each.view, each.reader, each.chunk_len) in same)]


def _best_groups(readings: Iterable[Reading], names: Sequence[str]) -> list[list[Reading]]:
    """For each combination of these properties, the readings (by seed) of highest token accuracy."""
    best: dict[tuple[Any, ...], tuple[float, list[Reading]]] = {}
    for group in grouped(readings, *_GROUP).values():
        found = spread(group, "token_accuracy")
        key = tuple(getattr(group[0], name) for name in names)
        if found is not None and (key not in best or found.mean > best[key][0]):
            best[key] = found.mean, group
    return [group for _, group in best.values()]


def _labelled(groups: Sequence[list[Reading]], names: Sequence[str] = _GROUP) -> dict[str, list[Reading]]:
    """Groups by what tells them apart."""
    told = [name for name in names if len({getattr(group[0], name) for group in groups}) > 1] or names[:1]
    return {", ".join(_said(name, group[0]) for name in told): group for group in groups}


def _said(name: str, reading: Reading) -> str:
    value = getattr(reading, name)
    return f"{value} tokens" if name == "chunk_len" else f"{value} reader" if name == "reader" else str(value)


def _line(label: str, curves: Sequence[Mapping[float, float]]) -> Line:
    """The mean of curves of several seeds, and their range."""
    found = {
        x: Spread(sum(values) / len(values), min(values), max(values))
        for x in sorted({x for curve in curves for x in curve})
        if (values := [curve[x] for curve in curves if x in curve])
    }
    return _of_points(label, found, band=len(curves) > 1)


def _of_points(label: str, points: Mapping[float, Spread], *, band: bool) -> Line:
    mean, low, high = ([getattr(point, end) for point in points.values()] for end in Spread._fields)
    return Line(label, list(points), mean, low if band else None, high if band else None)


def _measured(
    readings: Sequence[Reading],
    name: str,
    names: Sequence[str],
    x: Callable[[Reading], float],
    x_label: str,
    *,
    log_x: bool = False,
    labels: Places | None = None,
) -> Figure | None:
    """A measure against `x`, a line for each combination of the properties `names`."""
    lines = []
    for label, group in _labelled(list(grouped(readings, *names).values()), names).items():
        by_place = {place: [each for each in group if x(each) == place] for place in sorted(set(map(x, group)))}
        found = {place: value for place, each in by_place.items() if (value := spread(each, name)) is not None}
        lines.append(_of_points(label, found, band=True))
    places = sorted({place for line in lines for place in line.x})
    ticks = _ticks(places) | {place: label for place, label in (labels or {}).items() if place in places}
    return _drawn(lines, measure(name).header, name, x_label, x_ticks=ticks, log_x=log_x)


def _ticks(places: Sequence[float]) -> dict[float, str]:
    """Labels for places, so few that they do not touch."""
    every = -(-len(places) // _MOST_TICKS) if places else 1
    return {place: f"{place:g}" for place in places[::every]}


def _drawn(lines: Sequence[Line], y_label: str, name: str, x_label: str, **options: Any) -> Figure | None:
    """A figure of the highest lines; none without a line of two points at least."""
    if all(len(line.x) < 2 for line in lines):
        return None
    kept = sorted((line for line in lines if line.x), key=lambda line: max(line.y), reverse=True)[:_MOST_LINES]
    shown = [line for line in lines if line in kept]
    least = min(min(line.low or line.y) for line in shown)
    limits = (0.0, 1.0) if measure(name).is_share and least >= 0 else None
    svg = line_figure(shown, x_label=x_label, y_label=y_label, y_limits=limits, **options)
    ends = "; ".join(f"{line.label} {_told(line, name)}" for line in shown)
    left = f"The {len(shown)} highest of {len(lines)} lines. " if len(shown) < len(lines) else ""
    return Figure(svg, f"{y_label} by {x_label}: {ends}.", left + _band(shown))


def _told(line: Line, name: str) -> str:
    return f"from {show(name, line.y[0])} to {show(name, line.y[-1])}"


def _band(lines: Sequence[Line]) -> str:
    wide = any(line.low is not None and list(line.low) != list(line.high or ()) for line in lines)
    return "Band: the range over seeds, or with one seed the 95% interval." if wide else ""

"""Curves → SVG text that takes its colours from the page, so that it reads on light and on dark.

matplotlib draws with sentinel colours; they become `currentColor` and CSS variables with a fallback. The same
data gives the same bytes.
"""

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

from memlm.runtime.wording import printable
from memlm_evidence.pages.measures import measure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as MatplotlibFigure

_INK, _GRID = "#010101", "#010102"
_SERIES = {f"#0102{index:02x}": index for index in range(1, 7)}
_FALLBACKS = ("#0b5fa5", "#b84a00", "#00745a", "#8b2f80", "#7a6200", "#5a5f69")
_DASHES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)), (0, (2, 2)))
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "memlm",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "legend.frameon": False,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


@dataclass(frozen=True)
class Line:
    """A curve, and if known the band its values lie in."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    marked: bool = False
    """Each point is one measurement."""


def line_figure(
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    y_limits: tuple[float, float] | None = None,
    x_ticks: Mapping[float, str] | None = None,
    log_x: bool = False,
    log_y: bool = False,
) -> str:
    """Curves with their bands, as SVG; `y_label` stands above the axis, the legend below.

    `x_ticks` are for curves measured at a few places only: these are marked, and the axis has these labels alone.
    """
    with _canvas(3.3 + 0.22 * _legend_rows(lines)) as (figure, axes, drawn):
        _draw(axes, lines)
        _dress(axes, x_label, y_label, log_x, log_y)
        if x_ticks is not None:
            _mark(axes, x_ticks)
        if y_limits is not None:
            axes.set_ylim(*y_limits)
        if len(lines) > 1:
            figure.legend(*_legend(axes), loc="outside lower left", ncols=_legend_columns(lines), handlelength=2.6)
    return _themed(drawn.getvalue())


def interval_figure(
    names: Sequence[str], intervals: Sequence[tuple[float, float, float]], *, threshold: float, x_label: str
) -> str:
    """Values with their intervals, (value, low, high), one below the other, beside a threshold; as SVG."""
    with _canvas(1.1 + 0.26 * len(names)) as (_, axes, drawn):
        (colour, index), dashes = next(iter(_SERIES.items())), _DASHES[1]
        for place, (value, low, high) in enumerate(intervals):
            axes.plot([low, high], [place, place], color=colour, linewidth=1.8, solid_capstyle="butt")
            axes.plot([value], [place], color=colour, marker="o", markersize=5)
        axes.axvline(threshold, color=list(_SERIES)[index], linestyle=dashes, linewidth=1.4)
        axes.set_yticks(range(len(names)), [_plain(name) for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.tick_params(length=3)
        axes.set_title(_plain(x_label))
        axes.margins(x=0.08)
    return _themed(drawn.getvalue())


@contextmanager
def _canvas(height: float) -> "Iterator[tuple[MatplotlibFigure, Axes, io.StringIO]]":
    """A figure in our style, its axes, and the buffer that holds its SVG afterwards; height in inches."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure, buffer = Figure(figsize=(5.6, height), layout="constrained"), io.StringIO()
        FigureCanvasSVG(figure)
        yield figure, figure.subplots(), buffer
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # the reader's browser draws the text, with its own fonts
            figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})


def _draw(axes: "Axes", lines: Sequence[Line]) -> None:
    for line, colour, dashes in zip(lines, cycle(_SERIES), islice(cycle(_DASHES), len(lines)), strict=False):
        marker = "o" if line.marked or len(line.x) < 2 else None
        axes.plot(
            line.x, line.y, color=colour, linestyle=dashes, linewidth=1.8, marker=marker, markersize=4.5, clip_on=False
        )
        if line.low is not None and line.high is not None:
            axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.18, linewidth=0)
        axes.lines[-1].set_label(_plain(line.label))


def _dress(axes: "Axes", x_label: str, y_label: str, log_x: bool, log_y: bool) -> None:
    from matplotlib.ticker import EngFormatter

    axes.set_xlabel(_plain(x_label), loc="right")
    axes.set_title(_plain(y_label))
    axes.margins(x=0)
    axes.grid(visible=False, axis="x")
    axes.tick_params(length=3)
    if log_x:
        axes.set_xscale("log")
    if log_y:
        axes.set_yscale("log")
    if axes.get_xlim()[1] > 9999:
        axes.xaxis.set_major_formatter(EngFormatter(sep="\u2009"))


def _mark(axes: "Axes", x_ticks: Mapping[float, str]) -> None:
    for line in axes.lines:
        line.set_marker("o")
    axes.minorticks_off()
    axes.set_xticks(list(x_ticks), [_plain(label) for label in x_ticks.values()])


def _legend(axes: "Axes") -> tuple[list[Any], list[str]]:
    return list(axes.lines), [str(line.get_label()) for line in axes.lines]


def _legend_columns(lines: Sequence[Line]) -> int:
    return 2 if max(len(line.label) for line in lines) <= 26 else 1


def _legend_rows(lines: Sequence[Line]) -> int:
    return -(-len(lines) // _legend_columns(lines)) if len(lines) > 1 else 0


def _plain(text: str) -> str:
    """Text that matplotlib neither reads as mathematics nor hides."""
    return printable(text).replace("$", r"\$").lstrip("_")


def _themed(svg: str) -> str:
    """The bare `<svg>` element in the page's colours, width and font."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<svg[^>]*?(viewBox="[^"]*")[^>]*>', _ROOT, svg, count=1, flags=re.DOTALL)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 sans-serif", svg)
    svg = svg.replace(_INK, "currentColor").replace(_GRID, "var(--grid, #e4e5e6)")
    for sentinel, index in _SERIES.items():
        svg = svg.replace(sentinel, f"var(--series-{index}, {_FALLBACKS[index - 1]})")
    return svg.strip()


_ROOT = (
    r'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" \1'
    ' fill="currentColor" stroke-linejoin="round" stroke-linecap="butt">'
)


def learning_curves(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Token accuracy over training, a curve for each run; of rows written twice (a resumed run) the last counts."""
    x, y = "tokens", "token_accuracy"
    lines = []
    for label, rows in curves.items():
        points = sorted({row[x]: row[y] for row in rows if x in row and row.get(y) is not None}.items())
        lines.append(Line(label, [place for place, _ in points], [value for _, value in points]))
    return line_figure(lines, x_label="training tokens", y_label=measure(y).header, y_limits=(0.0, 1.0))


def accuracy_by_position(curves: Mapping[str, Sequence[float]]) -> str:
    """Token accuracy at each position of a chunk, a curve for each evaluation set."""
    lines = [Line(label, range(1, len(values) + 1), values) for label, values in curves.items()]
    return line_figure(lines, x_label="position in the chunk", y_label="token accuracy", y_limits=(0.0, 1.0))

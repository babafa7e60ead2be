"""Curves and intervals → SVG that takes its colours from the page's CSS variables, so that it suits light and dark.

matplotlib draws in placeholder colours, which are replaced by `currentColor` and `var(--series-N)`. The same data gives
the same bytes.
"""

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from memlm.runtime.wording import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _GRID = "#010101", "#010102"
_SERIES = [f"#0102{index:02x}" for index in range(1, 7)]
_DASHES = ["-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)), (0, (2, 2))]
_STYLE = resources.files("memlm_evidence.pages") / "figures.mplstyle"
_ROOT = (
    r'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" \1'
    ' fill="currentColor" stroke-linejoin="round" stroke-linecap="butt">'
)


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


@dataclass
class Figure:
    """A drawing: trusted SVG, what it shows in words (`alt`), and a caption."""

    svg: str
    alt: str
    caption: str = ""


def line_figure(
    lines: Sequence[Line],
    alt: str,
    caption: str = "",
    *,
    x_label: str,
    y_label: str,
    y_limits: tuple[float, float] | None = None,
    x_ticks: Mapping[float, str] | None = None,
    log_x: bool = False,
    log_y: bool = False,
) -> Figure:
    """Curves with their bands; `y_label` stands above the axis, the legend below.

    `x_ticks` are for curves measured at a few places only: these are marked, and the axis has these labels alone.
    """
    from matplotlib.ticker import EngFormatter

    columns = 2 if max((len(line.label) for line in lines), default=0) <= 26 else 1
    legend_rows = -(-len(lines) // columns) if len(lines) > 1 else 0
    figure = Figure("", alt, caption)
    with _axes(figure, height=3.3 + 0.22 * legend_rows) as axes:
        for line in lines:
            marker = "o" if line.marked or len(line.x) < 2 or x_ticks is not None else None
            (drawn,) = axes.plot(line.x, line.y, marker=marker, clip_on=False)
            drawn.set_label(_plain(line.label))
            if line.low is not None and line.high is not None:
                axes.fill_between(line.x, line.low, line.high, color=drawn.get_color(), alpha=0.18, linewidth=0)
        axes.set_xlabel(_plain(x_label), loc="right")
        axes.set_title(_plain(y_label))
        axes.margins(x=0)
        axes.grid(visible=False, axis="x")
        axes.set(**({"xscale": "log"} if log_x else {}), **({"yscale": "log"} if log_y else {}), ylim=y_limits)
        if axes.get_xlim()[1] > 9999:
            axes.xaxis.set_major_formatter(EngFormatter(sep="\u2009"))
        if x_ticks is not None:
            axes.minorticks_off()
            axes.set_xticks(list(x_ticks), [_plain(label) for label in x_ticks.values()])
        if len(lines) > 1:
            labels = [str(line.get_label()) for line in axes.lines]
            axes.figure.legend(axes.lines, labels, loc="outside lower left", ncols=columns, handlelength=2.6)
    return figure


def interval_figure(
    names: Sequence[str], intervals: Sequence[tuple[float, float, float]], alt: str, *, threshold: float, x_label: str
) -> Figure:
    """Values with their intervals, (value, low, high), one below the other, beside a threshold."""
    figure = Figure("", alt)
    with _axes(figure, height=1.1 + 0.26 * len(names)) as axes:
        for place, (value, low, high) in enumerate(intervals):
            axes.plot([low, high], [place, place], color=_SERIES[0], linestyle="-", solid_capstyle="butt")
            axes.plot([value], [place], color=_SERIES[0], marker="o")
        axes.axvline(threshold, color=_SERIES[1], linestyle=_DASHES[1], linewidth=1.4)
        axes.set_yticks(range(len(names)), [_plain(name) for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_title(_plain(x_label))
        axes.margins(x=0.08)
    return figure


@contextmanager
def _axes(figure: Figure, height: float) -> "Iterator[Axes]":
    """Axes in our style, `height` inches high; what is drawn on them becomes the figure's SVG."""
    from cycler import cycler
    from matplotlib import style
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    series: Any = {"axes.prop_cycle": cycler(color=_SERIES) + cycler(linestyle=_DASHES)}
    with style.context([str(_STYLE), series]):
        canvas, written = Canvas(figsize=(5.6, height), layout="constrained"), io.StringIO()
        FigureCanvasSVG(canvas)
        yield canvas.subplots()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # the reader's browser draws the text, with its own fonts
            canvas.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    figure.svg = _themed(written.getvalue())


def _plain(text: str) -> str:
    """Text that matplotlib neither reads as mathematics nor hides."""
    return printable(text).replace("$", r"\$").lstrip("_")


def _themed(svg: str) -> str:
    """The bare `<svg>` element in the page's colours, width and font."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<svg[^>]*?(viewBox="[^"]*")[^>]*>', _ROOT, svg, count=1, flags=re.DOTALL)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 sans-serif", svg)
    svg = svg.replace(_INK, "currentColor").replace(_GRID, "var(--grid)")
    return re.sub("#01020([1-6])", r"var(--series-\1)", svg).strip()

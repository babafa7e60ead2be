"""The picture that the README begins with: one text, its vector, and the text again; beside it, who can do that.

Everything in it is recorded: the text and its vector by `docs/overview.py`, the bars by `memlm reproduce embeddings`
and `memlm demo --reference`. The same records give the same bytes.
"""

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import mean
from typing import Any

from memlm_evidence.pages.run import REFERENCE, read_reference

_WIDTH, _HEIGHT = 1000, 340
_PANEL, _PANELS, _LINE = 204, (24, 456), 17
"""Width of a text's panel, where the two begin, and the height of a line of text."""
_LETTERS = 27
"""In a line: so few that it fits in any font."""
_CELL, _ROWS, _TOP, _MIDDLE = 8, 32, 62, 342
"""Size of a number's cell, cells in a column, their top, and the middle of all columns."""
_ARROW = 50
_LEVELS = 8
"""Of colour."""
_BRIGHTEST = 2.4
"""What is drawn in full colour; root mean square is 1."""
_BARS, _BAR_WIDTH, _BAR_STEP = (708, 102), 268, 56

_STYLE = """
.card { fill: #ffffff; stroke: #d5d9de }
.panel { fill: #f4f6f8 }
.ink { fill: #1c2128 }
.soft { fill: #59636e }
.line { stroke: #59636e; fill: none }
.above, .ours { fill: #0b5fa5 }
.below { fill: #b84a00 }
.others { fill: #8c959f }
.value { fill: #ffffff }
@media (prefers-color-scheme: dark) {
.card { fill: #0d1117; stroke: #30363d }
.panel { fill: #161b22 }
.ink { fill: #e6edf3 }
.soft { fill: #9198a1 }
.line { stroke: #9198a1 }
.above, .ours { fill: #58a6ff }
.below { fill: #f0883e }
.others { fill: #6e7681 }
.value { fill: #0d1117 }
}
"""


@dataclass(frozen=True)
class Bar:
    """How much of 64 tokens is read back from a kind of vector."""

    label: str
    budget: str
    """What it was trained on."""
    value: float
    ours: bool = False

    @property
    def shown(self) -> str:
        """The value with as many digits as tell it from all or nothing."""
        return f"{self.value:.3f}" if self.value > 0.99 else f"{self.value:.2f}"


def overview_picture(results: Path) -> str:
    """The picture as SVG, from a folder of result files (`docs/results`).

    Raises:
        OSError: a file is missing.
    """
    example = json.loads((results / "example.json").read_text(encoding="utf-8"))
    return draw(example, read_bars(results))


def read_bars(results: Path) -> list[Bar]:
    """Token accuracy by what made the vector; means over the seeds there are."""
    rows = json.loads((results / "embeddings.json").read_text(encoding="utf-8"))
    tokens = rows[0]["provenance"]["settings"]["plan"]["num_tokens"] / 1e6
    causal, retrieval, ours = (
        mean(row["token_accuracy"][name] for row in rows) for name in ("causal", "retrieval", "autoencoder")
    )
    reference = read_reference(REFERENCE)
    paper_tokens, paper = reference.reached("tokens") / 1e6, reference.main.measures["token_accuracy"]
    budget = f"trained on {tokens:.2f} M"
    return [
        Bar("Next-token model", budget, causal),
        Bar("Retrieval embedding", budget, retrieval),
        Bar("The paper’s autoencoder", f"trained on {paper_tokens:.1f} M", paper),
        Bar("memlm’s autoencoder", budget, ours, ours=True),
    ]


def draw(example: Mapping[str, Any], bars: Sequence[Bar]) -> str:
    """The picture, of an example (`text`, `regenerated`, `num_tokens`, `vector`) and bars."""
    described = (
        f"A text of {example['num_tokens']} tokens, encoded into one vector, and regenerated from it. Share of 64 "
        f"tokens read back from one vector: {'; '.join(f'{bar.label} {bar.shown}' for bar in bars)}."
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">',
        f"<title>{escape(described)}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="card" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{_HEIGHT - 1}" rx="10"/>',
        *_text_panel(_PANELS[0], f"A text of {example['num_tokens']} tokens", example["text"]),
        *_arrow(_PANELS[0] + _PANEL, "encoder"),
        *_vector(example["vector"]),
        *_arrow(_PANELS[1] - _ARROW, "decoder"),
        *_text_panel(_PANELS[1], "From the vector alone", example["regenerated"]),
        f'<path class="line" stroke-opacity="0.35" d="M684.5 24v{_HEIGHT - 48}"/>',
        *_bar_chart(bars),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _text_panel(x: int, title: str, text: str) -> Iterator[str]:
    yield _text(x, 42, title, size=13, bold=True)
    yield f'<rect class="panel" x="{x}" y="{_TOP}" width="{_PANEL}" height="{_CELL * _ROWS}" rx="6"/>'
    lines = textwrap.wrap(text, _LETTERS)
    top = _TOP + (_CELL * _ROWS - _LINE * len(lines)) // 2 + 13
    for number, line in enumerate(lines):
        yield _text(x + 12, top + _LINE * number, line, size=12.5)


def _arrow(x: int, label: str) -> Iterator[str]:
    y = _TOP + _CELL * _ROWS // 2
    yield _text(x + _ARROW / 2, y - 10, label, size=11, kind="soft", anchor="middle")
    yield f'<path class="line" stroke-width="1.5" d="M{x + 9} {y}h{_ARROW - 20}m-5 -4l5 4l-5 4"/>'


def _vector(values: Sequence[float]) -> Iterator[str]:
    """A cell for each number: its colour is the sign, its strength the size."""
    columns = -(-len(values) // _ROWS)
    x, y = _MIDDLE - columns * _CELL // 2, _TOP
    yield _text(_MIDDLE, 42, f"One vector of {len(values)}", size=13, bold=True, anchor="middle")
    cells: dict[tuple[bool, int], list[str]] = {}
    for place, value in enumerate(values):
        level = min(_LEVELS, 1 + int(abs(value) / _BRIGHTEST * _LEVELS))
        column, row = divmod(place, _ROWS)
        side = _CELL - 1
        square = f"M{x + column * _CELL} {y + row * _CELL}h{side}v{side}h-{side}z"
        cells.setdefault((value > 0, level), []).append(square)
    for (above, level), squares in sorted(cells.items()):
        kind = "above" if above else "below"
        yield f'<path class="{kind}" fill-opacity="{level / _LEVELS:.3f}" d="{"".join(squares)}"/>'


def _bar_chart(bars: Sequence[Bar]) -> Iterator[str]:
    x, y = _BARS
    yield _text(x, 42, "How much of 64 tokens comes back", size=13, bold=True)
    yield _text(x, 61, "from one vector of 256, on held-out text", size=12, kind="soft")
    for number, bar in enumerate(bars):
        top, kind = y + number * _BAR_STEP, "ours" if bar.ours else "others"
        yield _text(x, top, bar.label, size=12.5, bold=bar.ours)
        yield _text(x + _BAR_WIDTH, top, bar.budget, size=11, kind="soft", anchor="end")
        yield f'<rect class="panel" x="{x}" y="{top + 8}" width="{_BAR_WIDTH}" height="18" rx="3"/>'
        length = round(bar.value * _BAR_WIDTH, 1)
        yield f'<rect class="{kind}" x="{x}" y="{top + 8}" width="{length}" height="18" rx="3"/>'
        if bar.ours:
            yield _text(x + length - 8, top + 21.5, bar.shown, size=12.5, kind="value", bold=True, anchor="end")
        else:
            yield _text(x + length + 7, top + 21.5, bar.shown, size=12.5, bold=True)


def _text(
    x: float,
    y: float,
    text: str,
    *,
    size: float,
    bold: bool = False,
    kind: str = "ink",
    anchor: str = "start",
) -> str:
    place = f'x="{x:g}" y="{y:g}" text-anchor="{anchor}"'
    font = f'font-size="{size:g}" font-weight="{600 if bold else 400}"'
    return f'<text class="{kind}" {place} {font}>{escape(text)}</text>'

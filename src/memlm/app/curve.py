"""What was measured of embeddings of several lengths, as an SVG in the page's colours."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from typing import Any

from memlm.app.picture import asset

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 640, 300, 44, 16, 14, 34
_TICKS = (4, 8, 16, 32, 64, 128)
_STYLES = ((1, ""), (2, ""), (3, ""), (2, "5 4"), (3, "5 4"))
"""Of each curve: the page's colour, one for each model, and dashes, for small readers."""


@cache
def measured() -> dict[str, Any]:
    """Curves, searches and examples that were recorded, with how each was made; `docs/explorer.py` writes it."""
    return dict(json.loads(asset("measured.json")))


@dataclass(frozen=True)
class Curve:
    """Shares of texts' bits that come back, by tokens of a text."""

    label: str
    x: Sequence[int]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def curves() -> list[Curve]:
    """Those that were measured."""
    return [Curve(**each) for each in measured()["curves"]]


def svg(lines: Sequence[Curve]) -> str:
    """A figure with its legend."""
    told = "; ".join(f"{line.label}: {_said(line)}" for line in lines)
    drawn = "".join(part for number, line in enumerate(lines) for part in _drawn(number, line))
    legend = "".join(
        f'<li><svg viewBox="0 0 28 8" aria-hidden="true">{_stroke(number, "M0 4H28")}</svg>{escape(line.label)}</li>'
        for number, line in enumerate(lines)
    )
    return (
        f'<figure class="curve"><figcaption>Share of a text’s bits that comes back, by tokens of the text</figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(told)}">{"".join(_axes())}{drawn}</svg>'
        f"<ul>{legend}</ul></figure>"
    )


def _said(line: Curve) -> str:
    return ", ".join(f"{y:.0%} of {x} tokens" for x, y in zip(line.x, line.y, strict=True))


def _across(tokens: float) -> float:
    share = math.log2(tokens / _TICKS[0]) / math.log2(_TICKS[-1] / _TICKS[0])
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _down(share: float) -> float:
    return _TOP + (1 - share) * (_HEIGHT - _TOP - _BOTTOM)


def _axes() -> Iterator[str]:
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = _down(share)
        yield f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>'
        yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{share:.0%}</text>'
    for tokens in _TICKS:
        yield f'<text x="{_across(tokens):.1f}" y="{_HEIGHT - 12}" text-anchor="middle">{tokens}</text>'


def _drawn(number: int, line: Curve) -> Iterator[str]:
    x, y = [_across(each) for each in line.x], [_down(each) for each in line.y]
    low, high = [_down(each) for each in line.low], [_down(each) for each in line.high]
    there = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, high, strict=True))
    back = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(reversed(x), reversed(low), strict=True))
    colour = f"fill:var(--series-{_STYLES[number][0]})"
    yield f'<polygon points="{there} {back}" style="{colour}" opacity=".15"/>'
    yield _stroke(number, "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True)))
    for a, b in zip(x, y, strict=True):
        yield f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" style="{colour}"/>'


def _stroke(number: int, path: str) -> str:
    colour, dashes = _STYLES[number]
    drawn = f'fill="none" style="stroke:var(--series-{colour})" stroke-width="2" stroke-dasharray="{dashes}"'
    return f'<path d="{path}" {drawn}/>'

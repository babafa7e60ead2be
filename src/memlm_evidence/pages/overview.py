"""The picture that the README begins with: one text, its vector, and the text again; beside it, who can do that.

Everything in it is recorded: the text and its vector by `docs/overview.py`, the bars by `memlm reproduce embeddings`
and `memlm demo --reference`. The same records give the same bytes.
"""

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from memlm_evidence.pages.page import environment
from memlm_evidence.pages.run import REFERENCE, read_reference

_LETTERS = 27
"""In a line: so few that it fits in any font."""
_SIDE, _ROWS, _TOP, _MIDDLE = 8, 32, 62, 342
"""Size of a number's square, squares in a column, their top, and the middle of all columns."""
_LEVELS, _BRIGHTEST = 8, 2.4
"""Of colour; what is drawn in full colour, where root mean square is 1."""


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
    picture = (
        environment("html")
        .get_template("overview.svg.jinja")
        .render(
            num_tokens=example["num_tokens"],
            before=textwrap.wrap(example["text"], _LETTERS),
            after=textwrap.wrap(example["regenerated"], _LETTERS),
            num_dims=len(example["vector"]),
            cells=_cells(example["vector"]),
            bars=bars,
        )
    )
    return "\n".join(filter(str.strip, picture.splitlines())) + "\n"


def _cells(values: Sequence[float]) -> list[tuple[bool, str, list[tuple[int, int]]]]:
    """Whether numbers are above 0, how strong their colour is, and the corners of their squares."""
    left = _MIDDLE - -(-len(values) // _ROWS) * _SIDE // 2
    cells: dict[tuple[bool, int], list[tuple[int, int]]] = {}
    for place, value in enumerate(values):
        level = min(_LEVELS, 1 + int(abs(value) / _BRIGHTEST * _LEVELS))
        column, row = divmod(place, _ROWS)
        cells.setdefault((value > 0, level), []).append((left + column * _SIDE, _TOP + row * _SIDE))
    return [(above, f"{level / _LEVELS:.3f}", squares) for (above, level), squares in sorted(cells.items())]

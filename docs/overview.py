"""The picture that the README begins with: one text, its vector, and the text again; beside it, who can do that.

Everything in it is recorded: the text and its vector here, the bars by `memlm reproduce embeddings` and `memlm demo
--reference`. The same records give the same bytes. Run it where `english` has changed.
"""

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import memlm
from memlm.runtime.results import Provenance
from memlm_evidence.experiments.embeddings import EmbeddingsResult
from memlm_evidence.experiments.table import read_results
from memlm_evidence.pages.demo import REFERENCE, read_run
from memlm_evidence.pages.page import environment

DOCS = Path(__file__).parent
TEXT = (
    "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a "
    "wife. However little known the feelings or views of such a man may be on his first entering a neighbourhood, this "
    "truth is so well fixed in the minds of the surrounding families."
)
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
    found: list[EmbeddingsResult] = read_results([results])[EmbeddingsResult.name]
    causal, retrieval, ours = (
        mean((each.token_accuracy or {})[name] for each in found) for name in ("causal", "retrieval", "autoencoder")
    )
    paper = read_run(REFERENCE)
    budget = f"trained on {found[0].provenance.settings['plan']['num_tokens'] / 1e6:.2f} M"
    return [
        Bar("Next-token model", budget, causal),
        Bar("Retrieval embedding", budget, retrieval),
        Bar(
            "The paper’s autoencoder",
            f"trained on {paper.reached('tokens') / 1e6:.1f} M",
            paper.main.measures["token_accuracy"],
        ),
        Bar("memlm’s autoencoder", budget, ours, ours=True),
    ]


def draw(example: Mapping[str, Any], bars: Sequence[Bar]) -> str:
    """The picture, of an example (`text`, `regenerated`, `num_tokens`, `vector`) and bars."""
    template = environment("html").from_string((DOCS / "overview.svg.jinja").read_text(encoding="utf-8"))
    picture = template.render(
        num_tokens=example["num_tokens"],
        before=textwrap.wrap(example["text"], _LETTERS),
        after=textwrap.wrap(example["regenerated"], _LETTERS),
        num_dims=len(example["vector"]),
        cells=_cells(example["vector"]),
        bars=bars,
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


def main() -> None:
    """Write docs/results/example.json and docs/overview.svg."""
    model = memlm.load("english")
    memory = model.encode([TEXT])
    example = {
        "text": TEXT,
        "regenerated": str(model.regenerate(memory)[0]),
        "num_tokens": int(memory.num_tokens.sum()),
        "vector": [round(value, 2) for value in memory.vectors.flatten().tolist()],
        "encoder": model.encoder_fingerprint,
        "provenance": asdict(Provenance.here(model="english")),
    }
    (DOCS / "results" / "example.json").write_text(json.dumps(example) + "\n", encoding="utf-8")
    (DOCS / "overview.svg").write_text(overview_picture(DOCS / "results"), encoding="utf-8")


if __name__ == "__main__":
    main()

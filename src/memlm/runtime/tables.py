"""Tables of ready text, and those of results: the same in the terminal and on pages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memlm.runtime.measures import REPORTED, measure
from memlm.runtime.results import Result
from memlm.runtime.wording import human, share, with_interval

_SETS: Mapping[str, str] = {
    "held_out": "Held-out text",
    "temporal": "Later years",
    "novel": "A novel",
    "verse": "Verse",
    "code": "Source code",
    "random_tokens": "Random tokens",
}
"""Readers' names of evaluation sets, by their names in result files."""
_SETS_OF_CORPUS: Mapping[str, Mapping[str, str]] = {"sotu": {"held_out": "Held-out addresses"}}
"""Other names where the model was trained on this named corpus."""


@dataclass(frozen=True)
class Table:
    """A header and rows of ready text; what follows a line feed in a cell is set smaller, below.

    Raises:
        ValueError: a row that is longer or shorter than the header.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"a table row has {len(row)} cells, its header {len(self.header)}: {row!r}")


def metrics_table(
    results: Sequence[Result], *, measures: Sequence[str] = REPORTED, first: str = "text", caption: str = ""
) -> Table:
    """Measures by result, each with its interval below; those that no result has are left out. `first` heads names."""
    shown = present(results, measures)
    rows = [
        [
            _title(result),
            *(measure(name).estimate(result.measures.get(name), result.intervals.get(name)) for name in shown),
        ]
        for result in results
    ]
    return Table([first, *(measure(name).header for name in shown)], rows, caption)


def fill_table(results: Sequence[Result], caption: str = "") -> Table | None:
    """Share of exact texts by their length in tokens, each with its interval below; None where no result has it."""
    shown = [result for result in results if result.measures.get("exact_by_fill")]
    fills = list(dict.fromkeys(fill for result in shown for fill in result.exact_by_fill))
    rows = []
    for result in shown:
        intervals = result.measures.get("exact_by_fill_intervals", {})
        cells = (with_interval(share, result.exact_by_fill.get(fill), intervals.get(fill)) for fill in fills)
        rows.append([set_name(result), *cells])
    header = ["exact texts of", *(f"{fill} token{'' if fill == '1' else 's'}" for fill in fills)]
    return Table(header, rows, caption) if fills else None


def present(results: Sequence[Result], measures: Sequence[str]) -> list[str]:
    """Those of the measures that at least one result has."""
    return [name for name in measures if any(result.measures.get(name) is not None for result in results)]


def set_name(result: Result) -> str:
    """The evaluation set's name for readers; it depends on what the model was trained on."""
    settings: Any = result.provenance.settings if result.provenance else {}
    try:
        corpus = settings["model"]["recipe"]["data"]["corpus"].get("name", "")
    except (KeyError, TypeError, AttributeError):  # a result of no trained model, or of another version
        corpus = ""
    return {**_SETS, **_SETS_OF_CORPUS.get(corpus, {})}.get(result.name, human(result.name))


def _title(result: Result) -> str:
    num_chunks = result.measures.get("num_chunks")
    below = f"\n{num_chunks:,} chunk{'' if num_chunks == 1 else 's'}" if isinstance(num_chunks, int) else ""
    return set_name(result) + below

"""Measures by their names in result files, and tables of them: the same in the terminal and on pages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memlm.runtime.results import Result
from memlm.runtime.wording import human, number, share, with_interval


@dataclass(frozen=True)
class Measure:
    """How one measure is shown."""

    header: str
    meaning: str = ""
    digits: int = 4
    is_share: bool = False

    def show(self, value: Any) -> str:
        """The value as text."""
        return share(value, self.digits) if self.is_share else number(value, self.digits)

    def estimate(self, value: Any, interval: Sequence[float] | None) -> str:
        """The value, and on a second line its interval, if there is one."""
        return with_interval(self.show, value, interval)


MEASURES: Mapping[str, Measure] = {
    "token_accuracy": Measure(
        "token accuracy",
        "Share of tokens regenerated right, in place, from the memory alone, without teacher forcing.",
        is_share=True,
    ),
    "exact_match": Measure("exact match", "Share of chunks regenerated without an error.", is_share=True),
    "bits_per_byte": Measure(
        "bits/byte", "The decoder's cross-entropy given the memory, in bits per byte of the text. 0 is perfect."
    ),
    "retained_bits_per_token": Measure(
        "retained bits/token",
        "Bits per token that the memory saves, compared with a decoder that knows token frequencies only.",
        digits=2,
    ),
    "retained_fraction": Measure(
        "retained fraction",
        "Retained bits as a fraction of what a token costs without a memory. 1 is perfect.",
        is_share=True,
    ),
    "bits_per_dim": Measure("bits/dim", "Retained bits of a chunk per dimension of its memory.", digits=2),
    "entropy_ratio": Measure(
        "entropy ratio", "The paper's measure, for comparison: 1 − the decoder's cross-entropy / that of random logits."
    ),
    "storage_efficiency": Measure(
        "storage efficiency", "Retained bits as a fraction of the bits that the quantized memory takes.", is_share=True
    ),
    "causal_nats_per_token": Measure(
        "nats/token of a language model", "Cross-entropy of a causal language model, which sees the earlier tokens."
    ),
}

REPORTED = (  # the columns of a table of results
    "token_accuracy",
    "exact_match",
    "bits_per_byte",
    "retained_bits_per_token",
    "retained_fraction",
    "bits_per_dim",
    "entropy_ratio",
)


def measure(name: str) -> Measure:
    """A measure by its name; one not listed here goes by its own name."""
    return MEASURES.get(name) or Measure(human(name))


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

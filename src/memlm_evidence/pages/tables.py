"""Results → tables."""

from collections.abc import Mapping, Sequence

from memlm.runtime.results import Result
from memlm.runtime.wording import human, share
from memlm_evidence.pages.blocks import Definitions, Table
from memlm_evidence.pages.measures import REPORTED, measure


def metrics_table(
    results: Sequence[Result],
    *,
    measures: Sequence[str] = REPORTED,
    names: Mapping[str, str] | None = None,
    first: str = "text",
    caption: str = "",
) -> Table:
    """Measures by result, each with its interval below; measures that no result has are left out.

    `names` gives results their names on the page; `first` heads their column.
    """
    shown = present(results, measures)
    rows = [[_title(result, names or {}), *(_cell(result, name) for name in shown)] for result in results]
    return Table([first, *(measure(name).header for name in shown)], rows, caption)


def fill_table(results: Sequence[Result], names: Mapping[str, str], caption: str = "") -> Table | None:
    """Share of exact texts by their length in tokens, each with its interval below; None where no result says that."""
    shown = [result for result in results if result.measures.get("exact_by_fill")]
    fills = list(dict.fromkeys(fill for result in shown for fill in result.measures["exact_by_fill"]))
    header = ["exact texts of", *(f"{fill} token{'' if fill == '1' else 's'}" for fill in fills)]
    rows = [
        [names.get(result.name, human(result.name)), *(_fill_cell(result, fill) for fill in fills)] for result in shown
    ]
    return Table(header, rows, caption) if fills else None


def _fill_cell(result: Result, fill: str) -> str:
    text = share(result.measures["exact_by_fill"].get(fill))
    interval = result.measures.get("exact_by_fill_intervals", {}).get(fill)
    return f"{text}\n[{share(interval[0])}, {share(interval[1])}]" if interval else text


def meanings(results: Sequence[Result], measures: Sequence[str] = REPORTED) -> Definitions:
    """What the measures of `metrics_table` say, in plain words."""
    shown = (measure(name) for name in present(results, measures))
    return Definitions([(each.header, each.meaning) for each in shown if each.meaning])


def present(results: Sequence[Result], measures: Sequence[str]) -> list[str]:
    """Those of the measures that at least one result has."""
    return [name for name in measures if any(result.measures.get(name) is not None for result in results)]


def _title(result: Result, names: Mapping[str, str]) -> str:
    num_chunks = result.measures.get("num_chunks")
    below = f"\n{num_chunks:,} chunk{'' if num_chunks == 1 else 's'}" if isinstance(num_chunks, int) else ""
    return names.get(result.name, human(result.name)) + below


def _cell(result: Result, name: str) -> str:
    show = measure(name).show
    text = show(result.measures.get(name))
    interval = result.intervals.get(name)
    return f"{text}\n[{show(interval.low)}, {show(interval.high)}]" if interval else text

"""Results → tables."""

from collections.abc import Mapping, Sequence

from memlm.report.blocks import Definitions, Table
from memlm.report.measures import REPORTED, measure
from memlm.report.text import human
from memlm.results import Result


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

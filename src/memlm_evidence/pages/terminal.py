"""Samples and metrics in the terminal. Text from a model is shown, never obeyed: no markup, no control characters."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from memlm.runtime.results import Result
from memlm.runtime.wording import marked, number, printable
from memlm_evidence.pages.blocks import RegeneratedText, Table
from memlm_evidence.pages.demo import set_names
from memlm_evidence.pages.probe_rows import Probed
from memlm_evidence.pages.probe_tables import compact_table, controls_table
from memlm_evidence.pages.tables import fill_table, metrics_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_NOTE = "below a number: its 95% interval"
_GAP = 3
"""Characters between two columns."""
_NARROW = 16
"""Columns of text are never narrower, unless all of it is."""
_COMPACT = ("token_accuracy", "exact_match", "retained_bits_per_token", "bits_per_dim")


def print_samples(console: "Console", samples: Iterable[Mapping[str, Any]]) -> None:
    """Rows of samples.jsonl: where wrong, what came out struck through in red, what it should be behind it.

    Without colour the two are marked as wdiff does: `[-came out-]{+should be+}`. What is right, but unsure, is yellow,
    or `[?so?]`.
    """
    from rich.text import Text

    for sample in map(RegeneratedText.from_row, samples):
        title = Text(printable(sample.name), style="bold").append(f"  {sample.verdict}", style="not bold dim")
        console.print(title)
        console.print(_regenerated(sample, plain=console.no_color or console.color_system is None))
        console.print()


def _regenerated(sample: RegeneratedText, *, plain: bool) -> "Text":
    from rich.text import Text

    text = Text()
    flags = sample.unsure or [False] * len(sample.pieces)
    for (original, regenerated), unsure in zip(sample.pieces, flags, strict=True):
        if original == regenerated:
            right = printable(original)
            text.append(f"[?{right}?]" if unsure and plain else right, style="yellow" if unsure else "")
            continue
        space, *pair = marked(original, regenerated)
        shown = zip(pair, ("[-{}-]", "{{+{}+}}"), ("red strike", "green underline"), strict=True)
        for run, marks, style in shown:
            if run:
                text.append(space).append(marks.format(run) if plain else run, style=style)
    return text


def print_metrics(console: "Console", results: Sequence[Result]) -> None:
    """The main measures by result, and exact texts by length, with their 95% intervals."""
    names = set_names(results)
    _print_table(console, metrics_table(results, measures=_COMPACT, names=names), _NOTE)
    if table := fill_table(results, names):
        _print_table(console, table, _NOTE)


def print_probe(console: "Console", result: Result) -> None:
    """A probe's readings, with their 95% intervals, and what its controls say.

    Raises:
        ValueError: the result is not a probe's.
    """
    from rich.text import Text

    probed = Probed.of(result)
    console.print(Text(printable(probed.encoder), style="bold"))
    bound = any(reading.lower_bound for reading in probed.readings)
    marks = "; ≥: a lower bound, the reader was still learning" if bound else ""
    _print_table(console, compact_table(probed.readings), _NOTE + marks)
    for length, baseline in result.measures.get("baselines", {}).items():
        counted, causal = (number(baseline.get(f"{name}_nats_per_token")) for name in ("unconditional", "causal"))
        model = printable(str(baseline.get("causal_model")))
        line = (
            f"Without an embedding, {length} tokens cost {counted} nats each; a language model ({model}) pays {causal}."
        )
        console.print(line, markup=False, highlight=False)
    if not result.measures.get("round_trips", True):
        console.print("The tokenizer does not give the text back exactly: what is measured is tokens.")
    verdicts = probed.verdicts()
    if not verdicts:
        console.print("No controls were measured.")
        return
    table = controls_table(verdicts, ())
    styles = ["bold red" if verdict.failed else "" for verdict in verdicts]
    _print_table(console, table, "of the first view and reader", words=2, styles=styles)


def _print_table(
    console: "Console", table: Table, note: str, *, words: int | None = None, styles: Sequence[str] = ()
) -> None:
    """A table of ready text; columns after the first are numbers, but for that of `words`.

    Rich would cut numbers where a table is too wide. So it is shown as several, each of the first column and as many
    others as fit beside it.
    """
    from rich import box
    from rich.table import Table as Shown
    from rich.text import Text

    columns = [
        _Column(title, [row[index] for row in table.rows], is_text=index in (0, words))
        for index, title in enumerate(table.header)
    ]
    console.print()
    for block in _blocks(columns, console.width):
        widths = _widths(block, console.width)
        shown = Shown(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, width=_total(widths))
        for column, width in zip(block, widths, strict=True):
            shown.add_column(
                Text(column.title), justify="left" if column.is_text else "right", width=width, overflow="fold"
            )
        for row, style in zip_longest(zip(*(column.cells for column in block), strict=True), styles, fillvalue=""):
            shown.add_row(*map(_cell, row), style=style)
        console.print(shown, crop=False)
        console.print()
    console.print(Text(note, style="table.caption"))


class _Column:
    """A column of a table, and how wide it should be, and must be."""

    def __init__(self, title: str, cells: Sequence[str], *, is_text: bool) -> None:
        self.title, self.cells, self.is_text = title, cells, is_text
        words = max(map(len, title.split()), default=0)
        lines = [len(printable(line)) for cell in cells for line in cell.split("\n")]
        if is_text:
            self.natural = max([words, *map(len, title.split("\n")), *lines])
            self.least = min(self.natural, _NARROW)
        else:  # its title may be broken between words; its numbers may not
            self.natural = self.least = max([words, *lines])


def _blocks(columns: Sequence[_Column], room: int) -> Iterator[list[_Column]]:
    """Columns that fit side by side, the first with each; at least one other, whether or not it fits."""
    first, *others = columns
    block = [first]
    for column in others:
        if len(block) > 1 and _total([each.least for each in (*block, column)]) > room:
            yield block
            block = [first]
        block.append(column)
    yield block


def _widths(block: Sequence[_Column], room: int) -> list[int]:
    """The columns' widths; where there is too little room those of text give way, the last one first."""
    widths = [column.natural for column in block]
    for index in reversed(range(len(block))):
        missing = max(0, _total(widths) - room)
        widths[index] -= min(missing, widths[index] - block[index].least)
    return widths


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def _cell(content: str) -> "Text":
    from rich.text import Text

    main, _, below = content.partition("\n")
    return Text(printable(main)).append(f"\n{printable(below)}" if below else "", style="dim")

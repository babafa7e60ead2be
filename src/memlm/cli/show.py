"""Tables and regenerated samples in the terminal. Text from a model is printed without markup or control characters."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from memlm.runtime.progress import track
from memlm.runtime.results import Result
from memlm.runtime.tables import Table, fill_table, metrics_table
from memlm.runtime.wording import marked, printable, verdict

INTERVALS = "below a number: its 95% interval"
_NARROW = 16
"""Columns of text are never narrower, unless all of it is."""
_UNBOUNDED = 10_000
_MEASURES = ("token_accuracy", "exact_match", "retained_bits_per_token", "bits_per_dim")


@contextmanager
def counts_tokens(title: str, most: int) -> Iterator[dict[str, Any]]:
    """Progress on standard error while a text of at most so many tokens is written: an option of `generate`."""
    with track(title, total=most, unit="tokens") as advance:

        class Counter:
            """A streamer, as transformers calls it, that counts tokens as they come."""

            def put(self, value: Any) -> None:
                advance(value.numel())

            def end(self) -> None:
                pass

        yield {"streamer": Counter()}


def print_samples(console: Console, samples: Iterable[Mapping[str, Any]]) -> None:
    """Rows of samples.jsonl: where wrong, what came out struck through in red, what it should be behind it.

    Without colour the two are marked as wdiff does: `[-came out-]{+should be+}`. What is right, but unsure, is yellow,
    or `[?so?]`.
    """
    for sample in samples:
        title = Text(printable(sample["document"]), style="bold")
        console.print(title.append(f"  {verdict(sample)}", style="not bold dim"))
        console.print(_regenerated(sample, plain=console.no_color or console.color_system is None))
        console.print()


def _regenerated(sample: Mapping[str, Any], *, plain: bool) -> Text:
    text = Text()
    for (original, regenerated), unsure in zip_longest(sample["pieces"], sample.get("unsure", ())):
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


def print_metrics(console: Console, results: Sequence[Result]) -> None:
    """The main measures by result, and exact texts by length, with their 95% intervals."""
    print_table(console, metrics_table(results, measures=_MEASURES), INTERVALS)
    if table := fill_table(results):
        print_table(console, table, INTERVALS)


def print_table(
    console: Console, table: Table, note: str, *, text_columns: Sequence[int] = (0,), styles: Sequence[str] = ()
) -> None:
    """A table and a note below it. Columns are numbers, which are never broken, except `text_columns`.

    Where the terminal is too narrow for it, each row is listed: its first cell, then a line for each other one.
    `styles` are rich's, one for each row.
    """
    shown: list[RenderableType] = [_side_by_side(table, text_columns, styles)]
    if Measurement.get(console, console.options.update(max_width=_UNBOUNDED), shown[0]).minimum > console.width:
        shown = list(_listed(table, text_columns, styles))
    console.print()
    for each in shown:
        console.print(each, crop=False)
        console.print()
    console.print(Text(note, style="table.caption"))


def _side_by_side(table: Table, text_columns: Sequence[int], styles: Sequence[str]) -> RichTable:
    shown = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for index, title in enumerate(table.header):
        natural = max((_width(row[index]) for row in table.rows), default=0)
        words = max(map(len, title.split()), default=0)
        if index in text_columns:
            shown.add_column(Text(title), min_width=min(max(natural, words), _NARROW), overflow="fold")
        else:  # its title may be broken between words; its numbers may not
            width = max(natural, words)
            shown.add_column(Text(textwrap.fill(title, width)), justify="right", no_wrap=True, min_width=width)
    for row, style in zip_longest(table.rows, styles, fillvalue=""):
        shown.add_row(*map(_cell, row), style=style)
    return shown


def _listed(table: Table, text_columns: Sequence[int], styles: Sequence[str]) -> Iterator[RenderableType]:
    """Each row by itself: its first cell, and below it the others behind their titles."""
    numbers = [index for index in range(len(table.header)) if index not in text_columns]
    for row, style in zip_longest(table.rows, styles, fillvalue=""):
        grid = RichTable.grid(padding=(0, 2))
        grid.add_column(overflow="fold", min_width=max(len(word) for title in table.header for word in title.split()))
        grid.add_column(overflow="fold", min_width=max((_width(row[index]) for index in numbers), default=0))
        for title, cell in list(zip(table.header, row, strict=True))[1:]:
            grid.add_row(Text(title), _cell(cell))
        first = RichTable.grid()
        first.add_column(overflow="fold", min_width=_NARROW)
        first.add_row(_cell(row[0], style=f"bold {style}"))
        yield Group(first, grid)


def _width(cell: str) -> int:
    return max(map(len, printable(cell).split("\n")))


def _cell(content: str, style: str = "") -> Text:
    main, _, below = content.partition("\n")
    return Text(printable(main), style=style).append(f"\n{printable(below)}" if below else "", style="not bold dim")

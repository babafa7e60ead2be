"""Samples and metrics in the terminal. Text from a model is shown, never obeyed: no markup, no control characters."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from memlm.report.blocks import RegeneratedText
from memlm.report.demo import SETS
from memlm.report.tables import metrics_table
from memlm.report.text import marked, printable
from memlm.results import Result

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_COMPACT = ("token_accuracy", "exact_match", "retained_bits_per_token", "bits_per_dim")


def print_samples(console: "Console", samples: Iterable[Mapping[str, Any]]) -> None:
    """Rows of samples.jsonl: where wrong, what came out struck through in red, what it should be behind it.

    Without colour the two are marked as wdiff does: `[-came out-]{+should be+}`.
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
    for original, regenerated in sample.pieces:
        if original == regenerated:
            text.append(printable(original))
            continue
        space, *pair = marked(original, regenerated)
        shown = zip(pair, ("[-{}-]", "{{+{}+}}"), ("red strike", "green underline"), strict=True)
        for run, marks, style in shown:
            if run:
                text.append(space).append(marks.format(run) if plain else run, style=style)
    return text


def print_metrics(console: "Console", results: Sequence[Result]) -> None:
    """The main measures by result, with their 95% intervals."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = metrics_table(results, measures=_COMPACT, names=SETS)
    note = "below a number: its 95% interval"
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=note, caption_justify="left")
    for index, title in enumerate(table.header):
        shown.add_column(Text(title), justify="right" if index else "left")
    for row in table.rows:
        shown.add_row(*map(_cell, row))
    console.print(shown)


def _cell(content: str) -> "Text":
    from rich.text import Text

    main, _, below = content.partition("\n")
    return Text(printable(main)).append(f"\n{printable(below)}" if below else "", style="dim")

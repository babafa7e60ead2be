"""Samples and metrics in the terminal. Text from a model is shown, never obeyed: no markup, no control characters."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from memlm.report.blocks import RegeneratedText, Table
from memlm.report.demo import SETS
from memlm.report.probe_rows import Probed
from memlm.report.probe_tables import compact_table, controls_table
from memlm.report.tables import metrics_table
from memlm.report.text import marked, number, printable
from memlm.results import Result

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_NOTE = "below a number: its 95% interval"
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
    _print_table(console, metrics_table(results, measures=_COMPACT, names=SETS), _NOTE)


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
    """A table of ready text; columns after the first are numbers, but for that of `words`."""
    from rich import box
    from rich.table import Table as Shown
    from rich.text import Text

    shown = Shown(box=box.SIMPLE_HEAD, pad_edge=False, caption=Text(note), caption_justify="left")
    for index, title in enumerate(table.header):
        left = index in (0, words)
        width = 0 if left else max((len(line) for row in table.rows for line in row[index].split("\n")), default=0)
        shown.add_column(Text(title), justify="left" if left else "right", min_width=width)
    for row, style in zip_longest(table.rows, styles, fillvalue=""):
        shown.add_row(*map(_cell, row), style=style)
    console.print(shown)


def _cell(content: str) -> "Text":
    from rich.text import Text

    main, _, below = content.partition("\n")
    return Text(printable(main)).append(f"\n{printable(below)}" if below else "", style="dim")

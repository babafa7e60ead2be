"""A probe's result in the terminal."""

from typing import TYPE_CHECKING

from memlm.cli.show import INTERVALS, print_table
from memlm.probing.results import ProbeResult
from memlm.runtime.wording import number, printable
from memlm_evidence.pages.probe import controls_table, terminal_table
from memlm_evidence.pages.probe_controls import verdicts

if TYPE_CHECKING:
    from rich.console import Console


def print_probe(console: "Console", result: ProbeResult) -> None:
    """A probe's rows, with their 95% intervals, and what its controls say."""
    from rich.text import Text

    console.print(Text(printable(result.encoder), style="bold"))
    bound = any(row.lower_bound for row in result.rows)
    marks = "; ≥: a lower bound, the reader was still learning" if bound else ""
    print_table(console, terminal_table(result.rows), INTERVALS + marks)
    for length, row in result.baselines.items():
        counted, causal = number(row.unconditional_nats_per_token), number(row.causal_nats_per_token)
        model = printable(row.causal_model)
        line = (
            f"Without an embedding, {length} tokens cost {counted} nats each; a language model ({model}) pays {causal}."
        )
        console.print(line, markup=False, highlight=False)
    if not result.round_trips:
        console.print("The tokenizer does not give the text back exactly: what is measured is tokens.")
    if not (judged := verdicts(result)):
        console.print("No controls were measured.")
        return
    styles = ["bold red" if verdict.failed else "" for verdict in judged]
    print_table(console, controls_table(judged), "of the first view and reader", text_columns=(0, 2), styles=styles)

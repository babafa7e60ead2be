"""`memlm bench reader` for people: what is worst comes first."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from memlm.cli.show import INTERVALS, print_table
from memlm.runtime.tables import Table
from memlm.runtime.wording import number, share, with_interval

_LOSSES = ("last", "memory", "full", "shuffled", "cut", "mean", "none")


def print_reader(console: Console, answer: Mapping[str, Any]) -> None:
    """Tables of losses, needles and times."""
    for table, note in (
        (_rows(answer["rows"]), f"Nats per token; recovered is (last - memory) / (last - full); {INTERVALS}"),
        (
            _needles(answer["needles"]),
            f"Share of right answers; base: the unadapted model, given the fact's chunk as text; {INTERVALS}",
        ),
        (_times(answer["times"]), "How many times less time or space memories take than the text."),
    ):
        if table.rows:
            print_table(console, table, note)


def _rows(rows: Sequence[Mapping[str, Any]]) -> Table:
    worst_first = sorted(rows, key=lambda row: (row["recovered_fraction"] is not None, row["recovered_fraction"]))
    return Table(
        ["text", "memories", "tokens per position", *_LOSSES, "recovered", "copied"],
        [
            [
                row["kind"],
                *(str(row[name]) for name in ("memories", "ratio")),
                *(number(row[f"loss_{name}"], 3) for name in _LOSSES),
                with_interval(number, row["recovered_fraction"], row.get("recovered_interval")),
                share(row.get("copy_accuracy"), 3),
            ]
            for row in worst_first
        ],
    )


def _needles(rows: Sequence[Mapping[str, Any]]) -> Table:
    worst_first = sorted(rows, key=lambda row: row["accuracy_expanded"] or 0)
    choosers = [*rows[0]["chosen"]] if rows else []
    return Table(
        ["needle", "tokens", "memories", "expanded", "base", "held", *(f"chosen by {name}" for name in choosers)],
        [
            [
                row["kind"],
                str(row["context_tokens"]),
                number(row["accuracy"]),
                with_interval(number, row["accuracy_expanded"], row["accuracy_expanded_interval"]),
                *(number(row[name]) for name in ("accuracy_base", "held")),
                *(number(row["chosen"][name]) for name in choosers),
            ]
            for row in worst_first
        ],
    )


def _times(rows: Sequence[Mapping[str, Any]]) -> Table:
    names = {"ttft_ratio_cold": "first token, cold", "ttft_ratio_cached": "first token, memories ready"}
    names |= {"decode_ratio": "each other token", "cache_bytes_ratio": "cache"}
    worst_first = sorted(rows, key=lambda row: row["ttft_ratio_cached"])
    return Table(
        ["tokens", *names.values()],
        [[str(row["context_tokens"]), *(number(row[name], 1) for name in names)] for row in worst_first],
    )

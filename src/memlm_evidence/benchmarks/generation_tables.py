"""`memlm bench generation` for people."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from memlm.cli.show import print_table
from memlm.runtime.tables import Table


def print_generation(console: Console, answer: Mapping[str, Any]) -> None:
    """Tables of writing, reading, and a memory model's next chunk."""
    speed = ["tokens/s", "times attention's"]
    writing = Table(
        ["after tokens", "rows", *speed, "state, bytes", "times smaller"],
        [
            [str(row["tokens"]), str(row["batch"]), *_speed(row), f"{row['state_bytes']:,}", _times_smaller(row)]
            for row in answer["rows"]
        ],
    )
    reading = Table(["tokens read", *speed], [[str(row["tokens"]), *_speed(row)] for row in answer["prefill"]])
    chunks = Table(
        ["past chunks", "seconds", "reading again", "attention", "attention, reading again", "times smaller"],
        [
            [
                str(row["chunks"]),
                f"{row['seconds']:.4f}",
                *(f"{row['times_ours'][name]:.2f}" for name in ("anew", "attention", "attention_anew")),
                _times_smaller(row),
            ]
            for row in answer["memories"]["rows"]
        ],
    )
    print_table(
        console,
        writing,
        "Writing after a text. The state is so many times smaller than a KV cache.",
        text_columns=(),
    )
    print_table(console, reading, "Reading one text.", text_columns=())
    print_table(
        console,
        chunks,
        "A memory model's next chunk, from a state; the other columns are their seconds divided by these.",
        text_columns=(),
    )


def _speed(row: Mapping[str, Any]) -> list[str]:
    return [f"{row['tokens_per_second']:,.0f}", f"{row['tokens_per_second_ratio']:.1f}"]


def _times_smaller(row: Mapping[str, Any]) -> str:
    return f"{row['state_bytes_ratio']:,.0f}"

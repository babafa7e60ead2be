"""A probe's readings, controls and baselines as tables, for the page and for the terminal."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from memlm.runtime.wording import human, number, quantity
from memlm_evidence.pages.blocks import Table
from memlm_evidence.pages.measures import measure
from memlm_evidence.pages.probe_rows import Reading, Verdict

MEASURES = (
    "token_accuracy",
    "exact_match",
    "retained_bits_per_token",
    "retained_fraction",
    "bits_per_dim",
    "entropy_ratio",
)
DEGRADED = ("token_accuracy", "retained_fraction", "bits_per_dim", "storage_efficiency")
COMPACT = ("token_accuracy", "exact_match", "retained_bits_per_token", "retained_fraction")
_OTHER_UNITS = ("bits_per_dim", "entropy_ratio")
"""Measures that are others of the table in other units, and need no intervals of their own."""
CONTROLLED = ("token_accuracy", "retained_bits_per_token")
_BASELINES = {
    "unconditional_nats_per_token": "by token frequencies",
    "causal_nats_per_token": "by a causal language model",
}


def readings_table(readings: Sequence[Reading], names: Sequence[str] = MEASURES) -> Table:
    """A row for each reading, with its seed where there are several; measures that none has are left out."""
    several = len({reading.seed for reading in readings}) > 1
    shown = present(readings, names)
    rows = [
        [_what(reading, several=several), str(reading.chunk_len), *(_number(reading, name) for name in shown)]
        for reading in readings
    ]
    over = "chunks" if any(reading.measures.get("resampled") == "chunks" for reading in readings) else "whole documents"
    caption = f"Below a view: its reader. Chunk: its tokens. Below a number: its 95% interval, from resampling {over}."
    return Table(["view", "chunk", *(measure(name).header for name in shown)], rows, caption)


def compact_table(readings: Sequence[Reading]) -> Table:
    """As `readings_table`, for a narrow terminal: what was read in one column, and fewer measures."""
    several = len({reading.seed for reading in readings}) > 1
    rows = []
    for reading in readings:
        told = [reading.view, reading.degradation, f"seed {reading.seed}" if several else ""]
        below = f"{reading.reader}, {reading.chunk_len}" + (", of no use" if reading.useless else "")
        rows.append([f"{', '.join(filter(None, told))}\n{below}", *(_shorter(reading.shown(name)) for name in COMPACT)])
    return Table(["view\nreader, chunk", *(measure(name).header for name in COMPACT)], rows)


def controls_table(verdicts: Sequence[Verdict], names: Sequence[str] = CONTROLLED) -> Table:
    """What the controls say, and their numbers."""
    rows = [
        [
            human(str(verdict.reading.control)),
            str(verdict.reading.chunk_len),
            verdict.words,
            *map(verdict.reading.shown, names),
        ]
        for verdict in verdicts
    ]
    return Table(["control", "chunk", "verdict", *(measure(name).header for name in names)], rows)


def baselines_table(baselines: Mapping[int, Mapping[str, Any]]) -> Table:
    """What the text costs without a memory, by chunk length."""
    rows = [
        [
            f"of {length} tokens\n{quantity(row.get('num_chunks'))} chunks",
            *(_nats(row.get(name)) for name in _BASELINES),
        ]
        for length, row in sorted(baselines.items())
    ]
    caption = "Nats per token of the test documents; below, the same in bits."
    return Table(["chunk", *_BASELINES.values()], rows, caption)


def present(readings: Sequence[Reading], names: Sequence[str]) -> list[str]:
    """Those of the measures that at least one reading has."""
    return [name for name in names if any(reading.value(name) is not None for reading in readings)]


def _what(reading: Reading, *, several: bool) -> str:
    told = [reading.reader, reading.degradation, f"seed {reading.seed}" if several else ""]
    told += ["lower bound" if reading.lower_bound else "", "of no use" if reading.useless else ""]
    return f"{reading.view}\n{', '.join(filter(None, told))}"


def _number(reading: Reading, name: str) -> str:
    text = reading.shown(name)
    return text.partition("\n")[0] if name in _OTHER_UNITS else text


def _shorter(text: str) -> str:
    """A number with its interval as `low…high`."""
    return text.replace("\n[", "\n").replace(", ", "…").removesuffix("]")


def _nats(nats: Any) -> str:
    return f"{number(nats, 3)}\n{number(nats / math.log(2))} bits" if isinstance(nats, int | float) else "—"

"""A probe's page: how much of a text can be read from an encoder's embeddings, and whether its controls hold."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from memlm.runtime.measures import measure
from memlm.runtime.results import Result
from memlm.runtime.tables import Table
from memlm.runtime.wording import human, number, quantity
from memlm_evidence.pages.definitions import flat, made_by
from memlm_evidence.pages.page import Page
from memlm_evidence.pages.probe_controls import CONTROLS, Verdict, verdicts
from memlm_evidence.pages.probe_figures import by_chunk_len, by_layer, by_noise, by_position, by_precision, by_training
from memlm_evidence.pages.probe_rows import Probed, ProbeRow, at_least, in_few_digits, spread
from memlm_evidence.pages.seeds import read_result

_MEASURES = (
    "token_accuracy",
    "exact_match",
    "retained_bits_per_token",
    "retained_fraction",
    "bits_per_dim",
    "entropy_ratio",
)
_OF_DEGRADED = ("token_accuracy", "retained_fraction", "bits_per_dim", "storage_efficiency")
_OF_CONTROLS = ("token_accuracy", "retained_bits_per_token")
_IN_TERMINAL = ("token_accuracy", "exact_match", "retained_bits_per_token", "retained_fraction")
_OTHER_UNITS = ("bits_per_dim", "entropy_ratio")
"""Measures that are others of the table in other units, and need no intervals of their own."""
_BASELINES = {
    "unconditional_nats_per_token": "by token frequencies",
    "causal_nats_per_token": "by a causal language model",
}


def write_probe_report(folder: Path) -> Path:
    """Write `report.html` beside a folder's `probe.json`, whole or not at all, and return its path.

    Raises:
        ValueError: the file that is missing or broken.
    """
    source = folder / "probe.json"
    if not source.is_file():
        raise ValueError(f"{source}: there is no such file; `memlm probe` makes it")
    result = read_result(source)
    try:
        page = probe_page(result)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    return page.write(folder)


def probe_page(result: Result) -> Page:
    """The page of a probe.

    Raises:
        ValueError: the result is not a probe's.
    """
    probed = Probed.of(result)
    judged = verdicts(probed)
    degraded = [row for row in probed.rows if row.degradation]
    made = result.provenance
    data = {
        "probed": probed,
        "lengths": sorted({row.chunk_len for row in probed.plain}),
        "best": {name: getattr(spread(probed.best, name), "mean", None) for name in _MEASURES},
        "bits": in_few_digits("retained_bits_per_token").show,
        "lower_bound": any(row.lower_bound for row in probed.best),
        "at_least": at_least,
        "positive": _positive(probed, judged),
        "failed": [verdict for verdict in judged if verdict.failed],
        "some_useless": any(row.useless for row in probed.plain),
        "table": rows_table(probed.plain),
        "meanings": [(measure(name).header, measure(name).meaning) for name in _present(probed.plain, _MEASURES)],
        "verdicts": judged,
        "controls": controls_table(judged, _OF_CONTROLS),
        "control_meanings": [
            (human(name), control.meaning)
            for name, control in CONTROLS.items()
            if name in {row.control for row in probed.controls}
        ],
        "baselines": baselines_table(probed.baselines),
        "models": list(
            dict.fromkeys(row["causal_model"] for row in probed.baselines.values() if row.get("causal_model"))
        ),
        "by_length": _some(by_chunk_len(probed, "token_accuracy"), by_chunk_len(probed, "retained_fraction")),
        "by_layer": by_layer(probed, "retained_fraction"),
        "degraded": rows_table(degraded, _OF_DEGRADED) if degraded else None,
        "by_degradation": _some(by_precision(probed, "bits_per_dim"), by_noise(probed, "bits_per_dim")),
        "by_position": by_position(probed),
        "by_training": by_training(probed),
        "made_by": made_by(made and replace(made, settings=dict(flat(made.settings)))),
    }
    return Page("probe", data)


def rows_table(rows: Sequence[ProbeRow], names: Sequence[str] = _MEASURES) -> Table:
    """A row for each reader's, with its seed where there are several; measures that none has are left out."""
    shown = _present(rows, names)
    cells = []
    for row in rows:
        told = [row.reader, row.degradation, *_seed(row, rows)]
        told += ["lower bound"] * row.lower_bound + ["of no use"] * row.useless
        numbers = (row.shown(name).split("\n")[0] if name in _OTHER_UNITS else row.shown(name) for name in shown)
        cells.append([f"{row.view}\n{', '.join(filter(None, told))}", str(row.chunk_len), *numbers])
    over = "chunks" if any(row.measures.get("resampled") == "chunks" for row in rows) else "whole documents"
    caption = f"Below a view: its reader. Chunk: its tokens. Below a number: its 95% interval, from resampling {over}."
    return Table(["view", "chunk", *(measure(name).header for name in shown)], cells, caption)


def terminal_table(rows: Sequence[ProbeRow]) -> Table:
    """As `rows_table`, for a narrow terminal: what was read in one column, fewer measures, intervals as `low…high`."""
    cells = []
    for row in rows:
        view = ", ".join(filter(None, [row.view, row.degradation, *_seed(row, rows)]))
        below = f"{row.reader}, {row.chunk_len}" + ", of no use" * row.useless
        numbers = (row.shown(name).replace("[", "").replace(", ", "…").removesuffix("]") for name in _IN_TERMINAL)
        cells.append([f"{view}\n{below}", *numbers])
    return Table(["view\nreader, chunk", *(measure(name).header for name in _IN_TERMINAL)], cells)


def controls_table(judged: Sequence[Verdict], names: Sequence[str] = ()) -> Table:
    """What the controls say, and their numbers."""
    cells = [[human(row.control), str(row.chunk_len), words, *map(row.shown, names)] for row, words, _ in judged]
    return Table(["control", "chunk", "verdict", *(measure(name).header for name in names)], cells)


def baselines_table(baselines: Mapping[int, Mapping[str, Any]]) -> Table:
    """What the text costs without a memory, by chunk length."""
    cells = [
        [
            f"of {length} tokens\n{quantity(row.get('num_chunks'))} chunks",
            *(_nats(row.get(name)) for name in _BASELINES),
        ]
        for length, row in sorted(baselines.items())
    ]
    return Table(
        ["chunk", *_BASELINES.values()], cells, "Nats per token of the test documents; below, the same in bits."
    )


def _positive(probed: Probed, judged: Sequence[Verdict]) -> Verdict | None:
    """Of the positive control, that of the best rows' chunk length, if there is one."""
    found = [verdict for verdict in judged if verdict.row.control == "positive"]
    return next((each for each in found if each.row.chunk_len == probed.best[0].chunk_len), found[0] if found else None)


def _present(rows: Sequence[ProbeRow], names: Sequence[str]) -> list[str]:
    return [name for name in names if any(row.value(name) is not None for row in rows)]


def _seed(row: ProbeRow, rows: Sequence[ProbeRow]) -> list[str]:
    return [f"seed {row.seed}"] if len({each.seed for each in rows}) > 1 else []


def _nats(nats: Any) -> str:
    return f"{number(nats, 3)}\n{number(nats / math.log(2))} bits" if isinstance(nats, int | float) else "—"


def _some(*figures: Any) -> list[Any]:
    return [figure for figure in figures if figure]

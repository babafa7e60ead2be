"""A probe's page: how much of a text can be read from an encoder's embeddings, and whether its controls hold."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import NamedTuple

from memlm.probing.results import Baselines, ProbeResult, ProbeRow
from memlm.runtime.tables import Table, measure
from memlm.runtime.wording import human, in_words, number, quantity
from memlm_evidence.pages.page import Page, flat, made_by
from memlm_evidence.pages.probe_figures import GROUP, Rows, best, figure_sections, in_few_digits, spread

_OTHER_UNITS = ("bits_per_dim", "entropy_ratio")
"""Measures that are others of the table in other units, and need no intervals of their own."""
_IN_TERMINAL = ("token_accuracy", "exact_match", "retained_bits_per_token", "retained_fraction")
_MEASURES = (*_IN_TERMINAL, *_OTHER_UNITS)
_OF_DEGRADED = ("token_accuracy", "retained_fraction", "bits_per_dim", "storage_efficiency")
_OF_CONTROLS = ("token_accuracy", "retained_bits_per_token")
_POSITIVE_ACCURACY = 0.98
"""A reader strong enough regenerates at least this share of the positive control's tokens."""


class Verdict(NamedTuple):
    """What a control's row says."""

    row: ProbeRow
    words: str
    failed: bool = False


class Control(NamedTuple):
    """A control: what it is and must show, and the verdict on a row of it, beside the same reader's plain row."""

    meaning: str
    judge: Callable[[ProbeRow, ProbeRow | None], tuple[str, bool]]


def verdicts(result: ProbeResult) -> list[Verdict]:
    """What each control says, in the order of `CONTROLS`; a control that is not known comes last."""
    rows = result.control_rows or tuple(result.controls.values())
    same = attrgetter(*GROUP, "seed")
    plain = {same(row): row for row in reversed(result.plain)}
    known = [
        Verdict(row, *control.judge(row, plain.get(same(row))))
        for name, control in CONTROLS.items()
        for row in rows
        if row.control == name
    ]
    return [*known, *(Verdict(row, "not judged") for row in rows if row.control not in CONTROLS)]


def _retains_nothing(row: ProbeRow, _: ProbeRow | None) -> tuple[str, bool]:
    interval = row.intervals.get("retained_bits_per_token")
    if interval is None:
        return "cannot be judged: no interval", False
    if interval.low > 0:
        return "FAILED: bits are retained where there are none; something leaks", True
    if interval.high < 0:
        return "FAILED: below 0; the reader overfits, which misleads it on new text", True
    return "as expected: nothing is retained", False


def _retains_everything(row: ProbeRow, _: ProbeRow | None) -> tuple[str, bool]:
    if row.token_accuracy < _POSITIVE_ACCURACY:
        return "FAILED: the reader is too weak to say anything", True
    return "as expected: the reader reads the memories", False


def _owes_to_training(row: ProbeRow, trained: ProbeRow | None) -> tuple[str, bool]:
    if trained is None:
        return "cannot be judged: nothing to compare with", False
    gain = trained.retained_bits_per_token - row.retained_bits_per_token
    a, b = (each.intervals.get("retained_bits_per_token") for each in (trained, row))
    overlap = a is not None and b is not None and a.low <= b.high and b.low <= a.high
    if gain == 0 or overlap:
        return f"training adds nothing significant ({number(gain)} bits/token)", False
    if gain > 0:
        return f"training adds {number(gain)} bits/token", False
    return f"training costs {number(-gain)} bits/token: the architecture alone holds more", False


def _is_not_guessed(row: ProbeRow, of_text: ProbeRow | None) -> tuple[str, bool]:
    if of_text is None:
        return "cannot be judged: nothing to compare with", False
    random, text = in_words(row.token_accuracy), in_words(of_text.token_accuracy)
    return f"for comparison: {random} of random tokens come back, {text} of text", False


CONTROLS: Mapping[str, Control] = {
    "shuffled": Control(
        "Each embedding beside another chunk's text: nothing may be retained (0 within the interval).", _retains_nothing
    ),
    "constant": Control(
        "The same embedding for every text: nothing may be retained (0 within the interval).", _retains_nothing
    ),
    "positive": Control(
        "An autoencoder's memories, made to be read: the reader must regenerate at least "
        f"{_POSITIVE_ACCURACY:.0%} of the tokens, else it is too weak to say anything.",
        _retains_everything,
    ),
    "untrained": Control(
        "The same encoder with fresh weights: what it retains is not owed to training.", _owes_to_training
    ),
    "random_tokens": Control(
        "Random tokens, read by the reader trained on text: what comes back of them was in the embedding, not guessed.",
        _is_not_guessed,
    ),
}


def probe_page(result: ProbeResult) -> Page:
    """The page of a probe.

    Raises:
        ValueError: the result has no rows.
    """
    if not (rows := result.plain):
        raise ValueError("this probe's result has no rows; `memlm probe` makes them")
    at_best, judged = best(result), verdicts(result)
    degraded = [row for row in result.rows if row.degradation]
    made = result.provenance
    data = {
        "probed": result,
        "lengths": sorted({row.chunk_len for row in rows}),
        "best": {name: getattr(spread(at_best, name), "value", None) for name in _MEASURES},
        "best_row": at_best[0],
        "num_seeds": len(at_best),
        "bits": in_few_digits("retained_bits_per_token").show,
        "lower_bound": any(row.lower_bound for row in at_best),
        "at_least": at_least,
        "positive": _positive(at_best[0], judged),
        "failed": [verdict for verdict in judged if verdict.failed],
        "some_useless": any(row.trust == 0 for row in rows),
        "table": rows_table(rows),
        "meanings": [(measure(name).header, measure(name).meaning) for name in _MEASURES],
        "verdicts": judged,
        "controls": controls_table(judged, _OF_CONTROLS),
        "control_meanings": [
            (human(name), control.meaning)
            for name, control in CONTROLS.items()
            if name in {verdict.row.control for verdict in judged}
        ],
        "baselines": baselines_table(result.baselines),
        "models": list(dict.fromkeys(row.causal_model for row in result.baselines.values())),
        "sections": figure_sections(result, rows_table(degraded, _OF_DEGRADED) if degraded else None),
        "made_by": made_by(made and replace(made, settings=dict(flat(made.settings)))),
    }
    return Page("probe", data)


def at_least(text: str) -> str:
    """A number marked as a lower bound: `≥0.95`; `>0.9999` says so already, and below 0 it goes without saying."""
    if text.startswith("<"):
        first, *below = text[1:].split("\n")
        return "\n".join([f"≥{re.sub('[1-9]', '0', first)}", *below])
    return f"≥{text}" if text[:1].isdecimal() else text


def rows_table(rows: Rows, names: Sequence[str] = _MEASURES) -> Table:
    """A row for each reader's, with its seed where there are several."""
    cells = []
    for row in rows:
        told = [row.reader, str(row.degradation or ""), *_seed(row, rows)]
        told += ["lower bound"] * row.lower_bound + ["of no use"] * (row.trust == 0)
        numbers = (_shown(row, name).split("\n")[0] if name in _OTHER_UNITS else _shown(row, name) for name in names)
        cells.append([f"{row.view}\n{', '.join(filter(None, told))}", str(row.chunk_len), *numbers])
    over = "chunks" if any(row.resampled == "chunks" for row in rows) else "whole documents"
    caption = f"Below a view: its reader. Chunk: its tokens. Below a number: its 95% interval, from resampling {over}."
    return Table(["view", "chunk", *(measure(name).header for name in names)], cells, caption)


def terminal_table(rows: Rows) -> Table:
    """As `rows_table`, for a narrow terminal: what was read in one column, fewer measures, intervals as `low…high`."""
    cells = []
    for row in rows:
        told = ", ".join(filter(None, [row.view, str(row.degradation or ""), *_seed(row, rows)]))
        below = f"{row.reader}, {row.chunk_len}" + ", of no use" * (row.trust == 0)
        numbers = (_shown(row, name).replace("[", "").replace(", ", "…").removesuffix("]") for name in _IN_TERMINAL)
        cells.append([f"{told}\n{below}", *numbers])
    return Table(["view\nreader, chunk", *(measure(name).header for name in _IN_TERMINAL)], cells)


def controls_table(judged: Sequence[Verdict], names: Sequence[str] = ()) -> Table:
    """What the controls say, and their numbers."""
    cells = [
        [human(row.control or ""), str(row.chunk_len), words, *(_shown(row, name) for name in names)]
        for row, words, _ in judged
    ]
    return Table(["control", "chunk", "verdict", *(measure(name).header for name in names)], cells)


def baselines_table(baselines: Mapping[str, Baselines]) -> Table:
    """What the text costs without a memory, by chunk length."""
    cells = []
    for length, row in sorted(baselines.items(), key=lambda item: int(item[0])):
        nats = (row.unconditional_nats_per_token, row.causal_nats_per_token)
        cells.append([f"of {length} tokens\n{quantity(row.num_chunks)} chunks", *map(_nats, nats)])
    header = ["chunk", "by token frequencies", "by a causal language model"]
    return Table(header, cells, "Nats per token of the test documents; below, the same in bits.")


def _shown(row: ProbeRow, name: str) -> str:
    """A measure as text, marked where it is a lower bound, its interval below."""
    text = in_few_digits(name).estimate(getattr(row, name), row.intervals.get(name))
    return at_least(text) if row.lower_bound else text


def _positive(row: ProbeRow, judged: Sequence[Verdict]) -> Verdict | None:
    """Of the positive control, that of this row's chunk length, if there is one."""
    found = [verdict for verdict in judged if verdict.row.control == "positive"]
    return next((each for each in found if each.row.chunk_len == row.chunk_len), found[0] if found else None)


def _seed(row: ProbeRow, rows: Rows) -> list[str]:
    return [f"seed {row.seed}"] if len({each.seed for each in rows}) > 1 else []


def _nats(nats: float | None) -> str:
    return "—" if nats is None else f"{number(nats, 3)}\n{number(nats / math.log(2))} bits"

"""Rows of `memlm bench drift`: shares by round, with intervals over texts; and tables of them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from rich.console import Console

from memlm.cli.show import INTERVALS, print_table
from memlm.evaluation.bootstrap import ratio_intervals, share_interval
from memlm.runtime.results import Interval
from memlm.runtime.tables import Table
from memlm.runtime.wording import share, with_interval
from memlm.store.tokenized import Span
from memlm_evidence.benchmarks.drift_rounds import Editor, Round, Texts

ALL_KINDS = "all"


class History:
    """What became of texts, round by round."""

    def __init__(self, texts: Texts, editor: Editor | None) -> None:
        self._words = editor.words if editor else None
        self._rounds: dict[int, Round] = {}
        self._before, self._last_change = texts, np.zeros(len(texts), int)

    def add(self, number: int, now: Round, *, keep: bool) -> None:
        """Look at the texts after a round; what is kept is measured."""
        self._last_change[(now.texts != self._before).any(axis=1)] = number
        self._before = now.texts
        if number and keep:
            self._rounds[number] = now

    def measures(self, some: slice) -> dict[str, Any]:
        """Of some of the texts: shares by round, and their `intervals` after the last one."""
        found: dict[str, Any] = defaultdict(dict)
        intervals: dict[str, Interval] = {}
        for number, (texts, expected, replaced) in self._rounds.items():
            wrong = (texts != expected)[some]
            exact = ~wrong.any(axis=1)
            found["exact"][str(number)] = float(exact.mean())
            intervals["exact"] = share_interval(int(exact.sum()), len(exact))
            counts = {"changed": np.stack([wrong.sum(axis=1), np.full(len(wrong), wrong.shape[1])], axis=1)}
            if self._words:
                counts |= _standing(self._words[some], wrong, replaced[some])
            for name, sums in counts.items():
                of, total = sums.sum(axis=0)
                found[name][str(number)] = float(of / total) if total else None
        for name, sums in counts.items():
            intervals |= ratio_intervals(name, sums)
        settled = {} if self._words else {"last_change": int(self._last_change[some].max())}
        listed = {name: [*interval] for name, interval in intervals.items()}
        return {"num_texts": len(exact), **found, "intervals": listed, **settled}


def _standing(
    words: Sequence[Sequence[Span]], wrong: Bool[np.ndarray, "text token"], replaced: Bool[np.ndarray, "text token"]
) -> dict[str, Int[np.ndarray, "text 2"]]:
    """Of each text's words, those that stand, and all: of the ones that were never replaced, and of the others."""
    sums = {name: np.zeros((len(words), 2), int) for name in ("untouched", "replaced")}
    for text, spans in enumerate(words):
        for start, stop in spans:
            name = "replaced" if replaced[text, start] else "untouched"
            sums[name][text] += not wrong[text, start:stop].any(), 1
    return sums


def worst_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each number of bits, with edits and without, the row with most changed after the last round: the worst length
    of all kinds together, and the worst of one kind."""
    worst: dict[tuple[int, bool, bool], Mapping[str, Any]] = {}
    for row in rows:
        group = row["bits"], row["edits"], row["kind"] == ALL_KINDS
        if group not in worst or _last(row, "changed") > _last(worst[group], "changed"):
            worst[group] = row
    names = ("kind", "tokens", "bits", "edits", "num_texts", "intervals")
    return [
        {name: row[name] for name in names} | {name: _last(row, name) for name in ("changed", "exact")}
        for row in worst.values()
    ]


def print_drift(console: Console, answer: Mapping[str, Any]) -> None:
    """A table of texts left alone and one of texts with replaced words, by length: all kinds, and the worst."""
    for edits, note in (
        (False, "Share of tokens changed after so many rounds, of all kinds of text, and of the worst in the end"),
        (True, "The same with a word replaced in each round; and words that stand as they should in the end"),
    ):
        rows = [row for row in answer["rows"] if row["edits"] is edits]
        if rows:
            print_table(console, _table(rows, edits=edits), f"{note}; {INTERVALS}", text_columns=())


def _table(rows: Sequence[Mapping[str, Any]], *, edits: bool) -> Table:
    groups: dict[tuple[int, int], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["bits"], row["tokens"]].append(row)
    rounds = [*rows[0]["changed"]]
    shown = list(dict.fromkeys((rounds[0], *(number for number in rounds if number == "10"), rounds[-1])))
    measured = {"changed": f"changed after {shown[-1]}", "exact": "exact texts"}
    if edits:
        measured |= {"untouched": "untouched words", "replaced": "replaced words"}
    cells = []
    for (bits, tokens), group in groups.items():
        every = group[-1]  # all kinds, or the only one
        worst = max(group, key=lambda row: (_last(row, "changed"), row["kind"] != ALL_KINDS))
        cells.append(
            [
                *(str(bits), str(tokens)),
                *(share(every["changed"][at]) for at in shown[:-1]),
                *(with_interval(share, _last(every, name), every["intervals"].get(name)) for name in measured),
                worst["kind"] if _last(worst, "changed") else "none",
                with_interval(share, _last(worst, "changed"), worst["intervals"].get("changed")),
            ]
        )
    before = [f"changed after {at}" for at in shown[:-1]]
    return Table(["bits", "tokens", *before, *measured.values(), "worst kind", "its changed"], cells)


def _last(row: Mapping[str, Any], name: str) -> Any:
    """A measure after the last round."""
    return [*row[name].values()][-1]

"""Rows of `memlm bench drift`: shares by round, with intervals over texts; and tables of them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from rich.console import Console

from memlm.cli.show import INTERVALS, print_table
from memlm.evaluation.bootstrap import ratio_intervals, share_interval
from memlm.runtime.tables import Table
from memlm.runtime.wording import share, with_interval
from memlm.store.codec import Span
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
        """Of some of the texts."""
        found: dict[str, Any] = defaultdict(dict)
        for number, (texts, expected, replaced) in self._rounds.items():
            wrong = (texts != expected)[some]
            exact = ~wrong.any(axis=1)
            found["exact"][str(number)] = float(exact.mean())
            found["exact_intervals"][str(number)] = [*share_interval(int(exact.sum()), len(exact))]
            counts = {"changed": np.stack([wrong.sum(axis=1), np.full(len(wrong), wrong.shape[1])], axis=1)}
            if self._words:
                counts |= _standing(self._words[some], wrong, replaced[some])
            for name, sums in counts.items():
                of, total = sums.sum(axis=0)
                found[name][str(number)] = float(of / total) if total else None
                intervals = ratio_intervals(str(number), sums)
                found[f"{name}_intervals"] |= {key: [*interval] for key, interval in intervals.items()}
        settled = {} if self._words else {"last_change": int(self._last_change[some].max())}
        return {"num_texts": len(self._before[some]), **found, **settled}


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
    """Of each number of bits, with edits and without, the kind and length with most changed after the last round."""
    worst: dict[tuple[int, bool], Mapping[str, Any]] = {}
    for row in rows:
        group = row["bits"], row["edits"]
        if row["kind"] != ALL_KINDS and (group not in worst or _last(row, "changed") > _last(worst[group], "changed")):
            worst[group] = row
    names = ("kind", "tokens", "bits", "edits", "num_texts")
    measured = ("changed", "changed_intervals", "exact", "exact_intervals")
    return [
        {name: row[name] for name in names} | {name: _last(row, name) for name in measured} for row in worst.values()
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
    words = ("untouched", "replaced") if edits else ()
    cells = []
    for (bits, tokens), group in groups.items():
        every = group[-1]  # all kinds, or the only one
        worst = max(group, key=lambda row: (_last(row, "changed"), row["kind"] != ALL_KINDS))
        cells.append(
            [
                *(str(bits), str(tokens)),
                *(with_interval(share, every["changed"][at], every["changed_intervals"].get(at)) for at in shown),
                *(share(_last(every, name)) for name in ("exact", *words)),
                worst["kind"] if _last(worst, "changed") else "none",
                with_interval(share, _last(worst, "changed"), _last(worst, "changed_intervals")),
            ]
        )
    after = [f"changed after {number}" for number in shown]
    return Table(
        ["bits", "tokens", *after, "exact texts", *(f"{name} words" for name in words), "worst kind", "its changed"],
        cells,
    )


def _last(row: Mapping[str, Any], name: str) -> Any:
    """A measure after the last round."""
    return row[name].get([*row["changed"]][-1])

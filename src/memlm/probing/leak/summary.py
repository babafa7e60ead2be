"""What the parts' rows say together: means over texts, with their intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from memlm.config import Degradation, LeakConfig
from memlm.evaluation.bootstrap import ratio_interval, ratio_intervals, share_interval
from memlm.probing.leak.results import KINDS, Attack, FoundText, LeakRow, StorageRow, stored_as
from memlm.runtime.executor import Row
from memlm.runtime.results import Interval

GUESS = "guess"
"""What is read off another text's vector stands under this name, in the place of a way to store vectors."""
_MEANS = ("f1", "f1_other", "exact", "cosine", "encodings", "seconds")
_SHOWN = 3
"""Texts of each length and precision."""

Texts = dict[tuple[str, int, str], list[Row]]
"""Rows of texts, by attack, length and how their vectors are stored."""


def texts_of(done: Mapping[str, Row]) -> Texts:
    """Rows of texts, of the parts' rows by their names (attack-length-...)."""
    texts: Texts = {}
    for name, row in done.items():
        attack, *rest = name.split("-")
        for stored, each in row.get("texts", {}).items():
            texts.setdefault((attack, int(rest[0]), stored), []).extend(each)
    return dict(sorted(texts.items(), key=lambda item: item[0][:2]))


def attack_rows(texts: Texts, cfg: LeakConfig) -> list[LeakRow]:
    """A row for each attack, length and way to store."""
    ways = {stored_as(each): each for each in cfg.degradations}
    return [
        _attack_row("guess" if stored == GUESS else attack, length, ways.get(stored), each)  # type: ignore[arg-type]
        for (attack, length, stored), each in texts.items()
    ]


def _attack_row(attack: Attack, length: int, degradation: Degradation | None, texts: Sequence[Row]) -> LeakRow:
    """Means over texts; of words, of all words of all texts."""
    values: dict[str, Any] = {}
    intervals: dict[str, Interval] = {}
    for kind in KINDS:
        sums = np.array([text[kind] for text in texts])
        right, total = map(int, sums.sum(0))
        values[f"num_{kind}"] = total
        if total:
            values[kind] = right / total
            # Names and numbers are few, and a bootstrap of few that all are right knows no doubt.
            intervals |= ratio_intervals(kind, sums) if kind == "words" else {kind: share_interval(right, total)}
    for name in _MEANS if "found" in texts[0] else ():
        each = np.array([float(text[name]) for text in texts])
        values[name] = float(each.mean())
        intervals |= ratio_intervals(name, np.column_stack((each, np.ones(len(each)))))
    if "exact" in values:
        intervals["exact"] = share_interval(sum(text["exact"] for text in texts), len(texts))
    shown: dict[str, Any] = {"attack": attack, "chunk_len": length, "degradation": degradation}
    return LeakRow(**shown, num_texts=len(texts), intervals=intervals, **values)


def storage_rows(texts: Texts, recall: Row | None, cfg: LeakConfig) -> list[StorageRow]:
    """What is left, stored in each way, of words and of Recall@10."""
    gained = {stored_as(each): _beyond_guessing(texts, stored_as(each)) for each in cfg.degradations}
    own = gained[stored_as(None)]
    read = len(own) > 1 and ratio_interval(np.column_stack((own, np.ones(len(own))))).low > 0
    found = {name: np.array(each) for name, each in (recall or {"hits": {}})["hits"].items()}
    rows = []
    for way in cfg.degradations:
        name = stored_as(way)
        values: dict[str, Any] = {}
        intervals: dict[str, Interval] = {}
        if read:
            pairs = np.column_stack((gained[name], own))
            values["words_left"] = float(pairs[:, 0].sum() / pairs[:, 1].sum())
            intervals["words_left"] = ratio_interval(pairs)
        if recall and name in found:
            right, total = int(found[name].sum()), len(found[name])
            values |= {"recall": right / total, "num_queries": total, "num_passages": recall["num_passages"]}
            intervals["recall"] = share_interval(right, total)
            if found[stored_as(None)].any():
                pairs = np.column_stack((found[name], found[stored_as(None)]))
                values["recall_left"] = float(pairs[:, 0].sum() / pairs[:, 1].sum())
                intervals["recall_left"] = ratio_interval(pairs)
        rows.append(StorageRow(degradation=way, intervals=intervals, **values))
    return rows


def _beyond_guessing(texts: Texts, stored: str) -> np.ndarray:
    """Of each text, of all lengths, the words read, less those that are read off another text's vector too."""
    return np.array(
        [
            text["words"][0] - (guess["words"][0] if guess else 0)
            for (attack, length, way), some in texts.items()
            if way == stored and attack != "search"
            for text, guess in zip(some, texts.get((attack, length, GUESS), [None] * len(some)), strict=True)
        ],
        dtype=float,
    )


def found_texts(texts: Texts, cfg: LeakConfig) -> list[FoundText]:
    """A few texts of each length and precision, and what came back."""
    ways = {stored_as(each): each for each in cfg.precisions}
    return [
        FoundText(chunk_len=length, degradation=ways[stored], original=text["original"], found=text["found"])
        for (_, length, stored), some in texts.items()
        if stored in ways
        for text in some[:_SHOWN]
        if "found" in text
    ]

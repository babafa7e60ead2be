"""What the parts' rows say together: means over texts, with their intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from memlm.config import Degradation, LeakConfig
from memlm.evaluation.bootstrap import mean_interval, ratio_interval, ratio_intervals, share_interval
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
        intervals |= {name: mean_interval(each)} if len(each) > 1 else {}
    if "exact" in values:
        intervals["exact"] = share_interval(sum(text["exact"] for text in texts), len(texts))
    shown: dict[str, Any] = {"attack": attack, "chunk_len": length, "degradation": degradation}
    return LeakRow(**shown, num_texts=len(texts), intervals=intervals, **values)


def storage_rows(texts: Texts, recall: Row | None, cfg: LeakConfig) -> list[StorageRow]:
    """What is left, stored in each way, of words, of names and numbers among them, and of Recall@10."""
    own = stored_as(None)
    gained = {
        (kind, stored_as(way)): _beyond_guessing(texts, stored_as(way), kind)
        for kind in KINDS
        for way in cfg.degradations
    }
    found = {name: np.array(each) for name, each in (recall or {"hits": {}})["hits"].items()}
    rows = []
    for way in cfg.degradations:
        name, pairs = stored_as(way), dict[str, np.ndarray]()
        for kind in KINDS:
            if _is_above_nothing(gained[kind, own]):
                pairs[f"{kind}_left"] = np.column_stack((gained[kind, name], gained[kind, own]))
        values: dict[str, Any] = {}
        intervals: dict[str, Interval] = {}
        if recall:
            right, total = int(found[name].sum()), len(found[name])
            values |= {"recall": right / total, "num_queries": total, "num_passages": recall["num_passages"]}
            intervals["recall"] = share_interval(right, total)
            if _is_above_nothing(found[own]):
                pairs["recall_left"] = np.column_stack((found[name], found[own]))
        values |= {left: float(each[:, 0].sum() / each[:, 1].sum()) for left, each in pairs.items()}
        with np.errstate(divide="ignore", invalid="ignore"):  # by chance, a resample may have none
            intervals |= {left: ratio_interval(each) for left, each in pairs.items()}
        rows.append(StorageRow(degradation=way, intervals=intervals, **values))
    return rows


def _beyond_guessing(texts: Texts, stored: str, kind: str) -> np.ndarray:
    """Of each text, of all lengths, the words read, less those that are read off another text's vector too."""
    return np.array(
        [
            text[kind][0] - (guess[kind][0] if guess else 0)
            for (attack, length, way), some in texts.items()
            if way == stored and attack != "search"
            for text, guess in zip(some, texts.get((attack, length, GUESS), [None] * len(some)), strict=True)
        ],
        dtype=float,
    )


def _is_above_nothing(gains: np.ndarray) -> bool:
    """Whether their mean is, within its interval."""
    return len(gains) > 1 and mean_interval(gains).low > 0


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

"""What a leak's numbers say, in words."""

from collections.abc import Sequence

from memlm.probing.leak.results import LeakResult, LeakRow, StorageRow, stored_as
from memlm.runtime.wording import counted, in_words

HIDDEN = 0.5
"""What hides text leaves at most this share of what is read."""
LITTLE = 0.05
"""Of Recall@10, a little loss."""


def conclusion(result: LeakResult) -> str:
    """What comes back, at which lengths; what is left of it stored otherwise; and what that costs."""
    given = [row for row in result.of("search", "decoder") if row.degradation is None]
    read = [row for row in result.of("words") if row.degradation is None]
    said = [_given_back(given), _read_off(read, result.of("guess")), _apart(read or given)]
    if any(row.words_left is not None for row in result.stored):
        others = [row for row in result.stored if row.degradation is not None]
        said += [_left(others), _verdict(others)]
    else:
        said.append("No more words are read at once than guessing gives.")
    return " ".join(filter(None, said))


def _given_back(rows: Sequence[LeakRow]) -> str:
    if not rows:
        return ""
    each = [
        f"{in_words(row.words, 0)} of the words of {row.chunk_len} tokens "
        f"({round((row.exact or 0.0) * row.num_texts)} of {counted(row.num_texts, 'text')} exactly)"
        for row in _ends(rows)
    ]
    how = "a search" if rows[0].attack == "search" else "the encoder's own decoder"
    return f"From float32 vectors, {how} gives back {' and '.join(each)}."


def _read_off(rows: Sequence[LeakRow], guesses: Sequence[LeakRow]) -> str:
    if not rows:
        return ""
    guessed = {row.chunk_len: row.words for row in guesses}
    each = [
        f"{in_words(row.words, 0)} of the words of {row.chunk_len} tokens "
        f"(guessing: {in_words(guessed[row.chunk_len], 0)})"
        for row in _ends(rows)
    ]
    return f"Without a search, {' and '.join(each)} are read off at once."


def _apart(rows: Sequence[LeakRow]) -> str:
    """Names and numbers, at the length where there are most of them."""
    said = []
    for kind in ("names", "numbers"):
        most = max(rows, key=lambda row: getattr(row, f"num_{kind}"), default=None)
        if most and getattr(most, kind) is not None:
            share, count = in_words(getattr(most, kind), 0), getattr(most, f"num_{kind}")
            said.append(f"of {kind} {share} come back ({count} at {most.chunk_len} tokens)")
    return f"{' and '.join(said)}.".capitalize() if said else ""


def _left(rows: Sequence[StorageRow]) -> str:
    each = []
    for row in rows:
        parts = {"words": row.words_left, "names": row.names_left, "Recall@10": row.recall_left}
        left = [
            f"{in_words(min(1.0, max(0.0, part)), 0)} of {name}" for name, part in parts.items() if part is not None
        ]
        each.append(f"{stored_as(row.degradation)} leaves {_listed(left)}")
    return f"Of what float32 gives beyond guessing, {'; '.join(each)}." if each else ""


def _listed(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def _verdict(rows: Sequence[StorageRow]) -> str:
    hiding = [row for row in rows if row.words_left is not None and row.words_left <= HIDDEN]
    if not hiding:
        return f"Nothing that was tried hides {in_words(HIDDEN, 0)} of the words." if rows else ""
    left, _, best = max((row.recall_left or 0.0, -place, row) for place, row in enumerate(hiding))
    if best.recall_left is None:
        return "What hiding costs was not measured."
    how, lost = stored_as(best.degradation), in_words(max(0.0, 1 - left), 0)
    if left >= 1 - LITTLE:
        hidden = in_words(1 - max(0.0, best.words_left or 0.0), 0)
        return f"So {how} hides {hidden} of the words from this attack, at a loss of {lost} of Recall@10."
    return (
        f"Nothing that was tried hides {in_words(HIDDEN, 0)} of the words at little loss: {how} does, and costs {lost}."
    )


def _ends(rows: Sequence[LeakRow]) -> list[LeakRow]:
    """The shortest and the longest."""
    ordered = sorted(rows, key=lambda row: row.chunk_len)
    return ordered if len(ordered) < 2 else [ordered[0], ordered[-1]]

"""What a probe's controls must show, and whether they do."""

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import NamedTuple

from memlm.probing.results import ProbeResult, ProbeRow
from memlm.runtime.wording import in_words, number
from memlm_evidence.pages.probe_figures import GROUP

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

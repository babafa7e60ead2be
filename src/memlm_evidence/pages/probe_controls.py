"""What a probe's controls must show, and whether they do."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from memlm.runtime.wording import in_words, number
from memlm_evidence.pages.probe_rows import Probed, ProbeRow

_POSITIVE_ACCURACY = 0.98
"""A reader strong enough regenerates at least this share of the positive control's tokens."""


class Verdict(NamedTuple):
    """What a control's row says."""

    row: ProbeRow
    words: str
    failed: bool = False


def verdicts(probed: Probed) -> list[Verdict]:
    """What each control says, in the order of `CONTROLS`; a control that is not known comes last."""
    known = [
        control.judge(probed, row)
        for name, control in CONTROLS.items()
        for row in probed.controls
        if row.control == name
    ]
    return [*known, *(Verdict(row, "not judged") for row in probed.controls if row.control not in CONTROLS)]


class Control(NamedTuple):
    """A control: what it is and must show, and the verdict on a row of it."""

    meaning: str
    judge: Callable[[Probed, ProbeRow], Verdict]


def _retains_nothing(_: Probed, row: ProbeRow) -> Verdict:
    interval = row.intervals.get("retained_bits_per_token")
    if interval is None:
        return Verdict(row, "cannot be judged: no interval")
    if interval.low > 0:
        return Verdict(row, "FAILED: bits are retained where there are none; trust no number here", failed=True)
    if interval.high < 0:
        return Verdict(row, "FAILED: below 0; what the reader learnt misleads it on new text", failed=True)
    return Verdict(row, "as it must be: nothing is retained")


def _retains_everything(_: Probed, row: ProbeRow) -> Verdict:
    found = row.value("token_accuracy")
    if found is None:
        return Verdict(row, "cannot be judged: no token accuracy")
    if found < _POSITIVE_ACCURACY:
        return Verdict(row, "FAILED: the reader is too weak to say anything", failed=True)
    return Verdict(row, "as it must be: the reader reads what is there")


def _owes_to_training(probed: Probed, row: ProbeRow) -> Verdict:
    twin, name = probed.twin(row), "retained_bits_per_token"
    own, other = twin.value(name) if twin else None, row.value(name)
    if twin is None or own is None or other is None:
        return Verdict(row, "cannot be judged: nothing to compare with")
    a, b = twin.intervals.get(name), row.intervals.get(name)
    overlap = a is not None and b is not None and a.low <= b.high and b.low <= a.high
    if own == other or overlap:
        return Verdict(row, f"training adds nothing to speak of ({number(own - other)} bits/token)")
    if own > other:
        return Verdict(row, f"training adds {number(own - other)} bits/token")
    return Verdict(row, f"training costs {number(other - own)} bits/token: the architecture alone holds more")


def _is_not_guessed(probed: Probed, row: ProbeRow) -> Verdict:
    twin = probed.twin(row)
    own, other = twin.value("token_accuracy") if twin else None, row.value("token_accuracy")
    if own is None or other is None:
        return Verdict(row, "cannot be judged: nothing to compare with")
    return Verdict(row, f"for comparison: {in_words(other)} of random tokens come back, {in_words(own)} of text")


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

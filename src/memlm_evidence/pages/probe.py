"""A probe's page: how much of a text can be read from an encoder's embeddings, and whether its controls hold."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from memlm.runtime.results import Result
from memlm.runtime.wording import human, in_words, percent
from memlm_evidence.pages.blocks import Block, Definitions, KeyNumbers
from memlm_evidence.pages.measures import measure
from memlm_evidence.pages.page import Page, Section
from memlm_evidence.pages.probe_figures import by_chunk_len, by_layer, by_noise, by_position, by_precision, by_training
from memlm_evidence.pages.probe_rows import CONTROLS, Probed, Verdict, at_least, show, spread
from memlm_evidence.pages.probe_tables import (
    DEGRADED,
    MEASURES,
    baselines_table,
    controls_table,
    present,
    readings_table,
)
from memlm_evidence.pages.provenance import made_by


def write_probe_report(folder: Path) -> Path:
    """Write `report.html` beside a folder's `probe.json`, whole or not at all, and return its path.

    Raises:
        ValueError: the file that is missing or broken.
    """
    source = folder / "probe.json"
    try:
        page = probe_page(_read(source))
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    return page.write(folder)


def probe_page(result: Result) -> Page:
    """The page of a probe.

    Raises:
        ValueError: the result is not a probe's.
    """
    probed = Probed.of(result)
    sections = [
        _in_short(probed),
        _readings(probed),
        _controls(probed),
        _baselines(probed),
        *_curves(probed),
        _limits(probed),
        _made_by(result),
    ]
    title = f"What {probed.encoder} keeps of a text"
    return Page(title, _lead(probed), [section for section in sections if section is not None])


def _read(path: Path) -> Result:
    if not path.is_file():
        raise ValueError("there is no such file; `memlm probe` makes it")
    try:
        return Result.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not a result that `memlm probe` wrote: {error!r}") from None


def _lead(probed: Probed) -> str:
    lengths = sorted({reading.chunk_len for reading in probed.plain})
    cut = " or ".join(", ".join(map(str, lengths)).rsplit(", ", 1))
    found = spread(probed.best, "token_accuracy")
    accuracy = in_words(found.mean if found else None)
    if _is_lower_bound(probed) and accuracy[0].isdecimal():  # `over 99.9%` says so already
        accuracy = f"at least {accuracy}"
    return (
        f"{probed.encoder} was kept as it is. It embedded chunks of {cut} tokens, and readers were trained to "
        f"regenerate each chunk from its embedding alone. Then they were given embeddings of documents kept apart: "
        f"{accuracy} of the tokens came back right, at best ({_named(probed)})."
    )


def _named(probed: Probed) -> str:
    best = probed.best[0]
    return f"{best.view}, {best.reader} reader, chunks of {best.chunk_len}"


def _is_lower_bound(probed: Probed) -> bool:
    return any(reading.lower_bound for reading in probed.best)


def _in_short(probed: Probed) -> Section:
    found = {name: spread(probed.best, name) for name in MEASURES}
    mark = at_least if _is_lower_bound(probed) else str
    accuracy, fraction = (getattr(found[name], "mean", None) for name in ("token_accuracy", "retained_fraction"))
    bits = getattr(found["retained_bits_per_token"], "mean", None)
    learning = "a lower bound: its training ended too soon" if _is_lower_bound(probed) else "when its training ended"
    items = [
        (mark(percent(accuracy)), f"of tokens regenerated right, at best: {_named(probed)}"),
        (mark(show("retained_bits_per_token", bits)), "bits retained per token, there"),
        (mark(percent(fraction)), "of what the tokens cost without a memory, there"),
        ("learning" if _is_lower_bound(probed) else "settled", f"that reader, {learning}"),
        _positive(probed),
    ]
    seeds = len(probed.best)
    over = f"Means over {seeds} seeds of the reader." if seeds > 1 else ""
    return Section("In short", f"{_alarm(probed)}\n\n{over}", [KeyNumbers(items)])


def _alarm(probed: Probed) -> str:
    """What failed, before any number."""
    if not probed.controls:
        return "No controls were measured: it is not known whether the reader is any good, nor whether something leaks."
    failed = [_failure(verdict) for verdict in probed.verdicts() if verdict.failed]
    return f"{' '.join(failed)} Read the numbers below with that in mind." if failed else ""


def _failure(verdict: Verdict) -> str:
    name, length = human(str(verdict.reading.control)), verdict.reading.chunk_len
    return f"Control “{name}” (chunks of {length}) {verdict.words}."


def _positive(probed: Probed) -> tuple[str, str]:
    found = [verdict for verdict in probed.verdicts() if verdict.reading.control == "positive"]
    if not found:
        return "—", "positive control: not measured"
    verdict = next((each for each in found if each.reading.chunk_len == probed.best[0].chunk_len), found[0])
    words = "positive control FAILED: the reader is too weak" if verdict.failed else "of the positive control's tokens"
    return percent(verdict.reading.value("token_accuracy")), words


def _readings(probed: Probed) -> Section:
    text = (
        "Every embedding as it is, by what was read of the encoder, by whom, and at which length. “≥” marks a lower "
        "bound: the reader was still learning when its training ended, and with more of it would have got more."
    )
    if any(reading.useless for reading in probed.plain):
        text += (
            "\n\n“Of no use”: validation text said that the reader does best to ignore the embedding; what it retains "
            "counts as 0 then."
        )
    shown = (measure(name) for name in present(probed.plain, MEASURES))
    told = Definitions([(each.header, each.meaning) for each in shown])
    return Section("What is retained", text, [readings_table(probed.plain), told])


def _controls(probed: Probed) -> Section | None:
    verdicts = probed.verdicts()
    if not verdicts:
        return None
    had = {verdict.reading.control for verdict in verdicts}
    told = Definitions([(human(name), what) for name, what in CONTROLS.items() if name in had])
    failed = sum(verdict.failed for verdict in verdicts)
    held = f"{failed} of {len(verdicts)} FAILED." if failed else "None failed."
    text = f"{held} The same kind of reading where the truth is known, of the first view by the first reader only."
    return Section("Controls", text, [controls_table(verdicts), told])


def _baselines(probed: Probed) -> Section | None:
    if not probed.baselines:
        return None
    models = dict.fromkeys(str(row["causal_model"]) for row in probed.baselines.values() if row.get("causal_model"))
    text = "Retained bits are counted from what a reader without a memory knows: how often each token occurs."
    if models:
        text += f" The causal language model, {', '.join(models)}, sees the tokens before, and no embedding."
    return Section("Without a memory", text, [baselines_table(probed.baselines)])


def _curves(probed: Probed) -> Iterator[Section | None]:
    yield _drawn(
        "By chunk length",
        "The longer the chunk, the more the same embedding has to hold.",
        [by_chunk_len(probed, "token_accuracy"), by_chunk_len(probed, "retained_fraction")],
    )
    yield _drawn("By layer", "Where in the encoder the text is still there.", [by_layer(probed, "retained_fraction")])
    degraded = [reading for reading in probed.readings if reading.degradation]
    if degraded:
        text = "How finely an embedding must be stored: every dimension rounded to a few bits, or with noise on it."
        figures = [by_precision(probed, "bits_per_dim"), by_noise(probed, "bits_per_dim")]
        yield _drawn("Made coarser", text, [*figures, readings_table(degraded, DEGRADED)])
    yield _drawn("Along the chunk", "Is some part of a chunk harder to read than the rest?", [by_position(probed)])
    text = "A curve that still rises at its end is that of a reader that would have got more."
    yield _drawn("How the readers learnt", text, [by_training(probed)])


def _drawn(title: str, text: str, blocks: Sequence[Block | None]) -> Section | None:
    found = [block for block in blocks if block is not None]
    return Section(title, text, found) if found else None


def _limits(probed: Probed) -> Section:
    items = [
        (
            "A reader that fails proves nothing",
            "What a reader does not read may be there all the same, for a stronger reader or one trained on more text. "
            "Every number is a lower bound on what the embedding holds; more training would raise those marked “≥”.",
        ),
        ("Regeneration is not use", "That a text can be read from an embedding does not say that a model uses it so."),
        (
            "This text, this budget",
            "The numbers hold for text of this kind, cut this way, and for this much training of the readers. The "
            "intervals say how much they vary between the test's documents.",
        ),
    ]
    if not probed.round_trips:
        what = "The encoder's tokenizer does not give every text back exactly: what is counted is tokens, not letters."
        items.append(("Tokens, not text", what))
    return Section("What this does not say", "", [Definitions(items)])


def _made_by(result: Result) -> Section:
    made = result.provenance
    return made_by(made and replace(made, settings=dict(_flat(made.settings))))


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as one list, so that each can be read on its own line."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, "" if name == "config" else f"{prefix}{name}: ")
        else:
            yield prefix + name, value

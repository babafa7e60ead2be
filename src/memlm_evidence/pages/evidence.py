"""What is behind the claims: the sections of a page that show an experiment's results, of one seed or several."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from memlm.runtime.results import Result
from memlm.runtime.wording import human, number, quantity, share
from memlm_evidence.pages.blocks import Figure, RegeneratedText, Table
from memlm_evidence.pages.figures import Line, line_figure
from memlm_evidence.pages.known_sources import measurements
from memlm_evidence.pages.memory_model import comparison, recall
from memlm_evidence.pages.page import Section
from memlm_evidence.pages.seeds import named_over_seeds

Row = Mapping[str, Any]


def evidence(experiment: str, results: Sequence[Result]) -> list[Section]:
    """The sections that show what an experiment found; none for one that nobody knows.

    The paper's sizes are measured with less beside them, and then less is shown.
    """
    has = results[0].measures
    match experiment:
        case "embeddings":
            parts = [_budgets] * ("cells" in has) + [_controls] * ("controls" in has)
            return [_objectives(results), *(part(results) for part in parts)]
        case "foreign-text":
            return [_kinds_of_text(results), *_samples(results[0])]
        case "memory-model":
            return comparison(results) if "train_flops" in has else []
        case "recall":
            return recall(results)
        case "substitution":
            return [_substitution(results[-1].rows)]
        case "memory-training":
            return [_steps(results[-1].rows)]
        case "non-invertible":
            return measurements(results)
        case "settle-causal":
            return [_attacks(results)]
        case _:
            return []


def _same(results: Sequence[Result], name: str) -> Iterator[list[Row]]:
    """The rows of all seeds that belong together."""
    return map(list, zip(*(result.measures[name] for result in results), strict=True))


_CAPTION = "Below a number: its range over seeds; with one seed, its 95% interval over documents."


def _objectives(results: Sequence[Result]) -> Section:
    header = ["embedding", "token accuracy", "exact chunks", "retained bits/token", "retained fraction"]
    rows = [
        [
            f"{human(same[0]['objective'])}\n{quantity(same[0]['num_tokens'])} tokens",
            named_over_seeds(same, "token_accuracy", share),
            named_over_seeds(same, "exact_match", share),
            named_over_seeds(same, "retained_bits_per_token", number),
            named_over_seeds(same, "retained_fraction", share),
        ]
        for same in _same(results, "rows")
    ]
    text = f"Of {results[0].chunk_len} tokens, from one vector, by a reader trained alike for each."
    return Section("What embeddings hold", text, [Table(header, rows, _CAPTION)])


def _budgets(results: Sequence[Result]) -> Section:
    header = ["causal model, parameters", "tokens", "retained fraction"]
    rows = [
        [
            quantity(same[0]["num_parameters"]),
            quantity(same[0]["num_tokens"]),
            named_over_seeds(same, "retained_fraction", share),
        ]
        for same in _same(results, "cells")
    ]
    return Section("Larger causal models, and more text", "", [Table(header, rows, _CAPTION)])


def _controls(results: Sequence[Result]) -> Section:
    rows = [
        [
            human(name),
            *(named_over_seeds([result.controls[name] for result in results], each, share) for each in _CONTROLLED),
        ]
        for name in results[0].controls
    ]
    text = "The same reader where the truth is known: shuffled and constant embeddings must retain nothing."
    header = ["control", "token accuracy", "retained fraction"]
    return Section("Controls of the causal model", text, [Table(header, rows, _CAPTION)])


_CONTROLLED = ("token_accuracy", "retained_fraction")


def _kinds_of_text(results: Sequence[Result]) -> Section:
    header = ["text", "mixer", "token accuracy", "exact chunks", "retained bits/token"]
    rows = [
        [
            human(same[0]["text"]),
            human(same[0]["mixer"]),
            named_over_seeds(same, "token_accuracy", share),
            named_over_seeds(same, "exact_match", share),
            named_over_seeds(same, "retained_bits_per_token", number),
        ]
        for same in _same(results, "rows")
    ]
    text = "Autoencoders trained on addresses, on text of the same kind and on ever stranger text."
    return Section("What memories hold, by kind of text", text, [Table(header, rows, _CAPTION)])


def _samples(result: Result) -> Iterator[Section]:
    for mixer, samples in result.samples.items():
        text = (
            "Passages drawn at random: held-out text, then a novel, verse, source code and random tokens. What came "
            "out wrong is struck through; what it should have been follows, underlined."
        )
        yield Section(f"Regenerated, {human(mixer)}", text, [RegeneratedText.from_row(sample) for sample in samples])


def _substitution(rows: Sequence[Row]) -> Section:
    shown = {
        "ttft_ratio_cold": "first token, encoding included",
        "ttft_ratio_cached": "first token, memories kept",
        "flops_ratio_cold": "operations, encoding included",
        "cache_bytes_ratio": "cache",
        "decode_ratio": "speed of writing on",
    }
    lines = [
        Line(label, [row["context_tokens"] for row in rows], [row[name] for row in rows], marked=True)
        for name, label in shown.items()
    ]
    ticks = {float(row["context_tokens"]): f"{row['context_tokens']:,}" for row in rows}
    svg = line_figure(
        lines,
        x_label="tokens of the past",
        y_label="tokens' cost over memories'",
        x_ticks=ticks,
        log_x=True,
        log_y=True,
    )
    cells = [[f"{row['context_tokens']:,}", *(number(row[name], 1) for name in shown)] for row in rows]
    text = "One past, read by the same decoder as tokens and as memories; above 1, memories cost less."
    alt = "Ratios of cost against the length of the past."
    return Section("Memories in place of tokens", text, [Figure(svg, alt), Table(["past", *shown.values()], cells)])


def _steps(rows: Sequence[Row]) -> Section:
    shown = {
        "combined_step_ratio": "chunk by chunk, both objectives",
        "recurrent_step_ratio": "recurrent memory, next tokens",
        "encoder_decoder_step_ratio": "encoder-decoder, next tokens",
    }
    shown = {name: label for name, label in shown.items() if name in rows[0]}
    chunks = [row["window_chunks"] for row in rows]
    lines = [Line(label, chunks, [row[name] for row in rows], marked=True) for name, label in shown.items()]
    ticks = {float(number): str(number) for number in chunks}
    svg = line_figure(lines, x_label="chunks of a window", y_label="seconds of a step, over ours", x_ticks=ticks)
    cells = [[str(row["window_chunks"]), *(number(row[name]) for name in shown)] for row in rows]
    text = "A training step with all chunks at once, beside other ways, on equal tokens; above 1, ours is faster."
    alt = "Seconds of a training step over ours, against the chunks of a window."
    return Section("All chunks at once", text, [Figure(svg, alt), Table(["chunks", *shown.values()], cells)])


def _attacks(results: Sequence[Result]) -> Section:
    header = ["attack", "given", "token accuracy", "exact texts"]
    rows = [
        [
            f"{same[0]['attack']}\n{same[0]['num_texts']} texts",
            same[0]["given"],
            named_over_seeds(same, "token_accuracy", share),
            named_over_seeds(same, "exact_match", share),
        ]
        for same in _same(results, "attacks")
    ]
    text = f"{results[0].encoder}, {results[0].chunk_len} tokens. {results[0].verdict}"
    return Section("Attacks on a causal model's state", text, [Table(header, rows, _CAPTION)])

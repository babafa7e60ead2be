"""What is behind the claims: the parts of a page that show an experiment's results, of one seed or several."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from memlm.runtime.results import Result
from memlm.runtime.tables import Table
from memlm.runtime.wording import human, number, quantity, share
from memlm_evidence.pages.figures import Line, line_figure
from memlm_evidence.pages.known_sources import measurements
from memlm_evidence.pages.memory_model import comparison, recall
from memlm_evidence.pages.page import Page
from memlm_evidence.pages.seeds import CAPTION, named_over_seeds, of, seeds_table

Row = Mapping[str, Any]

_SUBSTITUTION = {
    "ttft_ratio_cold": "first token, encoding included",
    "ttft_ratio_cached": "first token, memories kept",
    "flops_ratio_cold": "operations, encoding included",
    "cache_bytes_ratio": "cache",
    "decode_ratio": "speed of writing on",
}
_STEPS = {
    "combined_step_ratio": "chunk by chunk, both objectives",
    "recurrent_step_ratio": "recurrent memory, next tokens",
    "encoder_decoder_step_ratio": "encoder-decoder, next tokens",
}


def evidence(experiment: str, results: Sequence[Result]) -> Page | None:
    """The part of a page that shows what an experiment found; None for one that nobody knows."""
    return _EVIDENCE[experiment](results) if experiment in _EVIDENCE else None


def _embeddings(results: Sequence[Result]) -> Page:
    """The paper's sizes are measured without budgets and controls; then these are not shown."""
    has = results[0].measures
    objectives = {
        "embedding": lambda same: f"{human(same[0]['objective'])}\n{quantity(same[0]['num_tokens'])} tokens",
        "token accuracy": of("token_accuracy", share),
        "exact chunks": of("exact_match", share),
        "retained bits/token": of("retained_bits_per_token", number),
        "retained fraction": of("retained_fraction", share),
    }
    budgets = {
        "causal model, parameters": lambda same: quantity(same[0]["num_parameters"]),
        "tokens": lambda same: quantity(same[0]["num_tokens"]),
        "retained fraction": of("retained_fraction", share),
    }
    controls = {"token accuracy": "token_accuracy", "retained fraction": "retained_fraction"}
    cells = [
        [
            human(name),
            *(
                named_over_seeds([result.controls[name] for result in results], each, share)
                for each in controls.values()
            ),
        ]
        for name in has.get("controls", ())
    ]
    data = {
        "chunk_len": results[0].chunk_len,
        "objectives": seeds_table([result.rows for result in results], objectives),
        "budgets": seeds_table([result.causal_models for result in results], budgets)
        if "causal_models" in has
        else None,
        "controls": Table(["control", *controls], cells, CAPTION) if cells else None,
    }
    return Page("evidence/embeddings", data)


def _foreign_text(results: Sequence[Result]) -> Page:
    columns = {
        "text": lambda same: human(same[0]["text"]),
        "mixer": lambda same: human(same[0]["mixer"]),
        "token accuracy": of("token_accuracy", share),
        "exact chunks": of("exact_match", share),
        "retained bits/token": of("retained_bits_per_token", number),
    }
    by_kind = seeds_table([result.rows for result in results], columns)
    return Page("evidence/foreign_text", {"by_kind": by_kind, "samples": results[0].samples})


def _substitution(results: Sequence[Result]) -> Page:
    rows, shown = results[-1].rows, _SUBSTITUTION
    contexts = [row["context_tokens"] for row in rows]
    figure = line_figure(
        [Line(label, contexts, [row[name] for row in rows], marked=True) for name, label in shown.items()],
        "Ratios of cost against the length of the past.",
        x_label="tokens of the past",
        y_label="tokens' cost over memories'",
        x_ticks={float(context): f"{context:,}" for context in contexts},
        log_x=True,
        log_y=True,
    )
    cells = [[f"{row['context_tokens']:,}", *(number(row[name], 1) for name in shown)] for row in rows]
    return Page("evidence/substitution", {"figure": figure, "table": Table(["past", *shown.values()], cells)})


def _memory_training(results: Sequence[Result]) -> Page:
    rows = results[-1].rows
    shown = {name: label for name, label in _STEPS.items() if name in rows[0]}
    chunks = [row["window_chunks"] for row in rows]
    figure = line_figure(
        [Line(label, chunks, [row[name] for row in rows], marked=True) for name, label in shown.items()],
        "Seconds of a training step over ours, against the chunks of a window.",
        x_label="chunks of a window",
        y_label="seconds of a step, over ours",
        x_ticks={float(number): str(number) for number in chunks},
    )
    cells = [[str(row["window_chunks"]), *(number(row[name]) for name in shown)] for row in rows]
    return Page("evidence/memory_training", {"figure": figure, "table": Table(["chunks", *shown.values()], cells)})


def _settle(results: Sequence[Result]) -> Page:
    columns = {
        "attack": lambda same: f"{same[0]['attack']}\n{same[0]['num_texts']} texts",
        "given": lambda same: str(same[0]["given"]),
        "token accuracy": of("token_accuracy", share),
        "exact texts": of("exact_match", share),
    }
    table = seeds_table([result.attacks for result in results], columns)
    return Page("evidence/settle", {"of": results[0], "attacks": table})


_EVIDENCE: Mapping[str, Callable[[Sequence[Result]], Page | None]] = {
    "embeddings": _embeddings,
    "foreign-text": _foreign_text,
    "memory-model": lambda results: comparison(results) if "train_flops" in results[0].measures else None,
    "recall": recall,
    "substitution": _substitution,
    "memory-training": _memory_training,
    "non-invertible": measurements,
    "settle-causal": _settle,
}

"""Seconds of training steps over ours, by chunks of a window."""

from collections.abc import Sequence

from memlm.runtime.tables import Table
from memlm.runtime.wording import number
from memlm_evidence.experiments.memory_training import MemoryTrainingResult
from memlm_evidence.pages.figures import Line, line_figure
from memlm_evidence.pages.page import Page

_STEPS = {
    "combined_step_ratio": "chunk by chunk, both objectives",
    "recurrent_step_ratio": "recurrent memory, next tokens",
    "encoder_decoder_step_ratio": "encoder-decoder, next tokens",
}


def page(results: Sequence[MemoryTrainingResult]) -> Page:
    """Of the last of several."""
    rows = results[-1].rows
    shown = _STEPS
    chunks = [row.window_chunks for row in rows]
    figure = line_figure(
        [Line(label, chunks, [getattr(row, name) for row in rows], marked=True) for name, label in shown.items()],
        "Seconds of a training step over ours, against the chunks of a window.",
        x_label="chunks of a window",
        y_label="seconds of a step, over ours",
        x_ticks={float(number): str(number) for number in chunks},
    )
    cells = [[str(row.window_chunks), *(number(getattr(row, name)) for name in shown)] for row in rows]
    return Page(
        "experiments/memory_training/page", {"figure": figure, "table": Table(["chunks", *shown.values()], cells)}
    )

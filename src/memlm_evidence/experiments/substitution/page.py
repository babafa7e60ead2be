"""What memories in place of tokens save, by length of the past."""

from collections.abc import Sequence

from memlm.runtime.tables import Table
from memlm.runtime.wording import number
from memlm_evidence.experiments.substitution import SubstitutionResult
from memlm_evidence.pages.figures import Line, line_figure
from memlm_evidence.pages.page import Page

_SUBSTITUTION = {
    "ttft_ratio_cold": "first token, encoding included",
    "ttft_ratio_cached": "first token, memories kept",
    "flops_ratio_cold": "operations, encoding included",
    "cache_bytes_ratio": "cache",
    "decode_ratio": "speed of writing on",
}


def page(results: Sequence[SubstitutionResult]) -> Page:
    """Of the last of several."""
    rows, shown = results[-1].rows, _SUBSTITUTION
    contexts = [row.context_tokens for row in rows]
    figure = line_figure(
        [Line(label, contexts, [getattr(row, name) for row in rows], marked=True) for name, label in shown.items()],
        "Ratios of cost against the length of the past.",
        x_label="tokens of the past",
        y_label="tokens' cost over memories'",
        x_ticks={float(context): f"{context:,}" for context in contexts},
        log_x=True,
        log_y=True,
    )
    cells = [[f"{row.context_tokens:,}", *(number(getattr(row, name), 1) for name in shown)] for row in rows]
    return Page("experiments/substitution/page", {"figure": figure, "table": Table(["past", *shown.values()], cells)})

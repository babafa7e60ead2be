"""Exact answers by distance, a line and a row for each model."""

from collections.abc import Sequence

from memlm.runtime.tables import Table
from memlm.runtime.wording import human, share
from memlm_evidence.experiments.exact_recall import RecallResult
from memlm_evidence.pages.figures import line_figure
from memlm_evidence.pages.page import Page
from memlm_evidence.pages.seeds import line_over_seeds, over_seeds


def page(results: Sequence[RecallResult]) -> Page:
    """What recall of exact strings found, by seed; not every seed has to have every model."""
    distances = list(next(iter(results[0].recall.values())))
    names = dict.fromkeys(name for seed in results for name in seed.recall)
    lines, cells = [], []
    for name in names:
        rates = [[seed.recall[name][far] for seed in results if name in seed.recall] for far in distances]
        blind = [seed.chance[name] for seed in results if name in seed.recall]
        lines.append(line_over_seeds(human(name), list(map(float, distances)), rates))
        cells.append([human(name), *(over_seeds(each, share) for each in (*rates, blind))])
    figure = line_figure(
        lines,
        "Exact answers by distance, a line for each model.",
        x_label="chunks from fact to question",
        y_label="exact answers",
        x_ticks={float(far): far for far in distances},
        y_limits=(0.0, 1.02),
    )
    table = Table(["trained", *(f"at {far}" for far in distances), "blind"], cells)
    return Page("experiments/exact_recall/page", {"figure": figure, "table": table})

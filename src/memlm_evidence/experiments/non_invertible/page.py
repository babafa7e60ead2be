"""The page on known sources: what each objective keeps of a past whose every bit is counted, and where bounds lie."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from memlm.runtime.tables import Table
from memlm.runtime.wording import number, percent, share
from memlm_evidence.experiments.non_invertible import NonInvertibleResult
from memlm_evidence.pages.definitions import made_by
from memlm_evidence.pages.figures import Figure, Line, line_figure
from memlm_evidence.pages.page import Page
from memlm_evidence.pages.seeds import line_over_seeds, of, seeds_table


def write_known_sources_report(folder: Path) -> Path:
    """Write `report.html` beside a folder's results, whole or not at all, and return its path.

    Raises:
        ValueError: there is no result, or the file that is broken.
    """
    from memlm_evidence.experiments.table import read_results  # it lists this experiment

    results = read_results([folder]).get(NonInvertibleResult.name, [])
    if not results:
        raise ValueError(f"{folder} has no non-invertible-seed-*.json; `memlm reproduce non-invertible` makes it")
    return known_sources_page(results).write(folder)


def known_sources_page(results: Sequence[NonInvertibleResult]) -> Page:
    """The page of one seed or several."""
    chain = results[0].rows[0].source
    longest = max(row.num_tokens for row in results[0].rows if row.source == chain)
    rows = [row for result in results for row in result.rows if (row.source, row.num_tokens) == (chain, longest)]

    def mean(objective: str, name: str) -> str:
        return share(fmean(getattr(row, name) for row in rows if row.objective == objective), 2)

    best = [max((found for found in result.ideal_over_stored.values() if found), default=None) for result in results]
    data = {
        "chain": chain,
        "num_tokens": longest,
        "num_seeds": len(results),
        "of_state": mean("causal", "state_share"),
        "of_rest": mean("causal", "rest_share"),
        "of_all": mean("combined", "share"),
        "ideal_over_stored": share(fmean(filter(None, best)), 2) if all(best) else "",
        "measurements": page(results),
        "made_by": made_by(results[0].provenance),
    }
    return Page("experiments/non_invertible/report", data)


def page(results: Sequence[NonInvertibleResult]) -> Page:
    """What was found on known sources, by seed."""
    oracle = results[0].oracle
    data = {
        "chain": results[0].rows[0].source,
        "by_length": _by_length([result.rows for result in results]),
        "by_source": _by_source([result.rows for result in results]),
        "distortion": _distortion(results),
        "stored": _stored(results),
        "calibration": _calibration([result.calibration for result in results]),
        "oracle": Table(
            ["source", "entropy rate", "what it costs one who knows"],
            [[row.source, f"{row.entropy_rate_nats:.7f}", f"{row.oracle_nats:.7f}"] for row in oracle],
            "Nats a token; computed, without sampling.",
        ),
    }
    return Page("experiments/non_invertible/page", data)


def _by_length(seeds: Sequence[Sequence[Any]]) -> Figure:
    chain = [row for rows in seeds for row in rows if row.source == seeds[0][0].source]
    lengths = sorted({row.num_tokens for row in chain})

    def line(label: str, name: str, objective: str) -> Line:
        of_objective = [row for row in chain if row.objective == objective]
        return line_over_seeds(
            label,
            lengths,
            [[getattr(row, name) for row in of_objective if row.num_tokens == length] for length in lengths],
        )

    objectives = dict.fromkeys(row.objective for row in seeds[0])
    return line_figure(
        [
            line("all there is to know", "entropy_bits", "causal"),
            line("what the future needs", "state_bits", "causal"),
            *(line(f"kept: {objective}", "retained_bits", objective) for objective in objectives),
        ],
        "Bits against the length of a text: all there is, what the future needs, and what each objective keeps.",
        x_label="tokens of a text",
        y_label="bits",
        x_ticks={float(length): str(length) for length in lengths},
    )


def _by_source(seeds: Sequence[Sequence[Any]]) -> Table:
    def there_is(same: Sequence[Any]) -> str:
        return f"{number(same[0].entropy_bits, 1)} bits\nstate {number(same[0].state_bits, 2)}"

    columns = {
        "source": _source,
        "objective": lambda same: str(same[0].objective),
        "there is": there_is,
        "kept": of("retained_bits", lambda bits: number(bits, 1)),
        "of the state": of("state_share", lambda value: share(value, 3)),
        "of the rest": of("rest_share", lambda value: share(value, 3)),
        "next token, excess": of("next_token_excess_bits", lambda bits: number(bits, 4)),
    }
    caption = (
        "Kept: bits that trained readers find in a memory, a lower bound. Excess: bits a token that predictions of "
        "the next chunk cost above what they cost one who knows everything before it (an autoencoder was never asked "
        "to predict). Below a number: its range over seeds; with one seed, its 95% interval over texts, if it has one."
    )
    return seeds_table(seeds, columns, caption)


def _source(same: Sequence[Any]) -> str:
    return f"{same[0].source}\n{same[0].num_tokens} tokens"


def _distortion(results: Sequence[NonInvertibleResult]) -> Figure:
    rows = [row for result in results for row in result.distortion]
    limit = results[0].distortion_limit
    lines = [Line("the least there can be", [row.bits_per_token for row in limit], [row.error for row in limit])]
    for method in dict.fromkeys(row.method for row in rows):
        errors: dict[float, list[float]] = {}
        for row in sorted(rows, key=lambda row: row.stored_bits):
            if row.method == method:
                errors.setdefault(row.stored_bits / rows[0].num_tokens, []).append(row.token_error)
        lines.append(Line(method, list(errors), list(map(fmean, errors.values())), marked=True))
    return line_figure(
        lines,
        "Share of wrong tokens against stored bits, a line for each way of storing, and the limit.",
        x_label="stored bits for each token",
        y_label="share of wrong tokens",
        y_limits=(0.0, 0.9),
    )


def _stored(results: Sequence[NonInvertibleResult]) -> Table:
    cells = []
    for method in dict.fromkeys(row.method for result in results for row in result.distortion):
        found = [result.ideal_over_stored[method] for result in results]
        cells.append([method, ", ".join("not reached" if ratio is None else share(ratio, 3) for ratio in found)])
    caption = "The bits that 1% of wrong tokens need at least, over the fewest bits stored that had no more; by seed."
    return Table(["memories are", "ideal over stored bits"], cells, caption)


def _calibration(seeds: Sequence[Sequence[Any]]) -> Table:
    def mean(name: str) -> Any:
        return lambda same: number(fmean(getattr(row, name) for row in same), 2)

    columns = {
        "source": _source,
        "of the text arrives": lambda same: str(same[0].channel),
        "there is": mean("exact_bits"),
        "found": mean("estimated_bits"),
        "bias": lambda same: percent(fmean(row.bias for row in same)),
        "missed": mean("missed_bits"),
        "intervals right": lambda same: share(fmean(row.coverage_of_truth for row in same), 2),
        "around their mean": lambda same: share(fmean(row.coverage_of_estimate for row in same), 2),
    }
    caption = (
        "Bits a text. Missed: what the reader pays above the least that anybody can who has the memory. Last columns: "
        "share of 95% intervals, each from a test set of its own, with the truth in them, and with the mean of all "
        "estimates."
    )
    return seeds_table(seeds, columns, caption)

"""The page on known sources: what each objective keeps of a past whose every bit is counted, and where bounds lie."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from memlm.runtime.results import Result
from memlm.runtime.wording import number, percent, share
from memlm_evidence.pages.blocks import Definitions, Figure, KeyNumbers, Table
from memlm_evidence.pages.figures import Line, line_figure
from memlm_evidence.pages.page import Page, Section
from memlm_evidence.pages.provenance import made_by
from memlm_evidence.pages.seeds import line_over_seeds, named_over_seeds, read_seeds

MEASURED = "non-invertible-seed-*.json"
"""Results of `memlm reproduce non-invertible`, by seed."""

Row = dict[str, Any]


def write_known_sources_report(folder: Path) -> Path:
    """Write `report.html` beside a folder's results, whole or not at all, and return its path.

    Raises:
        ValueError: there is no result, or the file that is broken.
    """
    results = read_seeds(folder, MEASURED)
    if not results:
        raise ValueError(f"{folder} has no {MEASURED}; `memlm reproduce non-invertible` makes it")
    return known_sources_page(results).write(folder)


def known_sources_page(results: Sequence[Result]) -> Page:
    """The page of one seed or several."""
    sections = [
        _in_short(results),
        _argument(),
        *measurements(results),
        _limits(),
        made_by(next((result.provenance for result in results if result.provenance), None)),
    ]
    lead = (
        "Small models were trained to predict the next token, to regenerate their text, or both, on made-up languages "
        "of which everything is known: how much there is to know of a text, and how much of it the future needs. So it "
        "can be counted, in bits, what a memory keeps."
    )
    return Page("Why next-token prediction forgets", lead, sections)


def measurements(results: Sequence[Result]) -> list[Section]:
    """What was found on known sources, by seed."""
    return [
        _by_length([result.rows for result in results]),
        _by_source([result.rows for result in results]),
        _distortion(results),
        _calibration([result.calibration for result in results]),
        _oracle(results[0].oracle),
    ]


# --- what was found ----------------------------------------------------------------------------------------------


def _in_short(results: Sequence[Result]) -> Section:
    chain = results[0].rows[0]["source"]
    longest = max(row["num_tokens"] for row in results[0].rows if row["source"] == chain)
    rows = [row for result in results for row in result.rows if (row["source"], row["num_tokens"]) == (chain, longest)]

    def of(objective: str, name: str) -> float:
        return fmean(row[name] for row in rows if row["objective"] == objective)

    items = [
        (share(of("causal", "state_share"), 2), "of the state, which the future needs, is kept by causal training"),
        (share(of("causal", "rest_share"), 2), "of everything else is"),
        (share(of("combined", "share"), 2), "of all is kept by combined training"),
    ]
    best = [max((found for found in result.ideal_over_stored.values() if found), default=None) for result in results]
    if all(best):
        items.append((share(fmean(filter(None, best)), 2), "ideal over stored bits, at 1% of tokens wrong"))
    seeds = f", means over {len(results)} seeds" if len(results) > 1 else ""
    return Section("In short", f"Texts of {longest} tokens of the source {chain}{seeds}.", [KeyNumbers(items)])


def _by_length(seeds: Sequence[Sequence[Row]]) -> Section:
    chain = seeds[0][0]["source"]
    of_chain = [[row for row in rows if row["source"] == chain] for rows in seeds]
    lengths = sorted({row["num_tokens"] for row in of_chain[0]})

    def line(label: str, name: str, objective: str) -> Line:
        values = [
            [
                row[name]
                for rows in of_chain
                for row in rows
                if (row["num_tokens"], row["objective"]) == (length, objective)
            ]
            for length in lengths
        ]
        return line_over_seeds(label, lengths, values)

    lines = [
        line("all there is to know", "entropy_bits", "causal"),
        line("what the future needs", "state_bits", "causal"),
        *(line(f"kept: {objective}", "retained_bits", objective) for objective in _objectives(seeds)),
    ]
    ticks = {float(length): str(length) for length in lengths}
    svg = line_figure(lines, x_label="tokens of a text", y_label="bits", x_ticks=ticks)
    text = (
        f"Source: {chain}. What there is to know grows with the text, by the entropy rate for each token; what the "
        "future needs is the state, and stays as it is. A memory of causal training may stay with the latter, one that "
        "has to regenerate must follow the former."
    )
    alt = "Bits against the length of a text: all there is, what the future needs, and what each objective keeps."
    return Section("How it grows with the text", text, [Figure(svg, alt)])


def _by_source(seeds: Sequence[Sequence[Row]]) -> Section:
    header = ["source", "objective", "there is", "kept", "of the state", "of the rest", "next token, excess"]
    rows = []
    for same in zip(*seeds, strict=True):
        first = same[0]
        rows.append(
            [
                f"{first['source']}\n{first['num_tokens']} tokens",
                first["objective"],
                f"{number(first['entropy_bits'], 1)} bits\nstate {number(first['state_bits'], 2)}",
                named_over_seeds(same, "retained_bits", lambda bits: number(bits, 1)),
                named_over_seeds(same, "state_share", lambda value: share(value, 3)),
                named_over_seeds(same, "rest_share", lambda value: share(value, 3)),
                named_over_seeds(same, "next_token_excess_bits", lambda bits: number(bits, 4)),
            ]
        )
    caption = (
        "Kept: bits that trained readers find in a memory, a lower bound. Excess: bits a token that predictions of "
        "the next chunk cost above what they cost one who knows everything before it (an autoencoder was never asked "
        "to predict). Below a number: its range over seeds; with one seed, its 95% interval over texts, if it has one."
    )
    told = Definitions(
        [
            ("Markov", "Each token depends on the one before: that is the state."),
            ("uniform", "Every token is as likely, whatever came before: the future needs nothing."),
            ("even process", "Bits whose ones come in even runs; the state is whether a run is complete."),
            ("lookup", "Random values, then questions about the first few of them: the state is these values."),
        ]
    )
    return Section("What is kept, by source and objective", "", [Table(header, rows, caption), told])


def _objectives(seeds: Sequence[Sequence[Row]]) -> list[str]:
    return list(dict.fromkeys(row["objective"] for row in seeds[0]))


# --- the argument ------------------------------------------------------------------------------------------------


def _argument() -> Section:
    return Section(
        "The argument",
        """
        A text, the past, is followed by a future. A memory is made of the text, and whatever comes after sees the text
        through the memory alone. Two pasts are equivalent if the same futures follow them, each as likely as after the
        other. The class a text belongs to is its predictive state.
        """,
        [
            Definitions(
                [
                    (
                        "The best predictor needs the state, and no more.",
                        "What the future costs, given the memory, is never less than what it costs given the text; the "
                        "difference is what the text still tells of the future when the memory is known. That is zero "
                        "exactly if texts with the same memory have the same future: if the memory tells the state.",
                    ),
                    (
                        "So the loss cannot tell memories apart that tell the state.",
                        "The state alone, the whole text and all between have the same loss, to the last digit. "
                        "All that is not the state is free to be lost: the entropy of the text less the state's. "
                        "It grows with the text, by the entropy rate for each token, while the state does not.",
                    ),
                    (
                        "Regeneration asks for everything.",
                        "What a text costs, given its memory, is zero exactly if no two texts have the same memory.",
                    ),
                    (
                        "Both together ask for both.",
                        "A memory from which the text follows also tells the state, so that the sum of the two losses "
                        "is least for the memories that regenerate, and prediction pays nothing for it at the optimum.",
                    ),
                    (
                        "Free to be lost is not lost.",
                        "The loss is flat along all but the state, and whatever else acts decides what happens there: "
                        "here, weights decay and memories are read under noise, as any use of a memory has some.",
                    ),
                ]
            )
        ],
    )


# --- where the measurement must lie ------------------------------------------------------------------------------


def _distortion(results: Sequence[Result]) -> Section:
    rows = [row for result in results for row in result.distortion]
    length = rows[0]["num_tokens"]
    limit = results[0].distortion_limit
    lines = [Line("the least there can be", [row["bits_per_token"] for row in limit], [row["error"] for row in limit])]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    for method in methods:
        sizes = sorted({row["stored_bits"] for row in rows if row["method"] == method})
        errors = [
            [row["token_error"] for row in rows if (row["method"], row["stored_bits"]) == (method, size)]
            for size in sizes
        ]
        lines.append(Line(method, [size / length for size in sizes], [fmean(each) for each in errors], marked=True))
    svg = line_figure(lines, x_label="stored bits for each token", y_label="share of wrong tokens", y_limits=(0.0, 0.9))
    text = (
        "Uniform, independent tokens cannot be guessed, so the least share of wrong ones that so many stored bits "
        "allow is known exactly: the rate-distortion curve, which here is Fano's inequality too. A point below it "
        "would be a bug."
    )
    reached = [[result.ideal_over_stored[method] for result in results] for method in methods]
    table = [
        [method, ", ".join("not reached" if ratio is None else share(ratio, 3) for ratio in found)]
        for method, found in zip(methods, reached, strict=True)
    ]
    caption = "The bits that 1% of wrong tokens need at least, over the fewest bits stored that had no more; by seed."
    return Section(
        "Bits stored and tokens lost",
        text,
        [
            Figure(svg, "Share of wrong tokens against stored bits, a line for each way of storing, and the limit."),
            Table(["memories are", "ideal over stored bits"], table, caption),
        ],
    )


def _calibration(seeds: Sequence[Sequence[Row]]) -> Section:
    header = [
        "source",
        "of the text arrives",
        "there is",
        "found",
        "bias",
        "missed",
        "intervals right",
        "around their mean",
    ]
    rows = [
        [
            f"{same[0]['source']}\n{same[0]['num_tokens']} tokens",
            same[0]["channel"],
            number(fmean(row["exact_bits"] for row in same), 2),
            number(fmean(row["estimated_bits"] for row in same), 2),
            percent(fmean(row["bias"] for row in same)),
            number(fmean(row["missed_bits"] for row in same), 2),
            share(fmean(row["coverage_of_truth"] for row in same), 2),
            share(fmean(row["coverage_of_estimate"] for row in same), 2),
        ]
        for same in zip(*seeds, strict=True)
    ]
    text = (
        "Texts pass a channel that loses or changes tokens, and the memory is what arrives. What it tells is known; "
        "a reader has to find it. What it misses is missing from the estimate, and the 95% intervals, which are over "
        "texts, do not know of it."
    )
    caption = (
        "Bits a text. Missed: what the reader pays above the least that anybody can who has the memory. Last columns: "
        "share of 95% intervals, each from a test set of its own, with the truth in them, and with the mean of all "
        "estimates."
    )
    return Section("Do readers find what there is?", text, [Table(header, rows, caption)])


def _oracle(rows: Sequence[Row]) -> Section:
    header = ["source", "entropy rate", "what it costs one who knows"]
    cells = [[row["source"], f"{row['entropy_rate_nats']:.7f}", f"{row['oracle_nats']:.7f}"] for row in rows]
    text = (
        "No loss can be below the entropy rate, and one who knows the source and all that went before pays just that."
    )
    return Section("The least loss", text, [Table(header, cells, "Nats a token; computed, without sampling.")])


def _limits() -> Section:
    items = [
        (
            "Not that networks merge texts",
            "As maps of real numbers they hardly ever do. What counts is what a reader of bounded means finds at "
            "finite precision, under noise.",
        ),
        (
            "Not that causal training forgets all but the state",
            "It may. Without noise and decay a random code of the text, never trained, keeps a good deal of it.",
        ),
        (
            "Not that language has a small state",
            "Its future asks for names, numbers and quotations; the argument is about the rest.",
        ),
    ]
    return Section("What this does not say", "", [Definitions(items)])

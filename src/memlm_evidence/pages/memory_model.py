"""The page on memory models: what memories are worth to next tokens, what they give back, and what they cost."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from memlm.runtime.results import Result
from memlm.runtime.wording import human, number, percent, share
from memlm_evidence.pages.blocks import Block, Definitions, Figure, KeyNumbers, Table
from memlm_evidence.pages.figures import line_figure
from memlm_evidence.pages.page import Page, Section
from memlm_evidence.pages.provenance import made_by
from memlm_evidence.pages.seeds import line_over_seeds, over_seeds, read_seeds

COMPARED, RECALLED = "memory-model-seed-*.json", "recall-seed-*.json"
"""Results of `memlm reproduce memory-model` and `memlm reproduce recall`, by seed."""
ARMS: Mapping[str, str] = {
    "no_memory": "The decoder sees a chunk's own tokens alone.",
    "causal": "Memories, trained for next tokens alone.",
    "combined": "Memories, trained for next tokens and to give back their text.",
    "curriculum": "Memories of a frozen autoencoder: first the decoder learns to read them, then next tokens as well.",
    "full_context": "The same decoder reads the whole window as tokens.",
    "recurrent": "Memory tokens carried from chunk to chunk (RMT).",
    "encoder_decoder": "Every layer attends to the states of all past tokens; nothing is pooled.",
    "oracle": "The memory of the very chunk that is predicted: more than any past can tell.",
}

Row = Mapping[str, Any]


def write_memory_report(folder: Path) -> Path:
    """Write `report.html` beside a folder's results, whole or not at all, and return its path.

    Raises:
        ValueError: there is no result, or the file that is broken.
    """
    compared, recalled = read_seeds(folder, COMPARED), read_seeds(folder, RECALLED)
    if not compared and not recalled:
        raise ValueError(f"{folder} has no {COMPARED}; `memlm reproduce memory-model` makes it")
    return memory_page(compared, recalled).write(folder)


def memory_page(compared: Sequence[Result], recalled: Sequence[Result]) -> Page:
    """The page of a comparison of memory models, of one seed or several, and of their recall."""
    sections: list[Section] = []
    if compared:
        sections += [_in_short([result.measures for result in compared]), *comparison(compared)]
    if recalled:
        sections += recall(recalled)
    last = (compared or recalled)[-1]
    sections += [_limits(), made_by(last.provenance)]
    lead = (
        "A causal decoder read one vector for each earlier chunk of a text in place of its tokens. The same decoder "
        "was trained in several ways on the same tokens, and measured on documents kept apart."
    )
    return Page("Memory models", lead, sections)


def comparison(results: Sequence[Result]) -> list[Section]:
    """What a comparison of memory models found, by seed."""
    seeds = [result.measures for result in results]
    return [_arms(seeds), _by_chunk(seeds), _compute(seeds), *_sweeps(seeds)]


def recall(results: Sequence[Result]) -> list[Section]:
    """What recall of exact strings found, by seed."""
    return [_recall([result.measures for result in results])]


def _names(seeds: Sequence[Row]) -> list[str]:
    """All arms; a full comparison has more of them than another seed's."""
    return list(dict.fromkeys(name for seed in seeds for name in seed["causal_nats"]))


def _with(seeds: Sequence[Row], name: str) -> list[Row]:
    return [seed for seed in seeds if name in seed["causal_nats"]]


def _over(seeds: Sequence[Row], get: Callable[[Row], Any], show: Callable[[Any], str]) -> str:
    return over_seeds([get(seed) for seed in seeds], show)


def _in_short(seeds: Sequence[Row]) -> Section:
    items = [
        (_over(seeds, lambda seed: seed["retention_accuracy"]["combined"], share), "of tokens, from combined memories"),
        (_over(seeds, lambda seed: seed["retention_accuracy"]["causal"], share), "of tokens, by causal training"),
        (_over(seeds, lambda seed: seed["gain"]["combined"]["value"], _nats), "nats a token gained over no memory"),
        (_over(seeds, lambda seed: seed["gap"]["combined"]["value"], percent), "dearer than by causal training"),
    ]
    text = f"Means over {len(seeds)} seeds." if len(seeds) > 1 else ""
    return Section("In short", text, [KeyNumbers([(value.split("\n")[0], what) for value, what in items])])


def _arms(seeds: Sequence[Row]) -> Section:
    names = _names(seeds)
    header = ["trained", "next-token nats", "gain over no memory", "memories give back", "training FLOPs"]
    rows = [[human(name), *_arm(_with(seeds, name), name)] for name in names]
    caption = (
        "Nats of chunks that have a past to read. Below a number: the range over seeds; of a gain, with one seed, its "
        "95% interval over documents. Memories are read by the same reader, trained on each arm's."
    )
    told = Definitions([(human(name), ARMS[name]) for name in names if name in ARMS])
    return Section("Next tokens", "", [Table(header, rows, caption), told])


def _arm(seeds: Sequence[Row], name: str) -> Iterator[str]:
    yield _over(seeds, lambda seed: seed["causal_nats"].get(name), lambda nats: number(nats, 3))
    gain = _over(seeds, lambda seed: seed["gain"].get(name, {}).get("value"), _nats)
    if len(seeds) == 1 and name in seeds[0]["gain"]:
        gain += "\n[{}, {}]".format(*map(_nats, seeds[0]["gain"][name]["interval"]))
    yield gain
    yield _over(seeds, lambda seed: seed["retention_accuracy"].get(name), share)
    yield _over(seeds, lambda seed: seed["train_flops"].get(name), _flops)


def _by_chunk(seeds: Sequence[Row]) -> Section:
    lines = []
    for name in _names(seeds):
        if name != "oracle":  # far below the others
            curves = [seed["causal_nats_by_chunk"][name] for seed in _with(seeds, name)]
            past = range(len(curves[0]))
            lines.append(line_over_seeds(human(name), list(past), list(zip(*curves, strict=True))))
    ticks = {float(past): str(past) for past in range(len(lines[0].x))}
    svg = line_figure(lines, x_label="chunks behind the one that is predicted", y_label="nats a token", x_ticks=ticks)
    figure = Figure(svg, "Next-token nats by the number of chunks behind, a line for each arm.")
    return Section("Does more past help?", "", [figure])


def _compute(seeds: Sequence[Row]) -> Section:
    def of(name: str, extra: str = "") -> Callable[[Row], Any]:
        def get(seed: Row) -> Any:
            spent = seed["flops_to_rich"].get(name)
            return spent if spent is None or not extra else spent + seed["train_flops"][extra]

        return get

    rows = [
        ["combined, from scratch", _over(seeds, of("combined"), _flops)],
        ["frozen autoencoder, curriculum", _over(seeds, of("curriculum"), _flops)],
        ["the same, and the autoencoder's own training", _over(seeds, of("curriculum", "autoencoder"), _flops)],
    ]
    text = "Training operations until the decoder itself gave back 99.5% of the watched text's tokens."
    return Section("What rich memories cost", text, [Table(["trained", "FLOPs"], rows)])


def _sweeps(seeds: Sequence[Row]) -> Iterator[Section]:
    for key, title, text, names in (
        (
            "trade_off",
            "Retention against prediction",
            "The weight of retention beside next tokens.",
            ["retention_weight"],
        ),
        (
            "by_size",
            "By size of the decoder",
            "The gap is that to causal training of the same size.",
            ["dim", "objective"],
        ),
        (
            "by_insertion",
            "How a memory enters the decoder",
            "Positions that a memory takes, or keys that it is unfolded into.",
            ["insertion", "number"],
        ),
    ):
        swept = [seed[key] for seed in seeds if seed.get(key)]
        if swept:
            yield Section(title, text, [*_drawn(key, swept), _swept_table(swept, names)])


def _swept_table(swept: Sequence[Sequence[Row]], names: Sequence[str]) -> Table:
    rows = []
    for same in zip(*swept, strict=True):
        gap = _over(same, lambda row: row.get("gap", {}).get("value"), percent)
        rows.append(
            [
                *(human(str(same[0][name])) for name in names),
                _over(same, lambda row: row["causal_nats"], lambda nats: number(nats, 3)),
                *([gap] if any("gap" in row for row in swept[0]) else []),
                _over(same, lambda row: row.get("retention_accuracy"), share),
                str(same[0]["decoder_positions_per_chunk"]),
            ]
        )
    gaps = ["gap"] if any("gap" in row for row in swept[0]) else []
    header = [*map(human, names), "next-token nats", *gaps, "memories give back", "positions a memory"]
    return Table(header, rows, "Memories are read by the model's own decoder.")


def _drawn(key: str, swept: Sequence[Sequence[Row]]) -> Iterator[Block]:
    """The trade-off as a curve; the other sweeps are tables."""
    if key != "trade_off":
        return
    points = sorted(zip(*swept, strict=True), key=lambda same: fmean(row["retention_accuracy"] for row in same))
    x = [fmean(row["retention_accuracy"] for row in same) for same in points]
    line = line_over_seeds("", x, [[row["causal_nats"] for row in same] for same in points])
    ticks = {0.0: "0", 0.25: "0.25", 0.5: "0.5", 0.75: "0.75", 1.0: "1"}
    svg = line_figure([line], x_label="share of tokens that memories give back", y_label="nats a token", x_ticks=ticks)
    yield Figure(svg, "Next-token nats against retention, a point for each weight of retention.")


def _recall(seeds: Sequence[Row]) -> Section:
    # Not every seed has to have every model.
    of_model = {
        name: [seed for seed in seeds if name in seed["recall"]]
        for name in dict.fromkeys(name for seed in seeds for name in seed["recall"])
    }
    distances = list(next(iter(seeds[0]["recall"].values())))
    lines = [
        line_over_seeds(
            human(name),
            [float(far) for far in distances],
            [[seed["recall"][name][far] for seed in having] for far in distances],
        )
        for name, having in of_model.items()
    ]
    ticks = {float(far): far for far in distances}
    svg = line_figure(
        lines, x_label="chunks from fact to question", y_label="exact answers", x_ticks=ticks, y_limits=(0.0, 1.02)
    )
    rows = [[human(name), *_recalled(having, name, distances)] for name, having in of_model.items()]
    header = ["trained", *(f"at {far}" for far in distances), "blind"]
    text = "A fact stands in an earlier chunk and is asked for by its key; the answer is decoded greedily."
    blocks: list[Block] = [Figure(svg, "Exact answers by distance, a line for each model."), Table(header, rows)]
    return Section("Recall of exact strings", text, blocks)


def _recalled(seeds: Sequence[Row], name: str, distances: Sequence[str]) -> Iterator[str]:
    for far in distances:
        yield _over(seeds, lambda seed, far=far: seed["recall"][name][far], share)  # type: ignore[misc]
    yield _over(seeds, lambda seed: seed["chance"][name], share)


def _limits() -> Section:
    items = [
        ("Small models, little text", "Gains and gaps are those of this decoder, this text and this many tokens."),
        ("Regeneration is not use", "A memory that gives back its text need not be read for next tokens; see recall."),
    ]
    return Section("What this does not say", "", [Definitions(items)])


def _nats(value: Any) -> str:
    return number(value, 3)


def _flops(value: Any) -> str:
    return "—" if value is None else f"{value:.2e}"

"""The page on memory models: what memories are worth to next tokens, what they give back, and what they cost."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from memlm.runtime.tables import Table
from memlm.runtime.wording import human, number, percent, share
from memlm_evidence.experiments.memory_model import MemoryModelResult, VariantRow
from memlm_evidence.pages.figures import Figure, line_figure
from memlm_evidence.pages.page import Page, Section
from memlm_evidence.pages.seeds import line_over_seeds, of, over_seeds, seeds_table

CONDITIONS: Mapping[str, str] = {
    "no_memory": "The decoder sees a chunk's own tokens alone.",
    "causal": "Memories, trained for next tokens alone.",
    "combined": "Memories, trained for next tokens and to give back their text.",
    "curriculum": "Memories of a frozen autoencoder: first the decoder learns to read them, then next tokens as well.",
    "full_context": "The same decoder reads the whole window as tokens.",
    "recurrent": "Memory tokens carried from chunk to chunk (RMT).",
    "encoder_decoder": "Every layer attends to the states of all past tokens; nothing is pooled.",
    "oracle": "The memory of the very chunk that is predicted: more than any past can tell.",
}
_DECODER = (
    "A causal decoder read one vector for each earlier chunk of a text in place of its tokens. The same decoder was "
    "trained in several ways on the same tokens, and measured on documents kept apart."
)
_VARIED = (
    ("trade_off", "Retention against prediction", "The weight of retention beside next tokens.", ["retention_weight"]),
    ("by_size", "By size of the decoder", "The gap is that to causal training of the same size.", ["dim", "objective"]),
    (
        "by_insertion",
        "How a memory enters the decoder",
        "Soft-prompt positions per memory, or keys that it is unfolded into.",
        ["insertion", "number"],
    ),
)
"""Of a full comparison: the field of results, title and text of its section, and what its variants differ in."""
_LIMITS = [
    ("Small models, little text", "Gains and gaps are those of this decoder, this text and this many tokens."),
    ("Regeneration is not use", "A memory that gives back its text need not be read for next tokens; see recall."),
]


def page(seeds: Sequence[MemoryModelResult]) -> Page | None:
    """What a comparison of memory models found, by seed; None at the paper's sizes, where it is but two models."""
    if seeds[0].train_flops is None:
        return None
    names = list(dict.fromkeys(name for seed in seeds for name in seed.causal_nats))  # a full comparison has more
    meanings = [(human(name), CONDITIONS[name]) for name in names if name in CONDITIONS]
    rich = "Training operations until the decoder itself gave back 99.5% of the watched text's tokens."
    sections = [
        Section("Next tokens", _DECODER, table=_conditions(seeds, names), terms=meanings),
        Section("Does more past help?", figures=[_by_chunk(seeds, names)]),
        Section("Training cost of accurate memories", rich, table=_compute(seeds)),
    ]
    for field, title, text, columns in _VARIED:
        if varied := [rows for seed in seeds if (rows := getattr(seed, field))]:
            figures = [_trade_off(varied)] if field == "trade_off" else []
            sections.append(Section(title, text, figures, _variants(varied, columns)))
    return Page.of(*sections, Section("What this does not say of memory models", terms=_LIMITS))


def _over(seeds: Sequence[Any], get: Callable[[Any], Any], show: Callable[[Any], str]) -> str:
    return over_seeds([get(seed) for seed in seeds], show)


def _conditions(seeds: Sequence[Any], names: Sequence[str]) -> Table:
    header = ["trained", "next-token nats", "gain over no memory", "memories give back", "training FLOPs"]
    caption = (
        "Nats of chunks that have a past to read. Below a number: the range over seeds; of a gain, with one seed, its "
        "95% interval over documents. Memories are read by the same reader, trained on each condition's."
    )

    def row(name: str) -> list[str]:
        having = [seed for seed in seeds if name in seed.causal_nats]
        gains = [seed.gain.get(name) for seed in having]
        return [
            human(name),
            _over(having, lambda seed: seed.causal_nats[name], _nats),
            over_seeds([gain and gain.value for gain in gains], _nats, gains[0] and gains[0].interval),
            _over(having, lambda seed: seed.retention_accuracy.get(name), share),
            _over(having, lambda seed: seed.train_flops.get(name), _flops),
        ]

    return Table(header, list(map(row, names)), caption)


def _by_chunk(seeds: Sequence[Any], names: Sequence[str]) -> Figure:
    lines = []
    for name in names:
        if name != "oracle":  # far below the others
            curves = [seed.causal_nats_by_chunk[name] for seed in seeds if name in seed.causal_nats]
            lines.append(line_over_seeds(human(name), range(len(curves[0])), list(zip(*curves, strict=True))))
    return line_figure(
        lines,
        "Next-token nats by the number of chunks behind, a line for each condition.",
        x_label="chunks behind the one that is predicted",
        y_label="nats a token",
        x_ticks={float(past): str(past) for past in lines[0].x},
    )


def _compute(seeds: Sequence[Any]) -> Table:
    def whole(seed: Any) -> Any:
        spent = seed.flops_to_rich.get("curriculum")
        return None if spent is None else spent + seed.train_flops["autoencoder"]

    rows = [
        ["combined, from scratch", _over(seeds, lambda seed: seed.flops_to_rich.get("combined"), _flops)],
        ["frozen autoencoder, curriculum", _over(seeds, lambda seed: seed.flops_to_rich.get("curriculum"), _flops)],
        ["the same, and the autoencoder's own training", _over(seeds, whole, _flops)],
    ]
    return Table(["trained", "FLOPs"], rows)


def _variants(varied: Sequence[Sequence[VariantRow]], names: Sequence[str]) -> Table:
    def column(name: str) -> Callable[[Sequence[Any]], str]:
        return lambda same: human(str(getattr(same[0], name)))

    gap = {"gap": lambda same: _over(same, lambda row: row.gap and row.gap.value, percent)}
    columns = {
        **{human(name): column(name) for name in names},
        "next-token nats": of("causal_nats", _nats),
        **(gap if any(row.gap for row in varied[0]) else {}),
        "memories give back": of("retention_accuracy", share),
        "positions a memory": lambda same: str(same[0].decoder_positions_per_chunk),
    }
    return seeds_table(varied, columns, "Memories are read by the model's own decoder.")


def _trade_off(varied: Sequence[Sequence[VariantRow]]) -> Figure:
    points = sorted(zip(*varied, strict=True), key=_retained)
    x = list(map(_retained, points))
    return line_figure(
        [line_over_seeds("", x, [[row.causal_nats for row in same] for same in points])],
        "Next-token nats against retention, a point for each weight of retention.",
        x_label="share of tokens that memories give back",
        y_label="nats a token",
        x_ticks={0.0: "0", 0.25: "0.25", 0.5: "0.5", 0.75: "0.75", 1.0: "1"},
    )


def _retained(same: Sequence[VariantRow]) -> float:
    return fmean(row.retention_accuracy or 0.0 for row in same)


def _nats(value: Any) -> str:
    return number(value, 3)


def _flops(value: Any) -> str:
    return "—" if value is None else f"{value:.2e}"

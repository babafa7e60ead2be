"""The page on memory models: what memories are worth to next tokens, what they give back, and what they cost."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from memlm.runtime.tables import Table
from memlm.runtime.wording import human, number, percent, share
from memlm_evidence.experiments.exact_recall import RecallResult
from memlm_evidence.experiments.exact_recall.page import page as recall
from memlm_evidence.experiments.memory_model import MemoryModelResult, VariantRow
from memlm_evidence.pages.definitions import made_by
from memlm_evidence.pages.figures import Figure, line_figure
from memlm_evidence.pages.page import Page
from memlm_evidence.pages.seeds import line_over_seeds, over_seeds, seeds_table

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


def write_memory_report(folder: Path) -> Path:
    """Write `report.html` beside a folder's results, whole or not at all, and return its path.

    Raises:
        ValueError: there is no result, or the file that is broken.
    """
    from memlm_evidence.experiments.table import read_results  # it lists this experiment

    results = read_results([folder])
    compared, recalled = results.get(MemoryModelResult.name, []), results.get(RecallResult.name, [])
    if not compared and not recalled:
        raise ValueError(f"{folder} has no memory-model-seed-*.json; `memlm reproduce memory-model` makes it")
    return memory_page(compared, recalled).write(folder)


def memory_page(compared: Sequence[MemoryModelResult], recalled: Sequence[RecallResult]) -> Page:
    """The page of a comparison of memory models, of one seed or several, and of their recall."""
    parts = ([page(compared)] if compared else []) + ([recall(recalled)] if recalled else [])
    data = {
        "num_seeds": len(compared),
        "in_short": _in_short(compared) if compared else [],
        "evidence": parts,
        "made_by": made_by((compared or recalled)[-1].provenance),
    }
    return Page("experiments/memory_model/report", data)


def page(seeds: Sequence[MemoryModelResult]) -> Page | None:
    """What a comparison of memory models found, by seed; None at the paper's sizes, where it is but two models."""
    if seeds[0].train_flops is None:
        return None
    names = list(dict.fromkeys(name for seed in seeds for name in seed.causal_nats))  # a full comparison has more
    data = {
        "conditions": _conditions(seeds, names),
        "meanings": [(human(name), CONDITIONS[name]) for name in names if name in CONDITIONS],
        "by_chunk": _by_chunk(seeds, names),
        "compute": _compute(seeds),
        "trade_off": _trade_off(seeds),
        "tables": {
            key: _variants(found, names)
            for key, names in _VARIED.items()
            if (found := [rows for seed in seeds if (rows := getattr(seed, key))])
        },
    }
    return Page("experiments/memory_model/page", data)


_VARIED: Mapping[str, Sequence[str]] = {
    "trade_off": ["retention_weight"],
    "by_size": ["dim", "objective"],
    "by_insertion": ["insertion", "number"],
}
"""By the field of results: what its variants differ in."""


def _over(seeds: Sequence[Any], get: Callable[[Any], Any], show: Callable[[Any], str]) -> str:
    return over_seeds([get(seed) for seed in seeds], show)


def _in_short(seeds: Sequence[Any]) -> list[tuple[str, str]]:
    items = [
        (_over(seeds, lambda seed: seed.retention_accuracy["combined"], share), "of tokens, from combined memories"),
        (_over(seeds, lambda seed: seed.retention_accuracy["causal"], share), "of tokens, by causal training"),
        (_over(seeds, lambda seed: seed.gain["combined"].value, _nats), "nats a token gained over no memory"),
        (_over(seeds, lambda seed: seed.gap["combined"].value, percent), "dearer than by causal training"),
    ]
    return [(value.split("\n")[0], what) for value, what in items]


def _conditions(seeds: Sequence[Any], names: Sequence[str]) -> Table:
    header = ["trained", "next-token nats", "gain over no memory", "memories give back", "training FLOPs"]
    caption = (
        "Nats of chunks that have a past to read. Below a number: the range over seeds; of a gain, with one seed, its "
        "95% interval over documents. Memories are read by the same reader, trained on each condition's."
    )
    rows = [[human(name), *_condition([seed for seed in seeds if name in seed.causal_nats], name)] for name in names]
    return Table(header, rows, caption)


def _condition(seeds: Sequence[Any], name: str) -> Iterator[str]:
    yield _over(seeds, lambda seed: seed.causal_nats.get(name), _nats)
    gains = [seed.gain.get(name) for seed in seeds]
    yield over_seeds([gain and gain.value for gain in gains], _nats, gains[0] and gains[0].interval)
    yield _over(seeds, lambda seed: seed.retention_accuracy.get(name), share)
    yield _over(seeds, lambda seed: seed.train_flops.get(name), _flops)


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
        "next-token nats": lambda same: _over(same, lambda row: row.causal_nats, _nats),
        **(gap if any(row.gap for row in varied[0]) else {}),
        "memories give back": lambda same: _over(same, lambda row: row.retention_accuracy, share),
        "positions a memory": lambda same: str(same[0].decoder_positions_per_chunk),
    }
    return seeds_table(varied, columns, "Memories are read by the model's own decoder.")


def _trade_off(seeds: Sequence[Any]) -> Figure | None:
    varied = [seed.trade_off for seed in seeds if seed.trade_off]
    if not varied:
        return None
    points = sorted(zip(*varied, strict=True), key=lambda same: fmean(row.retention_accuracy for row in same))
    x = [fmean(row.retention_accuracy for row in same) for same in points]
    return line_figure(
        [line_over_seeds("", x, [[row.causal_nats for row in same] for same in points])],
        "Next-token nats against retention, a point for each weight of retention.",
        x_label="share of tokens that memories give back",
        y_label="nats a token",
        x_ticks={0.0: "0", 0.25: "0.25", 0.5: "0.5", 0.75: "0.75", 1.0: "1"},
    )


def _nats(value: Any) -> str:
    return number(value, 3)


def _flops(value: Any) -> str:
    return "—" if value is None else f"{value:.2e}"

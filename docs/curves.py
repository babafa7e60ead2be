"""The pictures and the tables of text-in-embeddings.md and density.md, from recorded results. Run it where those have
changed."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from memlm.probing.inversion.results import InversionResult
from memlm.probing.results import ProbeResult, ProbeRow
from memlm_evidence.pages.figures import Figure, Line, line_figure

DOCS = Path(__file__).parent
LENGTHS = (4, 8, 16, 32, 64, 128)
READ = {
    ("minilm", "sentence"): "MiniLM, read by SmolLM2",
    ("smollm2", "last"): "SmolLM2’s last state, read by SmolLM2",
    ("smollm2", "mean"): "SmolLM2’s mean state, read by SmolLM2",
}
READERS = {"pretrained": "SmolLM2", "parallel": "small"}
SMALL = {
    ("probe-minilm-curve", "sentence"): "MiniLM, small reader",
    ("probe-smollm2-curve", "last"): "SmolLM2’s last state, small reader",
    ("probe-smollm2-curve", "mean"): "SmolLM2’s mean state, small reader",
}
PUBLISHED = (
    ("vec2text: one guess of a trained decoder", "GTR-base", 32, "", "about 0", "0.30"),
    ("vec2text: one correction", "GTR-base", 32, "", "", "0.50"),
    ("vec2text: 50 rounds of corrections", "GTR-base", 32, "", "0.92", "0.97"),
    ("Rep2Text: a trained adapter to a language model", "last state of 3 to 8 B models", 16, "about half", "", ""),
)
"""Who, of what, tokens, tokens right, exact, BLEU."""
_STYLE = """<style>
svg {
  color: #1c2128; background: #ffffff; --grid: #e4e5e6; --series-1: #0b5fa5; --series-2: #b84a00; --series-3: #00745a;
  --series-4: #8b2f80; --series-5: #7a6200; --series-6: #5a5f69;
}
@media (prefers-color-scheme: dark) {
  svg {
    color: #e6edf3; background: #0d1117; --grid: #2d3137; --series-1: #6cb6f5; --series-2: #f59a5c; --series-3: #4ecba6;
    --series-4: #dd8fd3; --series-5: #d9bd4a; --series-6: #a2a7b0;
  }
}
</style>"""


def picture(results: Path) -> str:
    """Bits that are retained of each token, by how long the text is."""
    read = [row for row in read_rows(results) if row.reader == "pretrained"]
    lines = [
        _line(label, [row for row in read if (row.encoder, row.pooling) == which]) for which, label in READ.items()
    ]
    for (file, pooling), label in SMALL.items():
        (result,) = _probes(results / f"{file}.json")
        lines.append(_line(label, [row for row in result.rows if row.pooling == pooling]))
    figure = line_figure(
        [line for line in lines if line.x],
        "Bits retained of each token, by how many tokens the text has.",
        x_label="tokens in a text",
        y_label="bits retained of each token",
        x_ticks={length: str(length) for length in LENGTHS},
        log_x=True,
        y_limits=(0, None),
    )
    return _styled(figure)


def density_picture(results: Path) -> str:
    """Tokens that come back, by dimensions for each."""
    cells = _cells(results)
    lines = []
    for length in sorted({cell["chunk_len"] for cell in cells}):
        row = sorted((cell for cell in cells if cell["chunk_len"] == length), key=lambda cell: cell["tokens_per_dim"])
        between = [cell["intervals"]["token_accuracy"] for cell in row]
        x, y = [1 / cell["tokens_per_dim"] for cell in row], [cell["token_accuracy"] for cell in row]
        low, high = ([each[end] for each in between] for end in (0, 1))
        lines.append(Line(f"{length} tokens in a vector", x, y, low, high))
    figure = line_figure(
        lines,
        "Share of held-out tokens that come back, by how many dimensions there are for each token.",
        x_label="dimensions for each token",
        y_label="share of tokens that come back",
        x_ticks={number: str(number) for number in (1, 2, 4, 8)},
        log_x=True,
        y_limits=(0.6, 1),
    )
    return _styled(figure)


def density_tables(results: Path) -> list[str]:
    """Every cell: what comes back, and what a dimension carries."""
    rows = [
        (
            f"{cell['chunk_len']} → {cell['memory_dim']}",
            f"{1 / cell['tokens_per_dim']:.0f}",
            f"{cell['token_accuracy']:.4f}",
            f"{cell['exact_match']:.3f}",
            f"{cell['retained_bits_per_token']:.2f}",
            f"{cell['bits_per_dim']:.2f}",
        )
        for cell in sorted(_cells(results), key=lambda cell: (cell["tokens_per_dim"], cell["chunk_len"]))
    ]
    share = ("tokens that come back", "exact chunks")
    return [
        _table(("tokens → dimensions", "dimensions a token", *share, "kept bits a token", "bits a dimension"), rows)
    ]


def _cells(results: Path) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads((results / "density.json").read_text(encoding="utf-8"))
    return cells


def _styled(figure: Figure) -> str:
    return re.sub(r"(<svg[^>]*>)", rf"\1{_STYLE}", figure.svg, count=1) + "\n"


def tables(results: Path) -> list[str]:
    """What readers and searches found, and what others did."""
    return [_reading(results), _searching(results), _published()]


def read_rows(results: Path) -> list[ProbeRow]:
    """All that a pretrained language model read, and small readers that learned from the same text."""
    return [row for result in _probes(results / "reads.json") for row in result.rows]


def searches(results: Path) -> list[InversionResult]:
    """All that was searched for."""
    return [InversionResult.from_dict(each) for each in json.loads((results / "invert.json").read_text("utf-8"))]


def _probes(path: Path) -> Iterator[ProbeResult]:
    found = json.loads(path.read_text(encoding="utf-8"))
    return map(ProbeResult.from_dict, found if isinstance(found, list) else [found])


def _line(label: str, rows: Sequence[ProbeRow]) -> Line:
    rows = sorted(rows, key=lambda row: row.chunk_len)
    between = [row.intervals["retained_bits_per_token"] for row in rows]
    low, high = [each.low for each in between], [each.high for each in between]
    return Line(label, [row.chunk_len for row in rows], [row.retained_bits_per_token for row in rows], low, high)


def _reading(results: Path) -> str:
    rows = [
        (
            row.encoder,
            row.view,
            row.chunk_len,
            READERS[row.reader],
            f"{row.curve[-1]['tokens'] / row.chunk_len:,.0f}",
            f"{row.retained_bits_per_token:.2f} {_between(row, 'retained_bits_per_token')}",
            f"{row.retained_bits_per_token * row.chunk_len:.0f}",
            f"{row.token_accuracy:.3f}",
            f"{row.f1:.2f}" if row.f1 is not None else "",
            "lower bound" if row.lower_bound else "converged",
        )
        for row in read_rows(results)
    ]
    bits = ("bits a token", "bits a text", "tokens right", "F1 of words", "verdict")
    heads = ("encoder", "embedding", "tokens", "reader", "pairs", *bits)
    return _table(heads, rows)


def _searching(results: Path) -> str:
    rows = [
        (
            each.encoder,
            each.chunk_len,
            each.num_texts,
            *(f"{getattr(each, name):.3f} {_between(each, name)}" for name in ("f1", "exact", "cosine", "bleu")),
            f"{each.encodings_per_text:,.0f}",
            f"{each.seconds_per_text:.0f}",
        )
        for each in searches(results)
    ]
    heads = ("encoder", "tokens", "texts", "F1", "exact", "cosine", "BLEU", "encodings a text", "seconds a text")
    return _table(heads, rows)


def _published() -> str:
    return _table(("published", "of", "tokens", "tokens right", "exact", "BLEU"), PUBLISHED)


def _between(record: ProbeRow | InversionResult, name: str) -> str:
    interval = record.intervals[name]
    return rf"\[{interval.low:.2f}, {interval.high:.2f}\]"


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def with_tables(page: str, made: Sequence[str]) -> str:
    """The page with these tables, each between a pair of marks, in place of those that are there."""
    parts, marked = iter(made), r"(<!-- table -->\n).*?(\n<!-- end -->)"
    written, count = re.subn(marked, lambda part: part[1] + next(parts) + part[2], page, flags=re.S)
    assert count == len(made), f"{count} places for {len(made)} tables"
    return written


def main() -> None:
    """Write the pictures, and the tables into the pages."""
    for name, (picture_name, drawn, made) in PAGES.items():
        (DOCS / picture_name).write_text(drawn(DOCS / "results"), encoding="utf-8")
        page = DOCS / name
        page.write_text(with_tables(page.read_text(encoding="utf-8"), made(DOCS / "results")), encoding="utf-8")


PAGES = {
    "text-in-embeddings.md": ("curves.svg", picture, tables),
    "density.md": ("density.svg", density_picture, density_tables),
}
"""Each page's picture, what draws it, and what makes its tables."""


if __name__ == "__main__":
    main()

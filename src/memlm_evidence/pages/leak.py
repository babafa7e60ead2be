"""A leak's page: what comes back of texts, by length and by how their vectors are stored, beside Recall@10."""

from collections.abc import Sequence

from memlm.config import Degradation, Noise
from memlm.probing.leak.results import KINDS, LeakResult, LeakRow, StorageRow, stored_as
from memlm.runtime.tables import Table
from memlm.runtime.wording import counted, human, number, share, with_interval
from memlm_evidence.pages.figures import Figure, Line, line_figure
from memlm_evidence.pages.page import Page, Section, made_by

_DIGITS = 2
_GUESSED = "off another text's vector"
_FOUND = ("words", "names", "numbers", "f1", "exact", "cosine")
_ABOUT = {
    "words": "Share of each text's different words that come back.",
    "names": "Words that have a capital in the middle of a sentence and nowhere are without one; titles do not count.",
    "numbers": "Words with a digit, and numbers from two on that are spelt out.",
    "f1": "Words and signs in common with the text, the harmonic mean of both shares.",
    "exact": "Share of texts whose tokens, as the encoder reads them, all are right.",
    "cosine": "Of the found text's embedding with the vector as it was stored.",
}


def leak_page(result: LeakResult) -> Page:
    """The page of a leak."""
    read, given = result.of("words", "guess"), result.of("search", "decoder")
    lists = [kind_table(read, kind) for kind in KINDS] if read else []
    terms = [(name, _ABOUT[name]) for name in _FOUND]
    data = {
        "leak": result,
        "sections": [
            *([Section("Words read off at once", _READ, [_by_length(result)], lists[0])] if read else []),
            *(Section(f"Of these, {kind}", "", [], table) for kind, table in zip(KINDS[1:], lists[1:], strict=False)),
            *([Section("Whole texts given back", _GIVEN, [], given_table(given), terms)] if given else []),
            Section("What it costs to hide", _COSTS, _by_noise(result), cost_table(result)),
        ],
        "texts": result.texts,
        "stored_as": stored_as,
        "made_by": made_by(result.provenance),
    }
    return Page("leak", data)


_READ = (
    "A linear map, fitted once for the encoder to other text, lists as many tokens as the text has different ones. A "
    "word counts if all its tokens are listed. What is read off another text's vector is what guessing gives."
)
_GIVEN = (
    "The search writes texts, embeds them and keeps what comes closer, within a budget of encodings; it is told the "
    "length. A memlm autoencoder's memories are decoded instead."
)
_COSTS = (
    "Words left: of what is read beyond guessing. Recall@10: the share of queries whose passage is among the ten "
    "nearest; a query shares half its tokens with its passage. Passages are stored so, queries are as they are."
)


def kind_table(rows: Sequence[LeakRow], kind: str) -> Table:
    """Shares of words of a kind: a line for each way to store vectors, a column for each length."""
    lengths = sorted({row.chunk_len for row in rows})
    ways = list(dict.fromkeys((row.attack == "guess", row.degradation) for row in rows))
    cells = {(row.attack == "guess", row.degradation, row.chunk_len): row for row in rows}
    counts = {row.chunk_len: getattr(row, f"num_{kind}") for row in rows}
    table = [
        [_GUESSED if way[0] else stored_as(way[1]), *(_cell(cells.get((*way, length)), kind) for length in lengths)]
        for way in sorted(ways, key=lambda way: way[0])
    ]
    counted = ", ".join(f"{counts[length]:,}" for length in lengths)
    caption = f"{_ABOUT[kind]} Of {counted} {kind} in {rows[0].num_texts} texts of each length."
    return Table([kind, *(f"{length} tokens" for length in lengths)], table, caption)


def given_table(rows: Sequence[LeakRow]) -> Table:
    """What comes back of whole texts."""
    ordered = sorted(rows, key=lambda row: row.chunk_len)
    cells = [
        [
            f"{row.chunk_len} tokens, {stored_as(row.degradation)}\n{counted(row.num_texts, 'text')}",
            *(_cell(row, name) for name in _FOUND),
        ]
        for row in ordered
    ]
    chance = max((row.f1_other or 0.0 for row in rows), default=0.0)
    return Table(["texts", *_FOUND], cells, f"With another text, f1 is at most {share(chance, _DIGITS)}.")


def cost_table(result: LeakResult) -> Table:
    """How much is left of what is read beyond guessing, and of Recall@10, by how vectors are stored."""
    names = ("words_left", "names_left", "numbers_left", "recall_left", "recall")
    cells = [[stored_as(row.degradation), *(_cell(row, name) for name in names)] for row in result.stored]
    first = result.stored[0]
    measured = f"{first.num_queries:,} queries among {first.num_passages:,} passages."
    caption = measured if first.num_queries else "Retrieval was not measured."
    return Table(["stored as", *map(human, names[:-1]), "Recall@10"], cells, caption)


def _cell(row: LeakRow | StorageRow | None, name: str) -> str:
    return with_interval(_show, getattr(row, name), row.intervals.get(name)) if row else _show(None)


def _show(value: float | None) -> str:
    return share(value, _DIGITS) if value is not None and 0 <= value <= 1 else number(value, _DIGITS)


def _by_length(result: LeakResult) -> Figure:
    """Words read off at once against length."""
    lines: dict[tuple[bool, Degradation | None], list[LeakRow]] = {}
    for row in result.of("words", "guess"):
        lines.setdefault((row.attack == "guess", row.degradation), []).append(row)
    drawn = [
        Line(
            _GUESSED if guess else stored_as(way),
            [row.chunk_len for row in rows],
            [row.words or 0.0 for row in rows],
            marked=True,
        )
        for (guess, way), rows in lines.items()
        if guess or not isinstance(way, Noise) or way.std == 1
    ]
    lengths = sorted({row.chunk_len for row in result.rows})
    ends = "; ".join(f"{line.label} from {_show(line.y[0])} to {_show(line.y[-1])}" for line in drawn)
    return line_figure(
        drawn,
        f"Share of words read off by length: {ends}.",
        x_label="tokens of a text (log scale)",
        y_label="share of words read off at once",
        y_limits=(0.0, 1.0),
        x_ticks={length: str(length) for length in lengths},
        log_x=True,
    )


def _by_noise(result: LeakResult) -> list[Figure]:
    """What is left of words and of Recall@10 against noise."""
    lines = [_noise_line("words read beyond guessing", result.stored, "words_left")]
    lines = [line for line in (*lines, _noise_line("Recall@10", result.stored, "recall_left")) if len(line.x) > 1]
    if not lines:
        return []
    ends = "; ".join(f"{line.label} {_show(line.y[-1])} at {line.x[-1]:g}" for line in lines)
    figure = line_figure(
        lines,
        f"What noise leaves: {ends}.",
        x_label="noise, in standard deviations of a dimension",
        y_label="share left",
        x_ticks={x: f"{x:g}" for line in lines for x in line.x},
    )
    return [figure]


def _noise_line(label: str, rows: Sequence[StorageRow], name: str) -> Line:
    """A share that is left, with its interval, by the noise's strength."""
    stds = [(getattr(row.degradation, "std", 0.0), row) for row in rows if isinstance(row.degradation, Noise | None)]
    points = [(std, getattr(row, name), row.intervals[name]) for std, row in stds if getattr(row, name) is not None]
    x, y, between = zip(*sorted(points), strict=True) if points else ((), (), ())
    return Line(label, x, y, [each.low for each in between], [each.high for each in between], marked=True)

"""What the explorer (`memlm app`) shows before anything is computed: curves and examples that were measured.

Run it where recorded results have changed. Readers learn for some minutes, once: they are kept in the cache.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from curves import read_rows, searches

import memlm
from memlm.app.explorer import Explorer
from memlm.app.given_back import LENGTHS, QUICK, Card, read_back
from memlm.data.texts import evaluation_documents
from memlm.probing.inversion.results import InversionResult
from memlm.probing.results import ProbeResult, ProbeRow
from memlm.runtime.results import Provenance

DOCS = Path(__file__).parent
MEASURED = DOCS.parent / "src" / "memlm" / "app" / "assets" / "measured.json"
SHOWN = (4, 8, 16, 32, 64, 128)
NUM_TEXTS = 200
READ = {("minilm", "sentence"): "MiniLM, read by SmolLM2", ("smollm2", "last"): "SmolLM2’s last state, read by SmolLM2"}
SMALL = {
    "probe-minilm-curve": ("sentence", "MiniLM, a small reader"),
    "probe-smollm2-curve": ("last", "SmolLM2’s last state, a small reader"),
}
_FIRST = 0
"""The text that is shown: of those that were searched for, the first."""


def curves(results: Path) -> Iterator[dict[str, Any]]:
    """Shares of texts' bits that come back, by tokens of a text."""
    yield of_memories(memlm.load("english"))
    rows = [row for row in read_rows(results) if row.reader == "pretrained"]
    for which, label in READ.items():
        yield curve(label, [row for row in rows if (row.encoder, row.pooling) == which])
    for file, (pooling, label) in SMALL.items():
        result = ProbeResult.from_dict(json.loads((results / f"{file}.json").read_text("utf-8")))
        yield curve(label, [row for row in result.rows if row.pooling == pooling])


def curve(label: str, rows: Sequence[ProbeRow]) -> dict[str, Any]:
    """Of rows of a probe."""
    rows = sorted(rows, key=lambda row: row.chunk_len)
    between = [row.intervals["retained_fraction"] for row in rows]
    return {
        "label": label,
        "x": [row.chunk_len for row in rows],
        "y": [round(row.retained_fraction, 4) for row in rows],
        "low": [round(each.low, 4) for each in between],
        "high": [round(each.high, 4) for each in between],
    }


def of_memories(model: memlm.TextAutoencoder) -> dict[str, Any]:
    """The model in the box, on a novel that it has not seen, by its own decoder."""
    tokens = model.tokenizer.encode("\n".join(document.text for document in evaluation_documents("novel")))
    found: dict[str, Any] = {"label": "english, its own decoder", "x": [], "y": [], "low": [], "high": []}
    for length in SHOWN:
        pieces = [tokens[at : at + length].tolist() for at in range(0, NUM_TEXTS * 128, 128)]
        result = model.evaluate([model.tokenizer.decode(piece) for piece in pieces])
        between = result.intervals["retained_fraction"]
        for name, value in (("y", result.retained_fraction), ("low", between.low), ("high", between.high)):
            found[name].append(round(float(value), 4))
        found["x"].append(length)
    return found


def examples(found: Sequence[InversionResult]) -> dict[str, Any]:
    """For each length a text, and what each model's vector gave back of it."""
    explorer, made = Explorer(model=memlm.load("english")), {}
    for length in LENGTHS:
        result = next(each for each in found if (each.encoder, each.chunk_len) == ("minilm", length))
        one = result.texts[_FIRST]
        text = str(one.original)
        how = f"a search, {one.encodings:,} encodings"
        searched = Card("minilm", "sentence embedding, 384 dimensions", how, text, one.text, None, one.seconds)
        # Other models' tokens are other stretches of the text: they read on in the longest.
        longest = str(max((each.texts[_FIRST].original for each in found if each.encoder == "minilm"), key=len))
        read = [
            read_back(explorer, name, longest, length, "a small reader") for name in ("english", "minilm", "smollm2")
        ]
        cards = [*read[:2], searched, read[2]]
        made[str(length)] = {"text": longest, "cards": [_recorded(card) for card in cards]}
    return made


def _recorded(card: Card) -> dict[str, Any]:
    return {name: value for name, value in card._asdict().items() if name != "recorded"}


def searched(found: Sequence[InversionResult]) -> list[dict[str, Any]]:
    """How many texts a search found exactly."""
    return [
        {"encoder": each.encoder, "tokens": each.chunk_len, "texts": each.num_texts, "exact": round(each.exact or 0, 3)}
        for each in found
    ]


def main() -> None:
    """Write them into the package."""
    found = searches(DOCS / "results")
    made = {"curves": [*curves(DOCS / "results")], "searched": searched(found), "examples": examples(found)}
    made["provenance"] = asdict(Provenance.here(num_texts=NUM_TEXTS, reading=asdict(QUICK), seed=0))
    MEASURED.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

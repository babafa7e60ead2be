"""Make the README's picture again: encode its text, record the vector, and draw. Run it where `english` has changed."""

import json
from dataclasses import asdict
from pathlib import Path

import memlm
from memlm.runtime.results import Provenance
from memlm_evidence.pages.overview import overview_picture

DOCS = Path(__file__).parent
TEXT = (
    "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a "
    "wife. However little known the feelings or views of such a man may be on his first entering a neighbourhood, this "
    "truth is so well fixed in the minds of the surrounding families."
)


def main() -> None:
    """Write docs/results/example.json and docs/overview.svg."""
    model = memlm.load("english")
    memory = model.encode([TEXT])
    example = {
        "text": TEXT,
        "regenerated": str(model.regenerate(memory)[0]),
        "num_tokens": int(memory.num_tokens.sum()),
        "vector": [round(value, 2) for value in memory.vectors.flatten().tolist()],
        "encoder": model.encoder_fingerprint,
        "provenance": asdict(Provenance.here(model="english")),
    }
    (DOCS / "results" / "example.json").write_text(json.dumps(example) + "\n", encoding="utf-8")
    (DOCS / "overview.svg").write_text(overview_picture(DOCS / "results"), encoding="utf-8")


if __name__ == "__main__":
    main()

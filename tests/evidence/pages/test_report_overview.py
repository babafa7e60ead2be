"""The README's picture is made from records, and the records are what the model that ships with memlm does."""

import json
import runpy
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace

import pytest

import memlm

DOCS = Path(__file__).parents[3] / "docs"
SCRIPT = SimpleNamespace(**runpy.run_path(str(DOCS / "overview.py")))
AGAIN = "run `python docs/overview.py`"


def test_the_picture_in_the_readme_is_what_the_records_give() -> None:
    assert (DOCS / "overview.svg").read_text(encoding="utf-8") == SCRIPT.overview_picture(DOCS / "results"), AGAIN
    assert "](docs/overview.svg)" in (DOCS.parent / "README.md").read_text(encoding="utf-8")


def test_it_shows_the_texts_and_the_numbers() -> None:
    example = json.loads((DOCS / "results" / "example.json").read_text(encoding="utf-8"))
    picture = ET.fromstring(SCRIPT.overview_picture(DOCS / "results"))
    shown = [part.text or "" for part in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert " ".join(shown).count(example["text"]) == 2  # before and after
    assert [bar.shown for bar in SCRIPT.read_bars(DOCS / "results")] == ["0.05", "0.07", "0.05", "0.995"]
    assert {"0.05", "0.07", "0.995"} <= set(shown)


def test_the_record_is_what_the_model_does() -> None:
    example = json.loads((DOCS / "results" / "example.json").read_text(encoding="utf-8"))
    model = memlm.load("english")
    memory = model.encode([example["text"]])
    assert model.encoder_fingerprint == example["encoder"], AGAIN
    assert memory.vectors.flatten().tolist() == pytest.approx(example["vector"], abs=0.02), AGAIN
    assert model.regenerate(memory) == [example["regenerated"]] == [example["text"]]


def test_any_text_is_only_text() -> None:
    example = {"text": "<b>&\"'", "regenerated": "]]>", "num_tokens": 3, "vector": [0.0, -9.0, 9.0]}
    picture = SCRIPT.draw(example, [SCRIPT.Bar("a < b", "&", 0.0), SCRIPT.Bar("all", "", 1.0, ours=True)])
    assert {"<b>&\"'", "]]>", "a < b"} <= set(ET.fromstring(picture).itertext())

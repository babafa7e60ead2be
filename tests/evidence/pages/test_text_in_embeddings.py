"""Pages say what the records say."""

import re
import runpy
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace

import pytest

DOCS = Path(__file__).parents[3] / "docs"
SCRIPT = SimpleNamespace(**runpy.run_path(str(DOCS / "curves.py")))
AGAIN = "run `python docs/curves.py`"


@pytest.mark.parametrize("name", SCRIPT.PAGES)
def test_pictures_and_tables_are_what_the_records_give(name: str) -> None:
    picture, drawn, tables = SCRIPT.PAGES[name]
    page = (DOCS / name).read_text(encoding="utf-8")
    assert page == SCRIPT.with_tables(page, tables(DOCS / "results")), AGAIN
    assert (DOCS / picture).read_text(encoding="utf-8") == drawn(DOCS / "results"), AGAIN


def test_every_row_of_an_encoder_is_told() -> None:
    page = (DOCS / "text-in-embeddings.md").read_text(encoding="utf-8")
    assert page.count("| minilm |") == len(
        [
            row
            for row in [*SCRIPT.read_rows(DOCS / "results"), *SCRIPT.searches(DOCS / "results")]
            if row.encoder == "minilm"
        ]
    )


def test_the_picture_has_its_axis_and_colours() -> None:
    drawn = (DOCS / "curves.svg").read_text(encoding="utf-8")
    shown = {"".join(part.itertext()).strip() for part in ET.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")}
    assert {"16", "tokens in a text"} <= shown
    assert {*re.findall(r"var\(--series-(\d)\)", drawn)} == set("123456")

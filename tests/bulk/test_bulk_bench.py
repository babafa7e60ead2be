from pathlib import Path

import pytest

from command_line import Memlm


@pytest.mark.parametrize("fixture", ["encoder", "signs"])
def test_stores_are_measured(fixture: str, memlm: Memlm, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the memory holds one long vector and reads a short chunk of words → " * 60, encoding="utf-8")
    signs = fixture == "signs"
    kinds = ("BFlat", "out.lance") if signs else ("Flat", "SQ4", "signs of floats, BFlat")
    options = [word for kind in kinds for word in ("--kinds", kind)]
    model = request.getfixturevalue(fixture)
    common = ("--text", text, "--num-vectors", 3000, "--num-queries", 20, "--device", "cpu", "--json")
    answer = memlm("bench", "store", model, *common, *options).json()
    assert (answer["num_vectors"], answer["num_queries"], answer["float32_bytes"]) == (3000, 20, 128)
    assert 0 < answer["num_real"] < 1000
    first, *others = answer["rows"]
    assert [row["kind"] for row in answer["rows"]] == [*kinds]
    assert first["recall_at_10"] > 0.99
    assert first["index_bytes"] == pytest.approx(4 if signs else 128, abs=1)
    assert first["given_back"] == answer["given_back_directly"]
    if not signs:
        assert [row["recall_at_10"] < 0.99 for row in others] == [True, True]

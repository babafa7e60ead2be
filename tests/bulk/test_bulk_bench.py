import random
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


def test_what_was_encoded_before_is_measured(encoder: str, memlm: Memlm, tmp_path: Path) -> None:
    text, texts, without = tmp_path / "text.txt", tmp_path / "with", tmp_path / "without"
    letters = random.Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=4000)  # no two chunks are the same
    text.write_text("".join(letters), encoding="utf-8")
    for out, keep in ((texts, ["--text"]), (without, [])):
        memlm("encode-corpus", text, "--encoder", encoder, "--out", out, "--device", "cpu", *keep)
    common = ("bench", "store", encoder, "--queries", text, "--kinds", "Flat", "--device", "cpu", "--json")
    answer = memlm(*common, "--memories", texts).json()
    assert answer["num_real"] == answer["num_vectors"] > 100
    assert answer["rows"][0]["recall_at_10"] > 0.99
    assert answer["rows"][0]["given_back"] == answer["given_back_directly"]
    refused = memlm(*common, "--memories", without)
    assert refused.code
    assert "encode-corpus --text" in refused.err

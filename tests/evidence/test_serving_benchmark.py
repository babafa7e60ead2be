"""`memlm bench serve`, run small: a real server, clients in another process, and all answers compared."""

from pathlib import Path

import pytest

from command_line import Memlm, assert_refused
from memlm import TextAutoencoder
from memlm_evidence.benchmarks.serving import chunk_texts
from memlm_evidence.benchmarks.serving_load import Load, apart, load, middle_and_tail, question
from memlm_evidence.benchmarks.serving_server import serving
from memlm_evidence.benchmarks.serving_soak import Plan, steady


def test_requests_are_counted_and_nothing_is_wrong_or_lost(memlm: Memlm, finished_run: Path) -> None:
    sizes = ["--requests", 60, "--clients", 8, "--rounds", 1, "--texts", 1, 7]
    answer = memlm(
        "bench", "serve", finished_run / "model", *sizes, "--minutes", 0.03, "--leaving", 0.3, "--json"
    ).json()
    one, seven = answer["rows"]
    assert [(row["texts_per_request"], row["requests"]) for row in answer["rows"]] == [(1, 60), (7, 9)]
    for row in (one, seven):
        assert row["errors"] == row["wrong"] == 0
        assert row["texts_per_second"] == pytest.approx(row["requests_per_second"] * 60 / row["requests"])
        assert row["ratio"] == pytest.approx(row["texts_per_second"] / row["library_texts_per_second"])
        assert 0 < row["p50_seconds"] <= row["p99_seconds"]
    assert answer["openai_client"]["requests"] == 60
    assert answer["openai_client"]["largest_difference"] < 1e-5
    soaked = answer["soak"]
    assert soaked["errors"] == soaked["wrong"] == soaked["lost"] == 0
    assert soaked["answered"] + soaked["left"] == soaked["requests"]
    assert soaked["answered_while_stopping"] > 0 < soaked["left"]


def test_what_is_wrong_or_missing_is_seen(finished_run: Path, trained: TextAutoencoder) -> None:
    name, texts = str(finished_run / "model"), chunk_texts(trained)[:4]
    bodies = [question(name, [text]) for text in texts]
    expected = trained.encode(texts, normalize=True, convert_to_numpy=True)[:, 0]
    with serving(name, threads=1) as server:
        found: Load = apart(load, server.address, [*bodies, question("nobody", ["a"])], 2)
        assert sorted(found.answers) == [0, 1, 2, 3]
        (error,) = found.errors
        assert error.startswith("404")
        with pytest.raises(ValueError, match="no request was answered: 404"):
            middle_and_tail([], found.errors)
        asked = {"address": server.address, "bodies": bodies, "clients": 2, "rate": 40, "seconds": 0.5, "leaving": 0}
        assert [steady(Plan(expected=those, **asked)).wrong for those in (expected, expected[::-1])] == [0, 20]
        assert (server.answered(), server.answered()) == (46, 47)
        assert server.stop() == 47


@pytest.mark.slow
def test_minutes_of_load_cost_no_memory(memlm: Memlm) -> None:
    asked = ["bench", "serve", "--requests", 2000, "--rounds", 1, "--texts", 1, "--minutes", 10, "--json"]
    soaked = memlm(*asked).json()["soak"]
    assert soaked["errors"] == soaked["wrong"] == soaked["lost"] == 0
    resident = soaked["resident_mebibytes"]
    assert max(resident[3:]) < 1.05 * resident[2], "after two minutes, when all sizes of batches have come, it is flat"


def test_numbers_that_make_no_sense_are_refused(memlm: Memlm) -> None:
    for name, value in (("requests", 0), ("texts", 0), ("minutes", -1), ("leaving", 2)):
        assert_refused(memlm("bench", "serve", f"--{name}", value), f"--{name}", str(value))

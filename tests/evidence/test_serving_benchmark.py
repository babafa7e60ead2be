"""`memlm bench serve`, run small: a real server, clients in another process, and all answers compared."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from command_line import Memlm, assert_refused
from memlm import TextAutoencoder
from memlm_evidence.benchmarks import serving_soak
from memlm_evidence.benchmarks.serving import chunk_texts
from memlm_evidence.benchmarks.serving_load import Load, apart, load, question
from memlm_evidence.benchmarks.serving_server import serving
from memlm_evidence.benchmarks.serving_soak import Plan, soak, steady


def test_requests_are_counted_and_nothing_is_wrong_or_lost(memlm: Memlm, finished_run: Path) -> None:
    sizes = ["--requests", 60, "--clients", 8, "--rounds", 1, "--texts", 1, 7]
    answer = memlm("bench", "serve", finished_run / "model", *sizes, "--minutes", 0.03, "--leaving", 0.3, "--json").json()
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


def test_what_is_wrong_missing_or_lost_is_seen(
    finished_run: Path, trained: TextAutoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, texts = str(finished_run / "model"), chunk_texts(trained)[:4]
    bodies = [question(name, [text]) for text in texts]
    expected = trained.encode(texts, normalize=True, convert_to_numpy=True)[:, 0]

    def counted(*arguments: object) -> int:
        return serving_soak_until_refused(*arguments) - 1

    serving_soak_until_refused = serving_soak.until_refused
    with serving(name, threads=1) as server:
        found: Load = apart(load, server.address, [*bodies, question("nobody", ["a"])], 2)
        assert len(found.errors) == 1
        assert found.errors[0].startswith("404")
        assert sorted(found.answers) == [0, 1, 2, 3]
        wrong = Plan(
            address=server.address,
            bodies=bodies,
            expected=expected[::-1],
            clients=2,
            rate=40,
            seconds=0.5,
            leaving=0,
        )
        assert steady(wrong).wrong == 20

"""`memlm bench reader` with a tiny language model: every number is there, and means what it says."""

import math
from pathlib import Path

import pytest

from memlm.recipes.reader import arms
from memlm.training.train import train
from memlm_evidence.benchmarks.reader import ReaderBenchmark
from tiny import tiny_reader_recipe, write_language_model


@pytest.fixture(scope="module")
def folders(finished_run: Path, corpus: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    base = write_language_model(tmp_path_factory.mktemp("llama"), "llama")
    recipe = tiny_reader_recipe(base, finished_run / "model", corpus)
    out = tmp_path_factory.mktemp("readers")
    for name, each in {"reader": recipe, **arms(recipe)}.items():
        train(each.with_training(num_tokens=96), out / name, quiet=True)
    return {name: str(out / name / "model") for name in ("reader", "last", "full")}


def test_losses_copies_times_and_what_is_kept(folders: dict[str, str], corpus: str) -> None:
    answer = ReaderBenchmark(
        **folders, text=(corpus,), ratios=(1, 4), num_windows=6, num_copies=3, num_needles=0, time_tokens=(64,)
    ).run()
    as_text, merged = answer["rows"]
    names = ("last", "full", "none", "memory", "shuffled", "cut")
    assert all(row[f"loss_{name}"] > 0 for row in (as_text, merged) for name in names)
    for row in (as_text, merged):
        recovered = (row["loss_last"] - row["loss_memory"]) / (row["loss_last"] - row["loss_full"])
        assert math.isclose(row["recovered_fraction"], recovered, rel_tol=1e-6)
        assert 0 <= row["copy_accuracy"] <= 1
    assert math.isclose(as_text["loss_cut"], as_text["loss_full"], rel_tol=1e-5), (
        "nothing is cut at one token a position"
    )
    assert answer["base_unchanged"]
    assert answer["irrelevant_loss_ratio"] > 0
    (times,) = answer["times"]
    assert times["cache_bytes_ratio"] > 1
    assert times["ttft_ratio_cached"] > 0
    assert answer["needles"] == []


def test_readers_of_other_language_models_are_not_compared(
    folders: dict[str, str], finished_run: Path, corpus: str
) -> None:
    base = write_language_model(Path(folders["last"]).parents[1] / "gpt2", "gpt2")
    other = Path(folders["last"]).parents[1] / "other"
    train(tiny_reader_recipe(base, finished_run / "model", corpus).with_training(num_tokens=48), other, quiet=True)
    with pytest.raises(ValueError, match="these adapt different language models"):
        ReaderBenchmark(**{**folders, "last": str(other / "model")}, text=(corpus,)).run()

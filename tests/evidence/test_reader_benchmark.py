"""`memlm bench reader` with a tiny language model: every number is there, and means what it says."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from memlm.recipes.reader import arms
from memlm.text.memory_reader import TextMemoryReader
from memlm.text.past import Past
from memlm.text.reader_losses import token_nats
from memlm.training.train import train
from memlm_evidence.benchmarks.reader import ReaderBenchmark
from memlm_evidence.benchmarks.reader_needles import Needles
from memlm_evidence.benchmarks.reader_parts import Parts
from memlm_evidence.benchmarks.reader_rows import PLACES, Readers, Texts, equal_groups, loss_row, mean_pooled
from tiny import tiny_reader_recipe, write_corpus, write_language_model

QUICK: dict[str, Any] = {"ratios": (1, 4), "num_windows": 6, "num_copies": 3, "num_needles": 0, "precision": "fp32"}


@pytest.fixture(scope="module")
def folders(base: Path, finished_run: Path, corpus: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    recipe = tiny_reader_recipe(base, finished_run / "model", corpus)
    out = tmp_path_factory.mktemp("readers")
    for name, each in {"reader": recipe, **arms(recipe)}.items():
        train(each.with_training(num_tokens=96), out / name, quiet=True)
    return {name: str(out / name / "model") for name in ("reader", "last", "full")}


def without_provenance(answer: Any) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in ("provenance", "times")}


def test_losses_copies_times_and_what_is_kept(folders: dict[str, str], corpus: str) -> None:
    answer = ReaderBenchmark(**folders, text=(corpus,), time_tokens=(64,), **QUICK).run()
    as_text, merged = answer["rows"]
    names = ("last", "full", "none", "base", "memory", "shuffled", "cut", "mean")
    assert all(row[f"loss_{name}"] > 0 for row in (as_text, merged) for name in names)
    for row in (as_text, merged):
        recovered = (row["loss_last"] - row["loss_memory"]) / (row["loss_last"] - row["loss_full"])
        assert math.isclose(row["recovered_fraction"], recovered, rel_tol=1e-6)
        assert 0 <= row["copy_accuracy"] <= 1
        assert row["memories"] == 2
        assert math.isclose(row["irrelevant_loss_ratio"], row["loss_shuffled"] / row["loss_none"])
        assert math.isclose(row["irrelevant_loss_ratio_to_base"], row["loss_shuffled"] / row["loss_base"])
        # Twelve tokens are predicted: all of them in the first place.
        assert row["nats_by_position"] == {"0-15": {name: row[f"loss_{name}"] for name in ("last", "memory", "full")}}
    assert math.isclose(as_text["loss_cut"], as_text["loss_full"], rel_tol=1e-5), (
        "nothing is cut at one token a position"
    )
    assert math.isclose(as_text["loss_mean"], as_text["loss_memory"], rel_tol=1e-5), "a token is its own mean"
    assert as_text["positions"] > 3 * merged["positions"]
    assert answer["base_unchanged"]
    assert answer["irrelevant_loss_ratio"] == max(row["irrelevant_loss_ratio"] for row in answer["rows"])
    (times,) = answer["times"]
    assert times["cache_bytes_ratio"] > 1
    assert times["ttft_ratio_cached"] > 0
    assert answer["needles"] == []
    assert answer["precision"] == "fp32"


def test_a_killed_run_goes_on_with_the_same_result(
    folders: dict[str, str], corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**folders, **QUICK, "text": (corpus,), "time_tokens": (), "ratios": (4,), "num_memories": (1, 2)}
    whole = ReaderBenchmark(**options, out=tmp_path / "whole").run()

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Texts, "at", killed)
        with pytest.raises(KeyboardInterrupt):
            ReaderBenchmark(**options, out=tmp_path / "killed").run()
    (kept,) = (tmp_path / "killed").glob("*.json")
    row = json.loads(kept.read_text(encoding="utf-8"))
    row["nats"]["last"] = [[1000.0] * len(PLACES) for _ in row["nats"]["last"]]
    before = kept.read_text(encoding="utf-8")
    assert without_provenance(ReaderBenchmark(**options, out=tmp_path / "killed").run()) == without_provenance(whole)
    assert kept.read_text(encoding="utf-8") == before
    kept.write_text(json.dumps(row), encoding="utf-8")
    again = ReaderBenchmark(**options, out=tmp_path / "killed").run()
    assert again["rows"][0]["loss_last"] > 100, "what is kept is not measured again"
    with pytest.raises(ValueError, match="was measured by another plan"):
        ReaderBenchmark(**{**options, "num_windows": 5}, out=tmp_path / "killed").run()


def test_pasts_of_any_length_stand_before_the_same_tokens(folders: dict[str, str], corpus: str) -> None:
    options = {**folders, **QUICK, "text": (corpus,), "time_tokens": (), "ratios": (4,)}
    rows = ReaderBenchmark(**options, num_memories=(3, 1)).run()["rows"]
    assert [row["memories"] for row in rows] == [1, 3]
    assert math.isclose(rows[0]["loss_last"], rows[1]["loss_last"], rel_tol=1e-5)
    assert rows[0]["loss_full"] != rows[1]["loss_full"]
    with pytest.raises(ValueError, match=r"no text has 1000 chunks"):
        ReaderBenchmark(**options, num_memories=(999,)).run()


def test_recovered_is_all_of_full_and_nothing_of_last() -> None:
    tokens = [[3, 0, 0], [2, 1, 0], [3, 0, 0]]
    last, full = [[9.0, 0, 0], [7.0, 4.0, 0], [8.0, 0, 0]], [[5.0, 0, 0], [6.0, 2.0, 0], [7.0, 0, 0]]
    arms = {"nats": {"last": last, "full": full, "none": last, "base": last}, "tokens": tokens, "document": [0, 0, 1]}
    copied = {"right": {"4": [1, 2]}, "tokens": [2, 2], "document": [0, 1]}
    for memory, recovered in ((full, 1.0), (last, 0.0)):
        at = {"nats": {"memory": memory, "shuffled": last, "cut": last, "mean": last}, "positions": 1.0}
        row = loss_row(arms, at, copied, 4)
        assert row["recovered_fraction"] == recovered
        assert row["recovered_interval"] == [recovered, recovered]
        assert list(row["nats_by_position"]) == ["0-15", "16-31"]
        assert (row["copy_accuracy"], row["copy_exact"]) == (0.75, 0.5)


def test_a_reader_that_is_the_full_arm_recovers_all(folders: dict[str, str], corpus: str) -> None:
    options = {**folders, **QUICK, "text": (corpus,), "time_tokens": (), "ratios": (1,), "reader": folders["full"]}
    (row,) = ReaderBenchmark(**options).run()["rows"]
    assert math.isclose(row["recovered_fraction"], 1, rel_tol=1e-5)


@pytest.mark.parametrize("source", ["vector", "states"])
def test_readers_of_other_sources_are_measured_too(
    folders: dict[str, str], finished_run: Path, corpus: str, tmp_path: Path, source: str
) -> None:
    base = TextMemoryReader.from_pretrained(folders["last"], device="cpu").config.decoder.name
    recipe = tiny_reader_recipe(Path(base), finished_run / "model", corpus, source=source)
    train(recipe.with_training(num_tokens=48), tmp_path / source, quiet=True)
    options = {**folders, **QUICK, "text": (corpus,), "time_tokens": (), "reader": str(tmp_path / source / "model")}
    row = ReaderBenchmark(**{**options, "ratios": (4,)}).run()["rows"][0]
    assert row["loss_mean"] > 0
    assert 0 <= row["copy_accuracy"] <= 1


def test_the_mean_control_is_the_mean(folders: dict[str, str]) -> None:
    reader = TextMemoryReader.from_pretrained(folders["reader"], device="cpu")
    vectors = torch.zeros(2, 1, 32)
    pasts = [Past(np.array([1, 2, 3, 4, 5]), np.array([0, 0, 0, 1, 1]), vectors)]
    pasts.append(Past(np.array([6, 7]), np.array([0, 1]), vectors))
    embedded = reader.model.decoder.embed(torch.arange(8))
    for ratio, groups in ((2, [[1, 2], [3, 4], [5]]), (0, [[1, 2, 3], [4, 5]])):
        with mean_pooled(reader.model):
            prompt = reader.model.soft_prompt(equal_groups(pasts, ratio))
        for place, group in enumerate(groups):
            torch.testing.assert_close(prompt.prefix[0, place], embedded[group].mean(0))
        assert prompt.prefix_mask.sum(1).tolist() == [len(groups), 1 if ratio else 2]


def test_portions_do_not_change_nats(folders: dict[str, str], corpus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = TextMemoryReader.from_pretrained(folders["reader"], device="cpu")
    texts = ReaderBenchmark(**folders, text=(corpus,))._texts(Readers(reader, reader, reader, "fp32"))["text"]
    reading = reader.readings.predictions(texts.rows(2), 4)
    whole = token_nats(reader.model, reading)
    monkeypatch.setattr("memlm.text.reader_losses._POSITIONS_AT_ONCE", {"cpu": 1})
    torch.testing.assert_close(token_nats(reader.model, reading), whole, rtol=1e-4, atol=1e-4)


def test_needles_say_what_failed(tmp_path: Path) -> None:
    base = write_language_model(tmp_path / "llama", "llama")
    settings = json.loads((base / "config.json").read_text(encoding="utf-8")) | {"max_position_embeddings": 2048}
    (base / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    (tmp_path / "corpus").mkdir()
    recipe = tiny_reader_recipe(base, Path("english"), write_corpus(tmp_path / "corpus", num_files=10, num_words=400))
    model = train(recipe.with_training(num_tokens=48), tmp_path / "run", quiet=True)
    assert isinstance(model, TextMemoryReader)
    needles = Needles(Readers(model, model, model, "fp32"), 2)
    (question, _) = questions = needles._questions(1200, "digits")
    assert [f"{each.lead} {each.value}" in each.chunk for each in questions] == [True, True]
    (holder,) = needles._holders(question)
    text = model.model_tokenizer.decode(question.past.tokens[question.past.chunk == holder])
    assert f"{question.lead} {question.value}" in text
    row = needles.row(1200, "digits")
    assert row["held"] == 1
    assert row["chosen"]["similarity"] >= 0
    assert set(row["chosen"]) == {"likelihood", "attention", "similarity"}
    assert row["accuracy_base"] <= 1
    # A past that has lost the fact holds it nowhere.
    assert needles._holders(question._replace(value="00000x")) == set()
    parts = Parts(
        readers=needles.readers, texts={}, ratios=(), num_copies=0, num_needles=2, needle_tokens=(1200,), time_tokens=()
    )
    assert [job.name for job in parts._needles()] == [
        f"needles-1200-{kind}" for kind in ("digits", "identifier", "words")
    ]


def test_what_cannot_be_measured_is_refused_at_once(folders: dict[str, str], corpus: str) -> None:
    for wrong, told in (({"ratios": (17,)}, r"not \[17\]"), ({"num_windows": 0}, "must be positive")):
        with pytest.raises(ValueError, match=told):
            ReaderBenchmark(**{**folders, **QUICK, **wrong}, text=(corpus,)).run()
    for swapped, told in (({"last": "full", "full": "last"}, "last"), ({"full": "reader"}, "full")):
        arms = {**folders, **{name: folders[other] for name, other in swapped.items()}}
        with pytest.raises(ValueError, match=f"--{told} is what memlm adapt --arm {told} has made, and .* is another"):
            ReaderBenchmark(**arms, **QUICK, text=(corpus,)).run()


def test_readers_of_other_language_models_are_not_compared(
    folders: dict[str, str], finished_run: Path, corpus: str
) -> None:
    base = write_language_model(Path(folders["last"]).parents[1] / "gpt2", "gpt2")
    other = Path(folders["last"]).parents[1] / "other"
    train(tiny_reader_recipe(base, finished_run / "model", corpus).with_training(num_tokens=48), other, quiet=True)
    with pytest.raises(ValueError, match="these adapt different language models"):
        ReaderBenchmark(**{**folders, "last": str(other / "model")}, text=(corpus,)).run()

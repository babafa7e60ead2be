"""`memlm adapt`, `ask`, `generate` and `export-prompt`, with a tiny language model."""

from pathlib import Path

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from command_line import Memlm, assert_refused
from memlm.runtime import files

SMALL = (
    "model.hidden_dim=16",
    "model.window.recent_tokens=4",
    "model.window.predicted_tokens=12",
    "model.window.regenerated_tokens=12",
    "model.decoder.lora.rank=2",
    "stages.*.training.batch_tokens=48",
    "data.validation_fraction=0.2",
    "data.test_fraction=0.2",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def reader(memlm: Memlm, base: Path, runs: Path, finished_run: Path, corpus: str) -> str:
    """Of the first call; later ones find it finished."""
    arguments = ("adapt", base, "--encoder", finished_run / "model", "--text", corpus, "--out", runs / "reader")
    outcome = memlm(*arguments, "--num-tokens", 200, "--set", *SMALL, "--json")
    answer = outcome.json()
    one = answer["result"]["shuffled_nats_per_token_ratio_4"]
    assert f"(with another text's memories {one:.3f}: higher if memories help), regenerating" in outcome.err
    assert answer["result"]["causal_nats_per_token_ratio_4"] > 0
    return answer["model"]


@pytest.fixture
def notes(memlm: Memlm, finished_run: Path, tmp_path: Path) -> Path:
    """A file of memories."""
    text, out = tmp_path / "notes.txt", tmp_path / "notes.memory"
    text.write_text("the memory of a vector holds one long chunk of text, and reads")
    assert memlm("remember", text, "-o", out, "--model", finished_run / "model").code == 0
    return out


def test_questions_are_answered_from_memories_and_from_text(memlm: Memlm, reader: str, notes: Path) -> None:
    options = ("who?", "--reader", reader, "--max-new-tokens", 4, "--json")
    asked = memlm("ask", notes, *options).json()
    assert asked["past_chunks"] + asked["raw_chunks"] > 1
    assert asked["ratio"] == 0  # its context is short
    one = memlm("ask", notes, *options, "--chunks", ":1").json()
    assert one["past_chunks"] + one["raw_chunks"] == 1
    text = memlm("ask", notes.with_suffix(".txt"), *options, "--expand", 0).json()
    assert text["past_chunks"] > 1
    typed = memlm("ask", "-", *options, "--expand", 0, stdin=notes.with_suffix(".txt").read_bytes())
    assert typed.json() == text
    assert memlm("ask", notes.with_name("n*.txt"), *options, "--expand", 0).json() == text
    assert "Answering: 4 tokens of 4 tokens" in typed.err


def test_readers_go_on_from_memories_and_from_nothing(memlm: Memlm, reader: str, notes: Path) -> None:
    options = ("--prompt", "so", "--temperature", 0, "--max-new-tokens", 4, "--json")
    written = memlm("generate", reader, "--memory", notes, *options, "--ratio", 2, "--expand", 9, "--by", "likelihood")
    with_past = written.json()
    assert "Writing: 4 tokens of 4 tokens" in written.err
    assert with_past["past_chunks"] + with_past["raw_chunks"] > 1
    assert memlm("generate", reader, *options).json()["prompt"] == "so"


def test_prompts_are_exported_for_other_engines(memlm: Memlm, reader: str, notes: Path, tmp_path: Path) -> None:
    out, model = tmp_path / "prompt.safetensors", tmp_path / "merged"
    arguments = ("export-prompt", notes, "--reader", reader, "--prompt", "so", "--out", out, "--model-out", model)
    answer = memlm(*arguments, "--json").json()
    embeds = load_file(out)["prompt_embeds"]
    assert list(embeds.shape) == [answer["positions"], answer["dim"]]
    assert "would be written over" in memlm(*arguments).err
    AutoModelForCausalLM.from_pretrained(model).generate(inputs_embeds=embeds[None], max_new_tokens=2, pad_token_id=0)


def test_without_memories_the_language_model_answers_alone(memlm: Memlm, reader: str, notes: Path) -> None:
    asked = memlm("ask", notes, "who?", "--reader", reader, "--chunks", "0:0", "--max-new-tokens", 4)
    assert asked.code == 0
    assert "there are no memories to read" in asked.err


def test_the_reader_in_the_box_needs_no_name(
    memlm: Memlm, reader: str, notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BOX", tmp_path / "box")
    out = ("--out", tmp_path / "prompt.safetensors")
    calls = (("ask", notes, "who?"), ("generate", "--memory", notes), ("export-prompt", notes, *out))
    for arguments in calls:
        assert_refused(memlm(*arguments), "without the reader 'smollm2-english'", "memlm adapt smollm2")
    files.BOX.mkdir()
    (files.BOX / files.BOXED_READER).symlink_to(reader)
    for arguments in calls:
        assert memlm(*arguments, "--json").json()["past_chunks"] > 0


def test_memories_are_read_as_the_paper_does(
    memlm: Memlm, base: Path, runs: Path, finished_run: Path, corpus: str, notes: Path
) -> None:
    small = [value for value in SMALL if not value.startswith(("model.hidden_dim", "model.decoder"))]
    arguments = ("adapt", base, "--encoder", finished_run / "model", "--text", corpus, "--out", runs / "paper")
    options = ("--arm", "paper", "--lora-rank", 0, "--num-tokens", 200, "--set", *small, "--json")
    answer = memlm(*arguments, *options).json()
    assert answer["result"]["causal_nats_per_token_ratio_0"] > 0
    trained = load_file(Path(answer["model"]) / "model.safetensors")
    assert list(trained["map.weight"].shape) == [32, 32]
    assert not any("lora" in name for name in trained)
    asked = memlm("ask", notes, "who?", "--reader", answer["model"], "--max-new-tokens", 4, "--json").json()
    assert asked["ratio"] == 0


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [("--top-p", 7, "--top-p is a probability"), ("--temperature", -1, "--temperature must not be negative, not -1.0")],
)
def test_what_cannot_be_drawn_is_refused_before_a_model_is_loaded(
    memlm: Memlm, option: str, value: float, message: str
) -> None:
    assert_refused(memlm("generate", "nowhere", option, value), message)


def test_what_cannot_be_read_is_refused(
    memlm: Memlm, reader: str, base: Path, notes: Path, finished_run: Path, corpus: str
) -> None:
    options = ("--reader", reader)
    for arguments, message in (
        (("ask", "nowhere.memory", "who?", *options), "there is no file nowhere.memory"),
        (("ask", notes.with_suffix(".txt"), "who?", *options, "--chunks", "1:2"), "--chunks is of a file of memories"),
        (("ask", notes, "", *options), "there is no message of a user to answer"),
        (
            ("ask", notes, "who?", "--reader", finished_run / "model"),
            "holds 'memlm autoencoder', not 'memlm memory rea",
        ),
    ):
        outcome = memlm(*arguments)
        assert outcome.code == 2
        assert message in outcome.err
    for model, encoder, message in (
        (reader, finished_run / "model", "is a memlm memory reader, not a causal language model"),
        (base, reader, "model is no autoencoder of memlm's: give"),
    ):
        outcome = memlm("adapt", model, "--encoder", encoder, "--text", corpus, "--out", notes.with_name("run"))
        assert outcome.code == 2
        assert message in outcome.err
    outcome = memlm("adapt", "nowhere/model", "--out", notes.with_name("run"))
    assert outcome.code == 2
    assert "nowhere/model" in outcome.err

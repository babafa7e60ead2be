import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest

from command_line import Memlm, Outcome, assert_refused, every_command
from memlm import MemoryFile, cli
from memlm.cli.memory import fidelity_line
from memlm.cli.parser import commands, parse
from memlm.config import Recipe
from memlm.data.chunks import split_into_chunks
from memlm.data.token_store import split_of_tokens
from memlm.probing import language_course
from memlm.runtime.results import read_json_lines
from memlm.text.autoencoder import TextAutoencoder
from memlm_evidence.cli.reproduce import Reproduce
from memlm_evidence.experiments import reproduce as experiments
from memlm_evidence.experiments.costs import MEMORY_TRAINING, MemoryTrainingResult
from memlm_evidence.experiments.exact_recall import RecallPlan, RecallResult
from tiny import SENTENCE, made_up_comparison, made_up_known_sources, recorded, write_language_model

CONTRACT = {
    "token_accuracy",
    "exact_match",
    "nats_per_token",
    "bits_per_byte",
    "entropy_ratio",
    "retained_bits_per_token",
    "retained_fraction",
    "bits_per_dim",
    "chunk_len",
    "memory_dim",
    "num_chunks",
    "intervals",
}


@pytest.fixture
def model(finished_run: Path) -> Path:
    return finished_run / "model"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("the memory holds one long ünd text\n" * 20, encoding="utf-8")
    return path


# --- evaluate and regenerate ---


def test_evaluating_prints_the_whole_contract(memlm: Memlm, model: Path, text: Path) -> None:
    answer = memlm("evaluate", model, "--text", text, "--json").json()
    assert answer.keys() >= CONTRACT
    assert (answer["chunk_len"], answer["memory_dim"], answer["num_documents"]) == (16, 32, 1)
    assert answer["resampled"] == "chunks"
    two = memlm("evaluate", model, "--text", text, "-", "--json", stdin=b"another text of this kind").json()
    assert two["num_documents"] == 2
    assert set(two["intervals"]) >= CONTRACT - {"chunk_len", "memory_dim", "num_chunks", "intervals"}


@pytest.mark.usefixtures("short_texts")
def test_evaluating_without_a_text_takes_the_standard_ones(memlm: Memlm, model: Path) -> None:
    results = memlm("evaluate", model, "--json").json()["results"]
    assert [result["name"] for result in results] == ["novel", "verse", "code", "random_tokens"]
    assert all(result.keys() >= CONTRACT for result in results)


def test_standard_input_is_a_text_like_any_other(memlm: Memlm, model: Path, text: Path) -> None:
    piped = memlm("evaluate", model, "--text", "-", "--json", stdin=text.read_bytes()).json()
    read = memlm("evaluate", model, "--text", text, "--json").json()
    assert {name: piped[name] for name in CONTRACT} == {name: read[name] for name in CONTRACT}


def test_regenerating_shows_what_should_be_and_what_came_out(memlm: Memlm, model: Path, text: Path) -> None:
    original = text.read_text(encoding="utf-8")
    for arguments, stdin in ((["--text", text], b""), ([], text.read_bytes())):
        (sample,) = memlm("regenerate", model, *arguments, "--json", stdin=stdin).json()["samples"]
        assert "".join(should for should, _ in sample["pieces"]).replace("\ufffd", "") in original
        assert any(should == came for should, came in sample["pieces"])


@pytest.mark.parametrize(
    "text", ["one line of the memory without an end " * 30, "two\nlines \u0007\n\n", "tab\tünd\r\n"]
)
def test_what_is_regenerated_into_a_pipe_is_the_text_byte_for_byte(
    text: str, memlm: Memlm, model: Path, trained: TextAutoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    outcome = memlm("regenerate", model, stdin=text.encode())
    assert outcome.code == 0
    assert outcome.out == trained.regenerate(trained.encode([text]))[0]
    assert "text 0: regenerated" in outcome.err


def test_a_thorough_search_finds_more(memlm: Memlm, model: Path, trained: TextAutoencoder, tmp_path: Path) -> None:
    text = tmp_path / "words.txt"
    text.write_text(" ".join(random.Random(0).choices(SENTENCE.split(), k=300)), encoding="utf-8")
    usual, thorough = (memlm("regenerate", model, "--text", text, *more) for more in ((), ("--thorough",)))
    split = split_of_tokens(trained.tokenizer, [trained.tokenizer.encode(text.read_text(encoding="utf-8"))])
    chunks = split_into_chunks(split, trained.config.shape.chunk_len)
    wrong = [trained.check(chunks, thorough=each).wrong.mean() for each in (False, True)]
    assert wrong[0] > 0.1
    assert wrong[1] < 0.02
    memory = trained.encode([text.read_text(encoding="utf-8")])
    assert [usual.out, thorough.out] == [trained.regenerate(memory, thorough=each)[0] for each in (False, True)]


def test_several_texts_are_regenerated_one_after_another(
    memlm: Memlm, model: Path, text: Path, trained: TextAutoencoder
) -> None:
    outcome = memlm("regenerate", model, "--text", text, "-", stdin=b"the memory holds")
    back = trained.regenerate(trained.encode([text.read_text(encoding="utf-8"), "the memory holds"]))
    assert outcome.out == "".join(back)
    assert outcome.err.count("regenerated") == 2


def test_in_a_terminal_what_is_regenerated_is_marked(
    memlm: Memlm, model: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda _: True)
    outcome = memlm("regenerate", model, "--text", text)
    assert "wrong in" in outcome.out
    assert "{+" in outcome.out or "\x1b[" in outcome.out


@pytest.mark.parametrize("command", ["evaluate", "regenerate"])
def test_texts_that_cannot_be_read_are_refused(command: str, memlm: Memlm, model: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"the memory \xff holds")
    empty = tmp_path / "empty.txt"
    empty.write_bytes(b"")
    for path, words in (
        (tmp_path / "none.txt", ["no file", "none.txt"]),
        (tmp_path, ["is a directory", str(tmp_path)]),
        (bad, ["bad.txt", "invalid UTF-8 at byte 11", "--encoding latin-1", "--errors replace"]),
        (empty, ["no text", "empty.txt"]),
    ):
        assert_refused(memlm(command, model, "--text", path, "--json"), *words)
    assert_refused(memlm(command, model, "--text", "-", stdin=b" \n"), "no text")
    assert memlm(command, model, "--text", bad, "--errors", "replace", "--json").json()
    assert memlm(command, model, "--text", bad, "--encoding", "latin-1", "--json").json()
    assert_refused(memlm(command, model, "--text", bad, "--encoding", "klingon"), "no encoding 'klingon'")


def test_models_that_cannot_be_loaded_are_refused(memlm: Memlm, model: Path, text: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(model, tmp_path / "damaged")
    os.truncate(damaged / "model.safetensors", 5000)
    for name, words in (
        (damaged, ["model.safetensors", "damaged or cut short"]),
        (tmp_path, ["is not a memlm checkpoint"]),
        (model.parent, [f"the model is in {model}"]),
        ("", ["no model ''"]),
        ("nosuchmodel", ["no model 'nosuchmodel'"]),
    ):
        assert_refused(memlm("evaluate", name, "--text", text), *words)


# --- train ---


def training(corpus: str, out: Path, *fields: str, num_tokens: int = 6000) -> tuple[object, ...]:
    """Arguments that train something tiny."""
    scale = {"grown-from": 8, "chunk-len": 16, "memory-dim": 32, "dim": 32, "vocab-size": 300, "batch-chunks": 16}
    knobs = [word for name, value in {**scale, "num-tokens": num_tokens}.items() for word in (f"--{name}", value)]
    fixed = ("data.validation_fraction=0.2", "data.test_fraction=0.2", *fields)
    return "train", "autoencoder", *knobs, "--text", corpus, "--out", out, "--json", "--set", *fixed


@pytest.mark.usefixtures("short_texts")
def test_training_on_files_and_a_finished_run_again(memlm: Memlm, corpus: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = training(corpus, run, "model.memory_noise=0.25")
    first = memlm(*arguments).json()
    assert first["model"] == str(run / "model")
    assert {result["name"] for result in first["results"]} >= {"held_out", "novel", "random_tokens"}
    assert read_json_lines(run / "results.jsonl") == first["results"]
    rows = read_json_lines(run / "metrics.jsonl")
    again = memlm(*arguments).json()
    assert [strip(result) for result in again["results"]] == [strip(result) for result in first["results"]]
    assert read_json_lines(run / "metrics.jsonl") == rows
    recipe = Recipe.read(run / "recipe.json")
    assert (recipe.model.memory_noise, recipe.model.shape.chunk_len) == (0.25, 16)
    assert_refused(memlm(*training(corpus, run)), f"{run} holds a model of another recipe")


def strip(result: dict) -> dict:
    return {name: value for name, value in result.items() if name != "provenance"}


@pytest.mark.slow
@pytest.mark.usefixtures("short_texts")
def test_a_killed_training_goes_on(memlm: Memlm, corpus: str, tmp_path: Path) -> None:
    weights = Path("model", "model.safetensors")

    def often(name: str) -> tuple[object, ...]:
        return training(corpus, tmp_path / name, "stages.*.training.checkpoint_tokens=256", num_tokens=3000)

    assert memlm(*often("alone")).code == 0
    command = [sys.executable, "-m", "memlm", *map(str, often("run"))]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not list((tmp_path / "run" / "checkpoints").rglob("step-*")):
            time.sleep(0.005)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "run" / "model").exists()
    assert memlm(*often("run")).code == 0
    assert (tmp_path / "run" / weights).read_bytes() == (tmp_path / "alone" / weights).read_bytes()


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("model.shape.chunk_len=0", ["chunk_len", "0"]),
        ("model.shape.memory_dim=-4", ["memory_dim must be positive, not -4"]),
        ("model.shape.memory_dim=wide", ["memory_dim", "wide"]),
        ("model.shape.vocab_size=301", ["vocab_size 300 is not the model's 301"]),
        ("model.shape.colour=3", ["colour"]),
        ("nonsense", ["nonsense"]),
    ],
)
def test_fields_that_cannot_work_are_refused(
    field: str, words: list[str], memlm: Memlm, corpus: str, tmp_path: Path
) -> None:
    assert_refused(memlm(*training(corpus, tmp_path / "run", field)), *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["autoencoder", "--chunk-len", "0"], ["chunk", "0"]),
        (["autoencoder", "--memory-dim", "-4"], ["memory_dim", "-4"]),
        (["reference", "--memory-dim", "33"], ["even memory_dim, not 33"]),
        (["autoencoder", "--memory-dim", "wide"], ["memory-dim", "wide"]),
        (["nosuchrecipe"], ["nosuchrecipe"]),
    ],
)
def test_options_that_cannot_work_are_refused(
    arguments: list[str], words: list[str], memlm: Memlm, tmp_path: Path
) -> None:
    outcome = memlm("train", *arguments, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert "Traceback" not in outcome.err
    said = " ".join(outcome.err.replace("│", " ").split())
    assert all(word in said for word in words), said
    assert not (tmp_path / "run").exists()


def test_text_to_train_on_that_cannot_be_read_is_refused(memlm: Memlm, tmp_path: Path) -> None:
    def train(text: Path, *more: object) -> Outcome:
        return memlm(*training(str(text), tmp_path / "run"), *more)

    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"the memory holds\n\n" * 3000 + b"\xff")
    assert_refused(train(bad), "bad.txt: invalid UTF-8 at byte 54000", "--encoding latin-1", "--errors replace")
    assert_refused(train(tmp_path / "none-*.txt"), "matches no file")
    assert_refused(train(bad, "--dataset", "user/data"), "not both")
    # With `replace` it is read, and found to be too little.
    assert_refused(train(bad, "--errors", "replace"), "bad.txt has 2 documents")
    assert not (tmp_path / "run").exists()


def test_a_diverging_run_ends_in_one_line(memlm: Memlm, corpus: str, tmp_path: Path) -> None:
    wild = "stages.*.training.optimizer.adamw.learning_rate=1e38"
    outcome = memlm(*training(corpus, tmp_path / "run", wild), "--grown-from", "0")
    assert outcome.code == 2
    assert "Traceback" not in outcome.err
    assert outcome.err.splitlines()[-1].startswith("memlm: the retention loss is nan")


WRITERS = [
    ["demo"],
    ["leak", "minilm"],
    ["encode-corpus", "docs"],
    ["adapt", "smollm2"],
    ["context", "english"],
    ["train", "autoencoder"],
    ["train", "causal"],
    ["train", "memory-model"],
    ["probe", "minilm"],
    ["sweep", "autoencoder", "--seeds", "0"],
    ["report", "."],
    ["reproduce"],
    *(["reproduce", name] for name in sorted(Reproduce.commands)),
    ["bench", "campaign"],
    ["bench", "density"],
    ["bench", "reader", "reader", "--last", "last", "--full", "full"],
]


@pytest.mark.parametrize("command", WRITERS, ids=" ".join)
def test_an_output_folder_that_cannot_be_one_is_refused_before_anything_is_done(
    command: list[str], memlm: Memlm, tmp_path: Path
) -> None:
    file = tmp_path / "README.md"
    file.write_text("mine")
    assert_refused(memlm(*command, "--out", file), str(file), "a file")
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert file.read_text() == "mine"


def test_every_command_with_an_output_folder_is_tested_above() -> None:
    every = list(map(resolve_name, every_command().values()))
    with_out = {kind for kind in every if "out" in {field.name for field in dataclasses.fields(kind)}}
    tested = {type(parse([*command, "--out", "x"])) for command in WRITERS}
    assert tested == {kind for kind in with_out if kind.out_is_folder}


def test_arguments_that_an_error_names_are_told_as_options() -> None:
    command = parse(["probe", "minilm"])
    assert cli._as_typed("try precision='fp32', not x.precision='bf16'", command) == (
        "try --precision fp32, not x.precision='bf16'"
    )
    assert cli._as_typed("--set a.chunk_len=3, colour='red'", command) == "--set a.chunk_len=3, colour='red'"


def test_the_version_is_printed(memlm: Memlm) -> None:
    outcome = memlm("--version")
    assert (outcome.code, outcome.out) == (0, f"memlm {metadata.version('memlm')}\n")
    assert memlm("--version", "train").out == outcome.out
    assert "--version" in memlm("--help").out


def test_a_table_in_a_pipe_is_whole(memlm: Memlm, model: Path, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    result = memlm("evaluate", model, "--text", text, "--json").json()
    out = memlm("evaluate", model, "--text", text).out
    low, high = result["intervals"]["retained_bits_per_token"]
    assert f"[{low:.2f}, {high:.2f}]".replace("-", "−") in out
    assert out.count("chunks") == 1


def test_commands_are_listed_by_topic(memlm: Memlm) -> None:
    listed = memlm("--help")
    assert listed.code == 0
    for name in commands():
        assert listed.out.count(f"\n  {name} ") == 1
    assert "More:" not in listed.out
    assert "\n  density " in memlm("bench", "--help").out


def test_no_command_is_a_refusal_too(memlm: Memlm) -> None:
    missing = memlm()
    assert (missing.code, missing.out, "Train:" in missing.err) == (2, "", True)
    assert_refused(memlm("--foo"), "--foo", "memlm --help")
    assert_refused(memlm(""), "no such command: memlm ''")


@pytest.mark.parametrize("typed", ["help", "help recall", "-h recall", "bench help everyday", "bench -h everyday"])
def test_help_may_stand_first(memlm: Memlm, typed: str) -> None:
    words = typed.split()
    last = [word for word in words if word not in ("help", "-h")]
    assert memlm(*words).out == memlm(*last, "--help").out != ""


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("trian", "no such command: memlm trian; did you mean train?"),
        ("nosuchcommand", "no such command: memlm nosuchcommand; there are adapt, app, ask, bench, context, demo,"),
        ("bench densty", "no such command: memlm bench densty; did you mean density?"),
        ("train autoencodr --out runs/mine", "no such recipe: memlm train autoencodr; did you mean autoencoder?"),
    ],
)
def test_a_misspelt_command_or_recipe_is_refused_with_the_one_that_is_like_it(
    memlm: Memlm, typed: str, said: str
) -> None:
    assert_refused(memlm(*typed.split()), said)


@pytest.mark.parametrize("typed", ["train memory-model --help", "reproduce --help"])
def test_help_in_a_pipe_is_wrapped(memlm: Memlm, monkeypatch: pytest.MonkeyPatch, typed: str) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert max(map(len, memlm(*typed.split()).out.splitlines())) <= 100


def test_help_of_an_option_is_a_paragraph(memlm: Memlm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    (line,) = (line for line in memlm("encode-corpus", "--help").out.splitlines() if "A folder, a file, a glob" in line)
    assert "(.txt, .md, .text)" in line


def test_what_has_moved_is_said_by_an_import_too() -> None:
    with pytest.raises(ImportError, match=r"it is memlm_evidence\.settle now"):
        from memlm import settle  # noqa: F401


# --- probe ---


@pytest.mark.usefixtures("memlm_home")
def test_probing_prints_rows_and_controls_and_writes_a_report(
    memlm: Memlm, model: Path, corpus: str, tmp_path: Path
) -> None:
    out = tmp_path / "probe"
    budget = ["--chunk-len", 16, "--steps", 12, "--test-chunks", 60]
    asked = ["probe", model, "--text", corpus, "--train-text", corpus, *budget, "--out", out]
    outcome = memlm(*asked, "--json")
    answer = outcome.json()
    (row,) = answer["rows"]
    assert row.keys() >= CONTRACT
    assert (row["pooling"], row["chunk_len"], row["seed"]) == ("memory", 16, 0)
    assert answer["controls"].keys() == {"untrained", "shuffled", "constant", "random_tokens", "positive"}
    for name in ("shuffled", "constant"):
        low, high = answer["controls"][name]["intervals"]["retained_bits_per_token"]
        assert low <= 0 <= high
    assert {path.name for path in out.iterdir()} == {"probe.json", "report.html"}
    again = memlm(*asked, "--json")
    assert again.json()["rows"] == answer["rows"]
    assert "Reading" not in again.err  # what was read before is remembered
    other = tmp_path / "other.txt"
    other.write_text("a vector holds the text and the memory reads it " * 400)
    short = memlm("probe", model, "--text", other, "--train-text", corpus, *budget, "--json")
    assert short.json()["rows"][0]["num_train_chunks"] == row["num_train_chunks"]
    assert "Reading" not in short.err  # by the readers that there are


def test_a_pretrained_language_model_may_read(
    memlm: Memlm, model: Path, corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(language_course, "_GUESSING_STEPS", 20)
    language = write_language_model(tmp_path / "language", "llama")
    asked = ["probe", model, "--text", corpus, "--train-text", corpus, "--reader", "pretrained", "--controls", "no"]
    asked += ["--reader-rank", 2, "--steps", 4, "--test-chunks", 60, "--json", "--reader-model"]
    (row,) = memlm(*asked, language).json()["rows"]
    assert row.keys() >= {*CONTRACT, "f1", "bleu"}
    assert (row["reader"], row["chunk_len"], len(row["curve"])) == ("pretrained", 16, 2)
    assert_refused(memlm(*asked, "no/such/model"), "no/such/model")


def test_what_cannot_be_probed_is_refused(memlm: Memlm, model: Path, text: Path, corpus: str) -> None:
    assert_refused(memlm("probe", model, "--text", corpus, "--chunk-len", 17), "at most 16 tokens", "shorter chunks")
    assert_refused(memlm("probe", model, "--text", corpus, "--pooling", "mean"), "only embedding is its memory")
    assert_refused(memlm("probe", model, "--text", text), "too little text", "are needed")
    assert_refused(memlm("probe", model.parent, "--text", corpus), f"the model is in {model}")
    assert_refused(memlm("probe", "no/such/model/anywhere", "--text", corpus), "no/such/model/anywhere")
    assert_refused(memlm("settle", model, "--text", corpus), "no causal language model")


@pytest.mark.parametrize("name", sorted(set(Reproduce.commands) - {"claims"}))
def test_every_experiment_has_a_command(name: str, memlm: Memlm) -> None:
    outcome = memlm("reproduce", name, "--help")
    assert outcome.code == 0
    assert "Claim:" in outcome.out


STEPS = {"combined_step_ratio": 1.5, "recurrent_step_ratio": 2.0, "encoder_decoder_step_ratio": 0.5}
STEPS = {name: value for name, value in recorded("memory-training").items() if name != "seconds"} | STEPS
STEPS = {**STEPS, "rows": [STEPS]}


def test_claims_are_measured_and_decided(memlm: Memlm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def measure(_: Path, plan: Any) -> MemoryTrainingResult:
        return MemoryTrainingResult.from_dict(STEPS)

    monkeypatch.setattr(experiments, "EXPERIMENTS", (replace(MEMORY_TRAINING, run=measure),))
    asked = "memory-models-are-parallel", "faster-than-recurrent-memory", "--out", tmp_path / "out"
    outcome = memlm("reproduce", *asked, "--json")
    answer = outcome.json()
    assert [(row["name"], row["verdict"]) for row in answer["claims"]] == [
        ("memory-models-are-parallel", "fails"),
        ("faster-than-recurrent-memory", "holds"),
    ]
    assert answer["claims"][0].keys() == {
        *("name", "verdict", "value", "interval", "threshold", "at_least", "seconds", "num_seeds")
    }
    assert answer["claims"][0]["seconds"] >= 0
    assert "Measuring memory-training" in outcome.err
    page = Path(answer["report"]).read_text()
    assert answer["report"] == str(tmp_path / "out" / "report.html")
    assert "Faster than recurrent memory" in page
    again = memlm("reproduce", *asked)
    assert "Measuring" not in again.err + again.out
    assert "fails: memory-models-are-parallel" in again.out
    everything = memlm("reproduce", "--out", tmp_path / "out")  # no claim named: all of them
    assert "not decided, because there are no results: causal-embeddings-hold-little" in everything.out
    assert_refused(memlm("reproduce", "memory-models-are-paralel"), "did you mean memory-models-are-parallel?")


def test_results_decide_claims(memlm: Memlm, tmp_path: Path) -> None:
    (tmp_path / "memory-training.json").write_text(json.dumps(STEPS))
    outcome = memlm("report", tmp_path, "--out", tmp_path, "--json")
    decided, *_ = outcome.json()["claims"]
    assert (decided["name"], decided["verdict"]) == ("memory-models-are-parallel", "fails")
    assert "fails: memory-models-are-parallel. All chunks at once" in outcome.err
    assert "Memory models are parallel" in (tmp_path / "report.html").read_text()
    assert "Memory models are parallel" in (tmp_path / "report.md").read_text()
    assert_refused(memlm("report", tmp_path / "nowhere"), "no folder")
    (tmp_path / "memory-training.json").unlink()
    assert_refused(memlm("report", tmp_path), "none of embeddings.json")


def test_what_is_reproduced_is_kept_and_shown(memlm: Memlm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # The claims take minutes to measure, and have tests of their own; these are the commands alone.
    recalled = recorded("recall") | {"recall": {"combined": {"1": 0.5}}, "chance": {"combined": 0.0}}
    asked: list[RecallPlan] = []

    def measured(out: Path, plan: RecallPlan) -> RecallResult:
        asked.append(plan)
        return RecallResult.from_dict(recalled)

    monkeypatch.setattr("memlm_evidence.experiments.exact_recall.run.run", measured)
    answer = memlm("reproduce", "recall", "--out", tmp_path, "--seed", 3, "--models", "combined", "--json").json()
    assert answer["recall"] == recalled["recall"]
    assert (asked[0].seed, asked[0].models) == (3, ("combined",))
    assert json.loads((tmp_path / "recall-seed-3.json").read_text()) == answer
    assert "Recall of exact strings" in (tmp_path / "report.html").read_text()

    known = "memlm_evidence.experiments.non_invertible.run.run"
    monkeypatch.setattr(known, lambda out, plan: made_up_known_sources(plan.state.seed))
    outcome = memlm("reproduce", "non-invertible", "--out", tmp_path, "--seed", 1, "--json")
    assert json.loads((tmp_path / "non-invertible-seed-1.json").read_text()) == outcome.json()
    assert "uniform 8, 8 tokens, causal:" in outcome.err
    assert "Why next-token prediction forgets" in (tmp_path / "report.html").read_text()

    compared = made_up_comparison()
    monkeypatch.setattr("memlm_evidence.experiments.memory_model.run.run", lambda out, plan: compared)
    outcome = memlm("reproduce", "memory-model", "--out", tmp_path, "--json")
    assert outcome.json()["causal_nats"] == compared.causal_nats
    assert "combined: 3." in outcome.err
    assert json.loads((tmp_path / "memory-model-seed-0.json").read_text()) == outcome.json()
    assert "Next tokens" in (tmp_path / "report.html").read_text()


def test_a_memory_model_is_trained_evaluated_and_written_with(
    memlm: Memlm, corpus: str, text: Path, tmp_path: Path
) -> None:
    settings = [
        "stages.0.training.num_tokens=3000",
        "stages.0.training.precision=fp32",
        "stages.0.training.eval_tokens=3000",
        "data.validation_fraction=0.2",
        "data.test_fraction=0.2",
        "model.decoder.num_layers=1",
    ]
    options = ["--chunk-len", 8, "--memory-dim", 32, "--dim", 32, "--vocab-size", 300]
    run = ["train", "memory-model", "--out", tmp_path / "run", "--text", corpus, *options, "--set", *settings, "--json"]
    trained = memlm(*run).json()
    assert trained["results"][0]["causal_nats_per_token"] > 0
    model = trained["model"]
    evaluated = memlm("evaluate", model, "--text", text, "--json").json()
    assert {"causal_nats_per_token", "causal_nats_by_chunk", "retention", "chunk_len"} <= evaluated.keys()
    assert CONTRACT - evaluated["retention"].keys() <= {"chunk_len", "memory_dim"}
    command = ["generate", model, "--memory", text, "--prompt", "the memory", "--max-new-tokens", 12, "--json"]
    written = memlm(*command).json()
    assert written["text"] and written == memlm(*command).json()  # noqa: PT018
    assert written["past_bytes"] == len(text.read_bytes())
    refused = memlm("evaluate", model)
    assert refused.code != 0
    assert "give --text" in refused.err


def test_a_file_of_memories_is_gone_on_from(memlm: Memlm, corpus: str, model: Path, text: Path, tmp_path: Path) -> None:
    settings = ["stages.0.training.num_tokens=600", "data.validation_fraction=0.2", "data.test_fraction=0.2"]
    settings += ["model.encoder.dim=32", "model.encoder.mlp_ratio=2.0", "model.encoder.mixer.num_heads=2"]
    settings += ["model.pooling.token_dim=8"]
    options = ["--encoder-from", model, "--chunk-len", 16, "--memory-dim", 32, "--dim", 32, "--vocab-size", 300]
    run = ["train", "memory-model", "--out", tmp_path / "run", "--text", corpus, *options, "--set", *settings, "--json"]
    reads = memlm(*run).json()["model"]
    notes = tmp_path / "notes.memory"
    assert memlm("remember", text, "-o", notes, "--model", model, "--bits", 32).code == 0
    command = ["generate", reads, "--prompt", "the memory", "--max-new-tokens", 12, "--json"]
    written = memlm(*command, "--memory", notes).json()
    assert written["text"]
    assert written["past_chunks"] + written["raw_chunks"] == MemoryFile.open(notes).num_chunks
    part = memlm(*command, "--memory", notes, "--chunks", "2:4").json()
    assert part["past_chunks"] + part["raw_chunks"] == 2
    assert_refused(memlm(*command, "--chunks", "2:4"), "--memory names none")
    assert_refused(memlm(*command, "--memory", notes, text), "give it alone")
    assert_refused(memlm(*command, "--memory", notes, "--chunks", "0:999"), "has chunks")
    run = ["train", "memory-model", "--out", tmp_path / "other", "--text", corpus, *options[2:], "--set", *settings]
    assert memlm(*run).code == 0
    other = memlm("generate", tmp_path / "other" / "model", "--memory", notes)
    assert other.code == 2
    assert other.out == ""
    assert "was made by encoder" in other.err


def test_what_vectors_hold_is_said_in_words() -> None:
    counts = {"fidelity": 0.99, "memory_bytes": 512, "exact_chunks": 1, "chunks": 2}
    assert fidelity_line(counts) == "0.9900 of the tokens come back from the vectors alone, 1 of 2 chunks exactly"
    assert "stored as compressed text" in fidelity_line({**counts, "fidelity": 0.0, "memory_bytes": 0})
    assert fidelity_line({**counts, "fidelity": None}) == "there is no text to remember"

"""Language models adapted to memories: trained, saved, and used as people use them."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import memlm
from memlm.config.memory_reader import PER_MEMORY
from memlm.data.token_store import prepare
from memlm.nn.insertion import Context
from memlm.recipes.reader import arms
from memlm.runtime.results import read_json_lines
from memlm.text.expansion import CHOOSERS
from memlm.text.memory_reader import TextMemoryReader
from memlm.text.past import Past
from memlm.text.reader_prompts import encoder_of
from memlm.text.readings import Continuation, GivenBack, Readings
from memlm.training.adapt import recipe_of
from memlm.training.train import train, training_of
from tiny import LANGUAGE_MODELS, break_down_after, launch, strengthened, tiny_reader_recipe, write_language_model

TEXTS = ["the memory of a vector holds one long chunk of text", "and reads"]
GREEDY: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False}


@pytest.fixture(
    scope="module",
    params=["qwen3", *(pytest.param(kind, marks=pytest.mark.slow) for kind in LANGUAGE_MODELS if kind != "qwen3")],
)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_language_model(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def folder(base: Path, finished_run: Path, corpus: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a finished run; the adapters are then made to do more than two dozen steps teach them."""
    out = tmp_path_factory.mktemp("reader") / "run"
    reader = train(tiny_reader_recipe(base, finished_run / "model", corpus), out, quiet=True)
    strengthened(reader.model)
    reader.save_pretrained(out / "strong")
    return out


@pytest.fixture(scope="module")
def reader(folder: Path) -> TextMemoryReader:
    return memlm.load_reader(folder / "strong", device="cpu")


@pytest.fixture(scope="module")
def memory(reader: TextMemoryReader) -> memlm.Memory:
    return reader.encoder.encode(TEXTS)


def test_training_is_watched_and_ends_in_a_reader(folder: Path, reader: TextMemoryReader) -> None:
    rows = read_json_lines(folder / "metrics.jsonl")
    last = [row for row in rows if row["split"] == "validation"][-1]
    assert {"causal_nats_per_token_ratio_4", "shuffled_nats_per_token_ratio_4", "retention_nats_per_token"} <= set(last)
    trained = TextMemoryReader.from_pretrained(folder / "model", device="cpu")
    assert any(each.any() for name, each in trained.model.state_dict().items() if "lora_B" in name)
    assert reader.config.encoder_fingerprint == reader.encoder.encoder_fingerprint


def test_an_interrupted_run_goes_on_to_the_same_weights(
    folder: Path, base: Path, finished_run: Path, corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_reader_recipe(base, finished_run / "model", corpus)
    with monkeypatch.context() as patch:
        break_down_after(2, patch)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "run", quiet=True)
    again = train(recipe, tmp_path / "run", quiet=True)
    whole = TextMemoryReader.from_pretrained(folder / "model", device="cpu")
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name


def test_a_run_does_not_go_on_with_another_language_model(
    base: Path, finished_run: Path, corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_reader_recipe(tmp_path / "base", finished_run / "model", corpus)
    shutil.copytree(base, tmp_path / "base")
    with monkeypatch.context() as patch:
        break_down_after(2, patch)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "run", quiet=True)
    weights = load_file(tmp_path / "base" / "model.safetensors")
    next(iter(weights.values()))[0] += 1
    save_file(weights, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="was made with another configuration or data"):
        train(recipe, tmp_path / "run", quiet=True)


@pytest.mark.slow
def test_two_processes_train_as_one(folder: Path, base: Path, finished_run: Path, corpus: str, tmp_path: Path) -> None:
    run = launch(train, tiny_reader_recipe(base, finished_run / "model", corpus), tmp_path / "two", num_processes=2)
    two, one = (TextMemoryReader.from_pretrained(place / "model", device="cpu") for place in (run, folder))
    for name, tensor in one.model.state_dict().items():
        torch.testing.assert_close(two.model.state_dict()[name], tensor, rtol=1e-2, atol=1e-3, msg=name)


def test_several_prompts_are_answered_as_one_by_one(reader: TextMemoryReader, memory: memlm.Memory) -> None:
    prompts = ["so", " it holds"]
    together = reader.generate(memory, prompts, **GREEDY)
    alone = [reader.generate(memory[number], prompt, **GREEDY) for number, prompt in enumerate(prompts)]
    assert together == alone
    assert "".join(reader.stream(memory[0], prompts[0], **GREEDY)) == alone[0]


def test_texts_end_with_their_end_token_and_streams_where_nobody_listens(
    reader: TextMemoryReader, memory: memlm.Memory
) -> None:
    written = reader.generate(memory[0], "so", **GREEDY)
    place, letter = next((place, letter) for place, letter in enumerate(written) if letter.isascii())
    (end,) = reader.model_tokenizer.encode(letter).tolist()
    assert reader.generate(memory[0], "so", eos_token_id=end, **GREEDY) == written[:place]
    pieces = reader.stream(memory[0], "so it", max_new_tokens=100, do_sample=False)
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="max_new_tokens must be positive"):
        list(reader.stream(memory[0], "so", max_new_tokens=0))


@pytest.mark.parametrize("ratio", [1, 2, 4, PER_MEMORY])
def test_scores_are_those_of_what_is_generated(reader: TextMemoryReader, memory: memlm.Memory, ratio: int) -> None:
    text = reader.generate(memory[0], "so", ratio=ratio, **GREEDY)
    ids = reader.model_tokenizer.encode("so" + text)
    if reader.model_tokenizer.decode(ids) == "so" + text and "\ufffd" not in text:
        nats = reader.score(memory[0], "so" + text, ratio=ratio)
        other = reader.score(memory[0], "so" + text[:-1] + chr(ord(text[-1]) ^ 1), ratio=ratio)
        assert nats.shape == ids.shape
        assert nats[-1] <= other[-1]
    assert not np.allclose(reader.score(memory[0], "so", ratio=ratio), reader.score(memory[1], "so", ratio=ratio))


def test_without_memory_it_is_the_language_model_bit_for_bit(reader: TextMemoryReader, base: Path) -> None:
    plain = transformers.AutoModelForCausalLM.from_pretrained(base).eval()
    ids = torch.randint(256, (2, 9))
    with reader.without_memory() as unread, torch.no_grad():
        assert torch.equal(unread(input_ids=ids).logits, plain(input_ids=ids).logits)
        options: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
        assert torch.equal(unread.generate(ids, **options), plain.generate(ids, **options))
    assert not torch.equal(reader.model.decoder.hf(input_ids=ids).logits, plain(input_ids=ids).logits)


def test_the_exported_model_goes_on_alike(reader: TextMemoryReader, memory: memlm.Memory, tmp_path: Path) -> None:
    embeds = reader.prompt_embeds(memory[0], "so", ratio=2)
    reader.export_model(tmp_path / "merged")
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    written = merged.generate(inputs_embeds=embeds[None], **GREEDY, pad_token_id=0)[0]
    assert reader.model_tokenizer.decode(written.tolist()) == reader.generate(memory[0], "so", ratio=2, **GREEDY)


def test_positions_of_the_text_serve_all_that_reads(
    reader: TextMemoryReader, memory: memlm.Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = [reader.score(memory[0], "so it", ratio=ratio) for ratio in (1, 4)]
    monkeypatch.setattr(reader.model, "config", replace(reader.config, positions="text"))
    as_text, merged = (reader.score(memory[0], "so it", ratio=ratio) for ratio in (1, 4))
    np.testing.assert_allclose(as_text, whole[0], rtol=1e-4)
    assert not np.allclose(merged, whole[1])
    prompts = ["so", " it holds"]
    alone = [reader.generate(memory[number], prompt, **GREEDY) for number, prompt in enumerate(prompts)]
    assert reader.generate(memory, prompts, **GREEDY) == alone
    with pytest.raises(ValueError, match="adapt a reader with positions=consecutive"):
        reader.prompt_embeds(memory[0], "so")


@pytest.mark.parametrize("by", CHOOSERS)
def test_all_chunks_expanded_are_the_text(reader: TextMemoryReader, memory: memlm.Memory, by: Any) -> None:
    text = reader.prompt_embeds(memory[0], "so", ratio=1)
    torch.testing.assert_close(reader.prompt_embeds(memory[0], "so", ratio=4, expand=10_000, by=by), text)
    some = reader.prompt_embeds(memory[0], "so", ratio=4, expand=30, by=by)
    assert len(reader.prompt_embeds(memory[0], "so", ratio=4)) < len(some) <= len(text)


def test_chats_use_the_model_s_template(reader: TextMemoryReader, memory: memlm.Memory) -> None:
    turns = [{"role": "user", "content": "first?"}, {"role": "assistant", "content": "yes"}]
    assert isinstance(reader.chat(memory[0], [*turns, {"role": "user", "content": "last?"}], max_new_tokens=4), str)
    answer = reader.chat(memory[0], "who?", max_new_tokens=4)
    assert answer == reader.chat(memory[0], [{"role": "user", "content": "who?"}], max_new_tokens=4)
    assert isinstance(reader.chat(None, "who?", max_new_tokens=4), str)


def test_memories_are_given_back_chunk_by_chunk(reader: TextMemoryReader, memory: memlm.Memory) -> None:
    back = reader.regenerate(memory)
    assert len(back) == len(memory.vectors)


def test_what_a_reader_is_compared_with_is_adapted_alike(base: Path, finished_run: Path, corpus: str) -> None:
    recipe = tiny_reader_recipe(base, finished_run / "model", corpus)
    for name, ratios in (("last", ()), ("full", (1,))):
        arm = arms(recipe)[name]
        assert arm.model == replace(recipe.model, ratios=ratios)
        assert (arm.num_tokens, len(arm.stages)) == (recipe.num_tokens, 1)
        assert arm.stages[0].weights.terms == {"causal": 1.0}


def test_a_reader_goes_on_from_another_and_learns_from_a_teacher(
    folder: Path, base: Path, finished_run: Path, corpus: str, tmp_path: Path
) -> None:
    begin, encoder = str(folder / "strong"), finished_run / "model"
    recipe = tiny_reader_recipe(base, encoder, corpus, begin_with=begin, teacher=begin)
    (stage,) = recipe.stages
    assert stage.weights.terms == {"causal": 1.0, "divergence": 1.0, "retention": 0.5}
    recipe = recipe.with_training(num_tokens=100).with_values(["model.window.expanded_fraction=1.0"])
    training = training_of(recipe, prepare(recipe.data, quiet=True))
    started, before = training.build().state_dict(), memlm.load_reader(begin).model.state_dict()
    assert all(torch.equal(started[name], before[name]) for name in before)
    train(recipe, tmp_path / "run", quiet=True)
    rows = read_json_lines(tmp_path / "run" / "metrics.jsonl")
    assert any(row.get("divergence_nats", 0) > 0 for row in rows)
    other = recipe.with_values(["model.hidden_dim=8"])
    with pytest.raises(ValueError, match="nothing to begin with: its hidden_dim is not this reader's"):
        train(other, tmp_path / "other", quiet=True)
    untaught = recipe.with_values(["model.window.teacher=null"])
    with pytest.raises(ValueError, match="the divergence has a weight and no teacher"):
        train(untaught, tmp_path / "untaught", quiet=True)


def test_the_chunk_most_like_what_follows_is_expanded(reader: TextMemoryReader) -> None:
    past = Past(np.arange(48), np.arange(48) // 16, torch.zeros(3, 1, 32))
    row = Continuation(past, [], [200, 17, 18])
    plain, expanded = (reader.readings.predictions([row], 4, expanded=each).past.group[0] for each in (False, True))
    assert len(plain.unique()) <= 12 < 16 < len(expanded.unique())
    assert (expanded[past.chunk == 1].diff() == 1).all()


def test_facts_are_asked_for_where_chunks_have_room(
    base: Path, finished_run: Path, corpus: str, tmp_path: Path
) -> None:
    recipe = tiny_reader_recipe(base, finished_run / "model", corpus)
    assert recipe.model.window.facts_fraction == 0
    asking = recipe.with_values(["model.window.facts_fraction=1.0"])
    with pytest.raises(ValueError, match="too short for facts"):
        train(asking, tmp_path / "run", quiet=True)


@pytest.mark.parametrize("kind", ["last", "full"])
def test_arms_train_too(base: Path, finished_run: Path, corpus: str, tmp_path: Path, kind: str) -> None:
    recipe = tiny_reader_recipe(base, finished_run / "model", corpus)
    trained = train(arms(recipe)[kind], tmp_path / "run", quiet=True)
    memory = trained.encoder.encode(TEXTS)
    assert isinstance(trained.generate(memory[0], "so", ratio=1 if kind == "full" else 4, **GREEDY), str)


SOURCES: dict[str, dict[str, Any]] = {
    "vector": {"source": "vector"},
    "states": {"source": "states"},
    "paper": {},
    "paper without LoRA": {"lora_rank": 0},
}
"""Readers that read memories in parts, and the options that they differ by."""


@pytest.fixture(scope="module", params=SOURCES)
def reader_in_parts(
    request: pytest.FixtureRequest,
    base: Path,
    finished_run: Path,
    corpus: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> TextMemoryReader:
    """Trained with an interruption and without one, to the same weights; then made to do more, and saved."""
    out = tmp_path_factory.mktemp("parts")
    recipe = tiny_reader_recipe(base, finished_run / "model", corpus, **SOURCES[request.param])
    if request.param.startswith("paper"):
        recipe = arms(recipe)["paper"]
    whole = train(recipe, out / "whole", quiet=True)
    with pytest.MonkeyPatch.context() as patch:
        break_down_after(2, patch)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, out / "run", quiet=True)
    trained = train(recipe, out / "run", quiet=True)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, trained.model.state_dict()[name]), name
    strengthened(trained.model)
    trained.save_pretrained(out / "strong")
    return memlm.load_reader(out / "strong", device="cpu")


def test_parts_of_memories_are_read_in_batches_and_given_back(reader_in_parts: TextMemoryReader) -> None:
    reader, prompts = reader_in_parts, ["so", " it holds"]
    memory = reader.encoder.encode(TEXTS)
    alone = [reader.generate(memory[number], prompt, **GREEDY) for number, prompt in enumerate(prompts)]
    assert reader.generate(memory, prompts, **GREEDY) == alone
    for number in range(2):
        assert not np.allclose(reader.score(memory[number], "so"), reader.score(memory[1 - number], "so"))
    for ratio in (1, PER_MEMORY):
        _, context = reader.inputs_of(reader.prompts(memory[0], [[7]], ratio, 0, "likelihood"), ratio)
        assert context.prefix.any(-1).all(), "every position says something"
    assert context.prefix.shape[1] == len(reader.config.begin) + len(memory[0].vectors)
    normalized = reader.encoder.encode(TEXTS, normalize=True)
    torch.testing.assert_close(reader.pasts(normalized)[0].vectors, reader.pasts(memory)[0].vectors)
    assert len(reader.regenerate(memory)[0]) > 1


@pytest.mark.parametrize("by", CHOOSERS)
def test_parts_of_memories_are_expanded_to_text(reader_in_parts: TextMemoryReader, by: Any) -> None:
    reader = reader_in_parts
    memory = reader.encoder.encode(TEXTS)[0]
    (past,), prompt = reader.pasts(memory), reader.model_tokenizer.encode("so").tolist()
    text = torch.tensor([[*reader.config.begin, *past.tokens, *prompt]])
    embeds = reader.prompt_embeds(memory, "so", ratio=4, expand=10_000, by=by)
    torch.testing.assert_close(embeds[None], reader.model.decoder.embed(text).detach())
    some = past.layout(reader.config, reader.surprisal, PER_MEMORY, [1]).group
    assert some[-1] == len(memory.vectors) - 2 + (past.chunk == 1).sum()


def test_stretches_of_states_are_those_of_their_chunks(base: Path, finished_run: Path, corpus: str) -> None:
    cfg = tiny_reader_recipe(base, finished_run / "model", corpus, source="states").model
    encoder = encoder_of(cfg)
    memory = encoder.encode(TEXTS)
    states = encoder.states(encoder.readable(memory))
    logits = encoder.model.decoder.head(states)
    torch.testing.assert_close(logits, encoder.model.decoder(encoder.readable(memory)))
    assert states.shape == (len(memory.vectors), cfg.shape.chunk_len, cfg.state_dim)
    readings = Readings(config=cfg, encoder=encoder, model_tokenizer=encoder.tokenizer, surprisal=np.ones(300))
    rows = [row.tokens for row in encoder.rows(memory)][:1]
    (past,) = readings.stretches([GivenBack(rows, states[:1])], np.random.default_rng(1))
    length = past.vectors.shape[1]
    starts = [start for start in range(len(states[0])) if torch.equal(past.vectors[0], states[0, start:][:length])]
    assert [rows[0][start : start + length] for start in starts] == [past.tokens.tolist()]


def test_what_has_nothing_to_train_is_refused(base: Path, finished_run: Path, corpus: str) -> None:
    with pytest.raises(ValueError, match=r"without LoRA, 'last' is the language model as it is"):
        recipe_of(str(base), str(finished_run / "model"), None, arm="last", lora_rank=0)
    cfg = tiny_reader_recipe(base, finished_run / "model", corpus, lora_rank=0).model
    with pytest.raises(ValueError, match="there is nothing to train"):
        replace(cfg, ratios=())
    with pytest.raises(ValueError, match="state_dim must be the width of the encoder's parallel decoder, not 0"):
        replace(cfg, source="states", state_dim=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_tokens": 0}, "num_tokens must be at least 1, not 0"),
        ({"num_tokens": -5}, "num_tokens must be at least 1, not -5"),
        ({"batch_rows": 0}, "batch_rows must be at least 1, not 0"),
        ({"lora_rank": -1}, "lora_rank must be at least 0, not -1"),
        ({"ratios": ()}, "a reader learns at least one ratio"),
        ({"teacher": "nowhere"}, "no model 'nowhere': give the folder model of what memlm adapt has made"),
        ({"arm": "full", "begin_with": "other"}, "begin_with is of a reader, and the arm 'full' learns without one"),
    ],
)
def test_what_cannot_be_learned_is_refused_before_it_is_tried(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe_of("smollm2", "english", None, **options)


def test_teachers_of_other_kinds_are_refused_before_training(
    folder: Path, base: Path, finished_run: Path, tmp_path: Path
) -> None:
    kind = next(each for each in LANGUAGE_MODELS if each not in base.name)
    other, moved = write_language_model(tmp_path / "other", kind), shutil.copytree(base, tmp_path / "moved")
    for name in ("teacher", "begin_with"):
        given = {name: str(folder / "strong")}
        with pytest.raises(ValueError, match=f"strong adapts {base}, and this reader {other}"):
            recipe_of(str(other), "english", None, **given)
        assert getattr(recipe_of(str(moved), "english", None, **given).model.window, name) == given[name]
        with pytest.raises(ValueError, match="model is no reader: give the folder model of what memlm adapt has made"):
            recipe_of(str(other), "english", None, **{name: str(finished_run / "model")})


def test_bad_input_is_refused(reader: TextMemoryReader, memory: memlm.Memory) -> None:
    with pytest.raises(ValueError, match=r"this memory was made by encoder feed.*, not by this one"):
        reader.generate(replace(memory[0], encoder="feed"), "so")
    with pytest.raises(ValueError, match="the vector of chunk 0 holds NaN"):
        reader.generate(replace(memory[0], vectors=memory[0].vectors * float("nan")), "so")
    with pytest.raises(ValueError, match="neither a memory nor a prompt"):
        reader.generate(None, "")
    with pytest.raises(ValueError, match="neither a memory nor a prompt"):
        reader.generate(reader.encoder.encode([""]), "")
    with pytest.raises(ValueError, match="1 prompt for memories of 2 texts"):
        reader.generate(memory, ["so"])
    with pytest.raises(
        ValueError, match=r"take \d+ positions with 100 new tokens, and .* has 256: give a larger ratio"
    ):
        reader.generate(reader.encoder.encode(["and so it holds " * 40]), "so", ratio=1)
    with pytest.raises(ValueError, match=r"take \d+ positions, and .* has 256"):
        reader.prompt_embeds(reader.encoder.encode(["and so it holds " * 40]), "so", ratio=1)
    nothing = Context(torch.zeros(1, 0, 32), torch.zeros(1, 0, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"has 256 positions, and the context and what follows it take 257: .*fewer"):
        reader.model.decoder.states(torch.zeros(1, 257, 32), nothing)
    with pytest.raises(ValueError, match="ratio must lie from 0"):
        reader.generate(memory[0], "so", ratio=-1)
    with pytest.raises(ValueError, match=r"positions with 250 new tokens, and .* has 256"):
        reader.generate(memory[0], "so", max_new_tokens=250)
    with pytest.raises(ValueError, match=r"take \d+ positions, and .* has 256"):
        reader.generate(memory[0], "so it holds " * 30, expand=20)
    with pytest.raises(ValueError, match="expand must not be negative, not -1"):
        reader.generate(memory[0], "so", expand=-1)
    with pytest.raises(ValueError, match="chunks are chosen by likelihood, attention, similarity, not by 'luck'"):
        reader.generate(memory[0], "so", expand=10, by="luck")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not by 'luck'"):  # though nothing is to be chosen
        reader.generate(memory[0], "so", by="luck")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"a whole number, not 2\.5"):
        reader.generate(memory[0], "so", ratio=2.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_new_tokens must be positive, not 0"):
        reader.generate(memory[0], "so", max_new_tokens=0)
    with pytest.raises(ValueError, match="there is no message of a user"):
        reader.chat(memory[0], "  ")


@pytest.mark.parametrize("wrong", ["the text", 5, torch.zeros(1, 32)], ids=["text", "number", "vectors"])
def test_what_is_no_memory_is_refused(reader: TextMemoryReader, wrong: Any) -> None:
    calls: tuple[Any, ...] = (reader.regenerate, reader.fitting_ratio)
    calls += tuple(partial(call, max_new_tokens=2) for call in (reader.generate, reader.chat))
    for call, more in zip(calls, ((), (), ("so",), ("so",)), strict=True):
        with pytest.raises(TypeError, match=r"expected memories, as reader\.encoder\.encode makes them, not"):
            call(wrong, *more)


def test_what_is_no_prompt_is_refused(reader: TextMemoryReader, memory: memlm.Memory) -> None:
    wrong: Any
    for wrong in (None, 5):
        with pytest.raises(TypeError, match="expected a list of texts, not"):
            reader.generate(memory[0], wrong)
    with pytest.raises(TypeError, match=r"text 0 is None \(NoneType\), not a string"):
        reader.score(memory[0], None)  # type: ignore[arg-type]
    for wrong in (["who?"], [{"content": "who?"}], [{"role": "user", "content": None}]):
        with pytest.raises(ValueError, match="a message is a role and a content, both strings, not"):
            reader.chat(memory[0], wrong)
    with pytest.raises(ValueError, match=r"the message holds a lone surrogate, U\+D800"):
        reader.chat(memory[0], "\ud800")


def test_no_memories_are_no_past(reader: TextMemoryReader) -> None:
    none = reader.encoder.encode([""])
    for call in (reader.generate, reader.chat):
        assert call(none, "so", **GREEDY) == call(None, "so", **GREEDY)
    assert reader.generate(reader.encoder.encode([]), []) == []
    assert reader.regenerate(none) == []


def test_memories_are_decoded_once_and_read_often(
    reader: TextMemoryReader, memory: memlm.Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, scored = reader.generate(memory[0], "so", **GREEDY), reader.score(memory[0], "so")
    pasts = reader.pasts(memory[0])
    monkeypatch.setattr(type(reader.encoder), "rows", None)
    assert reader.fitting_ratio(pasts) == PER_MEMORY
    assert reader.generate(pasts, "so", **GREEDY) == written
    assert np.array_equal(reader.score(pasts, "so"), scored)
    assert isinstance(reader.chat(pasts, "so", **GREEDY), str)
    with pytest.raises(ValueError, match="2 prompts for memories of 1 text"):
        reader.generate(pasts, ["so", "it"])


@pytest.mark.parametrize(
    ("ratios", "positions", "expected"),
    [
        ((2, 4, 8, 16, 0), 4096, 4),
        ((2, 4, 8, 16, 0), 1034, 8),
        ((2, 4, 8, 16, 0), 1024, 0),
        ((2,), 4096, 2),
        ((2,), 1024, 2),
        ((1,), 4096, 1),
        ((), 4096, 0),
    ],
)
def test_the_ratio_that_fits_is_one_that_was_learned(
    reader: TextMemoryReader,
    memory: memlm.Memory,
    monkeypatch: pytest.MonkeyPatch,
    ratios: tuple[int, ...],
    positions: int,
    expected: int,
) -> None:
    monkeypatch.setattr(reader.model, "config", replace(reader.config, ratios=ratios))
    monkeypatch.setattr(reader.model.decoder, "max_positions", positions)
    (past,) = reader.pasts(memory[0])
    assert 40 < len(past.tokens) <= 80
    assert reader.fitting_ratio([past]) == expected


def test_an_empty_prompt_goes_on_from_memories(reader: TextMemoryReader, memory: memlm.Memory) -> None:
    assert len(reader.generate(memory[0], "", **GREEDY)) > 0


def test_other_models_than_it_was_trained_with_are_refused(folder: Path, tmp_path: Path) -> None:
    checkpoint = folder / "strong"
    for key, message in (
        ("decoder_fingerprint", "was trained for a language model feed"),
        ("encoder_fingerprint", "reads memories of encoder feed"),
    ):
        changed = tmp_path / key
        shutil.copytree(checkpoint, changed)
        config = json.loads((changed / "config.json").read_text())
        (changed / "config.json").write_text(json.dumps(config | {key: "feed"}))
        with pytest.raises(ValueError, match=message):
            memlm.load_reader(changed).encoder  # noqa: B018


def test_a_model_without_a_chat_template_does_not_chat(
    reader: TextMemoryReader, memory: memlm.Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader.hf_tokenizer, "chat_template", None)
    with pytest.raises(ValueError, match="has no chat template: use generate"):
        reader.chat(memory[0], "who?")

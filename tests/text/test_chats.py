"""Chats about a past: how they are written, what is answered in them, and how a reader is trained on them."""

from pathlib import Path
from typing import Any

import pytest

from memlm.config import MemoryReaderRecipe
from memlm.data.token_store import prepare
from memlm.models.load_pretrained import load_causal, transformers_tokenizer
from memlm.text.chats import answers, chat_about
from memlm.training import chats
from memlm.training.train import training_of
from tiny import tiny_reader_recipe


@pytest.fixture(scope="module")
def tokenizer(base: Path) -> Any:
    return transformers_tokenizer(str(base))


def test_a_chat_is_what_its_template_writes_around_the_past(tokenizer: Any) -> None:
    messages = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "He."}, _user("And then?")]
    chat = chat_about(tokenizer, messages, past=True)
    with_text = [{"role": "user", "content": "THE PAST\n\nWho?"}, *messages[1:]]
    whole = tokenizer.apply_chat_template(with_text, tokenize=False, add_generation_prompt=True)
    assert tokenizer.decode(chat.before) + "THE PAST" + tokenizer.decode(chat.after) == whole
    assert chat.question == "And then?"
    answered = tokenizer.apply_chat_template([_user("A"), {"role": "assistant", "content": "B"}], tokenize=False)
    assert answered.endswith("B" + tokenizer.decode(chat.end))
    assert chat_about(tokenizer, "Who?", past=False).before == []


def test_answers_do_not_depend_on_their_neighbours(base: Path, tokenizer: Any) -> None:
    model, texts, asked = load_causal(str(base)), ["one", "a much longer text", "two"], ["Who?", "What?", "Why?"]
    together = answers(model, tokenizer, texts, asked)
    alone = [answers(model, tokenizer, [text], [question])[0] for text, question in zip(texts, asked, strict=True)]
    assert together == alone
    assert len({*together}) > 1
    model.generation_config.eos_token_id = [*range(model.config.vocab_size)]  # some models have several
    assert len(answers(model, tokenizer, texts[1:2], asked[1:2])[0]) <= 1


@pytest.fixture
def reader_recipe(base: Path, finished_run: Path, corpus: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setattr(chats, "default_cache", lambda: tmp_path / "cache")
    recipe = tiny_reader_recipe(base, finished_run / "model", corpus)
    return recipe.with_values(
        [f"model.window.{name}" for name in ("num_chats=4", "unread_fraction=0.0", "expanded_fraction=0.0")]
    )


def test_a_reader_is_trained_on_what_the_model_answers(
    reader_recipe: MemoryReaderRecipe, monkeypatch: pytest.MonkeyPatch, tokenizer: Any
) -> None:
    told = iter("abcdefgh")
    monkeypatch.setattr(chats, "answers", lambda model, tokenizer, texts, asked: [next(told) * 5 for _ in texts])
    chatting = reader_recipe.with_values(["model.window.chat_fraction=1.0"])
    reading = _reading(chatting)
    assert {tokenizer.decode(row[scored])[:5] for row, scored in zip(reading.tokens, reading.scored, strict=True)} <= {
        letter * 5 for letter in "abcd"
    }
    assert list(reading.before or ()) == chat_about(tokenizer, "?", past=True).before
    # The same answers again, which are kept.
    assert _reading(chatting).tokens.equal(reading.tokens)


def test_chats_are_as_long_as_the_model_reads(
    reader_recipe: MemoryReaderRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chats, "answers", lambda model, tokenizer, texts, asked: ["a long answer " * 20 for _ in texts])
    assert _reading(reader_recipe.with_values(["model.window.chat_fraction=1.0"])).before is None


def test_misplaced_memories_are_another_texts(reader_recipe: MemoryReaderRecipe) -> None:
    own, others = (
        _reading(
            reader_recipe.with_values([f"model.window.misplaced_fraction={share}", "model.window.chat_fraction=0.0"])
        )
        for share in (0.0, 1.0)
    )
    assert own.tokens.equal(others.tokens)
    rows = [[row[row != 0].tolist() for row in reading.past.tokens] for reading in (own, others)]
    assert rows[1] == [*rows[0][1:], rows[0][0]]
    assert rows[0] != rows[1]


def _reading(recipe: MemoryReaderRecipe) -> Any:
    """What the last stage's step 0 predicts."""
    training = training_of(recipe, prepare(recipe.data))
    batch = training.sampler(recipe.stages[-1], training.build())(0)
    return batch.readings["causal"]


def _user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}

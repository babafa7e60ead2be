"""Chats about memories: OpenAI's own client gets what the library answers, whole or in pieces."""

import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from serving import running

from memlm.serve.app import Limits, create_app
from memlm.serve.model import ServedModel
from memlm.serve.reader import ServedReader, until
from memlm.text.memory_reader import TextMemoryReader
from memlm.training.train import train
from tiny import strengthened, tiny_reader_recipe, write_language_model

TEXTS = ["the memory of a vector holds one long chunk of text", "and reads"]
ASKED = [{"role": "user", "content": "what does it hold?"}]


@pytest.fixture(scope="module")
def reader(finished_run: Path, corpus: str, tmp_path_factory: pytest.TempPathFactory) -> TextMemoryReader:
    base = write_language_model(tmp_path_factory.mktemp("language-model"), "qwen3")
    recipe = tiny_reader_recipe(base, finished_run / "model", corpus)
    reader: TextMemoryReader = train(recipe, tmp_path_factory.mktemp("reader") / "run", quiet=True)
    strengthened(reader.model)
    return reader.to("cpu")


@pytest.fixture(scope="module")
def address(reader: TextMemoryReader) -> Iterator[str]:
    models = [ServedModel("encoder", reader.encoder)]
    with running(create_app(models, Limits(), readers=[ServedReader("reader", reader)])) as where:
        yield where


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{address}/v1", api_key="any", max_retries=0) as opened:
        yield opened


@pytest.fixture(scope="module")
def kept(address: str) -> Any:
    return httpx.post(f"{address}/v1/memories", json={"model": "encoder", "input": TEXTS[:1]}, timeout=60).json()


def completed(client: openai.OpenAI, messages: Any = ASKED, **options: Any) -> Any:
    return client.chat.completions.create(model="reader", messages=messages, **{"max_tokens": 8, **options})


def test_an_answer_is_the_librarys(client: openai.OpenAI, reader: TextMemoryReader, kept: Any) -> None:
    memory = reader.encoder.encode(TEXTS[:1])
    for given, past in ((kept, memory), (None, None)):
        answer = completed(client, extra_body={"memories": given, "ratio": 4, "expand": 0})
        expected = reader.chat(past, ASKED, ratio=4, expand=0, max_new_tokens=8)
        (choice,) = answer.choices
        assert (choice.message.role, choice.message.content) == ("assistant", expected)
        assert choice.finish_reason == "length"
        usage = answer.usage.model_dump()
        assert usage["completion_tokens"] == 8
        assert usage["prompt_tokens"] == len(reader.model_tokenizer.encode(ASKED[0]["content"]))
        assert usage["memory_tokens"] == (0 if past is None else sum(len(each.tokens) for each in reader.pasts(memory)))
        assert usage["total_tokens"] == usage["prompt_tokens"] + 8
    parts = [{"role": "user", "content": [{"type": "text", "text": ASKED[0]["content"]}]}]
    assert completed(client, parts).choices[0].message.content == completed(client).choices[0].message.content


def test_its_pieces_are_the_whole(client: openai.OpenAI, kept: Any) -> None:
    whole = completed(client, extra_body={"memories": kept}).choices[0].message.content
    chunks = [
        *completed(client, extra_body={"memories": kept}, stream=True, stream_options={"include_usage": True}),
    ]
    *pieces, last, usage = chunks
    assert "".join(chunk.choices[0].delta.content for chunk in pieces).strip() == whole
    assert pieces[0].choices[0].delta.role == "assistant"
    assert len(pieces) >= 2
    assert last.choices[0].finish_reason == "length"
    assert (usage.choices, usage.usage.completion_tokens) == ([], 8)
    assert len({(chunk.id, chunk.created) for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in completed(client, stream=True))


def test_several_texts_are_one_past(address: str, client: openai.OpenAI, reader: TextMemoryReader) -> None:
    both = httpx.post(f"{address}/v1/memories", json={"model": "encoder", "input": TEXTS}, timeout=60).json()
    answer = completed(client, extra_body={"memories": both})
    pasts = reader.pasts(reader.encoder.encode(TEXTS))
    assert answer.usage.model_dump()["memory_tokens"] == sum(len(past.tokens) for past in pasts)


def test_an_answer_ends_where_the_client_says(client: openai.OpenAI) -> None:
    whole = completed(client).choices[0].message.content
    stop = whole[3:5]
    choice = completed(client, stop=[stop, "\N{SNOWMAN}"]).choices[0]
    assert choice.message.content == whole[: whole.find(stop)].strip()
    assert choice.finish_reason == "stop"


@pytest.mark.parametrize(
    ("pieces", "stops", "text"),
    [
        (["a", "b", "c"], ["bc"], "a"),
        (["ab", "ab", "ac"], ["abac"], "ab"),
        (["a", "b"], ["bc"], "ab"),
        (["one", " two"], ["two", "one"], ""),
        (["a"], [], "a"),
    ],
)
def test_a_stop_is_found_in_whatever_pieces_it_comes(pieces: list[str], stops: list[str], text: str) -> None:
    assert "".join(until(iter(pieces), stops)) == text


def test_a_seed_repeats_what_is_drawn(client: openai.OpenAI) -> None:
    drawn = [completed(client, temperature=2.0, seed=seed).choices[0].message.content for seed in (1, 1, 2, 3, 4)]
    assert drawn[0] == drawn[1]
    assert len({*drawn}) > 1


def test_what_cannot_be_answered_is_refused_by_name(client: openai.OpenAI, kept: Any) -> None:
    def refused(words: str, param: str | None, **options: Any) -> None:
        with pytest.raises(openai.BadRequestError, match=words) as error:
            completed(client, **options)
        assert error.value.param == param

    other = {**kept, "encoder": "0" * 16}
    nan = base64.b64encode(np.full(32, np.nan, np.float32).tobytes()).decode()
    broken = {**kept, "data": [{**kept["data"][0], "vectors": nan, "shape": [1, 1, 32], "num_tokens": [3]}]}
    refused("made by encoder 0000000000000000", "memories", extra_body={"memories": other})
    refused("NaN", "memories", extra_body={"memories": broken})
    refused("no message of a user", "messages", messages=[{"role": "system", "content": "be kind"}])
    refused("positions", "messages", max_tokens=10**6)
    for field, wrong in (("ratio", 17), ("ratio", -1), ("ratio", "4"), ("expand", -1)):
        refused(f"{field} must be a whole", field, extra_body={"memories": kept, field: wrong})
    refused("n must be 1", "n", n=2)
    refused("call none", "tools", tools=[{"type": "function", "function": {"name": "a"}}])
    refused("at most 4", "stop", stop=["a"] * 5)
    refused("must be text", "response_format", response_format={"type": "json_object"})
    refused("must be 0", "presence_penalty", presence_penalty=1)
    refused("seed", "seed", seed=2**64)
    assert completed(client, presence_penalty=0, response_format={"type": "text"}, logit_bias={}, tools=[]).choices
    refused("temperature", "temperature", temperature=3)
    refused("messages", "messages", messages=[])
    refused("no message of a user", "messages", messages=[{"role": "system", "content": "x"}], stream=True)
    body = b'{"model": "reader", "messages": [{"role": "user", "content": "\\ud800"}]}'
    answer = httpx.post(
        f"{client.base_url}chat/completions", content=body, headers={"Content-Type": "application/json"}
    )
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, None)
    with pytest.raises(openai.NotFoundError, match="no model 'encoder' here; there is reader"):
        client.chat.completions.create(model="encoder", messages=ASKED)  # type: ignore[arg-type]


def test_one_answer_is_written_at_a_time(client: openai.OpenAI) -> None:
    whole = completed(client).choices[0].message.content
    alone = completed(client, temperature=2.0, seed=7).choices[0].message.content
    for _ in range(3):  # what a stop has ended draws nothing any more
        completed(client, temperature=2.0, seed=1, stop=whole[0], max_tokens=60)
        assert completed(client, temperature=2.0, seed=7).choices[0].message.content == alone


def test_readers_are_listed_with_what_they_read(client: openai.OpenAI, reader: TextMemoryReader) -> None:
    listed = {each.id: each.model_dump() for each in client.models.list()}
    assert [*listed] == ["encoder", "reader"]
    assert listed["reader"]["reads"] == listed["encoder"]["encoder"] == reader.encoder.encoder_fingerprint


def test_a_client_that_leaves_is_not_written_for(
    client: openai.OpenAI, reader: TextMemoryReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces, ended = [], []

    def slow(*arguments: Any, **options: Any) -> Iterator[str]:
        try:
            for number in range(2000):
                time.sleep(0.01)
                pieces.append(number)
                yield "a"
        finally:
            ended.append(True)

    with monkeypatch.context() as patch:
        patch.setattr(reader, "stream_chat", slow)
        with completed(client, stream=True) as stream:
            next(iter(stream))
        for _ in range(500):
            if ended:
                break
            time.sleep(0.02)
    assert ended
    assert len(pieces) < 1000
    assert completed(client).choices[0].message.content

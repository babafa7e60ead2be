"""What OpenAI's own client gets is what the library gives; and nothing that clients do breaks the server."""

import base64
import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from serving import running

from memlm import Memory, TextAutoencoder
from memlm.serve.app import Limits, create_app
from memlm.serve.model import ServedModel
from tiny import SENTENCE

TEXTS = ["the memory", "a", "漢字 → whole", "text token chunk of the"]


def client_of(address: str, key: str = "any", max_retries: int = 0) -> openai.OpenAI:
    """To be closed, as any client's connections are."""
    return openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=max_retries)


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[openai.OpenAI]:
    with client_of(address) as opened:
        yield opened


def embedded(answer: Any) -> np.ndarray:
    return np.array([each.embedding for each in answer.data])


def post(address: str, route: str, asked: Any = None, **options: Any) -> httpx.Response:
    return httpx.post(f"{address}{route}", json=asked, timeout=60, **options)


def refused(response: httpx.Response, status: int, param: str | None = None) -> str:
    """The message of an error, which is one in OpenAI's form."""
    error = response.json()["error"]
    assert response.status_code == status, error
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["param"] == param
    return str(error["message"])


@pytest.mark.parametrize("form", ["float", "base64", None])
def test_embeddings_are_the_librarys_of_length_1(client: openai.OpenAI, model: TextAutoencoder, form: Any) -> None:
    options = {"encoding_format": form} if form else {}
    answer = client.embeddings.create(model="tiny", input=TEXTS, **options)
    if form == "base64":
        found = np.array([np.frombuffer(base64.b64decode(str(each.embedding)), "<f4") for each in answer.data])
    else:
        found = embedded(answer)
    expected = model.encode(TEXTS, normalize=True, convert_to_numpy=True)[:, 0]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert [each.index for each in answer.data] == [0, 1, 2, 3]
    num_tokens = sum(map(len, model.tokenizer.encode_batch(TEXTS)))
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (num_tokens, num_tokens)


def test_texts_may_be_tokens_and_one_may_stand_alone(client: openai.OpenAI, model: TextAutoencoder) -> None:
    tokens = [ids.tolist() for ids in model.tokenizer.encode_batch(TEXTS)]
    texts = embedded(client.embeddings.create(model="tiny", input=TEXTS))
    np.testing.assert_allclose(embedded(client.embeddings.create(model="tiny", input=tokens)), texts, atol=1e-6)
    for given in (TEXTS[0], tokens[0]):
        np.testing.assert_allclose(embedded(client.embeddings.create(model="tiny", input=given)), texts[:1], atol=1e-6)


def test_a_models_own_dimensions_may_be_named_and_no_others(client: openai.OpenAI) -> None:
    assert len(client.embeddings.create(model="tiny", input="a", dimensions=32).data[0].embedding) == 32
    with pytest.raises(openai.BadRequestError, match="tiny has 32 dimensions, and cannot be cut to 16") as error:
        client.embeddings.create(model="tiny", input="a", dimensions=16)
    assert error.value.param == "dimensions"


def test_what_has_no_embedding_is_refused_by_name(client: openai.OpenAI) -> None:
    with pytest.raises(
        openai.BadRequestError, match=r"input 1 has \d+ tokens; .* at most 16\. .*/v1/memories"
    ) as error:
        client.embeddings.create(model="tiny", input=["a", SENTENCE])
    assert error.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="input 1 is empty"):
        client.embeddings.create(model="tiny", input=["a", ""])
    with pytest.raises(openai.BadRequestError, match="1 to 50"):
        client.embeddings.create(model="tiny", input=["a"] * 51)
    with pytest.raises(openai.BadRequestError, match="input: text 1 has token 300; there are tokens 0 to 299"):
        client.embeddings.create(model="tiny", input=[[1], [2, 300]])
    with pytest.raises(openai.NotFoundError, match="no model 'english' here; there is tiny") as missing:
        client.embeddings.create(model="english", input="a")
    assert missing.value.code == "model_not_found"


def test_models_are_listed(client: openai.OpenAI, model: TextAutoencoder) -> None:
    (only,) = client.models.list().data
    assert (only.id, only.object, only.owned_by) == ("tiny", "model", "memlm")
    assert client.models.retrieve("tiny").model_dump()["encoder"] == model.encoder_fingerprint
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other/one")


def test_memories_are_the_librarys_and_are_read_again(address: str, model: TextAutoencoder) -> None:
    texts = [SENTENCE, "", *TEXTS]
    kept = post(address, "/v1/memories", {"model": "tiny", "input": texts, "verify": True}).json()
    memory = model.encode(texts, verify=True)
    assert memory.exact is not None
    assert kept["encoder"] == model.encoder_fingerprint
    for each, expected in zip(kept["data"], memory, strict=True):
        vectors = np.frombuffer(base64.b64decode(each["vectors"]), "<f4").reshape(each["shape"])
        np.testing.assert_allclose(vectors, expected.numpy(), atol=1e-5)
        assert each["num_tokens"] == expected.num_tokens.tolist()
        assert each["exact"] == expected.exact.tolist()
    answer = post(address, "/v1/memories/regenerate", kept).json()
    for each, back in zip(answer["data"], model.regenerate(memory), strict=True):
        assert (each["text"], [*map(tuple, each["unsure"])], each["proven"]) == (back, [*back.unsure], back.proven)


def test_embeddings_are_memories_too(address: str, client: openai.OpenAI, model: TextAutoencoder) -> None:
    vectors = embedded(client.embeddings.create(model="tiny", input=TEXTS)).astype(np.float32)
    asked = {"model": "tiny", "encoder": model.encoder_fingerprint}
    data = [{"vectors": base64.b64encode(row.tobytes()).decode(), "shape": [1, 1, 32]} for row in vectors]
    answer = post(address, "/v1/memories/regenerate", asked | {"data": data}).json()
    assert [each["text"] for each in answer["data"]] == model.regenerate(vectors)


ONE = {"vectors": base64.b64encode(np.ones(32, np.float32).tobytes()).decode(), "shape": [1, 1, 32], "num_tokens": [3]}
NAN = base64.b64encode(np.full(32, np.nan, np.float32).tobytes()).decode()
FLAWS: list[tuple[dict[str, Any], str]] = [
    ({"vectors": "not base64!"}, "data"),
    ({"vectors": NAN}, "holds NaN"),
    ({"shape": [1, 1, 16]}, "128 bytes"),
    ({"shape": [1, 2, 16]}, "this model makes 1 × 32"),
    ({"shape": [2**31, 2**31, 2**31]}, "bytes"),
    ({"shape": [1, 32]}, "data"),
    ({"num_tokens": [17]}, "from 0 to 16"),
    ({"num_tokens": [1, 2]}, "num_tokens has 2 rows"),
    ({"num_tokens": [-1]}, "data"),
]


@pytest.mark.parametrize(("change", "words"), FLAWS)
def test_what_is_no_memory_is_refused(change: dict[str, Any], words: str, address: str, model: TextAutoencoder) -> None:
    asked = {"model": "tiny", "encoder": model.encoder_fingerprint, "data": [ONE | change]}
    assert words in refused(post(address, "/v1/memories/regenerate", asked), 400, "data")


def test_a_flaw_within_a_memory_is_placed(address: str, model: TextAutoencoder) -> None:
    asked = {"model": "tiny", "encoder": model.encoder_fingerprint, "data": [ONE, ONE | {"shape": [1, 32]}]}
    assert refused(post(address, "/v1/memories/regenerate", asked), 400, "data").startswith("data.1.shape is wrong")


def test_usage_counts_what_comes_back(address: str, model: TextAutoencoder) -> None:
    kept = post(address, "/v1/memories", {"model": "tiny", "input": TEXTS}).json()
    answer = post(address, "/v1/memories/regenerate", kept).json()
    tokens = model.tokenizer.encode_batch([each["text"] for each in answer["data"]])
    assert answer["usage"]["prompt_tokens"] == sum(map(len, tokens))


def test_another_encoders_memories_are_refused(address: str) -> None:
    asked = {"model": "tiny", "encoder": "0" * 16, "data": [ONE]}
    message = refused(post(address, "/v1/memories/regenerate", asked), 400, "data")
    assert "made by encoder 0000000000000000" in message
    refused(post(address, "/v1/memories/regenerate", asked | {"data": []}), 400, "data")


def test_fields_that_are_missing_or_of_another_type_are_named(address: str) -> None:
    for wrong, param in [
        ({"model": "tiny"}, "input"),
        ({"input": "a"}, "model"),
        ({"model": 3, "input": "a"}, "model"),
        *(
            ({"model": "tiny", "input": each}, "input")
            for each in (None, 3, {}, [None], ["a", 1], [[1.5]], [True], [[]])
        ),
        *(({"model": "tiny", "input": each}, "input") for each in ([], "", [[-1]], [10**30])),
        ({"model": "tiny", "input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"model": "tiny", "input": "a", "dimensions": "32"}, "dimensions"),
    ]:
        assert param in refused(post(address, "/v1/embeddings", wrong), 400, param)


def broken_bodies() -> list[bytes]:
    """Three hundred: cut short, with bytes changed, nested too deep, of nothing but noise."""
    drawn = random.Random(0)
    whole = json.dumps({"model": "tiny", "input": TEXTS, "encoding_format": "float"}).encode()
    cut = [whole[: drawn.randrange(len(whole))] for _ in range(100)]
    changed = [bytes(drawn.randrange(256) if drawn.random() < 0.05 else byte for byte in whole) for _ in range(100)]
    noise = [drawn.randbytes(drawn.randrange(200)) for _ in range(90)]
    nested = [b"[" * 50_000, b'{"model":' * 9_000, b'{"model": "tiny", "input": ' + b"[" * 900 + b"]" * 900 + b"}"]
    surrogates = [b'{"model": "tiny", "input": "\\ud800"}', b'{"model": "\\udfff", "input": "a"}', b'{"\\ud800": 1}']
    numbers = [b"1" * 5000, b'{"model": "tiny", "input": [' + b"1" * 5000 + b"]}", b'{"model": NaN, "input": Infinity}']
    return [*cut, *changed, *noise, *nested, *surrogates, *numbers, b"\xef\xbb\xbf{}"]


def test_malformed_bodies_are_answered_as_errors(address: str) -> None:
    with httpx.Client(headers={"Content-Type": "application/json"}, timeout=60) as sender:
        for body in broken_bodies():
            response = sender.post(f"{address}/v1/embeddings", content=body)
            if response.status_code != 200:  # a byte of a text may be any other
                assert response.status_code in (400, 404), body
                assert response.json()["error"]["message"], body
        message = sender.post(f"{address}/v1/embeddings", content=b"{").json()["error"]["message"]
        assert message.startswith("the body is not valid JSON")
    message = refused(post(address, "/v1/embeddings", content=b"model=tiny"), 400)
    assert "application/json" in message
    assert "/v1/nothing" in refused(post(address, "/v1/nothing", {}), 404)
    assert "/v1/embeddings" in refused(httpx.get(f"{address}/v1/embeddings"), 405)


def test_bodies_that_are_too_large_are_refused_said_or_unsaid(address: str) -> None:
    large = json.dumps({"model": "tiny", "input": "a" * 200_000}).encode()
    for content in (large, iter([large[:90_000], large[90_000:]])):
        response = post(address, "/v1/embeddings", content=content, headers={"Content-Type": "application/json"})
        assert "larger than 100000 bytes" in refused(response, 413)


def test_only_who_has_a_key_may_ask(model: TextAutoencoder) -> None:
    with running(create_app([ServedModel("tiny", model)], Limits(), ["one", "twö"])) as address:
        for key in (b"one", "twö".encode()):
            headers = {"Authorization": b"Bearer " + key}
            assert httpx.get(f"{address}/v1/models", headers=headers).status_code == 200
        for headers in ({}, {"Authorization": "Bearer on"}, {"Authorization": "one"}):
            refused(httpx.get(f"{address}/v1/models", headers=headers), 401)
            refused(post(address, "/v1/embeddings", {"model": "tiny", "input": "a"}, headers=headers), 401)
        with client_of(address, "three") as stranger, pytest.raises(openai.AuthenticationError) as error:
            stranger.embeddings.create(model="tiny", input="a")
        assert error.value.code == "invalid_api_key"
        assert httpx.get(f"{address}/health").json() == {"status": "ok", "models": ["tiny"]}
        counted = httpx.get(f"{address}/metrics").text
        assert 'memlm_requests_total{route="/v1/models",status="200"} 2.0' in counted
        assert 'memlm_requests_total{route="/v1/models",status="401"} 3.0' in counted
        assert 'memlm_requests_total{route="/v1/embeddings",status="401"} 4.0' in counted


class Halted:
    """A model whose work begins when it is let."""

    def __init__(self, model: TextAutoencoder, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.may_go_on, self.encoded = threading.Event(), threading.Event(), 0
        encode = model.encode_tokens

        def slow(texts: Any, **options: Any) -> Memory:
            self.begun.set()
            assert self.may_go_on.wait(60)
            listed = [*texts]
            self.encoded += len(listed)
            return encode(listed, **options)

        monkeypatch.setattr(model, "encode_tokens", slow)


def until(address: str, line: str) -> None:
    """Wait until the metrics have this line."""
    for _ in range(600):
        if line in httpx.get(f"{address}/metrics").text.splitlines():
            return
        time.sleep(0.05)
    pytest.fail(f"no {line} in\n{httpx.get(f'{address}/metrics').text}")


def test_where_too_many_wait_clients_are_told_and_openais_comes_again(
    model: TextAutoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    halted, asked = Halted(model, monkeypatch), {"model": "tiny", "input": "a"}
    with (
        running(create_app([ServedModel("tiny", model)], Limits(queue=1))) as address,
        client_of(address, max_retries=5) as patient,
        ThreadPoolExecutor(3) as threads,
    ):
        first = threads.submit(post, address, "/v1/embeddings", asked)
        assert halted.begun.wait(30)
        second = threads.submit(post, address, "/v1/embeddings", asked)
        until(address, "memlm_queue_length 1.0")
        third = post(address, "/v1/embeddings", asked)
        assert "1 requests wait" in refused(third, 429)
        assert third.headers["Retry-After"] == "1"
        fourth = threads.submit(patient.embeddings.create, model="tiny", input="a")
        until(address, 'memlm_requests_total{route="/v1/embeddings",status="429"} 2.0')
        halted.may_go_on.set()
        assert {first.result().status_code, second.result().status_code} == {200}
        assert len(fourth.result().data) == 1
        assert 'memlm_tokens_total{model="tiny",route="/v1/embeddings"} 3.0' in httpx.get(f"{address}/metrics").text


def test_a_client_that_goes_away_is_not_worked_for(model: TextAutoencoder, monkeypatch: pytest.MonkeyPatch) -> None:
    halted, body = Halted(model, monkeypatch), json.dumps({"model": "tiny", "input": ["a"] * 7}).encode()
    with running(create_app([ServedModel("tiny", model)], Limits())) as address, ThreadPoolExecutor(1) as threads:
        first = threads.submit(post, address, "/v1/embeddings", {"model": "tiny", "input": "a"})
        assert halted.begun.wait(30)
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as leaving:
            fields = f"Host: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
            leaving.sendall(f"POST /v1/embeddings HTTP/1.1\r\n{fields}\r\n\r\n".encode() + body)
            until(address, "memlm_queue_length 1.0")
        until(address, 'memlm_requests_total{route="/v1/embeddings",status="499"} 1.0')
        halted.may_go_on.set()
        assert first.result().status_code == 200
        assert post(address, "/v1/embeddings", {"model": "tiny", "input": "a"}).status_code == 200
    assert halted.encoded == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_where_the_model_fails_the_server_goes_on(model: TextAutoencoder, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any, **options: Any) -> Memory:
        raise RuntimeError("a secret of the server")

    with running(create_app([ServedModel("tiny", model)], Limits())) as address:
        with monkeypatch.context() as patch:
            patch.setattr(model, "encode_tokens", broken)
            message = refused(post(address, "/v1/embeddings", {"model": "tiny", "input": "a"}), 500)
        assert "secret" not in message
        assert post(address, "/v1/embeddings", {"model": "tiny", "input": "a"}).status_code == 200


def test_many_clients_get_what_one_gets(model: TextAutoencoder) -> None:
    drawn, words = random.Random(0), SENTENCE.split()
    asked = [
        [" ".join(drawn.choices(words, k=drawn.randint(1, 2))) for _ in range(drawn.randint(1, 3))] for _ in range(500)
    ]
    alone = model.encode([text for texts in asked for text in texts], normalize=True, convert_to_numpy=True)[:, 0]
    with running(create_app([ServedModel("tiny", model)], Limits(batch=16))) as address:
        with client_of(address) as client, ThreadPoolExecutor(16) as threads:
            answers = [*threads.map(lambda texts: client.embeddings.create(model="tiny", input=texts), asked)]
        counted = httpx.get(f"{address}/metrics").text
    np.testing.assert_allclose(np.concatenate([*map(embedded, answers)]), alone, atol=1e-6)
    assert 'memlm_requests_total{route="/v1/embeddings",status="200"} 500.0' in counted
    assert (
        f'memlm_tokens_total{{model="tiny",route="/v1/embeddings"}} {sum(a.usage.total_tokens for a in answers)}.0'
        in counted
    )
    (batches,) = [line for line in counted.splitlines() if line.startswith("memlm_batch_requests_count ")]
    assert float(batches.split()[1]) < 500, "requests that wait are put together"

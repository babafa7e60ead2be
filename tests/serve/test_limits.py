"""Nothing that a client sends is kept without end, or keeps the model from others for long."""

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import urlsplit

import httpx
import pytest
from serving import running

from memlm import TextAutoencoder
from memlm.serve.app import Limits, create_app
from memlm.serve.model import ServedModel

START = b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
BODY = json.dumps({"model": "tiny", "input": "the memory"}).encode()


@pytest.fixture(scope="module")
def limited(model: TextAutoencoder) -> Iterator[str]:
    with running(create_app([ServedModel("tiny", model)], Limits(max_chunks=9))) as address:
        yield address


def sent(address: str, pieces: Iterator[bytes]) -> tuple[int, bytes]:
    """How many bytes the server takes of these, and what it answers."""
    where, taken, answer = urlsplit(address), 0, b""
    with socket.create_connection((where.hostname, where.port or 0), timeout=20) as connection:
        with suppress(OSError):
            for piece in pieces:
                connection.sendall(piece)
                taken += len(piece)
        with suppress(OSError):
            while data := connection.recv(1 << 16):
                answer += data
    return taken, answer


def without_end(start: bytes, piece: bytes) -> Iterator[bytes]:
    """As much as 200 MB, in pieces of about 64 KB."""
    yield start
    for _ in range(3000):
        yield piece * (1 + (1 << 16) // len(piece))


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"GET /", b"a"),
        (b"GET /health HTTP/1.1\r\nHost: a\r\n", b"X-One: two\r\n"),
        (b"GET /health HTTP/1.1\r\nX-One: ", b"a"),
        (b"GET /health HTTP/1.1\r\n", b"a"),
        (START + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n", b"X-One: two\r\n"),
        (START + b"Transfer-Encoding: chunked\r\n\r\n1;", b"a"),
    ],
    ids=["address", "headers", "header", "name", "trailers", "extension"],
)
def test_a_request_whose_head_has_no_end_is_cut_off(start: bytes, piece: bytes, limited: str) -> None:
    taken, _ = sent(limited, without_end(start, piece))
    assert taken < 20 << 20  # what fits into buffers on the way counts as taken
    assert httpx.get(f"{limited}/health").status_code == 200


def test_large_headers_and_bodies_in_small_pieces_are_taken(limited: str) -> None:
    chunked = b"".join(b"1\r\n" + BODY[place : place + 1] + b"\r\n" for place in range(len(BODY))) + b"0\r\n\r\n"
    request = (
        START + b"X-One: " + b"a" * 50_000 + b"\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked
    )
    _, answer = sent(limited, iter([request]))
    assert answer.startswith(b"HTTP/1.1 200")
    many = START + b"X-One: " + b"a" * 1000 + b"\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
    last = many.replace(b"Host: a", b"Host: a\r\nConnection: close")
    _, answer = sent(limited, iter([many * 99, last]))  # one connection, more than any head may have in all
    assert answer.count(b"HTTP/1.1 200") == 100


def test_a_request_has_so_many_chunks_and_no_more(limited: str, model: TextAutoencoder) -> None:
    texts = ["a" * model.config.shape.chunk_len] * 10
    for asked, status in ((texts[:9], 200), (texts, 413)):
        answer = httpx.post(f"{limited}/v1/memories", json={"model": "tiny", "input": asked}, timeout=60)
        assert answer.status_code == status, answer.text
    assert "input has 10 chunks; a request may have 9" in answer.json()["error"]["message"]
    answer = httpx.post(f"{limited}/v1/embeddings", json={"model": "tiny", "input": ["a"] * 10}, timeout=60)
    assert answer.status_code == 413
    asked = httpx.post(f"{limited}/v1/memories", json={"model": "tiny", "input": texts[:9]}, timeout=60).json()
    for more, status in (([], 200), (asked["data"][:1], 413)):
        body = {"model": "tiny", "encoder": asked["encoder"], "data": [*asked["data"], *more]}
        answer = httpx.post(f"{limited}/v1/memories/regenerate", json=body, timeout=60)
        assert answer.status_code == status, answer.text


@pytest.mark.parametrize(
    "value", ["[" * 100_000 + "]" * 100_000, '{"a":' * 50_000 + "1" + "}" * 50_000, "9" * 100_000, "1e99999999"]
)
def test_json_of_any_depth_and_numbers_of_any_size_are_refused(value: str, limited: str) -> None:
    body = f'{{"model": "tiny", "input": {value}}}'.encode()
    answer = httpx.post(f"{limited}/v1/embeddings", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert len(answer.content) < 1000

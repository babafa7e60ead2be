"""Many clients of a server, in a process of their own: what they take of the processor is not the server's."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    import aiohttp

Found = TypeVar("Found")
_TIMEOUT = 120
"""Seconds that a client waits for one answer."""
_NEAR = 1e-4
"""How far a right answer, of length 1, may be from the library's: what else is in a batch changes last digits."""


@dataclass
class Load:
    """What became of some requests."""

    seconds: float = 0.0
    """From the first request to the last answer."""
    cpu_seconds: float = 0.0
    """Of the clients."""
    latencies: list[float] = field(default_factory=list)
    """Seconds of each answer."""
    answers: dict[int, bytes] = field(default_factory=dict)
    """The body of each answer, by the request's place."""
    errors: list[str] = field(default_factory=list)
    """Why others have none."""


def process() -> ProcessPoolExecutor:
    """One of its own, to do work in."""
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


def apart(work: Callable[..., Found], *arguments: object) -> Found:
    """What some work returns, done in a process of its own."""
    with process() as own:
        return own.submit(work, *arguments).result()


def load(address: str, bodies: Sequence[bytes], clients: int) -> Load:
    """Send each body once to `/v1/embeddings`; each client sends its next when it has its answer."""
    return asyncio.run(_load(address, bodies, clients))


async def _load(address: str, bodies: Sequence[bytes], clients: int) -> Load:
    found, places = Load(), iter(range(len(bodies)))

    async def client(session: "aiohttp.ClientSession") -> None:
        for place in places:  # shared: the next one is the next client's
            began = time.perf_counter()
            answer = await ask(session, address, bodies[place])
            if isinstance(answer, str):
                found.errors.append(answer)
            else:
                found.latencies.append(time.perf_counter() - began)
                found.answers[place] = answer

    async with connected(clients) as session:
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(client(session) for _ in range(clients)))
        found.seconds, found.cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    return found


@asynccontextmanager
async def connected(clients: int) -> "AsyncIterator[aiohttp.ClientSession]":
    """Connections for so many clients, which are kept between requests."""
    import aiohttp

    connector, timeout = aiohttp.TCPConnector(limit=clients), aiohttp.ClientTimeout(_TIMEOUT)
    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as session:
        yield session


async def ask(session: "aiohttp.ClientSession", address: str, body: bytes) -> bytes | str:
    """The body of an answer, or why there is none."""
    import aiohttp

    try:
        async with session.post(f"{address}/v1/embeddings", data=body) as response:
            answer = await response.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        return repr(error)
    return answer if response.status == 200 else f"{response.status}: {answer[:200]!r}"


def question(model: str, texts: Sequence[str]) -> bytes:
    """A request's body."""
    return json.dumps({"model": model, "input": texts, "encoding_format": "base64"}).encode()


def is_wrong(answer: bytes, expected: Float[np.ndarray, "text dim"]) -> bool:
    """Whether an answer's embeddings are not these."""
    data = json.loads(answer)["data"]
    vectors = np.array([np.frombuffer(base64.b64decode(each["embedding"]), "<f4") for each in data])
    return vectors.shape != expected.shape or bool((distances(vectors, expected) > _NEAR).any())


def distances(
    found: Float[np.ndarray, "text dim"], expected: Float[np.ndarray, "text dim"]
) -> Float[np.ndarray, " text"]:
    """How far each vector is from what it should be."""
    return np.linalg.norm(found - expected, axis=1)


def middle_and_tail(latencies: Sequence[float], errors: Sequence[str]) -> tuple[float, float]:
    """Seconds in which half of the answers come, and in which 99 of 100 do.

    Raises:
        ValueError: there are no answers; says why the first request has none.
    """
    if not latencies:
        raise ValueError(f"no request was answered: {errors[0]}")
    p50, p99 = np.quantile(latencies, [0.5, 0.99]).tolist()
    return p50, p99

"""Many clients of a server, in a process of their own, whose time on the processor can be told from the server's."""

import asyncio
import base64
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import TypeVar

import numpy as np
from jaxtyping import Float

Found = TypeVar("Found")
_TIMEOUT = 120
"""Seconds that a client waits for one answer."""


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
    """What was no answer, each with its reason."""


def apart(work: Callable[..., Found], *arguments: object) -> Found:
    """What some work returns, done in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
        return processes.submit(work, *arguments).result()


def load(address: str, bodies: Sequence[bytes], clients: int) -> Load:
    """Send each body once to `/v1/embeddings`; each client sends its next when it has its answer."""
    return asyncio.run(_load(address, bodies, clients))


async def _load(address: str, bodies: Sequence[bytes], clients: int) -> Load:
    import aiohttp

    found, places = Load(), iter(range(len(bodies)))
    headers = {"Content-Type": "application/json"}

    async def client(session: aiohttp.ClientSession) -> None:
        for place in places:  # shared: the next one is the next client's
            began = time.perf_counter()
            try:
                async with session.post(f"{address}/v1/embeddings", data=bodies[place], headers=headers) as response:
                    body = await response.read()
            except (aiohttp.ClientError, TimeoutError) as error:
                found.errors.append(repr(error))
                continue
            if response.status != 200:
                found.errors.append(f"{response.status}: {body[:200]!r}")
                continue
            found.latencies.append(time.perf_counter() - began)
            found.answers[place] = body

    connector, timeout = aiohttp.TCPConnector(limit=clients), aiohttp.ClientTimeout(_TIMEOUT)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(client(session) for _ in range(clients)))
        found.seconds, found.cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    return found


def question(model: str, texts: Sequence[str]) -> bytes:
    """A request's body."""
    return json.dumps({"model": model, "input": texts, "encoding_format": "base64"}).encode()


def vectors_of(answer: bytes) -> Float[np.ndarray, "text dim"]:
    """The embeddings of an answer's body."""
    data = json.loads(answer)["data"]
    return np.array([np.frombuffer(base64.b64decode(each["embedding"]), "<f4") for each in data])

"""A server under load for minutes: clients that leave, what memory it takes, and a stop that must lose nothing."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from memlm_evidence.benchmarks.serving_load import ask, connected, is_wrong, middle_and_tail, process
from memlm_evidence.benchmarks.serving_server import Server

if TYPE_CHECKING:
    import aiohttp

_NOTICED = 2.0
"""Seconds after which a server has noticed that a client has left."""
_STOPPED_AFTER = 1.0
"""Seconds of full load after which the server is told to stop."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a server is asked."""

    address: str
    bodies: Sequence[bytes]
    """Requests of one text each."""
    expected: Float[np.ndarray, "body dim"]
    """What the library gives."""
    clients: int
    rate: float
    """Requests a second."""
    seconds: float
    leaving: float
    """The share of requests whose client closes its connection instead of waiting for the answer."""


@dataclass
class Steady:
    """What became of the requests."""

    latencies: list[float] = field(default_factory=list)
    """Seconds of each answer."""
    errors: list[str] = field(default_factory=list)
    wrong: int = 0
    left: int = 0


def steady(plan: Plan) -> Steady:
    """Ask at a steady rate, and compare every answer with the library's; some clients leave at any moment."""
    return asyncio.run(_steady(plan))


async def _steady(plan: Plan) -> Steady:
    found, drawn, began = Steady(), random.Random(0), time.perf_counter()
    moments = iter(np.arange(0, plan.seconds, 1 / plan.rate).tolist())

    async def client(session: "aiohttp.ClientSession") -> None:
        for moment in moments:  # shared: the next request is that of the next client who is free
            await asyncio.sleep(began + moment - time.perf_counter())
            place = drawn.randrange(len(plan.bodies))
            if drawn.random() < plan.leaving:
                await _leave(plan, plan.bodies[place], drawn)
                found.left += 1
                continue
            sent = time.perf_counter()
            answer = await ask(session, plan.address, plan.bodies[place])
            if isinstance(answer, str):
                found.errors.append(answer)
                continue
            found.latencies.append(time.perf_counter() - sent)
            found.wrong += is_wrong(answer, plan.expected[place : place + 1])

    async with connected(plan.clients) as session:
        await asyncio.gather(*(client(session) for _ in range(plan.clients)))
    return found


async def _leave(plan: Plan, body: bytes, drawn: random.Random) -> None:
    """Send a request, or only a part of it, and close the connection before the answer is read."""
    host, port = plan.address.removeprefix("http://").rsplit(":", 1)
    head = f"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    whole = head.encode() + b"\r\n\r\n" + body
    part = len(whole) if drawn.random() < 0.5 else drawn.randrange(1, len(whole))
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(whole[:part])
    await asyncio.sleep(drawn.random() / 10)  # by then some wait in the queue, some are with the model, some answered
    writer.transport.abort()


def until_refused(address: str, bodies: Sequence[bytes], clients: int) -> int:
    """Ask until nothing answers any more; returns how many answers came."""
    return asyncio.run(_until_refused(address, bodies, clients))


async def _until_refused(address: str, bodies: Sequence[bytes], clients: int) -> int:
    async def client(session: "aiohttp.ClientSession", place: int) -> int:
        answered = 0
        while isinstance(await ask(session, address, bodies[(place + answered) % len(bodies)]), bytes):
            answered += 1
        return answered

    async with connected(clients) as session:
        return sum(await asyncio.gather(*(client(session, place) for place in range(clients))))


def soak(server: Server, plan: Plan, tell: Callable[[str], None]) -> dict[str, Any]:
    """Load a server for so long, look at its memory every minute, and stop it under full load.

    `lost` is how many requests the server says it has answered then, but no client has an answer of.
    """
    resident = []
    with process() as own:
        asking = own.submit(steady, plan)
        while True:
            resident.append(server.resident_bytes() / 2**20)
            tell(f"minute {len(resident) - 1}: the server has {resident[-1]:.0f} MiB")
            if wait([asking], 60).done:
                break
        found = asking.result()
        time.sleep(_NOTICED)
        resident.append(server.resident_bytes() / 2**20)
        before = server.answered()
        stopping = own.submit(until_refused, plan.address, plan.bodies, plan.clients)
        time.sleep(_STOPPED_AFTER)
        answered = server.stop() - before
        p50, p99 = middle_and_tail(found.latencies, found.errors)
        return {
            "seconds": plan.seconds,
            "wanted_per_second": plan.rate,
            "requests": len(found.latencies) + len(found.errors) + found.left,
            "answered": len(found.latencies),
            "left": found.left,
            "errors": len(found.errors),
            "first_errors": found.errors[:3],
            "wrong": found.wrong,
            "p50_seconds": p50,
            "p99_seconds": p99,
            "resident_mebibytes": resident,
            "answered_while_stopping": answered,
            "lost": answered - stopping.result(),
        }

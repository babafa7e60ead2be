"""The application: its routes."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from memlm.serve import answers
from memlm.serve.answers import response
from memlm.serve.batches import Batches, FullError, Run
from memlm.serve.errors import HANDLERS, ApiError, client_left
from memlm.serve.gate import Gate
from memlm.serve.metrics import Metrics
from memlm.serve.model import ServedModel
from memlm.serve.reader import Finish, ServedReader
from memlm.serve.requests import ChatRequest, EmbeddingsRequest, MemoriesRequest, RegenerateRequest, asked_by
from memlm.serve.writing import Writing, write_all

Served = TypeVar("Served")
Piece = TypeVar("Piece")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a server takes."""

    queue: int = 128
    """Requests that may wait for the model."""
    batch: int = 64
    """Chunks that the model is given at once."""
    max_body: int = 4 * 2**20
    """Bytes of a request."""
    max_inputs: int = 2048
    """Texts of a request."""
    max_chunks: int = 4096
    """Of a request; the model works on all of them before it answers another."""


def create_app(
    models: Sequence[ServedModel], limits: Limits, keys: Sequence[str] = (), readers: Sequence[ServedReader] = ()
) -> Starlette:
    """The ASGI application; its `state` has `metrics`."""
    metrics = Metrics()
    batches = Batches(most_waiting=limits.queue, most_size=limits.batch, observe=metrics.batch.observe)
    answering = Batches(most_waiting=limits.queue, most_size=1)  # a language model's answers take long, one at a time
    metrics.watch_queue(lambda: len(batches) + len(answering))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        for each in (batches, answering):
            each.start()
        yield
        for each in (batches, answering):
            await run_in_threadpool(each.stop)

    routes = _Routes(models, readers, limits, metrics, batches, answering)
    gate = Middleware(Gate, keys=keys, max_body=limits.max_body, metrics=metrics, paths=routes.paths)
    app = Starlette(routes=routes.listed(), lifespan=lifespan, middleware=[gate], exception_handlers=HANDLERS)
    app.state.metrics = metrics
    return app


class _Routes:
    """What is done for each path."""

    def __init__(
        self,
        models: Sequence[ServedModel],
        readers: Sequence[ServedReader],
        limits: Limits,
        metrics: Metrics,
        batches: Batches,
        answering: Batches,
    ) -> None:
        self._models = {model.name: model for model in models}
        self._readers = {reader.name: reader for reader in readers}
        self._every: dict[str, ServedModel | ServedReader] = {**self._models, **self._readers}
        self._limits, self._metrics, self._began = limits, metrics, int(time.time())
        self._batches, self._answering = batches, answering
        self._table: dict[str, tuple[str, Callable[..., Any]]] = {
            "/health": ("GET", self.health),
            "/metrics": ("GET", self.counts),
            "/v1/models": ("GET", self.list_models),
            "/v1/models/{name:path}": ("GET", self.one_model),
            "/v1/embeddings": ("POST", self.embeddings),
            "/v1/memories": ("POST", self.memories),
            "/v1/memories/regenerate": ("POST", self.regenerate),
            "/v1/chat/completions": ("POST", self.chat),
        }

    @property
    def paths(self) -> frozenset[str]:
        """All, as they are counted."""
        return frozenset(self._table)

    def listed(self) -> list[Route]:
        """As Starlette takes them."""
        return [Route(path, endpoint, methods=[method]) for path, (method, endpoint) in self._table.items()]

    async def health(self, request: Request) -> Response:
        """Whether the server answers, and with which models."""
        return response({"status": "ok", "models": [*self._every]})

    async def counts(self, request: Request) -> Response:
        """For Prometheus."""
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    async def list_models(self, request: Request) -> Response:
        """The models that there are."""
        return response({"object": "list", "data": [each.card(self._began) for each in self._every.values()]})

    async def one_model(self, request: Request) -> Response:
        """One model."""
        return response(_named(request.path_params["name"], self._every).card(self._began))

    async def embeddings(self, request: Request) -> Response:
        """One vector for each text of at most one chunk."""
        asked = await asked_by(request, EmbeddingsRequest)
        served = _named(asked.model, self._models)
        if asked.dimensions not in (None, served.dimensions):
            why = f"{served.name} has {served.dimensions} dimensions, and cannot be cut to {asked.dimensions}"
            raise ApiError(HTTPStatus.BAD_REQUEST, why, param="dimensions")
        texts = served.texts(asked.input, self._limits.max_inputs)
        vectors, num_tokens = await self._done(request, served.embed, texts, self._chunks(len(texts), "input"))
        self._counted(served, request, num_tokens)
        return response(answers.embeddings(served, vectors, num_tokens, asked.encoding_format))

    async def memories(self, request: Request) -> Response:
        """The memories of all chunks of each text."""
        asked = await asked_by(request, MemoriesRequest)
        served = _named(asked.model, self._models)
        texts = await run_in_threadpool(served.tokens, served.texts(asked.input, self._limits.max_inputs))
        encode = served.encode_verified if asked.verify else served.encode
        memory = await self._done(request, encode, texts, self._chunks(served.chunks(texts), "input"))
        return response(answers.memories(served, memory, self._counted(served, request, sum(map(len, texts)))))

    async def regenerate(self, request: Request) -> Response:
        """The texts of memories."""
        asked = await asked_by(request, RegenerateRequest)
        served = _named(asked.model, self._models)
        memory = await run_in_threadpool(served.memory, asked.data, asked.encoder)
        texts = await self._done(request, served.regenerate, memory, self._chunks(len(memory.vectors), "data"))
        num_tokens = self._counted(served, request, await run_in_threadpool(served.count, texts))
        return response(answers.texts(served, texts, num_tokens))

    async def chat(self, request: Request) -> Response:
        """An answer to messages about memories, whole or as it is written."""
        asked = await asked_by(request, ChatRequest)
        served = _named(asked.model, self._readers)
        writing = Writing(partial(served.write, asked))
        work, pieces = self._submitted(self._answering, write_all, writing, 1), writing.pieces()

        async def counted() -> AsyncIterator[str | Finish]:
            try:
                async for piece in _after(first, pieces):
                    if isinstance(piece, Finish):
                        self._counted(served, request, piece.completion_tokens)
                    yield piece
            finally:
                writing.leave()
                work.cancel()

        try:
            # What is wrong with a request is known with the first piece, when its status can still be told.
            first = await _unless_left(request, asyncio.ensure_future(anext(pieces)))
        except BaseException:
            writing.leave()
            work.cancel()
            raise
        if asked.stream:
            usage = bool(asked.stream_options and asked.stream_options.include_usage)
            events = answers.streamed(served, counted(), usage=usage)
            return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        *texts, end = await _unless_left(request, asyncio.ensure_future(_all(counted())))
        return response(answers.completion(served, "".join(texts).strip(), end))

    def _chunks(self, number: int, param: str) -> int:
        """So many, if a request may have them."""
        if number > self._limits.max_chunks:
            why = f"{param} has {number} chunks; a request may have {self._limits.max_chunks}: send several"
            raise ApiError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, why, param=param, code="request_too_large")
        return number

    def _counted(self, served: ServedModel | ServedReader, request: Request, num_tokens: int) -> int:
        self._metrics.tokens.labels(served.name, request.scope["path"]).inc(num_tokens)
        return num_tokens

    async def _done(self, request: Request, run: Run, what: Any, size: int) -> Any:
        """What the model makes of it, in a batch with others; nothing, once the client has left."""
        return await _unless_left(request, self._submitted(self._batches, run, what, size))

    def _submitted(self, batches: Batches, run: Run, what: Any, size: int) -> "asyncio.Future[Any]":
        try:
            return asyncio.wrap_future(batches.submit(run, what, size))
        except FullError:
            why = f"{batches.most_waiting} requests wait already; try again"
            raise ApiError(HTTPStatus.TOO_MANY_REQUESTS, why, code="rate_limit_exceeded", retry_after=1) from None


def _named(name: str, among: Mapping[str, Served]) -> Served:
    if name not in among:
        there = f"; there is {', '.join(among)}" if among else ": nothing is served that does this"
        raise ApiError(
            HTTPStatus.NOT_FOUND, f"there is no model {name!r} here{there}", param="model", code="model_not_found"
        )
    return among[name]


async def _unless_left(request: Request, work: "asyncio.Future[Any]") -> Any:
    """What comes of the work; it is given up where the client leaves before."""
    left = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({work, left}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise client_left()
        return work.result()
    finally:
        left.cancel()
        work.cancel()


async def _left(request: Request) -> None:
    """Return when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _after(first: Piece, pieces: AsyncIterator[Piece]) -> AsyncIterator[Piece]:
    yield first
    async for piece in pieces:
        yield piece


async def _all(pieces: AsyncIterator[Piece]) -> list[Piece]:
    return [piece async for piece in pieces]

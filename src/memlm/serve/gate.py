"""What every request passes: its key, the size of its body, and its count."""

import hmac
import time
from collections.abc import Collection, Sequence
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from memlm.serve.errors import ApiError
from memlm.serve.metrics import Metrics


class Gate:
    """Middleware; what needs a key is all under `/v1`."""

    def __init__(
        self, app: ASGIApp, *, keys: Sequence[str], max_body: int, metrics: Metrics, paths: Collection[str]
    ) -> None:
        """`paths` are counted by name; any others together."""
        self._app, self._max_body, self._metrics, self._paths = app, max_body, metrics, paths
        self._keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            refusal = self._refusal(scope)
            app = refusal.response() if refusal else self._app
            await app(scope, self._limited(receive), counted)
        finally:
            route = scope["path"] if scope["path"] in self._paths else "other"
            self._metrics.requests.labels(route, status).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - began)

    def _refusal(self, scope: Scope) -> ApiError | None:
        headers = Headers(scope=scope)
        if self._keys and scope["path"].startswith("/v1"):
            scheme, _, given = headers.get("authorization", "").partition(" ")
            # All are compared: the time that it takes tells nothing.
            known = max(hmac.compare_digest(given.encode("latin-1"), key) for key in self._keys)
            if scheme.lower() != "bearer" or not known:
                why = "this server wants a key, as in Authorization: Bearer KEY, and this request has none of its keys"
                return ApiError(HTTPStatus.UNAUTHORIZED, why, code="invalid_api_key")
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._max_body:
            return ApiError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._too_large, code="request_too_large")
        return None

    @property
    def _too_large(self) -> str:
        return f"the body is larger than {self._max_body} bytes; send several requests (memlm serve --max-body sets it)"

    def _limited(self, receive: Receive) -> Receive:
        """What comes in, up to the limit: a body may come without saying how long it is."""
        size = 0

        async def limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._max_body:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._too_large)
            return message

        return limited

"""Answering, and stopping without losing what was accepted."""

import signal
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_STOP_SECONDS = 60
"""What is not answered by then, when the server is told to stop, is cut off."""
_KEEP_ALIVE_SECONDS = 75
_MOST_HEAD = 1 << 16
"""Bytes of a request that are not its body: its address, its headers, and what comes after it."""
_MOST_AROUND = 8
"""Bytes around each byte of a body that comes in pieces."""


class _Protocol(HttpToolsProtocol):
    """Counts what is kept of a request before the application sees it; uvicorn would keep headers without end."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._received = self._body = 0

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        super().data_received(data)
        if self._received - self._body > _MOST_HEAD + _MOST_AROUND * self._body and not self.transport.is_closing():
            self.send_400_response(f"the headers of a request may have {_MOST_HEAD} bytes")

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._received = self._body = 0
        super().on_message_complete()


class _Server(uvicorn.Server):
    """Says when it is ready: from then on, a signal lets it end what it has accepted."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()


def server_of(app: Starlette, ready: Callable[[], None] = lambda: None) -> uvicorn.Server:
    """What answers for an application; it calls `ready` when it does, and runs until its `should_exit` is set."""
    return _Server(
        uvicorn.Config(
            app,
            http=_Protocol,
            log_level="warning",
            access_log=False,
            server_header=False,
            ws="none",
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_STOP_SECONDS,
        ),
        ready,
    )


def serve(app: Starlette, listening: socket.socket, ready: Callable[[], None]) -> None:
    """Answer until SIGTERM or SIGINT, and then what was accepted; calls `ready` before the first answer."""
    # uvicorn sends itself the signal again when it is done, which would end the process as if it had failed.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: None)
    server_of(app, ready).run(sockets=[listening])

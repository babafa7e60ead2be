"""Listening, and stopping without losing what was accepted."""

import signal
import socket

import uvicorn
from fastapi import FastAPI

_STOP_SECONDS = 60
"""What is not answered by then, when the server is told to stop, is cut off."""
_KEEP_ALIVE_SECONDS = 75


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 is any that is free.

    Raises:
        ValueError: there is no such port, it is taken, or there is no such host here.
    """
    if not 0 <= port < 2**16:
        raise ValueError(f"--port is a number from 0 to {2**16 - 1}, not {port}")
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ValueError(f"cannot listen on port {port} of {host}: {error}; give another --port or --host") from None


def server_of(app: FastAPI) -> uvicorn.Server:
    """What answers for an application; it runs until its `should_exit` is set."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            ws="none",
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_STOP_SECONDS,
        )
    )


def serve(app: FastAPI, listening: socket.socket) -> None:
    """Answer until SIGTERM or SIGINT, and then what was accepted."""
    # uvicorn sends itself the signal again when it is done, which would end the process as if it had failed.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    server_of(app).run(sockets=[listening])

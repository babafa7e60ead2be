"""Ports to listen on."""

import socket


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


def require_free(host: str, port: int) -> int:
    """The port, or for 0 one that is free.

    Raises:
        ValueError: as `listen`.
    """
    with listen(host, port) as listening:
        return int(listening.getsockname()[1])

"""Ports to listen on."""

import socket


def require_free(host: str, port: int) -> int:
    """The port, or for 0 one that is free.

    Raises:
        ValueError: it cannot be listened on.
    """
    if not 0 <= port < 2**16:
        raise ValueError(f"--port is a number from 0 to {2**16 - 1}, not {port}")
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listening:
            return int(listening.getsockname()[1])
    except OSError as error:
        raise ValueError(f"cannot listen on port {port} of {host}: {error}; give another --port or --host") from None

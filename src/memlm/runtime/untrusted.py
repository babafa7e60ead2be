"""What comes from outside, read within limits: a few bytes must not claim a large memory or a deep stack."""

import json
import zlib
from typing import Any


def json_of(text: str | bytes) -> Any:
    """JSON.

    Raises:
        ValueError: it is none, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def inflated(data: bytes, most: int) -> bytes:
    """What zlib has deflated, without a header; of nothing, nothing.

    Raises:
        ValueError: it is no such data, is cut short, or is more than `most` bytes.
    """
    if not data:
        return b""
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        found = unpacker.decompress(data, most + 1)
    except zlib.error as error:
        raise ValueError(f"it cannot be unpacked: {error}") from None
    if len(found) > most:
        raise ValueError(f"unpacked it is more than {most} bytes")
    if not unpacker.eof:
        raise ValueError("it is cut short")
    return found

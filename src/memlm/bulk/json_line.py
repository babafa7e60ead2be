"""The text that a line of JSON lines holds, or what is wrong with it."""

import json
from collections.abc import Sequence

from memlm.data.documents import utf8
from memlm.runtime.untrusted import json_of


def text_of(line: bytes, column: str, where: str) -> str:
    """The text of a line; `where` it is stands in messages.

    Raises:
        ValueError: it holds none: it is no JSON in UTF-8, no object, or has no such column of text.
    """
    try:
        found = json_of(line.decode("utf-8-sig"))  # of bytes, json would guess the encoding
    except ValueError as error:
        raise ValueError(f"{where}, is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{where}, is {_in_json(found)}, not an object: each line must be one")
    if column not in found:
        raise ValueError(no_column(f"{where},", column, list(found)))
    text = found[column]
    if not isinstance(text, str):
        raise ValueError(f"{where}: {column!r} is {_in_json(text)}, not text")
    utf8(text, f"{where},")
    return text


def no_column(where: str, column: str, there: Sequence[str]) -> str:
    """What is wrong where there are other columns than this."""
    others = ", ".join(map(repr, there)) or "none"
    return f"{where} has no column {column!r}; it has {others}: name one with --text-column"


def _in_json(value: object) -> str:
    """A value in JSON's words: `an array`, `null`, `3`."""
    named: dict[type, str] = {dict: "an object", list: "an array", str: "a string"}
    return named.get(type(value)) or json.dumps(value)[:40]

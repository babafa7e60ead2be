"""What is taken for documents, and what is not."""

import reprlib
from collections.abc import Iterable, Iterator, Mapping

Documents = Mapping[str, str] | Iterable[tuple[str, str]]
"""Names and texts: a dict, or pairs."""
_WAY_OUT = "give pairs, [('a name', 'a text')], or a dict of texts by name"


def named_texts(documents: Documents) -> Iterator[tuple[str, str]]:
    """Documents as names and texts; those of a list or a dict are checked before the first is given.

    Raises:
        TypeError: they are no names and texts; says what is there instead, and what should be.
    """
    given: object = documents
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise TypeError(f"documents are names and texts, not {reprlib.repr(given)}; {_WAY_OUT}")
    pairs = documents.items() if isinstance(documents, Mapping) else documents
    checked = map(_pair, pairs)
    return iter([*checked]) if isinstance(documents, (list, tuple, dict)) else checked


def require_string(what: str, value: object) -> None:
    """Raise TypeError where something is not a string."""
    if not isinstance(value, str):
        hint = "; decode it first" if isinstance(value, (bytes, bytearray)) else ""
        raise TypeError(f"{what} is a string, not {reprlib.repr(value)}{hint}")


def _pair(document: object) -> tuple[str, str]:
    # A string of two letters can be taken apart, too.
    if not isinstance(document, (tuple, list)) or len(document) != 2:
        raise TypeError(f"a document is a name and a text, not {reprlib.repr(document)}; {_WAY_OUT}")
    name, text = document
    require_string("a document's name", name)
    require_string(f"the text of document {name!r}", text)
    return name, text

"""Documents: pieces of text that belong together, where long ones are split, and which split each belongs to."""

import hashlib
import re
from collections.abc import Iterator
from typing import Literal, NamedTuple, Protocol

from memlm.config import DataConfig

Split = Literal["train", "validation", "test", "temporal"]

MAX_DOCUMENT_BYTES = 32 * 1024
TEMPORAL_YEAR = 2009
"""Dated documents of this year and later are kept apart: they lie after everything trained on."""

_BLANK_LINE = re.compile(rb"\n[ \t\r]*\n")


class Document(NamedTuple):
    """A piece of text that belongs together; `year` is when it was written, where that is known."""

    name: str
    text: str
    year: int | None = None

    @property
    def num_bytes(self) -> int:
        """In UTF-8; lone surrogates count here, because the tokenizer refuses them with a better message."""
        return len(self.text.encode("utf-8", "surrogatepass"))


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """The next bytes; none at the end."""


def utf8(text: str, what: str = "the text") -> bytes:
    """A text's bytes.

    Raises:
        ValueError: it holds a lone surrogate, which no UTF-8 text can; with its index.
    """
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        surrogate = f"U+{ord(text[error.start]):04X}, at index {error.start}"
        raise ValueError(f"{what} holds a lone surrogate, {surrogate}, which UTF-8 cannot say") from None


def split_of(document: Document, config: DataConfig) -> Split:
    """The split of a document, by the hash of its text: the same for ever, whatever documents are around it."""
    if document.year is not None and document.year >= TEMPORAL_YEAR:
        return "temporal"
    digest = hashlib.sha256(document.text.encode("utf-8")).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    # The test split comes first, so that another validation_fraction leaves it as it is.
    if place < config.test_fraction:
        return "test"
    return "validation" if place < config.test_fraction + config.validation_fraction else "train"


def split_documents(name: str, stream: Readable, max_bytes: int = MAX_DOCUMENT_BYTES) -> Iterator[Document]:
    """UTF-8 as documents of at most `max_bytes`, named `name`, then, after the first, `name@offset` in bytes."""
    offset = 0
    for data in split_bytes(stream, max_bytes):
        yield Document(f"{name}@{offset}" if offset else name, data.decode("utf-8", "surrogatepass"))
        offset += len(data)


def split_bytes(stream: Readable, max_bytes: int = MAX_DOCUMENT_BYTES) -> Iterator[bytes]:
    """Split UTF-8 bytes into pieces of at most `max_bytes`, each at least half as large but for the last.

    A piece ends at a blank line if there is one in its second half, else at a newline, else between two characters.
    """
    rest = b""
    while block := stream.read(max_bytes):
        rest += block
        while len(rest) > max_bytes:
            end = _boundary(rest, max_bytes)
            yield rest[:end]
            rest = rest[end:]
    if rest:
        yield rest


def _boundary(data: bytes, limit: int) -> int:
    half = limit // 2
    for match in reversed(list(_BLANK_LINE.finditer(data, half, limit))):
        return match.end()
    if newline := data.rfind(b"\n", half, limit) + 1:
        return newline
    # A character has at most three continuation bytes (0b10xxxxxx); four in a row are invalid wherever we split.
    return next((end for end in range(limit, limit - 4, -1) if data[end] & 0xC0 != 0x80), limit)

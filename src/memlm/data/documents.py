"""Documents: pieces of text that belong together, where long ones are split, and which split each belongs to."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple, Protocol, TypeVar

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


class _Sized(Protocol):
    @property
    def num_bytes(self) -> int: ...


Item = TypeVar("Item", bound=_Sized)


def in_batches(items: Iterable[Item], num_bytes: int) -> Iterator[list[Item]]:
    """Items in order, each batch as few as have so many bytes together; the last may have fewer."""
    batch, size = list[Item](), 0
    for item in items:
        batch.append(item)
        size += item.num_bytes
        if size >= num_bytes:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


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
    place = place_of(document)
    # The test split comes first, so that another validation_fraction leaves it as it is.
    if place < config.test_fraction:
        return "test"
    return "validation" if place < config.test_fraction + config.validation_fraction else "train"


def place_of(document: Document) -> float:
    """Where a document stands among all there could be, from 0 to 1, by the hash of its text."""
    digest = hashlib.sha256(document.text.encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_document(document: Document, max_bytes: int) -> list[Document]:
    """A text as documents of at most `max_bytes`, named by their numbers: `name/0`."""
    pieces = split_bytes([document.text.encode("utf-8", "surrogatepass")], max_bytes)
    return [document._replace(name=f"{document.name}/{i}", text=_decoded(piece)) for i, piece in enumerate(pieces)]


def split_blocks(name: str, blocks: Iterable[bytes]) -> Iterator[Document]:
    """UTF-8, block by block, as documents of at most `MAX_DOCUMENT_BYTES`: `name`, then `name@offset` in bytes."""
    offset = 0
    for data in split_bytes(blocks):
        yield Document(f"{name}@{offset}" if offset else name, _decoded(data))
        offset += len(data)


def split_bytes(blocks: Iterable[bytes], max_bytes: int = MAX_DOCUMENT_BYTES) -> Iterator[bytes]:
    """Split UTF-8, given in blocks, into pieces of at most `max_bytes`, each at least half as large but for the last.

    A piece ends at a blank line if there is one in its second half, else at a newline, else between two characters.
    """
    rest = b""
    for block in blocks:
        rest, start = rest + block, 0
        while len(rest) - start > max_bytes:
            end = _boundary(rest, start, max_bytes)
            yield rest[start:end]
            start = end
        rest = rest[start:]
    if rest:
        yield rest


def _boundary(data: bytes, start: int, max_bytes: int) -> int:
    """Where the piece ends that begins at `start`."""
    half, limit = start + max_bytes // 2, start + max_bytes
    for match in reversed(list(_BLANK_LINE.finditer(data, half, limit))):
        return match.end()
    if newline := data.rfind(b"\n", half, limit) + 1:
        return newline
    # A character has at most three continuation bytes (0b10xxxxxx); four in a row are invalid wherever we split.
    return next((end for end in range(limit, limit - 4, -1) if data[end] & 0xC0 != 0x80), limit)


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")

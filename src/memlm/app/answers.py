"""A question about a book: answered by a language model that reads its memories, and by the same one with the text."""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from threading import Event
from typing import Any

from transformers import DynamicCache

from memlm.app.book import Book
from memlm.app.explorer import Explorer
from memlm.app.jobs import StoppedError
from memlm.text.memory import Memory
from memlm.text.memory_reader import TextMemoryReader

MOST_NEW_TOKENS = 80
EXPAND = 400
"""Tokens of the past that are read as text besides: of the chunks that matter to the question."""
_ROOM = MOST_NEW_TOKENS + EXPAND + 256


@dataclass
class Answer:
    """What is known of an answer while it is written."""

    text: str = ""
    seconds: float = 0.0
    first_seconds: float | None = None
    """Until the first token; the text's tokens and the memories' decoding are counted in."""
    positions: int = 0
    """Of the language model, when the answer begins."""
    cache_bytes: int = 0
    """Of its keys and values, when the answer begins."""
    done: bool = False
    failed: str = ""


@dataclass
class Answers:
    """Both of them."""

    memory: Answer
    text: Answer
    chunks: int = 0
    """That both read."""
    ratio: int = 0
    """Tokens of the past that share a position."""


def ask(
    explorer: Explorer, book: Book, question: str, chunks: int, ratio: int | None, told: Answers, stop: Event
) -> None:
    """Answer twice, and tell what is known as soon as it is.

    Of a book with more chunks, those are read that share most with the question.

    Raises:
        ValueError: there is no reader, or it reads another encoder's memories; there is no question.
        StoppedError: it was told to stop.
    """
    if not question.strip():
        raise ValueError("there is no question: write one, for example about a name in the book")
    with explorer.reading:
        reader = explorer.reader()
        _require_own(reader, book)
        if stop.is_set():
            raise StoppedError
        numbers = _chosen(book, question, chunks)
        told.chunks = len(numbers)
        text = "".join(book.texts[number] for number in numbers)
        memory = _one_text(book, numbers)

        def from_memory(cache: Any) -> Generator[str]:
            pasts = reader.pasts(memory)
            told.ratio = reader.fitting_ratio(pasts, _ROOM) if ratio is None else ratio
            options: dict[str, Any] = {"ratio": told.ratio, "expand": EXPAND, "past_key_values": cache}
            return reader.stream_chat(pasts, question, max_new_tokens=MOST_NEW_TOKENS, **options)

        def from_text(cache: Any) -> Generator[str]:
            message = f"{text}\n\n{question}"
            return reader.stream_chat(None, message, max_new_tokens=MOST_NEW_TOKENS, past_key_values=cache)

        _written(from_memory, told.memory, stop)
        with reader.without_memory():
            _written(from_text, told.text, stop)


def _written(write: Callable[[Any], Generator[str]], answer: Answer, stop: Event) -> None:
    """Write an answer; one that cannot be written says why."""
    begin, cache = time.monotonic(), DynamicCache()
    try:
        pieces = write(cache)
        for piece in pieces:
            answer.seconds = time.monotonic() - begin
            if answer.first_seconds is None:
                answer.first_seconds, answer.positions = answer.seconds, int(cache.get_seq_length())
                answer.cache_bytes = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
            answer.text += piece
            if stop.is_set():
                pieces.close()
                raise StoppedError
    except ValueError as error:
        answer.failed = str(error)
    answer.seconds, answer.done = time.monotonic() - begin, True


def _chosen(book: Book, question: str, most: int) -> list[int]:
    """The chunks that are read, in their order."""
    if len(book.texts) <= most:
        return [*range(len(book.texts))]
    best = book.best(question, most)
    rest = (number for number in range(len(book.texts)) if number not in best)
    return sorted([*best, *rest][:most])


def _one_text(book: Book, numbers: list[int]) -> Memory:
    """The memories of chunks, as one text's; those that are stored as text have none."""
    whole = Memory.concat([book.notes.memories(number, number + 1) for number in numbers])
    return replace(whole, num_chunks=(len(whole.vectors),))


def _require_own(reader: TextMemoryReader, book: Book) -> None:
    ours, theirs = reader.encoder.encoder_fingerprint, book.notes.about.fingerprint
    if ours != theirs:
        raise ValueError(
            f"this reader reads memories of encoder {ours}, and these are of {theirs}: start memlm app with --reader "
            "FOLDER, the folder model that memlm adapt --encoder makes for this encoder"
        )

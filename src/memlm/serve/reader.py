"""A language model that is served: it answers messages, and reads memories for that."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from memlm.serve.errors import ApiError
from memlm.serve.model import ServedModel
from memlm.serve.requests import ChatRequest, Memories
from memlm.text.memory import Memory
from memlm.text.memory_reader import TextMemoryReader


class Finish(NamedTuple):
    """The end of an answer."""

    reason: Literal["stop", "length"]
    prompt_tokens: int
    """Of the messages."""
    completion_tokens: int
    memory_tokens: int
    """That the memories hold."""


class ServedReader:
    """A reader by the name that clients call it."""

    def __init__(self, name: str, reader: TextMemoryReader) -> None:
        self.name, self.reader = name, reader
        self._encoder = ServedModel(name, reader.encoder)

    def card(self, created: int) -> dict[str, Any]:
        """What `/v1/models` says."""
        about = {"reads": self.reader.encoder.encoder_fingerprint, "language_model": self.reader.config.decoder.name}
        return {"id": self.name, "object": "model", "created": created, "owned_by": "memlm"} | about

    def write(self, asked: ChatRequest) -> Iterator[str | Finish]:
        """Pieces of an answer, and its end.

        Raises:
            ApiError: the memories are none, or another encoder's; or there is nothing to answer, or it all is longer
                than the model's context.
        """
        memory = None if asked.memories is None else self._memory(asked.memories)
        messages = [message.to_dict() for message in asked.messages]
        written = 0

        def count(tokens: Tensor, _: Any, **__: Any) -> Tensor:
            nonlocal written
            written += 1
            return torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)

        if asked.seed is not None:
            torch.manual_seed(asked.seed)
        sampling = {"do_sample": True, "temperature": asked.temperature, "top_p": asked.top_p or 1.0}
        options = {"max_new_tokens": asked.most_tokens, **(sampling if asked.temperature else {})}
        try:
            pasts = None if memory is None else self.reader.pasts(memory)
            ratio = self.reader.fitting_ratio(pasts) if asked.ratio is None else asked.ratio
            reading = {"ratio": ratio, "expand": asked.expand, "stopping_criteria": [count]}
            pieces = self.reader.stream_chat(pasts, messages, **reading, **options)
            stopped = yield from until(pieces, asked.stops)
            counts = self._tokens(messages), written, 0 if memory is None else int(memory.num_tokens.sum())
        except ValueError as error:
            raise ApiError(HTTPStatus.BAD_REQUEST, str(error), param="messages") from None
        yield Finish("length" if written >= asked.most_tokens and not stopped else "stop", *counts)

    def _memory(self, given: Memories) -> Memory | None:
        """One text's, of the chunks of all; None of no chunks."""
        memory = self._encoder.memory(given.data, given.encoder)
        return replace(memory, num_chunks=(len(memory.vectors),)) if len(memory.vectors) else None

    def _tokens(self, messages: Sequence[dict[str, str]]) -> int:
        return sum(map(len, self.reader.model_tokenizer.encode_batch([message["content"] for message in messages])))


def until(pieces: Iterator[str], stops: Sequence[str]) -> Generator[str, None, bool]:
    """Pieces of a text as far as the first of some texts in it; returns whether there was one."""
    held = ""
    for piece in pieces:
        held += piece
        if found := [place for stop in stops if (place := held.find(stop)) >= 0]:
            yield held[: min(found)]
            return True
        # As much as a stop may begin with is held back.
        keep = max((size for stop in stops for size in range(1, len(stop)) if held.endswith(stop[:size])), default=0)
        sure, held = held[: len(held) - keep], held[len(held) - keep :]
        if sure:
            yield sure
    if held:
        yield held
    return False

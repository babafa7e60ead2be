"""A language model that is served: it answers messages, and reads memories for that."""

from collections.abc import Callable, Generator, Iterator, Sequence
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

_TEMPLATE_TOKENS = 128
"""Room for what a chat template writes around messages."""


class Finish(NamedTuple):
    """The end of an answer."""

    reason: Literal["stop", "length"]
    prompt_tokens: int
    """Of the messages."""
    completion_tokens: int
    memory_tokens: int
    """Of what the memories give back; all are the language model's tokens."""


class ServedReader:
    """A reader by the name that clients call it."""

    def __init__(self, name: str, reader: TextMemoryReader) -> None:
        self.name, self.reader = name, reader
        self._encoder = ServedModel(name, reader.encoder)

    def card(self, created: int) -> dict[str, Any]:
        """What `/v1/models` says."""
        about = {"reads": self.reader.encoder.encoder_fingerprint, "language_model": self.reader.config.decoder.name}
        return {"id": self.name, "object": "model", "created": created, "owned_by": "memlm"} | about

    def write(self, asked: ChatRequest, is_left: Callable[[], bool]) -> Iterator[str | Finish]:
        """Pieces of an answer, and its end; no more of it is written once `is_left`.

        Raises:
            ApiError: the memories are none, or another encoder's; or there is nothing to answer, or it all is longer
                than the model's context.
        """
        memory = None if asked.memories is None else self._memory(asked.memories)
        messages = [message.to_dict() for message in asked.messages]
        watch = _Watch(is_left)
        if asked.seed is not None:
            torch.manual_seed(asked.seed)
        sampling = {"do_sample": True, "temperature": asked.temperature, "top_p": asked.top_p or 1.0, "top_k": 0}
        try:
            tokens = self.reader.model_tokenizer.encode_batch([message["content"] for message in messages])
            prompt_tokens = sum(map(len, tokens))
            pasts = [] if memory is None else self.reader.pasts(memory)
            room = prompt_tokens + asked.most_tokens + asked.expand + _TEMPLATE_TOKENS
            pieces = self.reader.stream_chat(
                pasts or None,
                messages,
                ratio=self.reader.fitting_ratio(pasts, room) if asked.ratio is None else asked.ratio,
                expand=asked.expand,
                max_new_tokens=asked.most_tokens,
                stopping_criteria=[watch],
                **(sampling if asked.temperature else {}),
            )
            stopped = yield from until(pieces, asked.stops)
        except ValueError as error:
            raise ApiError(HTTPStatus.BAD_REQUEST, str(error), param="messages") from None
        pieces.close()  # before its tokens are counted, no more are written
        ends = self.reader.hf_tokenizer.all_special_ids
        complete = stopped or len(watch.tokens) < asked.most_tokens or watch.tokens[-1] in ends
        yield Finish(
            reason="stop" if complete else "length",
            prompt_tokens=prompt_tokens,
            completion_tokens=len(watch.tokens),
            memory_tokens=sum(len(past.tokens) for past in pasts),
        )

    def _memory(self, given: Memories) -> Memory | None:
        """One text's, of the chunks of all; None of no chunks."""
        try:
            memory = self._encoder.memory(given.data, given.encoder)
        except ApiError as error:
            error.param = "memories"
            raise
        return replace(memory, num_chunks=(len(memory.vectors),)) if len(memory.vectors) else None


class _Watch:
    """Sees the tokens of an answer as they are written, and ends it where nobody reads it."""

    def __init__(self, is_left: Callable[[], bool]) -> None:
        self._is_left, self.tokens = is_left, list[int]()

    def __call__(self, tokens: Tensor, scores: Any, **options: Any) -> Tensor:
        """One of transformers' stopping criteria."""
        self.tokens = tokens[0].tolist()
        return torch.full((len(tokens),), self._is_left(), device=tokens.device)


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

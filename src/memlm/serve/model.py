"""A model that is served: what a request means for it, and the work of a batch."""

import base64
import binascii
import itertools
from collections.abc import Iterator, Sequence, Sized
from http import HTTPStatus
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float

from memlm.serve.errors import ApiError
from memlm.serve.requests import Input, TextMemory
from memlm.text.autoencoder import TextAutoencoder
from memlm.text.memory import Memory, Regenerated

Tokens = Sequence[int]
Text = str | Tokens
Embeddings = Float[np.ndarray, "text dim"]
Rows = TypeVar("Rows", Memory, Embeddings, list[Tokens])


class ServedModel:
    """An autoencoder by the name that clients call it."""

    def __init__(self, name: str, model: TextAutoencoder) -> None:
        self.name, self.model, self.shape = name, model, model.config.shape

    @property
    def dimensions(self) -> int:
        """Of an embedding: of all slots together."""
        return self.shape.num_slots * self.model.config.vector_dim

    def card(self, created: int) -> dict[str, Any]:
        """What `/v1/models` says."""
        about = {"dimensions": self.dimensions, "chunk_len": self.shape.chunk_len}
        known = {"id": self.name, "object": "model", "created": created, "owned_by": "memlm"}
        return known | about | {"encoder": self.model.encoder_fingerprint}

    # --- what a request means ----------------------------------------------------------------------------------------

    def texts(self, given: Input, most: int) -> list[Text]:
        """The texts of a request.

        Raises:
            ApiError: there is none, or more than `most`; there is no such token, or a text is not valid Unicode.
        """
        listed: list[Any] = given if isinstance(given, list) and not _is_tokens(given) else [given]
        if not 0 < len(listed) <= most:
            raise ApiError(
                HTTPStatus.BAD_REQUEST, f"input has {len(listed)} texts; it may have 1 to {most}", param="input"
            )
        try:
            self.model.tokenizer.require_tokens(text for text in listed if not isinstance(text, str))
        except ValueError as error:
            raise ApiError(HTTPStatus.BAD_REQUEST, f"input: {error}", param="input") from None
        return listed

    def tokens(self, texts: Sequence[Text]) -> list[Tokens]:
        """The tokens of each text."""
        encoded: Iterator[Any] = iter(
            self.model.tokenizer.encode_batch([text for text in texts if isinstance(text, str)])
        )
        return [next(encoded) if isinstance(text, str) else text for text in texts]

    def count(self, texts: Sequence[str]) -> int:
        """The tokens of texts."""
        return sum(map(len, self.model.tokenizer.encode_batch(texts)))

    def chunks(self, texts: Sequence[Tokens]) -> int:
        """How many there are of these texts."""
        return sum(-(-len(tokens) // self.shape.chunk_len) for tokens in texts)

    def memory(self, given: Sequence[TextMemory], encoder: str) -> Memory:
        """The memories of a request.

        Raises:
            ApiError: they are none, or another encoder's; says what is wrong.
        """
        if not given:
            raise ApiError(HTTPStatus.BAD_REQUEST, "data has no memories", param="data")
        parts = []
        for place, each in enumerate(given):
            try:
                part = self._memory(each, encoder)
                self.model.readable(part)
            except (ValueError, binascii.Error) as error:
                raise ApiError(HTTPStatus.BAD_REQUEST, f"data {place}: {error}", param="data") from None
            parts.append(part)
        return Memory.concat(parts)

    def _memory(self, given: TextMemory, encoder: str) -> Memory:
        data = base64.b64decode(given.vectors, validate=True)
        chunks, slots, dim = given.shape
        if len(data) != 4 * chunks * slots * dim:
            raise ValueError(f"vectors are {len(data)} bytes; shape {given.shape} asks for {4 * chunks * slots * dim}")
        lengths = given.num_tokens
        if lengths is None:
            if not self.model.holds_length:
                raise ValueError(f"the memories of {self.name} do not hold their length: give num_tokens")
            lengths = [self.shape.chunk_len] * chunks
        vectors = np.frombuffer(data, "<f4").astype(np.float32).reshape(given.shape)
        return Memory(
            vectors=torch.from_numpy(vectors),
            num_tokens=torch.tensor(lengths, dtype=torch.int64),
            num_chunks=(chunks,),
            encoder=encoder,
            search_dim=self.model.config.search_dim if dim == self.model.config.vector_dim else 0,
        )

    # --- the work of a batch -----------------------------------------------------------------------------------------

    def embed(self, jobs: Sequence[Sequence[Text]]) -> list[tuple[Embeddings, int] | ApiError]:
        """One vector of length 1 for each text of each job, and the number of tokens; or why a job has none."""
        tokens = _split(self.tokens([*itertools.chain(*jobs)]), jobs)
        flaws = [self._no_embedding(texts) for texts in tokens]
        good = [texts for texts, flaw in zip(tokens, flaws, strict=True) if not flaw]
        vectors = self.model.encode_tokens(itertools.chain(*good)).numpy().reshape(-1, self.dimensions)
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        embedded = iter(_split(vectors, good))
        return [flaw or (next(embedded), sum(map(len, texts))) for texts, flaw in zip(tokens, flaws, strict=True)]

    def encode(self, jobs: Sequence[Sequence[Tokens]]) -> list[Memory]:
        """The memories of the texts of each job."""
        return self._encode(jobs, verify=False)

    def encode_verified(self, jobs: Sequence[Sequence[Tokens]]) -> list[Memory]:
        """The same, compared with what they give back."""
        return self._encode(jobs, verify=True)

    def regenerate(self, jobs: Sequence[Memory]) -> list[list[Regenerated]]:
        """The texts of the memories of each job."""
        texts = iter(self.model.regenerate(Memory.concat(jobs)))
        return [[*itertools.islice(texts, len(job))] for job in jobs]

    def _encode(self, jobs: Sequence[Sequence[Tokens]], *, verify: bool) -> list[Memory]:
        return _split(self.model.encode_tokens(itertools.chain(*jobs), verify=verify), jobs)

    def _no_embedding(self, texts: Sequence[Tokens]) -> ApiError | None:
        """Why one of these texts has none: it is empty, or has several memories."""
        most = self.shape.chunk_len
        for place, tokens in enumerate(texts):
            if not len(tokens):
                return ApiError(HTTPStatus.BAD_REQUEST, f"input {place} is empty", param="input")
            if len(tokens) > most:
                why = (
                    f"input {place} has {len(tokens)} tokens; an embedding of {self.name} holds at most {most}. Send "
                    f"shorter texts, or POST /v1/memories, which gives one memory for each {most} tokens"
                )
                return ApiError(HTTPStatus.BAD_REQUEST, why, param="input", code="context_length_exceeded")
        return None


def _split(rows: Rows, jobs: Sequence[Sized]) -> list[Rows]:
    """What is one for each part of each job, job by job."""
    ends = [0, *itertools.accumulate(map(len, jobs))]
    return [rows[start:end] for start, end in itertools.pairwise(ends)]


def _is_tokens(given: Sequence[Any]) -> bool:
    return bool(given) and isinstance(given[0], int)

"""A tokenizer and a memory model as one: text → memories; memories and a prompt → more text."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from memlm.config import MemoryModelConfig
from memlm.data.chunks import split_into_chunks
from memlm.data.corpus import Document
from memlm.data.token_store import TokenSplit, tokenize_documents
from memlm.data.tokenizer import Tokenizer
from memlm.data.windows import all_windows
from memlm.evaluation.checked import exactness, fill_pieces
from memlm.evaluation.metrics import measures, score
from memlm.evaluation.prediction import predict, prediction_measures
from memlm.models.memory_model import MemoryModel, Regenerator
from memlm.nn.insertion import Memories
from memlm.nn.pointer import Recalled
from memlm.runtime.progress import track
from memlm.runtime.results import Provenance, Result
from memlm.text.memory import Memory
from memlm.text.model import TextModel, as_texts, check_table, require_own

WINDOW_CHUNKS = 4
"""Chunks of an evaluation window, unless the model's training had others."""


class TextMemoryModel(TextModel[MemoryModel, MemoryModelConfig]):
    """Reads past text as one memory a chunk, and goes on from there.

    ```python
    model = TextMemoryModel.from_pretrained("runs/memory/model")
    model.generate("Fellow citizens", past=address, max_new_tokens=100, do_sample=True)
    ```
    """

    kind = "memory_model"
    model_class = MemoryModel
    tables = ("unconditional",)

    def __init__(
        self,
        model: MemoryModel,
        tokenizer: Tokenizer,
        unconditional: Float[Tensor, " vocab"],
        provenance: dict[str, Any],
    ) -> None:
        """`unconditional` are a reader's log-probabilities, in nats, without a memory (`unconditional_log_probs`)."""
        super().__init__(model, tokenizer, provenance)
        self.unconditional = check_table(unconditional, self.config.vocab_size)

    @property
    def encoder_fingerprint(self) -> str:
        """A short hash of the encoder's weights and configuration; empty without one."""
        return self.model.encoder.fingerprint(self.tokenizer.fingerprint) if self.model.encoder else ""

    @torch.no_grad()
    def generate(
        self,
        prompt: str,
        *,
        past: str | Memory = "",
        max_new_tokens: int = 100,
        streamer: Any = None,
        **options: Any,
    ) -> str:
        """Go on from a prompt, with the text before it as memories.

        What is written becomes memories too, chunk by chunk, so that there is no end to how much may be.

        Args:
            prompt: text to go on from; its whole chunks become memories as well.
            past: text before it; or its memories (`MemoryFile.memories`, `TextAutoencoder.encode`), if the encoder that
                this model was trained with made them.
            max_new_tokens: how many tokens to write.
            streamer: a transformers streamer, which hears of every token as it is written.
            options: as transformers' `generate` takes them (do_sample, temperature, top_p, eos_token_id,
                stopping_criteria, ...); what counts tokens or looks back knows the current chunk alone.

        Raises:
            ValueError: `max_new_tokens` is not positive; another encoder made the memories.
        """
        made, before = (past, "") if isinstance(past, Memory) else (None, past)
        if made is not None:
            require_own(made, self.encoder_fingerprint)
        tokens = torch.from_numpy(np.concatenate([self.tokenizer.encode(text) for text in (before, prompt)])).long()
        written = generate(self.model, tokens, made, max_new_tokens=max_new_tokens, streamer=streamer, **options)
        return self.tokenizer.decode(written.tolist())

    def evaluate(self, texts: Sequence[str], *, name: str = "texts", quiet: bool = True) -> Result:
        """Measure what next tokens cost, given the memories of the text before, and what memories give back.

        Each text is a document: a unit of the bootstrap.

        Raises:
            ValueError: no text is longer than a chunk.
        """
        documents = (Document(f"text {i}", text, None) for i, text in enumerate(as_texts(texts)) if text)
        return self.evaluate_split(tokenize_documents(self.tokenizer, documents), name=name, quiet=quiet)

    def evaluate_split(
        self, split: TokenSplit, *, name: str, window_chunks: int | None = None, quiet: bool = True
    ) -> Result:
        """`evaluate`, for documents already tokenized by this model's tokenizer."""
        shape = self.config.shape
        longest = int(np.diff(split.document_starts).max(initial=0))
        if longest <= shape.chunk_len:
            raise ValueError(f"no text is longer than a chunk of {shape.chunk_len} tokens; the longest has {longest}")
        recipe = self.provenance.get("recipe", {})
        num_chunks = window_chunks or recipe.get("window_chunks", WINDOW_CHUNKS)
        windows = all_windows(split_into_chunks(split, shape.chunk_len), num_chunks)
        total = int(windows.mask.sum())
        with track(f"Predicting {name}", total=total, unit="tokens", quiet=quiet) as advance:
            prediction = predict(self.model, windows, shape.vocab_size, device=self.device, advance=advance)
        values, intervals = prediction_measures(prediction)
        if self.model.encoder is not None:
            values["retention"] = self.evaluate_retention(split, name=name, quiet=quiet).to_dict()
        values |= {
            "chunk_len": shape.chunk_len,
            "memory_dim": shape.memory_dim,
            "num_slots": shape.num_slots,
            "window_chunks": num_chunks,
            "decoder_positions_per_chunk": self.model.decoder_positions_per_chunk,
        }
        made_by = Provenance.here(model=self.provenance, encoder=self.encoder_fingerprint)
        return Result(name=name, measures=values, intervals=intervals, provenance=made_by)

    def evaluate_retention(self, split: TokenSplit, *, name: str, quiet: bool = True) -> Result:
        """How much of each chunk the decoder regenerates from its memory; one not trained to will do badly."""
        shape, chunks = self.config.shape, split_into_chunks(split, self.config.shape.chunk_len)
        total = int(chunks.mask.sum())
        regenerator = Regenerator(self.model)
        with track(f"Regenerating {name}", total=total, unit="tokens", quiet=quiet) as advance:
            scores = score(regenerator, chunks, shape.vocab_size, device=self.device, advance=advance)
        pieces = fill_pieces(split, shape.chunk_len)
        by_fill = {
            fill: score(regenerator, some, shape.vocab_size, device=self.device) for fill, some in pieces.items()
        }
        values, intervals = measures(
            scores,
            -self.unconditional.numpy()[chunks.tokens],
            np.asarray(split.document_bytes),
            vocab_size=shape.vocab_size,
            memory_dims=shape.num_slots * shape.memory_dim,
        )
        values |= exactness({fill: np.all(found.correct, axis=1) for fill, found in by_fill.items()})
        return Result(name=name, measures=values, intervals=intervals)


@torch.no_grad()
def generate(
    model: MemoryModel,
    tokens: Tensor,
    made: Memory | None = None,
    *,
    max_new_tokens: int,
    streamer: Any = None,
    **options: Any,
) -> Tensor:
    """New tokens [token] after these [token]: whole chunks as memories, the rest as a prefix of the current chunk;
    before them, memories that were made elsewhere.

    Within a chunk this is transformers' own `generate`, with its cache; a chunk that is complete becomes a memory.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be positive, not {max_new_tokens}")
    device, chunk_len = next(model.parameters()).device, model.config.shape.chunk_len
    whole = len(tokens) // chunk_len * chunk_len
    past = _remember(model, tokens[:whole].to(device))
    if made is not None:
        past = _given(model, made).followed_by(past, model.config.max_memories)
    current, written = tokens[whole:].to(device), tokens[:0].to(device)
    while len(written) < max_new_tokens:
        room = min(chunk_len - len(current), max_new_tokens - len(written))
        new = _within_chunk(model, past, current, room, _Unending(streamer) if streamer else None, options)
        current, written = torch.cat([current, new]), torch.cat([written, new])
        if len(new) < room or _is_end(model, new[-1:], options):
            break
        if len(current) == chunk_len:
            past = past.followed_by(_remember(model, current), model.config.max_memories)
            current = current[:0]
    if streamer:
        streamer.end()
    return written.cpu()


class _Past(NamedTuple):
    """Chunks that were read, the latest last, of one row."""

    memory: Memories
    recalled: Recalled

    def followed_by(self, later: "_Past", most: int) -> "_Past":
        """At most so many of these and later chunks."""
        memory = torch.cat([self.memory, later.memory], dim=1)[:, -most:]
        parts = zip(self.recalled, later.recalled, strict=True)
        return _Past(memory, Recalled(*(torch.cat(both, dim=1)[:, -most:] for both in parts)))


def _remember(model: MemoryModel, tokens: Tensor) -> _Past:
    """Whole chunks [token] as memories; none in a model without an encoder."""
    shape = model.config.shape
    chunks = tokens.view(1, -1, shape.chunk_len)[:, -model.config.max_memories :]
    if model.encoder is None or len(tokens) == 0:
        memory = model.start.new_zeros(1, 0, shape.num_slots, shape.memory_dim)
    else:
        memory = model.encode(chunks, torch.ones_like(chunks, dtype=torch.bool))
    return _Past(memory, model.recall(memory))


def _given(model: MemoryModel, made: Memory) -> _Past:
    """Memories from elsewhere, those of them that are read; their chunks need not be full."""
    read = slice(max(0, len(made.vectors) - model.config.max_memories), None)
    memory = made.vectors[None, read].to(model.start)
    return _Past(memory, model.recall(memory, made.num_tokens[None, read].to(memory.device)))


def _is_end(model: MemoryModel, last: Tensor, options: dict[str, Any]) -> bool:
    """Whether text ends with this token [1]: where it fills a chunk, that it was the last does not show."""
    ends = options.get("eos_token_id", model.decoder.generation_config.eos_token_id)
    return ends is not None and bool(torch.isin(last, torch.as_tensor(ends, device=last.device)))


def _within_chunk(
    model: MemoryModel, past: _Past, current: Tensor, room: int, streamer: Any, options: dict[str, Any]
) -> Tensor:
    """At most `room` new tokens of the current chunk."""
    present = torch.ones(past.memory.shape[:2], dtype=torch.bool, device=past.memory.device)
    inputs, context = model.read(current[None], past.memory, present, past.recalled)
    inputs = torch.cat([context.prefix, inputs], dim=1)
    with model.pointing(past.recalled, present):
        return model.decoder.generate(
            inputs_embeds=inputs,
            attention_mask=torch.ones(inputs.shape[:2], dtype=torch.long, device=inputs.device),
            max_new_tokens=room,
            streamer=streamer,
            **context.crossed,
            **options,
        )[0]


class _Unending:
    """A streamer for one chunk of several: only the last chunk's end is the end."""

    def __init__(self, streamer: Any) -> None:
        self.streamer = streamer

    def put(self, value: Tensor) -> None:
        if value.numel():  # transformers puts the prompt first, which is embeddings here, and so nothing
            self.streamer.put(value)

    def end(self) -> None:
        pass

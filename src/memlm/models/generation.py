"""Text without end from a memory model: transformers' `generate` within a chunk; complete chunks become memories."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from memlm.models.memory_model import MemoryModel
from memlm.nn.insertion import Memories
from memlm.nn.pointer import PastTokens
from memlm.nn.pooling import MemoryVectors


@torch.no_grad()
def generate(
    model: MemoryModel,
    tokens: Int[Tensor, " token"],
    earlier: tuple[MemoryVectors, Int[Tensor, " chunk"]] | None = None,
    *,
    max_new_tokens: int,
    pointed_memories: int | None = None,
    streamer: Any = None,
    **options: Any,
) -> Int[Tensor, " new_token"]:
    """Generate tokens; whole chunks of the prompt are read as memories, the rest as the start of the current chunk.

    The model is in evaluation mode; `earlier` are memories of the text before the prompt, and the number of tokens of
    each chunk; `streamer` and `options` are transformers'. A pointer looks at the latest `pointed_memories`, by default
    at those that the decoder reads, as in training; more cost memory, and no decoder positions.

    Raises:
        ValueError: `max_new_tokens` is not positive; `pointed_memories` are fewer than the decoder reads, or the model
            has no pointer.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be positive, not {max_new_tokens}")
    most = _most(model, pointed_memories)
    device, chunk_len = model.start.device, model.config.shape.chunk_len
    whole = len(tokens) // chunk_len * chunk_len
    past = _Past.of_tokens(model, tokens[:0].to(device), most)
    if earlier is not None:
        past = past.followed_by(model, _Past.of_memories(model, *earlier, most), most)
    past = past.followed_by(model, _Past.of_tokens(model, tokens[:whole].to(device), most), most)
    current, written = tokens[whole:].to(device), tokens[:0].to(device)
    while len(written) < max_new_tokens:
        room = min(chunk_len - len(current), max_new_tokens - len(written))
        new = _within_chunk(model, past, current, room, _Unending(streamer) if streamer else None, options)
        current, written = torch.cat([current, new]), torch.cat([written, new])
        if len(new) < room or _is_end(model, new[-1:], options):
            break
        if len(current) == chunk_len:
            past = past.followed_by(model, _Past.of_tokens(model, current, most), most)
            current = current[:0]
    if streamer:
        streamer.end()
    return written.cpu()


def _most(model: MemoryModel, pointed: int | None) -> int:
    """How many memories are kept."""
    read = model.config.max_memories
    if pointed is None:
        return read
    if model.pointer is None:
        raise ValueError("pointed_memories is of a model with a pointer, and this one has none: leave it out")
    if pointed < read:
        raise ValueError(f"the decoder reads {read} memories, and a pointer at least as many: not {pointed}")
    return pointed


class _Past(NamedTuple):
    """The past chunks of one row, the latest last."""

    memory: Memories
    tokens: PastTokens
    state: Any = None
    """What a recurrent decoder keeps of them, so that it reads each memory once."""

    @classmethod
    def of_tokens(cls, model: MemoryModel, tokens: Tensor, most: int) -> "_Past":
        """Of whole chunks [token], the latest; empty in a model without an encoder."""
        shape = model.config.shape
        chunks = tokens.view(1, -1, shape.chunk_len)[:, -most:]
        if model.encoder is None or len(tokens) == 0:
            memory = model.start.new_zeros(1, 0, shape.num_slots, shape.memory_dim)
        else:
            memory = model.encode(chunks, torch.ones_like(chunks, dtype=torch.bool))
        return cls(memory, model.past_tokens(memory))

    @classmethod
    def of_memories(cls, model: MemoryModel, vectors: MemoryVectors, num_tokens: Tensor, most: int) -> "_Past":
        """Of memories, the latest; their chunks need not be full."""
        read = slice(max(0, len(vectors) - most), None)
        memory = vectors[None, read].to(model.start)
        return cls(memory, model.past_tokens(memory, num_tokens[None, read].to(memory.device)))

    def followed_by(self, model: MemoryModel, later: "_Past", most: int) -> "_Past":
        """These and later chunks, the latest."""
        both, read = torch.cat([self.memory, later.memory], dim=1), model.config.max_memories
        # The first one cannot be taken out of a sum, and all others move to its position: they are read again.
        fits = both.shape[1] <= read
        state = model.remember(later.memory, self.state) if fits else model.remember(both[:, -read:])
        parts = zip(self.tokens, later.tokens, strict=True)
        return _Past(both[:, -most:], PastTokens(*(torch.cat(part, dim=1)[:, -most:] for part in parts)), state)


def _within_chunk(
    model: MemoryModel, past: _Past, current: Tensor, room: int, streamer: Any, options: dict[str, Any]
) -> Tensor:
    """At most `room` new tokens of the current chunk."""
    present = torch.ones(past.memory.shape[:2], dtype=torch.bool, device=past.memory.device)
    inputs, context = model.read(current[None], past.memory, present, past.tokens, past.state)
    context = context if past.state is None else context.without_padding()
    with model.pointing(past.tokens, present):
        return model.decoder.generate(inputs, context, max_new_tokens=room, streamer=streamer, **options)[0]


def _is_end(model: MemoryModel, last: Tensor, options: dict[str, Any]) -> bool:
    """Whether this token [1] ends the text, which cannot be seen from its number where it fills the chunk."""
    ends = options.get("eos_token_id", model.decoder.hf.generation_config.eos_token_id)
    return ends is not None and bool(torch.isin(last, torch.as_tensor(ends, device=last.device)))


class _Unending:
    """A streamer that does not hear of the end of each chunk."""

    def __init__(self, streamer: Any) -> None:
        self.streamer = streamer

    def put(self, value: Tensor) -> None:
        if value.numel():  # transformers puts the prompt first, which is empty: it is embeddings
            self.streamer.put(value)

    def end(self) -> None:
        pass

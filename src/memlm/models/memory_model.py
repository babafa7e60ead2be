"""The memory model: an encoder, and a causal decoder that reads the memories of earlier chunks instead of their tokens.

All chunks of a window are encoded in one batch and decoded in one batch, without a loop or backpropagation through
time.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from memlm import config
from memlm.models.autoencoder import Encoder, Regeneration
from memlm.models.causal_decoder import DECODERS, CausalDecoder
from memlm.nn.insertion import INSERTIONS, Context, Memories, Present
from memlm.nn.linear import fp32, linear
from memlm.nn.mixers import Hidden, Logits
from memlm.nn.pointer import PastTokens, Pointer
from memlm.nn.pooling import MemoryVectors

Term = Literal["causal", "retention", "copy"]
Windows = Int[Tensor, "window chunk token"]
WindowMask = Bool[Tensor, "window chunk token"]
WindowMemory = Float[Tensor, "window chunk slot memory_dim"]
WindowLogits = Float[Tensor, "window chunk token vocab"]


class Predictions(NamedTuple):
    """Logits of each requested term, and the memories."""

    causal: WindowLogits | None
    """Of each token, the first included, from the memories of earlier chunks and the tokens before it in its chunk."""
    retention: WindowLogits | None
    """Of each token, from its chunk's memory alone."""
    copy: WindowLogits | None
    """Of each token, from its chunk's memory and the tokens before it."""
    memory: WindowMemory | None


class MemoryModel(nn.Module):
    """Chunks → memories; memories of earlier chunks, and tokens so far → next tokens."""

    def __init__(self, cfg: config.MemoryModelConfig) -> None:
        super().__init__()
        self.config, shape = cfg, cfg.shape
        self.encoder = Encoder(shape, cfg.encoder, cfg.pooling) if cfg.encoder else None
        crosses = isinstance(cfg.insertion, config.CrossAttention)
        longest = max(cfg.overlap - 1, 0) + shape.chunk_len
        build = partial(DECODERS[type(cfg.decoder)], cfg.decoder, shape.vocab_size, longest if crosses else None)
        # A new decoder's weights are drawn after the insertion's, as in recorded runs; a pretrained one has a width.
        sized: Any = cfg.decoder if isinstance(cfg.decoder, config.DecoderConfig) else build()
        self.insertion = INSERTIONS[type(cfg.insertion)](cfg.insertion, shape, sized.dim, cfg.max_memories)
        self.decoder: CausalDecoder = build() if sized is cfg.decoder else sized
        dim, rms = self.decoder.dim, self.decoder.embedding_rms
        positions = cfg.max_memories * self.decoder_positions_per_chunk + longest
        if positions > self.decoder.max_positions:
            raise ValueError(
                f"the decoder has {self.decoder.max_positions} positions, and max_memories {cfg.max_memories} with a "
                f"chunk of {shape.chunk_len} tokens take {positions}: set a smaller max_memories or chunk_len, or a "
                "larger window of a decoder that has one"
            )
        self.start = nn.Parameter(torch.randn(dim) * rms)
        if not cfg.overlap:
            # Adds a map of the latest memory to the first input; zero at first.
            self.latest = linear(shape.num_slots * shape.memory_dim, dim, gain=0.0)
        self.blanks = nn.Parameter(torch.randn(shape.chunk_len, dim) * rms)
        self.pointer = Pointer(cfg.pointer_span, dim) if cfg.pointer_span else None

    @property
    def decoder_positions_per_chunk(self) -> int:
        """Positions that one past chunk takes in the decoder."""
        return self.insertion.num_positions

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """As for any module, but a pretrained decoder's base stays frozen."""
        super().requires_grad_(requires_grad)
        self.decoder.requires_grad_(requires_grad)
        return self

    def forward(
        self, tokens: Windows, mask: WindowMask, memory: WindowMemory | None = None, *, terms: Collection[Term]
    ) -> Predictions:
        """Predictions for the requested terms, from one pass of the encoder; `memory` is given if that is frozen."""
        num_chunks = tokens.shape[1]
        if memory is None and self.encoder is not None:
            # The last chunk's memory is used for regeneration only.
            needed = num_chunks if {"retention", "copy"} & set(terms) else num_chunks - 1
            memory = self.encode(tokens[:, :needed], mask[:, :needed])
        retention = copy = None
        if "retention" in terms:
            assert memory is not None
            retention = rearrange(self.regenerate(memory.flatten(0, 1)), "(w c) t v -> w c t v", c=num_chunks)
        causal = self._causal(tokens, mask, memory, retention) if "causal" in terms else None
        if "copy" in terms:
            assert memory is not None
            own = rearrange(memory, "w c s m -> (w c) 1 s m")
            present = own.new_ones(own.shape[:2], dtype=torch.bool)
            copy = rearrange(self.predict(tokens.flatten(0, 1), own, present), "(w c) t v -> w c t v", c=num_chunks)
        return Predictions(causal, retention, copy, memory)

    def encode(self, tokens: Windows, mask: WindowMask) -> WindowMemory:
        """The memories of all chunks."""
        assert self.encoder is not None, "a model without an encoder has no memories"
        memory = self.encoder(tokens.flatten(0, 1), mask.flatten(0, 1))
        return rearrange(memory, "(w c) s m -> w c s m", w=len(tokens))

    def regenerate(self, memory: MemoryVectors) -> Logits:
        """Logits [chunk token vocab] of chunks, each from its memory alone (the paper's blank copy)."""
        context, added = self.insertion.regenerating(memory)
        blanks = repeat(self.blanks, "t d -> r t d", r=len(memory))
        inputs = blanks if added is None else blanks + self.decoder.as_inputs(added)
        context = context._replace(prefix=self.decoder.as_inputs(context.prefix))
        return self.decoder.head(self.decoder.states(inputs, context))

    def predict(
        self, tokens: Int[Tensor, "row token"], memory: Memories, present: Present, past: PastTokens | None = None
    ) -> Logits:
        """Logits [row token vocab] of chunks, from the memories of earlier ones, the latest last.

        Of more than `max_memories`, the decoder reads the latest; a pointer looks at all that are given. `past`, if it
        is known, is what `past_tokens` returns for the memories; without a pointer, for the latest.
        """
        past = past or self.past_tokens(memory if self.pointer else memory[:, -1:])
        inputs, context = self.read(tokens[:, :-1], memory, present, past)
        with self.pointing(past, present):
            return self.decoder.head(self.decoder.states(inputs, context))

    def remember(self, memory: Memories, state: Any = None) -> Any:
        """What the decoder keeps of memories that come after those in `state` (`CausalDecoder.remember`)."""
        if not memory.shape[1]:
            return state
        context = self.insertion(memory, memory.new_ones(memory.shape[:2], dtype=torch.bool))
        return self.decoder.remember(self.decoder.as_inputs(context.prefix), state)

    def read(
        self,
        tokens: Int[Tensor, "row token"],
        memory: Memories,
        present: Present,
        past: PastTokens,
        state: Any = None,
    ) -> tuple[Hidden, Context]:
        """The decoder's inputs for the tokens of a chunk, of which there is one more, and their context.

        `state`, if there is one, is what the decoder keeps of all memories, and stands for them.
        """
        unread = slice(-self.config.max_memories, None) if state is None else slice(0)
        context = self.insertion(memory[:, unread], present[:, unread])
        context = context._replace(prefix=self.decoder.as_inputs(context.prefix), state=state)
        start: Tensor = repeat(self.start, "d -> r 1 d", r=len(tokens))
        if memory.shape[1]:
            # The first input takes the position of the last token before the chunk.
            there, overlap = present[:, -1:], self.config.overlap
            if overlap:
                ends = self.decoder.embed(past.tokens[:, -1, -overlap:])
                start = torch.where(there[..., None], ends[:, -1:], start)
                context = context.followed_by(ends[:, :-1], there & past.real[:, -1, -overlap:-1])
            else:
                told = fp32(self.latest, rearrange(memory[:, -1], "r s m -> r 1 (s m)"))
                start = start + told * there[..., None]
        return torch.cat([start, self.decoder.embed(tokens)], dim=1), context

    @contextmanager
    def pointing(self, past: PastTokens, present: Present) -> Iterator[None]:
        """Within this context, the pointer, if there is one, is part of the decoder's logits.

        It is a hook on the decoder's head, so that transformers' `generate` uses it as well.
        """
        if self.pointer is None:
            yield
            return
        pointer = self.pointer
        hook = self.decoder.head.register_forward_hook(
            lambda _, inputs, logits: pointer(inputs[0], logits, past, present)
        )
        try:
            yield
        finally:
            hook.remove()

    @property
    def _reads_past_tokens(self) -> bool:
        return self.config.overlap > 0 or self.pointer is not None

    def past_tokens(self, memory: Memories, num_tokens: Int[Tensor, "row memory"] | None = None) -> PastTokens:
        """Past chunks, regenerated from their memories; empty if the decoder reads no past tokens.

        `num_tokens` is needed for chunks that are not full, since the decoder reads their last tokens.
        """
        if memory.shape[1] == 0 or not self._reads_past_tokens:
            none = memory.new_zeros(len(memory), 0, self.config.shape.chunk_len, self.config.vocab_size)
            return self.as_past_tokens(none)
        with torch.no_grad():
            logits = self.regenerate(memory.flatten(0, 1))
        past = self.as_past_tokens(rearrange(logits, "(r n) t v -> r n t v", r=len(memory)))
        return past if num_tokens is None else past.ending_last(num_tokens)

    def as_past_tokens(self, logits: Float[Tensor, "row memory token vocab"]) -> PastTokens:
        """Past chunks from the logits of their regeneration."""
        tokens = logits.argmax(-1)
        real = torch.ones_like(tokens, dtype=torch.bool)
        if self.pointer is None:
            return PastTokens(tokens, logits.new_zeros(*tokens.shape, 0), real)
        return PastTokens(tokens, self.pointer.keys(self.decoder.embed(tokens)), real)

    def _causal(
        self, tokens: Windows, mask: WindowMask, memory: WindowMemory | None, retention: WindowLogits | None
    ) -> WindowLogits:
        windows, num_chunks = tokens.shape[:2]
        shape = self.config.shape
        if memory is None:
            memory = self.start.new_zeros(windows, 0, shape.num_slots, shape.memory_dim)
        seen = min(self.config.max_memories, memory.shape[1], num_chunks - 1)
        earlier, present = _earlier(memory, mask, num_chunks, seen)
        past = None
        if seen and self._reads_past_tokens:
            # Each chunk is regenerated once; for the retention term it was already.
            before = slice(0, num_chunks - 1)
            once = (
                self.past_tokens(memory[:, before]) if retention is None else self.as_past_tokens(retention[:, before])
            )
            read = seen if self.pointer else 1
            past = PastTokens(*(_earlier(part, mask, num_chunks, read)[0].flatten(0, 1) for part in once))
        logits = self.predict(tokens.flatten(0, 1), earlier.flatten(0, 1), present.flatten(0, 1), past)
        return rearrange(logits, "(w c) t v -> w c t v", c=num_chunks)


class Regenerator(nn.Module):
    """A memory model as an autoencoder: chunk → memory → chunk."""

    def __init__(self, model: MemoryModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, tokens: Int[Tensor, "chunk token"], mask: Bool[Tensor, "chunk token"], memory: MemoryVectors | None = None
    ) -> Regeneration:
        """Regenerate chunks from their memories, which are computed here unless given."""
        given = None if memory is None else memory[:, None]
        made: Predictions = self.model(tokens[:, None], mask[:, None], given, terms=("retention",))
        assert made.retention is not None
        assert made.memory is not None
        return Regeneration(made.retention[:, 0], made.memory[:, 0])


def _earlier(
    part: Shaped[Tensor, "window chunk *part"], mask: WindowMask, num_chunks: int, seen: int
) -> tuple[Shaped[Tensor, "window chunk memory *part"], Bool[Tensor, "window chunk memory"]]:
    """The `seen` memories (or past tokens) before each chunk, the latest last, and which of them exist."""
    if seen == 0:
        shape = (len(part), num_chunks, 0, *part.shape[2:])
        return part.new_zeros(shape), mask.new_zeros(shape[:3])
    before = (0, 0) * (part.ndim - 2) + (seen, 0)
    earlier = F.pad(part[:, : num_chunks - 1], before).unfold(1, seen, 1).movedim(-1, 2)
    present = F.pad(mask[:, : num_chunks - 1].any(-1), (seen, 0)).unfold(1, seen, 1)
    return earlier, present

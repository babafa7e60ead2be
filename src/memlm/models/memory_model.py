"""The memory model: an encoder, and a causal decoder that reads the memories of earlier chunks instead of their tokens.

All chunks of a window are encoded in one batch and decoded in one batch: no loop over chunks, and no backpropagation
through time.
"""

from collections.abc import Collection
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from memlm import config
from memlm.models.autoencoder import Regeneration
from memlm.models.causal_decoder import build_decoder, decode, states
from memlm.models.encoder import Encoder
from memlm.models.parallel_decoder import Logits
from memlm.nn.insertion import Context, Memories, Present, Recalled, build_insertion
from memlm.nn.linear import fp32, linear
from memlm.nn.mixers import Hidden
from memlm.nn.pooling import Memory

Term = Literal["causal", "retention", "copy"]
Windows = Int[Tensor, "window chunk token"]
WindowMask = Bool[Tensor, "window chunk token"]
WindowMemory = Float[Tensor, "window chunk slot memory_dim"]
WindowLogits = Float[Tensor, "window chunk token vocab"]


class Predictions(NamedTuple):
    """Logits for each term that was asked for, and the memories."""

    causal: WindowLogits | None
    """Of each token, from the memories of earlier chunks and the tokens before it in its chunk; of the first, too."""
    retention: WindowLogits | None
    """Of each token, from its chunk's memory alone."""
    copy: WindowLogits | None
    """Of each token, from its chunk's memory and the tokens before it."""
    memory: WindowMemory | None


class MemoryModel(nn.Module):
    """Chunks → memories; memories of earlier chunks, and tokens so far → next tokens."""

    def __init__(self, cfg: config.MemoryModelConfig) -> None:
        super().__init__()
        self.config = cfg
        self.encoder = Encoder(cfg.shape, cfg.encoder, cfg.pooling) if cfg.encoder else None
        self.insertion = build_insertion(cfg)
        crosses = isinstance(cfg.insertion, config.CrossAttention)
        longest = max(cfg.overlap - 1, 0) + cfg.shape.chunk_len if crosses else None
        self.decoder = build_decoder(cfg.decoder, cfg.shape.vocab_size, cross_attention_len=longest)
        self.start = nn.Parameter(torch.randn(cfg.decoder.dim) * 0.35)
        if not cfg.overlap:
            # The start is told of the latest memory directly; silent at first.
            self.latest = linear(cfg.shape.num_slots * cfg.shape.memory_dim, cfg.decoder.dim, gain=0.0)
        self.blanks = nn.Parameter(torch.randn(cfg.shape.chunk_len, cfg.decoder.dim) * 0.35)

    @property
    def decoder_positions_per_chunk(self) -> int:
        """Positions that one past chunk takes in the decoder."""
        return self.insertion.num_positions

    def forward(
        self, tokens: Windows, mask: WindowMask, memory: WindowMemory | None = None, *, terms: Collection[Term]
    ) -> Predictions:
        """Predictions for the asked terms, from one pass of the encoder; `memory` comes along where it is frozen."""
        num_chunks = tokens.shape[1]
        if memory is None and self.encoder is not None:
            # Nobody reads the last chunk's memory but those who regenerate it.
            needed = num_chunks if {"retention", "copy"} & set(terms) else num_chunks - 1
            memory = self.encode(tokens[:, :needed], mask[:, :needed])
        own = rearrange(memory, "w c s m -> (w c) s m") if memory is not None else None
        retention = copy = None
        if "retention" in terms:
            assert own is not None
            retention = rearrange(self.regenerate(own), "(w c) t v -> w c t v", c=num_chunks)
        causal = self._causal(tokens, mask, memory, retention) if "causal" in terms else None
        if "copy" in terms:
            assert own is not None
            present = own.new_ones(len(own), 1, dtype=torch.bool)
            copy = rearrange(
                self.predict(tokens.flatten(0, 1), own[:, None], present), "(w c) t v -> w c t v", c=num_chunks
            )
        return Predictions(causal, retention, copy, memory)

    def encode(self, tokens: Windows, mask: WindowMask) -> WindowMemory:
        """The memories of all chunks."""
        assert self.encoder is not None, "a model without an encoder has no memories"
        memory = self.encoder(tokens.flatten(0, 1), mask.flatten(0, 1))
        return rearrange(memory, "(w c) s m -> w c s m", w=len(tokens))

    def regenerate(self, memory: Memory) -> Logits:
        """Logits [chunk token vocab] of chunks, each from its memory alone (the paper's blank copy)."""
        return self.decoder.get_output_embeddings()(self._regenerated(memory))

    def predict(
        self,
        tokens: Int[Tensor, "row token"],
        memory: Memories,
        present: Present,
        recalled: Recalled | None = None,
    ) -> Logits:
        """Logits [row token vocab] of chunks after the memories of earlier ones, which stand in order, latest last.

        `recalled` is what `recall` gives of the memories, where it is known.
        """
        inputs, context = self.read(tokens[:, :-1], memory, present, recalled)
        return decode(self.decoder, inputs, context)

    def read(
        self,
        tokens: Int[Tensor, "row token"],
        memory: Memories,
        present: Present,
        recalled: Recalled | None = None,
    ) -> tuple[Hidden, Context]:
        """What the decoder reads of a chunk so far, one input more than tokens, and what stands before it."""
        if recalled is None and self._recalls:
            recalled = self.recall(memory if self.insertion.recollects else memory[:, -1:])
        context = self.insertion(memory, present, recalled)
        start: Tensor = repeat(self.start, "d -> r 1 d", r=len(tokens))
        if memory.shape[1]:
            # The chunk's first input stands where the last token before it would.
            there = present[:, -1:]
            if self.config.overlap:
                assert recalled is not None
                ends = recalled[:, -1, -self.config.overlap :]
                start = torch.where(there[..., None], ends[:, -1:], start)
                context = context.followed_by(ends[:, :-1], there)
            else:
                told = fp32(self.latest, rearrange(memory[:, -1], "r s m -> r 1 (s m)"))
                start = start + told * there[..., None]
        return torch.cat([start, self.decoder.get_input_embeddings()(tokens)], dim=1), context

    def recall(self, memory: Memories) -> Recalled:
        """Tokens of chunks as their memories give them back, as expected token embeddings: those that are read."""
        if memory.shape[1] == 0:
            return memory.new_zeros(*memory.shape[:2], self._recalls, self.config.decoder.dim)
        hidden = self._regenerated(memory.flatten(0, 1))[:, -self._recalls :]
        expected = self.expected(self.decoder.get_output_embeddings()(hidden))
        return rearrange(expected, "(r n) t d -> r n t d", r=len(memory))

    @property
    def _recalls(self) -> int:
        """How many of a chunk's last tokens are read as its memory gives them back."""
        return self.config.shape.chunk_len if self.insertion.recollects else self.config.overlap

    def _regenerated(self, memory: Memory) -> Hidden:
        context, added = self.insertion.regenerating(memory)
        blanks = repeat(self.blanks, "t d -> r t d", r=len(memory))
        return states(self.decoder, blanks if added is None else blanks + added, context)

    def expected(self, logits: Float[Tensor, "*row vocab"]) -> Float[Tensor, "*row dim"]:
        """Token embeddings, expected under the probabilities that logits give."""
        return logits.softmax(-1) @ self.decoder.get_input_embeddings().weight

    def _causal(
        self, tokens: Windows, mask: WindowMask, memory: WindowMemory | None, retention: WindowLogits | None
    ) -> WindowLogits:
        windows, num_chunks = tokens.shape[:2]
        shape = self.config.shape
        if memory is None:
            memory = self.start.new_zeros(windows, 0, shape.num_slots, shape.memory_dim)
        seen = min(self.config.max_memories, memory.shape[1], num_chunks - 1)
        earlier, present = _earlier(memory, mask, num_chunks, seen)
        recalled = None
        if seen and self._recalls:
            # Every chunk is recalled once, by the pass that regenerates it where there is one.
            if retention is None:
                once = self.recall(memory[:, : num_chunks - 1])
            else:
                once = self.expected(retention[:, : num_chunks - 1, -self._recalls :])
            recalled = _earlier(once, mask, num_chunks, seen if self.insertion.recollects else 1)[0].flatten(0, 1)
        logits = self.predict(tokens.flatten(0, 1), earlier.flatten(0, 1), present.flatten(0, 1), recalled)
        return rearrange(logits, "(w c) t v -> w c t v", c=num_chunks)


class Regenerator(nn.Module):
    """A memory model as an autoencoder: chunk → memory → chunk."""

    def __init__(self, model: MemoryModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, tokens: Int[Tensor, "chunk token"], mask: Bool[Tensor, "chunk token"], memory: Memory | None = None
    ) -> Regeneration:
        """Regenerate chunks from their memories, which are made here unless they come along."""
        memory = self.model.encode(tokens[:, None], mask[:, None])[:, 0] if memory is None else memory
        return Regeneration(self.model.regenerate(memory), memory)


def _earlier(
    memory: Float[Tensor, "window chunk part dim"], mask: WindowMask, num_chunks: int, seen: int
) -> tuple[Float[Tensor, "window chunk memory part dim"], Bool[Tensor, "window chunk memory"]]:
    """The `seen` memories (or what is recalled of them) before each chunk, the latest last, and which there are."""
    if seen == 0:
        shape = (len(memory), num_chunks, 0, *memory.shape[2:])
        return memory.new_zeros(shape), mask.new_zeros(shape[:3])
    earlier = F.pad(memory[:, : num_chunks - 1], (0, 0, 0, 0, seen, 0)).unfold(1, seen, 1)
    present = F.pad(mask[:, : num_chunks - 1].any(-1), (seen, 0)).unfold(1, seen, 1)
    return rearrange(earlier, "w c s m n -> w c n s m"), present

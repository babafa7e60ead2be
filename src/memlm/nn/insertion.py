"""Insertion: memories [row memory slot memory_dim] → what a causal decoder reads of them."""

from typing import Any, NamedTuple

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from memlm import config
from memlm.nn.linear import block_orthogonal, fp32, linear, to_compute_dtype
from memlm.nn.mixers import Hidden
from memlm.nn.pooling import MemoryVectors, PositionalUnpooling

Memories = Float[Tensor, "row memory slot memory_dim"]
Present = Bool[Tensor, "row memory"]


class Context(NamedTuple):
    """A soft prompt before each row's text, and keys for cross-attention; both masked where a memory is absent."""

    prefix: Float[Tensor, "row position dim"]
    prefix_mask: Bool[Tensor, "row position"]
    keys: Float[Tensor, "row key dim"] | None = None
    keys_mask: Bool[Tensor, "row key"] | None = None
    ids: Int[Tensor, "row position"] | None = None
    """Position ids of the soft prompt, where they are not consecutive."""
    next_id: Int[Tensor, " row"] | None = None
    """Then also that of the text's first position."""
    state: Any = None
    """What the decoder keeps of positions before the soft prompt (`CausalDecoder.remember`)."""

    @property
    def cross_attention(self) -> dict[str, Tensor]:
        """The keys, as arguments of Hugging Face's decoders."""
        if self.keys is None or self.keys_mask is None:
            return {}
        return {"encoder_hidden_states": to_compute_dtype(self.keys), "encoder_attention_mask": self.keys_mask.long()}

    def followed_by(self, more: Hidden, mask: Bool[Tensor, "row 1"]) -> "Context":
        """This context with more positions at the end of the soft prompt."""
        prefix = torch.cat([self.prefix, more.to(self.prefix.dtype)], dim=1)
        return self._replace(
            prefix=prefix, prefix_mask=torch.cat([self.prefix_mask, mask.expand(more.shape[:2])], dim=1)
        )

    def without_padding(self) -> "Context":
        """This context of one row without its masked positions."""
        there = self.prefix_mask[0]
        return self._replace(prefix=self.prefix[:, there], prefix_mask=self.prefix_mask[:, there])

    def preceded_by(self, more: Hidden) -> "Context":
        """This context with more positions at the beginning of the soft prompt."""
        mask = self.prefix_mask.new_ones(more.shape[:2])
        context = self._replace(
            prefix=torch.cat([more, self.prefix.to(more.dtype)], dim=1),
            prefix_mask=torch.cat([mask, self.prefix_mask], dim=1),
        )
        if self.ids is None or self.next_id is None:
            return context
        first = torch.arange(more.shape[1], device=more.device).expand(mask.shape)
        return context._replace(
            ids=torch.cat([first, self.ids + more.shape[1]], dim=1), next_id=self.next_id + more.shape[1]
        )


class Insertion(nn.Module):
    """Base of the ways in which memories enter a decoder.

    Each is built of its configuration, the memories' shape, the decoder's width, and the most memories that a chunk
    sees. `forward(memory, present)` gives the context that a chunk is predicted from.
    """

    num_positions: int
    """Decoder positions that a memory takes."""

    def regenerating(self, memory: MemoryVectors) -> tuple[Context, Hidden | None]:
        """The context that a chunk is regenerated from, and what is added to its blank inputs, if anything."""
        return self(memory[:, None], memory.new_ones(len(memory), 1, dtype=torch.bool)), None


class Unfold(nn.Module):
    """A memory → `num_parts` vectors, each a linear map of the whole memory."""

    def __init__(self, num_parts: int, shape: config.MemoryShape, dim: int) -> None:
        super().__init__()
        self.num_parts = num_parts
        width = shape.num_slots * shape.memory_dim
        self.project = linear(width, num_parts * dim)
        if width % num_parts == 0:
            # Each part begins with dimensions of its own, which pooling fills from neighbouring tokens.
            self.project.weight.data = block_orthogonal(num_parts, dim, width // num_parts)

    def forward(self, memory: Memories) -> Float[Tensor, "row part dim"]:
        """The parts of all memories, concatenated."""
        parts = fp32(self.project, rearrange(memory, "r n s m -> r n (s m)"))
        return rearrange(parts, "r n (k d) -> r (n k) d", k=self.num_parts)


class PerSlot(nn.Module):
    """Each slot of a memory → a vector, through one linear map."""

    def __init__(self, shape: config.MemoryShape, dim: int) -> None:
        super().__init__()
        self.project = linear(shape.memory_dim, dim)

    def forward(self, memory: Memories) -> Float[Tensor, "row part dim"]:
        """The vectors of all memories, concatenated."""
        return rearrange(fp32(self.project, memory), "r n s d -> r (n s) d")


class PrefixInsertion(Insertion):
    """A soft prompt of linear maps of each memory (`config.Prefix`)."""

    def __init__(self, cfg: config.Prefix, shape: config.MemoryShape, dim: int, max_memories: int) -> None:
        super().__init__()
        self.num_positions = cfg.num_positions
        self.unfold = Unfold(cfg.num_positions, shape, dim)

    def forward(self, memory: Memories, present: Present) -> Context:
        """The soft prompt."""
        return Context(self.unfold(memory), repeat(present, "r n -> r (n k)", k=self.num_positions))


class UnpooledInsertion(Insertion):
    """To regenerate, the memory is unpooled onto the blank inputs; to predict, neighbouring tokens' parts are joined
    into a soft prompt (`config.Unpooled`). Both share the unpooling, which regeneration trains."""

    def __init__(self, cfg: config.Unpooled, shape: config.MemoryShape, dim: int, max_memories: int) -> None:
        super().__init__()
        self.num_positions = cfg.num_positions
        self.unpool = PositionalUnpooling(config.Positional(token_dim=cfg.token_dim), shape, dim)
        self.join = linear(shape.chunk_len // cfg.num_positions * cfg.token_dim, dim)

    def forward(self, memory: Memories, present: Present) -> Context:
        """The soft prompt."""
        parts = self.unpool.parts(rearrange(memory, "r n s m -> (r n) s m"))
        joined = rearrange(parts, "(r n) (k t) p -> r (n k) (t p)", r=len(memory), k=self.num_positions)
        return Context(self.join(to_compute_dtype(joined)), repeat(present, "r n -> r (n k)", k=self.num_positions))

    def regenerating(self, memory: MemoryVectors) -> tuple[Context, Hidden | None]:
        """An empty context, and the unpooled memory for the inputs."""
        unpooled = self.unpool(memory)
        return Context(unpooled[:, :0], memory.new_ones(len(memory), 0, dtype=torch.bool)), unpooled


class CrossAttentionInsertion(Insertion):
    """Keys that every layer attends to (`config.CrossAttention`)."""

    num_positions = 0

    def __init__(self, cfg: config.CrossAttention, shape: config.MemoryShape, dim: int, max_memories: int) -> None:
        super().__init__()
        self.num_parts = cfg.num_parts or shape.num_slots
        self.unfold = Unfold(cfg.num_parts, shape, dim) if cfg.num_parts else PerSlot(shape, dim)
        # Cross-attention has no positions of its own: embeddings of a memory's age (the latest last) and of the part.
        self.ages = nn.Parameter(torch.randn(max_memories, 1, dim) * 0.3)
        self.parts = nn.Parameter(torch.randn(self.num_parts, dim) * 0.3)
        # A chunk without memories attends to this: softmax needs at least one key.
        self.nothing = nn.Parameter(torch.randn(1, dim) * 0.3)

    def forward(self, memory: Memories, present: Present) -> Context:
        """The keys, and an empty soft prompt."""
        rows, number = memory.shape[:2]
        places = rearrange(self.ages[len(self.ages) - number :] + self.parts, "n k d -> (n k) d")
        keys = torch.cat([repeat(self.nothing, "k d -> r k d", r=rows), self.unfold(memory) + places], dim=1)
        mask = repeat(present, "r n -> r (n k)", k=self.num_parts)
        none = keys.new_zeros(rows, 0, keys.shape[-1])
        return Context(none, mask[:, :0], keys, torch.cat([mask.new_ones(rows, 1), mask], dim=1))


INSERTIONS: dict[type[config.InsertionConfig], Any] = {
    config.Prefix: PrefixInsertion,
    config.Unpooled: UnpooledInsertion,
    config.CrossAttention: CrossAttentionInsertion,
}
"""Each configuration's insertion."""

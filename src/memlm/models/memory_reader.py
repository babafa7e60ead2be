"""The memory reader: a pretrained causal language model that reads memories as a soft prompt.

A past text's tokens (or parts of its memories) are put in groups, one for each position of the soft prompt. A group
begins as its rarest token's embedding, over the sum of all of its tokens'; a network learns to tell them apart.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from memlm import config
from memlm.models.causal_decoder import PretrainedCausalDecoder
from memlm.nn.cross_entropy import cross_entropy
from memlm.nn.insertion import Context
from memlm.nn.linear import linear
from memlm.nn.mixers import Hidden, Mask, Tokens

NUM_SLOTS = 16
"""A group's tokens are told apart by their place from its end, up to this many."""
_VECTOR_TOKEN_DIM = 32
"""Dimensions for each position that a bare vector is unpooled to."""


class Groups(NamedTuple):
    """Units of the past, in groups: a position of the soft prompt each. Units are tokens of the language model, or
    parts of memories: states or vectors, or what a vector is unpooled to."""

    tokens: Int[Tensor, "row unit"]
    group: Int[Tensor, "row unit"]
    """Which group of its row; -1 at the padding."""
    slot: Int[Tensor, "row unit"]
    """Place from the group's end, at most `NUM_SLOTS` - 1."""
    part: Int[Tensor, "row unit"] | None = None
    """Which of its row's parts a unit is; -1 for a token. None where all units are tokens."""
    vectors: Float[Tensor, "row memory vector dim"] | None = None
    """The memories' states or vectors, where those are read."""

    @classmethod
    def none(cls, rows: int) -> Self:
        """No past."""
        return cls(*torch.zeros(3, rows, 0, dtype=torch.long))

    def rows(self, index: slice | Tensor, device: torch.device | str) -> "Groups":
        """Some of the rows, on a device."""
        return Groups._make(None if part is None else part[index].to(device) for part in self)


class Reading(NamedTuple):
    """Rows of a past and of the text after it."""

    past: Groups
    tokens: Tokens
    """Padding is on the right, and never scored."""
    scored: Mask
    """The tokens that are to be predicted."""
    regenerates: bool
    """Whether the text is the past itself, given back on demand."""
    whole: Groups | None = None
    """The past as tokens, which a teacher reads."""
    taught: Float[Tensor, "scored vocab"] | None = None
    """Log-probabilities that the teacher gives at the scored tokens."""
    before: tuple[int, ...] | None = None
    """Tokens that stand before the past, if they are others than those that the language model expects."""

    def rows(self, index: slice | Tensor, device: torch.device | str = "cpu") -> "Reading":
        """Some of the rows, on a device, without what a teacher says of them."""
        whole = None if self.whole is None else self.whole.rows(index, device)
        tokens, scored = self.tokens[index].to(device), self.scored[index].to(device)
        return Reading(self.past.rows(index, device), tokens, scored, self.regenerates, whole, before=self.before)


class ReaderBatch(NamedTuple):
    """What a step trains on: a reading for each term of the loss that has a weight."""

    readings: dict[str, Reading]
    """By the term of the loss; that of next tokens is also the divergence's."""

    @property
    def tokens(self) -> Tokens:
        """Of the text that is predicted; one row for each of the batch."""
        return next(iter(self.readings.values())).tokens

    @property
    def num_tokens(self) -> int:
        """Predicted tokens, which a budget counts."""
        return int(next(iter(self.readings.values())).scored.sum())

    def rows(self, index: slice | Tensor, device: torch.device | str = "cpu") -> "ReaderBatch":
        """Some of the rows, on a device."""
        return ReaderBatch({term: reading.rows(index, device) for term, reading in self.readings.items()})


class Merger(nn.Module):
    """Groups of vectors → one vector each: half their weighted mean, half their sum, scaled to the size of one; and a
    two-layer network's correction, which is zero at first for tokens. A token by itself is its vector.

    The mean is nearly the rarest token, which a language model reads as it is; the sum holds the others, so that it has
    something to learn to read from the first step on.
    """

    def __init__(self, unit_dim: int, dim: int, hidden_dim: int, *, rms: float | None = None) -> None:
        """`rms` is about that of what the network makes of parts of memories, from the first step on; without a
        `hidden_dim` there is none."""
        super().__init__()
        self.gain, self.corrects = 1.0 if rms is None else rms, hidden_dim > 0
        self.scale = nn.Parameter(torch.ones(NUM_SLOTS, dim))
        if not self.corrects:
            return
        self.by_slot = nn.Parameter(torch.randn(NUM_SLOTS, unit_dim, hidden_dim) * unit_dim**-0.5)
        self.size = nn.Embedding(NUM_SLOTS + 1, hidden_dim)
        nn.init.zeros_(self.size.weight)
        # Where there is nothing but what the network makes, that must not be zero: a language model's norms multiply
        # the gradient at a position of zeros in each layer, until it overflows.
        self.out = linear(hidden_dim, dim, gain=0.0 if rms is None else 1.0)

    def forward(
        self, embedded: Hidden, units: Hidden, weights: Float[Tensor, "row unit"], past: Groups
    ) -> tuple[Hidden, Mask]:
        """Vectors [row position dim] and where there are any, of what is averaged and what the network reads.

        What is averaged is zero where units have no vector.
        """
        num_rows, num_groups = len(past.group), int(past.group.max()) + 1
        row, unit = (past.group >= 0).nonzero(as_tuple=True)
        place = row * num_groups + past.group[row, unit]
        slot, weight = past.slot[row, unit], weights[row, unit].float()
        size = torch.bincount(place, minlength=num_rows * num_groups)
        share = weight / weight.new_zeros(len(size)).index_add(0, place, weight)[place]
        part = (share + size[place] ** -0.5)[:, None] / 2 * self.scale[slot]
        merged = embedded.new_zeros(len(size), embedded.shape[-1], dtype=torch.float)
        merged = merged.index_add(0, place, embedded[row, unit].float() * torch.where(size[place] > 1, part.T, 1).T)
        if self.corrects:
            hidden = self.size(size.clamp(max=NUM_SLOTS)).float()
            for number, weight_of in enumerate(self.by_slot):
                chosen = slot == number
                hidden = hidden.index_add(0, place[chosen], (units[row, unit][chosen] @ weight_of).float())
            corrected = size > 1
            if past.part is not None:
                corrected[place[past.part[row, unit] >= 0]] = True
            merged = merged + self.out(F.gelu(hidden)) * corrected[:, None] * self.gain
        return merged.view(num_rows, num_groups, merged.shape[-1]), (size > 0).view(num_rows, num_groups)


class MemoryReader(nn.Module):
    """A frozen language model with LoRA, and what turns a past into its soft prompt.

    Raises:
        ValueError: the language model is another than the configuration says.
    """

    surprisal: Float[Tensor, " vocab"]

    def __init__(self, cfg: config.MemoryReaderConfig) -> None:
        super().__init__()
        self.config = cfg
        self.decoder = PretrainedCausalDecoder(cfg.decoder)
        named, found = cfg.decoder_fingerprint, self.decoder.base_fingerprint() if cfg.decoder_fingerprint else ""
        if named != found:
            raise ValueError(
                f"this reader was trained for a language model {named}, and {cfg.decoder.name!r} is {found}: give back "
                "the one that it was trained with, or adapt a new reader"
            )
        dim, vocab = self.decoder.dim, self.decoder.hf.get_input_embeddings().num_embeddings
        self.register_buffer("surprisal", torch.ones(vocab))
        """Nats of each token of the language model by its frequency: a group begins as its rarest token."""
        self.sharpness = nn.Parameter(torch.ones(1))
        self.ask = nn.Parameter(torch.randn(dim) * self.decoder.embedding_rms)
        as_text, width = cfg.source == "text", cfg.state_dim if cfg.source == "states" else cfg.shape.memory_dim
        if cfg.unpools:
            self.unpool = linear(cfg.shape.num_slots * width, cfg.shape.chunk_len * _VECTOR_TOKEN_DIM)
        elif not as_text and not cfg.hidden_dim:
            self.map = linear(width, dim)
        part_dim = _VECTOR_TOKEN_DIM if cfg.unpools else width
        rms = None if as_text else self.decoder.embedding_rms
        self.merger = Merger(dim if as_text else part_dim, dim, cfg.hidden_dim, rms=rms)

    def forward(self, batch: ReaderBatch, terms: Sequence[str]) -> Float[Tensor, " term"]:
        """Summed nats of these terms of the loss."""
        sums: dict[str, Tensor] = {"divergence": self.ask.new_zeros(())}
        for term, reading in batch.readings.items():
            logits = self.scored_logits(reading)
            sums[term] = cross_entropy(logits, reading.tokens[reading.scored]).sum()
            if reading.taught is not None:
                own = logits.float().log_softmax(-1)
                sums["divergence"] = F.kl_div(own, reading.taught, reduction="sum", log_target=True)
        return torch.stack([sums[term] for term in terms])

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """As for any module, but the language model stays frozen."""
        super().requires_grad_(requires_grad)
        self.decoder.requires_grad_(requires_grad)
        return self

    def soft_prompt(self, past: Groups) -> Context:
        """A past's positions, as what stands before the text."""
        rows, device = len(past.tokens), self.ask.device
        if past.group.shape[1] == 0:
            empty = torch.zeros(rows, 0, device=device)
            return self._placed(Context(empty[..., None].expand(-1, -1, self.decoder.dim), empty.bool()), past)
        weights = (self.surprisal[past.tokens] * self.sharpness).exp()
        embedded = self.decoder.embed(past.tokens)
        if past.part is None or past.vectors is None:
            units = F.layer_norm(embedded.float(), embedded.shape[-1:])
        else:
            row, is_part = torch.arange(rows, device=device)[:, None], (past.part >= 0)[..., None]
            units = self._parts(past.vectors)[row, past.part.clamp_min(0)]
            weights = torch.where(is_part[..., 0], 1.0, weights)
            mapped = torch.zeros_like(embedded) if self.config.hidden_dim else self.map(units) * self.merger.gain
            embedded = torch.where(is_part, mapped, embedded)
        merged, there = self.merger(embedded, units, weights, past)
        return self._placed(Context(merged, there), past)

    def _parts(self, vectors: Float[Tensor, "row memory vector dim"]) -> Float[Tensor, "row part part_dim"]:
        """Memories in parts: their states or vectors, or what those are unpooled to."""
        if not self.config.unpools:
            return vectors.flatten(1, 2)
        return self.unpool(vectors.flatten(2)).unflatten(-1, (-1, _VECTOR_TOKEN_DIM)).flatten(1, 2)

    def _placed(self, context: Context, past: Groups) -> Context:
        """With position ids, if they are the text's: a group's is that of its last unit."""
        if self.config.positions == "consecutive":
            return context
        ids, real = torch.zeros_like(context.prefix_mask, dtype=torch.long), past.group >= 0
        place = torch.arange(real.shape[1], device=ids.device).expand_as(real)
        ids = ids.scatter_reduce(1, past.group.clamp_min(0), torch.where(real, place, 0), "amax")
        return context._replace(ids=ids, next_id=real.sum(1))

    def nats(self, reading: Reading) -> Float[Tensor, "row token"]:
        """Cross-entropy in nats of each scored token given the past and the tokens before it; 0 elsewhere."""
        scored = reading.scored
        nats = torch.zeros(scored.shape, device=scored.device)
        return nats.masked_scatter(scored, cross_entropy(self.scored_logits(reading), reading.tokens[scored]))

    def scored_logits(self, reading: Reading) -> Float[Tensor, "scored vocab"]:
        """Logits of each scored token, row by row, given the past and the tokens before it."""
        inputs, context = self.inputs(reading.past, reading.tokens, reading.regenerates, reading.before)
        states = self.decoder.states(inputs, context)
        # The state before each token; a text that is not asked for is scored from its second token on.
        before = states[:, :-1] if reading.regenerates else F.pad(states[:, :-1], (0, 0, 1, 0))
        return self.decoder.head(before[reading.scored])

    def inputs(
        self, past: Groups, tokens: Tokens, regenerates: bool, before: Sequence[int] | None = None
    ) -> tuple[Hidden, Context]:
        """Input embeddings of a text, after the request to regenerate if it is one; and what stands before them."""
        inputs, context = self.decoder.embed(tokens), self.soft_prompt(past)
        before = self.config.begin if before is None else before
        begin = self.decoder.embed(torch.tensor([before], dtype=torch.long, device=inputs.device))
        begin = begin.expand(len(inputs), -1, -1)
        if regenerates:
            inputs = torch.cat([self.ask.to(inputs.dtype).expand(len(inputs), 1, -1), inputs], dim=1)
        return inputs, context.preceded_by(begin)


def pad(rows: Sequence[Sequence[int]], filler: int = 0) -> Int[Tensor, "row longest"]:
    """Lists of numbers as one tensor, padded on the right."""
    longest = max(map(len, rows), default=0)
    return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows], dtype=torch.long)

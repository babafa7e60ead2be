"""What memories give back: the likeliest tokens, how many there are, and how sure that is.

A memory proves its own text: the right text, encoded again, is the same memory, and a wrong one is not. So whether a
chunk came back right is known without the original, and what came back wrong can be searched for.
"""

import itertools
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from memlm.models.autoencoder import Autoencoder
from memlm.models.parallel_decoder import Logits
from memlm.nn.pooling import MemoryVectors

_TOLERANCE = 2e-3
"""Root mean square by which a memory may differ from that of its text: more than half precision or another machine
makes of it, and a fraction of what one wrong token does (0.017 and more in `english`)."""
SURE_NATS = 12.0
"""A token that leads by more is taken for right even in a chunk that is not proven, which may be for rounding alone."""
_DOUBTFUL_NATS, _DOUBTFUL_FRACTION = 4.0, 1 / 8
"""A search is worth it where some tokens lead by less, but no more than this share: nearly right, and not lost."""
_PLACES, _CHOICES, _ROUNDS = 16, 3, 8
"""So many of the least sure places are tried with so many other tokens each; the best of all is taken; and again."""
_NEARER = 0.97
"""A change that comes less near than by this factor sets nothing right."""
_BATCH = 256
"""Changed chunks that are encoded at once."""

Types = Int[Tensor, "chunk token"]
"""Tokens; the number after the last token type, which is the end token's, where a position is empty."""


class Row(NamedTuple):
    """One chunk's tokens."""

    tokens: list[int]
    unsure: list[bool]
    proven: bool


class Decoded(NamedTuple):
    """Chunks, as their memories give them back."""

    tokens: Int[Tensor, "chunk token"]
    """0 beyond a chunk's end."""
    num_tokens: Int[Tensor, " chunk"]
    margin: Float[Tensor, "chunk token"]
    """By how many nats each token leads the next likeliest; beyond the end, the end token. Below 0 where a search found
    a less likely one to be right."""
    proven: Bool[Tensor, " chunk"]
    """Whether the tokens, encoded again, are the memory that they were decoded from."""

    @property
    def mask(self) -> Bool[Tensor, "chunk token"]:
        """The real tokens."""
        return token_mask(self.num_tokens, self.tokens.shape[1])

    @property
    def unsure(self) -> Bool[Tensor, "chunk token"]:
        """What may be wrong: where a chunk is not proven, all but what leads by far."""
        return ~self.proven[:, None] & (self.margin < SURE_NATS)

    def rows(self) -> list["Row"]:
        """The tokens of each chunk, and which of them are unsure; the last also where more may have followed."""
        parts = (self.tokens, self.unsure, self.num_tokens, self.proven)
        return [
            Row(tokens[:length], [*unsure[: length - 1], any(unsure[max(length - 1, 0) : length + 1])][:length], proven)
            for tokens, unsure, length, proven in zip(*(part.tolist() for part in parts), strict=True)
        ]

    @classmethod
    def concat(cls, parts: list[Self]) -> Self:
        """Chunks after each other."""
        return cls(*map(torch.cat, zip(*parts, strict=True)))


def token_mask(num_tokens: Int[Tensor, " chunk"], chunk_len: int) -> Bool[Tensor, "chunk token"]:
    """The real tokens of chunks of these lengths."""
    return torch.arange(chunk_len, device=num_tokens.device) < num_tokens[:, None]


def num_regenerated(logits: Logits, vocab_size: int) -> Int[Tensor, " chunk"]:
    """The likeliest length of each chunk, by a model with an end token: text up to it, the end token from there on.

    Of each position's tokens the likeliest alone is held against the end token, which is all but the same, and fast.
    """
    lead = logits[..., vocab_size].float() - logits[..., :vocab_size].amax(-1).float()
    text, end = F.logsigmoid(-lead), F.logsigmoid(lead)
    before, after = F.pad(text.cumsum(1), (1, 0)), F.pad(end.flip(1).cumsum(1).flip(1), (0, 1))
    return (before + after).argmax(1)


@torch.no_grad()
def decode(model: Autoencoder, memory: MemoryVectors, num_tokens: Int[Tensor, " chunk"] | None = None) -> Decoded:
    """Decode memories, encode what comes out, and where that is another memory look for a text that is the same.

    Args:
        model: an autoencoder, in evaluation mode.
        memory: of root mean square 1, as its encoder makes them.
        num_tokens: of each chunk; a model with an end token tells them itself.

    Raises:
        ValueError: a model without an end token is not told `num_tokens`.
    """
    shape, logits = model.config.shape, model.decoder(memory).float()
    told = num_tokens is not None
    if num_tokens is None:
        if not shape.end_token:
            raise ValueError("this model's memories do not hold their length: give num_tokens")
        num_tokens = num_regenerated(logits, shape.vocab_size)
    likeliest = logits[..., : shape.vocab_size].argmax(-1)
    types = torch.where(token_mask(num_tokens, shape.chunk_len), likeliest, shape.vocab_size)
    distance, margin = _distance(model, memory, types), _margin(logits, types)
    doubtful = (margin < _DOUBTFUL_NATS).float().mean(1)
    nearly = (doubtful > 0) & (doubtful <= _DOUBTFUL_FRACTION)
    rows = ((distance > _TOLERANCE) & nearly).nonzero().flatten()
    if len(rows):
        found, nearer = _searched(model, memory[rows], logits[rows], types[rows], distance[rows], told)
        # A memory under noise is nearer to some other text than to its own; but not much.
        kept = (nearer <= _TOLERANCE) | (nearer < distance[rows] / 2)
        rows = rows[kept]
        types[rows], distance[rows] = found[kept], nearer[kept]
        margin[rows] = _margin(logits[rows], types[rows])
    mask = types < shape.vocab_size
    return Decoded(types * mask, mask.sum(1), margin, distance <= _TOLERANCE)


def _searched(
    model: Autoencoder, memory: MemoryVectors, logits: Logits, types: Types, distance: Tensor, told: bool
) -> tuple[Types, Tensor]:
    """Chunks that are nearer to their memories, by one token changed at a time; and how near."""
    active = torch.arange(len(types), device=types.device)
    for _ in range(_ROUNDS):
        copies = [_changed(logits[row], types[row], model.config.shape.vocab_size, told=told) for row in active]
        counts = [len(rows) for rows in copies]
        changed, owner = torch.cat(copies), active.repeat_interleave(torch.tensor(counts, device=active.device))
        parts = zip(torch.split(changed, _BATCH), torch.split(owner, _BATCH), strict=True)
        found = torch.cat([_distance(model, memory[own], part) for part, own in parts])
        firsts = itertools.accumulate(counts[:-1], initial=0)
        best = torch.stack(
            [first + some.argmin() for first, some in zip(firsts, torch.split(found, counts), strict=True)]
        )
        # Nearer than what there is: of eight wrong tokens, one set right brings a chunk nearer by a sixteenth.
        best = best[found[best] < _NEARER * distance[owner[best]]]
        active = owner[best]
        types[active], distance[active] = changed[best], found[best]
        active = active[distance[active] > _TOLERANCE]
        if not len(active):
            break
    return types, distance


def _changed(logits: Tensor, types: Tensor, vocab_size: int, *, told: bool) -> Types:
    """Copies of a chunk [token], each with one of its least sure places changed; or its length, unless that is told."""
    length = int((types < vocab_size).sum())
    others = logits.scatter(-1, types.clamp_max(logits.shape[-1] - 1)[:, None], -torch.inf)
    # The end comes after the last token: it may move by one, and nothing else may be the end, or come after it.
    others[: max(length - 1, 1) if not told else length, vocab_size:] = -torch.inf
    others[length if told else length + 1 :] = -torch.inf
    margin = _margin(logits[None], types[None])[0].masked_fill(others.isinf().all(-1), torch.inf)
    places = margin.argsort()[:_PLACES]
    values, choices = others[places].topk(_CHOICES, dim=-1)
    kept = values.isfinite()
    changed = types.repeat(int(kept.sum()), 1)
    changed[torch.arange(len(changed)), places[:, None].expand_as(choices)[kept]] = choices[kept]
    return changed


def _margin(logits: Logits, types: Types) -> Float[Tensor, "chunk token"]:
    """By how much each type leads; infinite at empty positions without an end token."""
    place = types.clamp_max(logits.shape[-1] - 1)[..., None]
    own = logits.gather(-1, place)
    others = logits.scatter_(-1, place, -torch.inf).amax(-1)
    logits.scatter_(-1, place, own)  # put back: a copy of all logits would take longer than all else here
    lead = own[..., 0] - others
    return lead.masked_fill(types >= logits.shape[-1], torch.inf)


def _distance(model: Autoencoder, memory: MemoryVectors, types: Types) -> Float[Tensor, " chunk"]:
    """Root mean square between memories and those of such chunks."""
    mask = types < model.config.shape.vocab_size
    return (model.encoder(types * mask, mask) - memory).square().mean((1, 2)).sqrt()

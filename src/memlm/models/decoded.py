"""Decoding memories: the most likely tokens, their number, and whether they are right.

The right text encodes to the same memory, and a wrong one does not. So whether a chunk was decoded correctly is known
without the original, and wrong tokens can be searched for.
"""

from functools import partial
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from memlm.models.autoencoder import Autoencoder
from memlm.models.correction import QUICK, THOROUGH, Types, corrected, distances, smallest_move
from memlm.models.exact import SCORES_PER_NAT, ExactDecoder
from memlm.nn.argmax import argmax
from memlm.nn.mixers import Hidden, Logits
from memlm.nn.pooling import MemoryVectors
from memlm.runtime.cpu import precision_on

_TOLERANCE = QUICK.enough
"""Root mean square by which a memory may differ from that of its text: above the error of half precision or of another
machine, and far below that of one wrong token (0.017 and more in `english`)."""
_BELOW_ONE_TOKEN = 8
"""Where an unsure token moves the memory by less than this factor times the tolerance, that is lowered."""
SURE_NATS = 12.0
"""A token with a larger margin counts as right even in a chunk that is not proven, perhaps because of rounding."""
_HALF_ERROR = 1.0
"""Nats by which products in bf16 may change a margin, with room to spare."""
_WHOLE_ERROR = 4.0
"""Nats by which those in int8 hardly ever change one; but of a noisy memory by any number."""
_DOUBTFUL_NATS, _DOUBTFUL_FRACTION = 4.0, 1 / 8
"""Search where some tokens have a smaller margin, but at most this share of the chunk: it is then nearly right."""


class Row(NamedTuple):
    """One chunk's tokens."""

    tokens: list[int]
    unsure: list[bool]
    proven: bool


class Decoded(NamedTuple):
    """Chunks decoded from their memories."""

    tokens: Int[Tensor, "chunk token"]
    """0 beyond a chunk's end."""
    num_tokens: Int[Tensor, " chunk"]
    margin: Float[Tensor, "chunk token"]
    """By how many nats each token leads the next most likely; beyond the end, the end token. Negative where a search
    found a less likely token to be right."""
    proven: Bool[Tensor, " chunk"]
    """Whether the tokens encode to the memory that they were decoded from."""

    @property
    def mask(self) -> Bool[Tensor, "chunk token"]:
        """The real tokens."""
        return token_mask(self.num_tokens, self.tokens.shape[1])

    @property
    def unsure(self) -> Bool[Tensor, "chunk token"]:
        """Tokens that may be wrong: those of unproven chunks without a large margin."""
        return ~self.proven[:, None] & (self.margin < SURE_NATS)

    def rows(self) -> list["Row"]:
        """Each chunk's tokens, and which of them are unsure; the last also where the chunk may be longer."""
        parts = (self.tokens, self.unsure, self.num_tokens, self.proven)
        return [
            Row(tokens[:length], [*unsure[: length - 1], any(unsure[max(length - 1, 0) : length + 1])][:length], proven)
            for tokens, unsure, length, proven in zip(*(part.tolist() for part in parts), strict=True)
        ]

    @classmethod
    def concat(cls, parts: list[Self]) -> Self:
        """Concatenate chunks."""
        return cls(*map(torch.cat, zip(*parts, strict=True)))


def token_mask(num_tokens: Int[Tensor, " chunk"], chunk_len: int) -> Bool[Tensor, "chunk token"]:
    """The real tokens of chunks of these lengths."""
    return torch.arange(chunk_len, device=num_tokens.device) < num_tokens[:, None]


def num_regenerated(logits: Logits, vocab_size: int) -> Int[Tensor, " chunk"]:
    """The most likely length of each chunk, from a model with an end token, which stands at all empty positions.

    Only the most likely token of each position is compared with the end token: nearly exact, and fast.
    """
    lead = logits[..., vocab_size].float() - logits[..., :vocab_size].amax(-1).float()
    text, end = F.logsigmoid(-lead), F.logsigmoid(lead)
    before, after = F.pad(text.cumsum(1), (1, 0)), F.pad(end.flip(1).cumsum(1).flip(1), (0, 1))
    return (before + after).argmax(1)


@torch.no_grad()
def decode(
    model: Autoencoder,
    memory: MemoryVectors,
    num_tokens: Int[Tensor, " chunk"] | None = None,
    *,
    guess: ExactDecoder | None = None,
    thorough: bool = False,
) -> Decoded:
    """Decode memories, encode the result, and search for a better text where its memory differs (`correction`): for
    chunks that are nearly right, or, if `thorough`, for all, and for long.

    The model is in evaluation mode, memories have root mean square 1, as its encoder makes them, and `num_tokens` of
    each chunk are not needed for a model with an end token. What a `guess` in whole numbers, with the end token, does
    not prove is decoded again; without one, where products in bf16 leave a token unsure.

    Raises:
        ValueError: `num_tokens` is missing, and the model has no end token.
    """
    shape, told = model.encoder.shape, num_tokens is not None
    if not told and not shape.end_token:
        raise ValueError("this model's memories do not hold their length: give num_tokens")
    half = memory.device.type in ("cpu", "cuda") and precision_on(memory.device) == "bf16"  # not tried elsewhere
    logits = None
    if guess is not None and not told:
        types, margin = _expected(guess, memory, shape.vocab_size)
        least, sure = _DOUBTFUL_NATS + _WHOLE_ERROR, torch.inf
    else:
        logits, types, margin = _likeliest(model, memory, num_tokens, half=half)
        least, sure = _DOUBTFUL_NATS + _HALF_ERROR, SURE_NATS + _HALF_ERROR
    text = memory[..., : shape.memory_dim]  # what a memory is searched by proves nothing
    distance = distances(model, text, types)
    proven = (distance <= _TOLERANCE) & (margin >= least).all(1)
    again = ~proven & (thorough | (margin < sure).any(1))
    if len(rows := again.nonzero().flatten()):
        if logits is None or half:
            lengths = None if num_tokens is None else num_tokens[rows]
            logits, types[rows], margin[rows] = _likeliest(model, memory[rows], lengths, half=False)
            distance[rows] = distances(model, text[rows], types[rows])
        else:
            logits = logits[rows]
        proven[rows] = _proven(model, logits, types[rows], distance[rows], margin[rows], told=told)
        doubtful = (margin[rows] < _DOUBTFUL_NATS).float().mean(1)
        nearly = (doubtful > 0) & (doubtful <= _DOUBTFUL_FRACTION)
        search = ~proven[rows] & (nearly | thorough)
        if search.any() and shape.num_bits is None:  # a rounded memory does not tell how far a text is away
            rows, logits = rows[search], logits[search]
            effort = THOROUGH if thorough else QUICK
            types[rows], distance[rows] = corrected(model, text[rows], logits, types[rows], told=told, effort=effort)
            margin[rows] = _margin(logits, types[rows])
            proven[rows] = _proven(model, logits, types[rows], distance[rows], margin[rows], told=told)
    mask = types < shape.vocab_size
    return Decoded(types * mask, mask.sum(1), margin, proven)


def _proven(
    model: Autoencoder, logits: Logits, types: Types, distance: Tensor, margin: Tensor, *, told: bool
) -> Bool[Tensor, " chunk"]:
    """Whether chunks are nearer to their memories than they could be with a wrong token.

    A memory that holds as many tokens as it has dimensions may hardly move with one of them, of which the decoder knows
    little then. One that its model rounds need not move at all: it proves only what the decoder is sure of.
    """
    proven, sure = distance <= _TOLERANCE, (margin >= _DOUBTFUL_NATS).all(1)
    if model.encoder.shape.num_bits is not None:
        return proven & sure
    rows = (proven & ~sure).nonzero().flatten()
    if len(rows):
        least = smallest_move(model, logits[rows], types[rows], _DOUBTFUL_NATS, told=told)
        proven[rows] = distance[rows] <= least / _BELOW_ONE_TOKEN
    return proven


def _likeliest(
    model: Autoencoder, memory: MemoryVectors, num_tokens: Int[Tensor, " chunk"] | None, *, half: bool
) -> tuple[Logits, Types, Float[Tensor, "chunk token"]]:
    """The decoder's logits, by products in bf16 if `half`; the most likely types, and their margins."""
    shape = model.encoder.shape
    with torch.autocast(memory.device.type, torch.bfloat16, enabled=half):
        logits = model.decoder(memory).float()
    if num_tokens is None:
        num_tokens = num_regenerated(logits, shape.vocab_size)
    likeliest = argmax(logits[..., : shape.vocab_size])
    types = torch.where(token_mask(num_tokens, shape.chunk_len), likeliest, shape.vocab_size)
    return logits, types, _margin(logits, types)


def _expected(exact: ExactDecoder, memory: MemoryVectors, end: int) -> tuple[Types, Float[Tensor, "chunk token"]]:
    """The most likely types, and their margins; 0 where the text would go on after its end."""
    types, margin = map(torch.cat, zip(*exact.batches(memory, partial(_best, exact)), strict=True))
    margin /= SCORES_PER_NAT
    ends = types == end
    return types, margin.masked_fill_(ends.cummax(dim=1).values & ~ends, 0)


def _best(exact: ExactDecoder, states: Hidden, chunks: slice) -> tuple[Types, Float[Tensor, "some token"]]:
    """The most likely types, and by how much their scores lead."""
    each = [(ranked.best, ranked.lead) for _, ranked in exact.each_ranked(states.flatten(0, 1))]
    best, lead = (torch.cat(parts).view(states.shape[:2]) for parts in zip(*each, strict=True))
    return best, lead


def _margin(logits: Logits, types: Types) -> Float[Tensor, "chunk token"]:
    """The margin of each type; infinite at empty positions without an end token."""
    place = types.clamp_max(logits.shape[-1] - 1)[..., None]
    own = logits.gather(-1, place)
    others = logits.scatter_(-1, place, -torch.inf).amax(-1)
    logits.scatter_(-1, place, own)  # restored: copying all logits would take longer than everything else
    lead = own[..., 0] - others
    return lead.masked_fill(types >= logits.shape[-1], torch.inf)

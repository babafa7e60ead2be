"""Correcting decoded chunks: which other tokens would account for what their memory differs by.

A wrong token moves the memory. What each likely change would move is found by encoding the changed chunk; then a few
changes together are to add up to the difference, where the decoder's probabilities are the prior. That is the decoding
of a sparse superposition code (Joseph and Barron 2012), here by mean-field inference. The sum is nearly right, for an
encoder is not linear: so the changes are made, the chunk encoded again, and what is left is looked at anew.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from memlm.models.autoencoder import Autoencoder
from memlm.models.batch import encoder_chunks
from memlm.nn.mixers import Logits
from memlm.nn.pooling import MemoryVectors
from memlm.runtime.threads import side_by_side

Types = Int[Tensor, "chunk token"]
"""Tokens; at empty positions, the end token's id, which is `vocab_size`."""


class Effort(NamedTuple):
    """How much a search looks at."""

    levels: tuple[tuple[Literal["likely", "steep"], int, int], ...]
    """Where one finds nothing, the next: so many places, and types at each. `likely`: the least certain places, and the
    likeliest types. `steep`: what promises most by the encoder's derivative."""
    rounds: int
    """For each chunk."""
    enough: float
    """Distance, in root mean square, at which it ends."""


QUICK = Effort(levels=(("likely", 16, 4),), rounds=8, enough=2e-3)
"""For chunks that are nearly right."""
THOROUGH = Effort(
    levels=(("likely", 512, 8), ("steep", 64, 32), ("likely", 256, 32), ("likely", 64, 128), ("steep", 256, 32)),
    rounds=64,
    enough=1e-5,
)
"""For memories that hold a token in each dimension: a decoder of them is sure of little."""
_LIKELY_NATS = 12.0
"""A change to a token that is less likely by more than that is not tried."""
_DOUBTED = 15
"""Other tokens of each place, the likeliest, with which a text is compared before it is called proven."""
_LEAST = 1e-14
"""Mean square that rounding makes."""
_SWEEPS, _BLOCKS = 30, 16
"""Of mean-field inference: all places in turn, so many blocks of them at once."""
_PROBES = 16
"""Random directions by which the length of what a token moves is estimated."""
_TRIALS = 16
"""Numbers of changes, the surest first, that are made together and encoded."""
_GAIN_NATS = 0.5
"""By how much likelier changes must make a chunk."""
_MOST_NUMBERS = 2**26
"""Numbers in what all the changes of some chunks move, which are held at once."""


@torch.no_grad()
def corrected(
    model: Autoencoder, memory: MemoryVectors, logits: Logits, types: Types, *, told: bool, effort: Effort = QUICK
) -> tuple[Types, Float[Tensor, " chunk"]]:
    """Chunks that are nearer to their memories, and their distances; `told` if lengths are known, and not changed."""
    types, distance = types.clone(), distances(model, memory, types)
    stuck, rounds = torch.zeros_like(types[:, 0]), torch.zeros_like(types[:, 0])
    levels, shape = effort.levels, model.encoder.shape
    while True:
        active = (distance > effort.enough) & (stuck < len(levels)) & (rounds < effort.rounds)
        if not active.any():
            return types, distance
        level = int(stuck[active].min())
        kind, *most = levels[level]
        num_places, num_types = map(min, most, logits.shape[1:])
        at_once = max(1, _MOST_NUMBERS // (num_places * num_types * memory[0].numel()))
        for rows in torch.split((active & (stuck == level)).nonzero().flatten(), at_once):
            likely = _Likely.of(logits[rows], types[rows], shape.vocab_size, told=told)
            if kind == "likely":
                changes = likely.likeliest(likely.least_sure(num_places), num_types)
            else:
                changes = _steepest(model, memory[rows], likely, num_places, num_types)
            found, nearer, gain = _best(model, memory[rows], types[rows], changes)
            better = gain > _GAIN_NATS
            types[rows[better]], distance[rows[better]] = found[better], nearer[better]
            stuck[rows] = torch.where(better, 0, level + 1)
            rounds[rows] += 1


@torch.no_grad()
def smallest_move(
    model: Autoencoder, logits: Logits, types: Types, nats: float, *, told: bool
) -> Float[Tensor, " chunk"]:
    """By how much, in root mean square, a memory moves at least if one token is replaced by another that is less likely
    by at most `nats`, than it or than the likeliest other; infinite where there is none."""
    likely = _Likely.of(logits, types, model.encoder.shape.vocab_size, told=told)
    everywhere = torch.arange(types.shape[1], device=types.device).expand_as(types)
    values, others = likely.others.topk(min(_DOUBTED, likely.others.shape[-1]), dim=-1)
    best = values[..., :1]
    doubted = (best >= likely.own - nats) & (values >= torch.minimum(likely.own, best) - nats)
    changes = likely.changes(everywhere, others, values.masked_fill(~doubted, -torch.inf))
    (row, _, _), moved = _moved(model, _encoded(model, types), types, changes)
    least = moved.new_full((len(types),), torch.inf)
    return least.scatter_reduce(0, row, moved.square().mean(-1).sqrt(), "amin")


class _Changes(NamedTuple):
    """The likely changes of chunks. The first choice of each place is what stands there."""

    places: Int[Tensor, "chunk place"]
    choices: Int[Tensor, "chunk place choice"]
    prior: Float[Tensor, "chunk place choice"]
    """Logits; -inf for what is not tried."""


class _Likely(NamedTuple):
    """What the decoder says of each place of chunks."""

    types: Types
    own: Float[Tensor, "chunk token 1"]
    """The logit of what stands there."""
    others: Float[Tensor, "chunk token type"]
    """Those of all others; -inf for what cannot stand there."""

    @classmethod
    def of(cls, logits: Logits, types: Types, vocab_size: int, *, told: bool) -> "_Likely":
        """Of chunks, whose lengths may change by one unless `told`."""
        length = (types < vocab_size).sum(1)
        at = torch.arange(types.shape[1], device=types.device)
        own_type = types.clamp_max(logits.shape[-1] - 1)[..., None]
        others = logits.scatter(-1, own_type, -torch.inf)
        # The end token may replace the last token or be replaced by another one, and nothing may follow it.
        others.masked_fill_((at >= (length if told else length + 1)[:, None])[..., None], -torch.inf)
        end = others[..., vocab_size:]
        end.masked_fill_((at < (length if told else (length - 1).clamp_min(1))[:, None])[..., None], -torch.inf)
        return cls(types, logits.gather(-1, own_type), others)

    def least_sure(self, number: int) -> Int[Tensor, "chunk place"]:
        """The places where the two likeliest types are closest."""
        first, second = torch.cat([self.own, self.others], dim=-1).topk(2, dim=-1).values.unbind(-1)
        return (first - second).topk(number, dim=-1, largest=False).indices

    def likeliest(self, places: Int[Tensor, "chunk place"], number: int) -> _Changes:
        """Changes to the likeliest other types at these places."""
        others = _at(places, self.others)
        values, choices = others.topk(number - 1, dim=-1)
        least = torch.maximum(_at(places, self.own), values[..., :1]) - _LIKELY_NATS
        return self.changes(places, choices, values.masked_fill(values < least, -torch.inf))

    def changes(
        self, places: Int[Tensor, "chunk place"], others: Int[Tensor, "chunk place other"], prior: Tensor
    ) -> _Changes:
        """Changes to these other types, of these logits."""
        choices = torch.cat([_at(places, self.types[..., None]), others], dim=-1)
        return _Changes(places, choices, torch.cat([_at(places, self.own), prior], dim=-1))


def _at(places: Int[Tensor, "chunk place"], of_tokens: Tensor) -> Tensor:
    """Of these places, [chunk place *], what there is of all, [chunk token *]."""
    return of_tokens.gather(1, places[..., None].expand(-1, -1, of_tokens.shape[-1]))


def _steepest(model: Autoencoder, memory: MemoryVectors, likely: _Likely, num_places: int, num_types: int) -> _Changes:
    """The changes that make chunks likeliest, if a memory moves as its derivative says: of all tokens at all places.

    What a token moves is too much to compute for all of them, but not how far along the missing vector, and along a few
    random ones, whose mean square estimates its length. A token that hardly moves the memory, and of which the decoder
    knows nothing, is found only so.
    """
    embeddings = model.encoder.embed.weight.float()
    own_type = likely.types.clamp_max(len(embeddings) - 1)
    embedded = model.encoder.embedded(own_type).requires_grad_()
    with torch.enable_grad():
        made = model.encoder.of_embedded(embedded, likely.types < model.encoder.shape.vocab_size).flatten(1)
    missing = memory.flatten(1) - made.detach()
    probes = torch.randn(_PROBES, missing.shape[1], generator=torch.Generator().manual_seed(0)).to(missing)

    def moved_along(direction: Tensor) -> Float[Tensor, "chunk token type"]:
        (slope,) = torch.autograd.grad(made, embedded, direction.expand_as(made), retain_graph=True)
        along = slope.float() @ embeddings.T
        return (along - along.gather(-1, own_type[..., None]))[..., : likely.others.shape[-1]]

    toward, square = moved_along(missing), torch.zeros_like(likely.others)
    for probe in probes:
        square += moved_along(probe).square() / _PROBES
    noise = missing.square().mean(-1)[:, None, None]
    gain = (toward - square / 2) / noise + likely.others - likely.own
    best, types = gain.topk(num_types - 1, dim=-1)
    places = best[..., 0].topk(num_places, dim=-1).indices
    types = _at(places, types)
    return likely.changes(places, types, _at(places, likely.others).gather(-1, types))


def _best(
    model: Autoencoder,
    memory: MemoryVectors,
    types: Types,
    changes: _Changes,
) -> tuple[Types, Float[Tensor, " chunk"], Float[Tensor, " chunk"]]:
    """The likeliest of the chunks with one change, or with several; how near it is, and how much likelier, in nats.

    The noise on a memory is not known: of n numbers that differ by a mean square of d, the log-likelihood is -n/2 log d
    at its best. So next to an exact memory the decoder's opinion counts for little, and next to a noisy one for more.
    """
    current = _encoded(model, types)
    missing = (memory.flatten(1) - current)[:, None]
    tried, moves = _moves(model, current, types, changes)
    cost = changes.prior[..., :1] - changes.prior
    single = (missing[:, None] - moves).square().mean(-1).masked_fill(~tried, torch.inf)
    together, costs = _together(types, changes, _posterior(missing[:, 0], moves, changes.prior))
    several = (_encoded(model, together.flatten(0, 1)).view(*costs.shape, -1) - memory.flatten(1)[:, None]).square()
    # Where an end token is followed by a token, there is no such chunk.
    ended = together >= model.encoder.shape.vocab_size
    whole = (ended.long().diff(dim=-1) >= 0).all(-1)
    squares = torch.cat([single.flatten(1), several.mean(-1).masked_fill(~whole, torch.inf)], dim=1)
    half = missing.shape[-1] / 2
    gains = half * (missing.square().mean(-1).clamp_min(_LEAST).log() - squares.clamp_min(_LEAST).log())
    gain, index = (gains - torch.cat([cost.flatten(1), costs], dim=1)).nan_to_num(-torch.inf).max(1)
    found, each, alone = types.clone(), torch.arange(len(types), device=types.device), index < cost[0].numel()
    place = (index // cost.shape[-1])[alone]
    found[each[alone], changes.places[each[alone], place]] = changes.choices[
        each[alone], place, (index % cost.shape[-1])[alone]
    ]
    found[~alone] = together[each[~alone], index[~alone] - cost[0].numel()]
    return found, squares[each, index].sqrt(), gain


def _moves(
    model: Autoencoder, current: Float[Tensor, "chunk number"], types: Types, changes: _Changes
) -> tuple[Bool[Tensor, "chunk place choice"], Float[Tensor, "chunk place choice number"]]:
    """Which changes are tried, and by what each moves the memory: nothing where it is not."""
    where, moved = _moved(model, current, types, changes)
    tried = torch.zeros_like(changes.prior, dtype=torch.bool)
    moves = current.new_zeros(*tried.shape, current.shape[-1])
    tried[where], moves[where] = True, moved
    return tried, moves


def _moved(
    model: Autoencoder, current: Float[Tensor, "chunk number"], types: Types, changes: _Changes
) -> tuple[tuple[Tensor, ...], Float[Tensor, "change number"]]:
    """The changes that are tried, by chunk, place and choice, and by what each moves the memory."""
    tried = changes.prior.isfinite()
    tried[..., 0] = False
    row, place, choice = where = tried.nonzero(as_tuple=True)
    copies = types[row]
    copies[torch.arange(len(row), device=row.device), changes.places[row, place]] = changes.choices[row, place, choice]
    return where, _encoded(model, copies) - current[row]


def _posterior(
    missing: Float[Tensor, "chunk dim"],
    moves: Float[Tensor, "chunk place choice dim"],
    prior: Float[Tensor, "chunk place choice"],
) -> Float[Tensor, "chunk place choice"]:
    """The probability of each choice, if the moves of all places add up to what is missing, but for Gaussian noise.

    The noise is what the moves expected so far leave unexplained, and falls as they become certain.
    """
    chance, order = prior.softmax(-1), torch.Generator().manual_seed(0)
    half_square = moves.square().sum(-1) / 2
    expected = torch.einsum("bpc,bpcd->bpd", chance, moves)
    left = missing - expected.sum(1)
    for _ in range(_SWEEPS):
        spread = 2 * (chance * half_square).sum((1, 2)) - expected.square().sum((1, 2))
        noise = ((left.square().sum(-1) + spread.clamp_min(0)) / left.shape[-1]).clamp_min(1e-13)[:, None, None]
        for block in torch.randperm(moves.shape[1], generator=order).to(moves.device).chunk(_BLOCKS):
            before, some = expected[:, block], moves[:, block]
            gain = torch.einsum("bpcd,bpd->bpc", some, left[:, None] + before) - half_square[:, block]
            chance[:, block] = (prior[:, block] + gain / noise).softmax(-1)
            expected[:, block] = torch.einsum("bpc,bpcd->bpd", chance[:, block], some)
            left += (before - expected[:, block]).sum(1)
    return chance


def _together(
    types: Types, changes: _Changes, chance: Float[Tensor, "chunk place choice"]
) -> tuple[Int[Tensor, "chunk trial token"], Float[Tensor, "chunk trial"]]:
    """Chunks with the likeliest choices, the surest of them alone and ever more of them."""
    sure, choice = chance.max(-1)
    changed = choice > 0
    order = sure.masked_fill(~changed, -1).argsort(dim=-1, descending=True).argsort(dim=-1)
    trial = torch.arange(1, _TRIALS + 1, device=types.device)
    most = (changed.sum(1, keepdim=True) * trial / _TRIALS).ceil()
    made = changed[:, None] & (order[:, None] < most[..., None])
    values = changes.choices.gather(-1, choice[..., None])[..., 0]
    places = changes.places[:, None].expand_as(made)
    whole = types[:, None].repeat(1, _TRIALS, 1)
    cost = changes.prior[..., 0] - changes.prior.gather(-1, choice[..., None])[..., 0]
    return whole.scatter(-1, places, torch.where(made, values[:, None], whole.gather(-1, places))), (
        made * cost[:, None]
    ).sum(-1)


def distances(model: Autoencoder, memory: MemoryVectors, types: Types) -> Float[Tensor, " chunk"]:
    """Root mean square difference between memories and those of chunks."""
    return (_encoded(model, types) - memory.flatten(1)).square().mean(1).sqrt()


def _encoded(model: Autoencoder, types: Types) -> Float[Tensor, "chunk number"]:
    """Memories, a few at a time: products stay in a processor's cache."""
    shape = model.encoder.shape

    def encode(some: Types) -> Float[Tensor, "some number"]:
        mask: Bool[Tensor, "some token"] = some < shape.vocab_size
        return model.encoder(some * mask, mask).flatten(1)

    parts = torch.split(types, encoder_chunks(shape.chunk_len, types.device))
    return torch.cat([*side_by_side(encode, parts, types.device)])

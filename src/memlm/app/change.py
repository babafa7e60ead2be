"""What is done to a memory, and what comes back of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from memlm.text.autoencoder import TextAutoencoder
from memlm.text.memory import Memory, Span

MOST_CHUNKS = 4
"""Of a text, so that what comes back keeps up with a slider; a longer text belongs into a memory file."""
_MOST_CHARACTERS = 100_000
FLOAT_BITS = 32
_SCALE_BITS = 32
"""Of a vector that is rounded, for what its levels are multiplied by."""
_SHRINKS = torch.linspace(0.4, 1, 13).tolist()
_NOISE_SEED = 0

Mixing = Literal["swap halves", "interpolate"]


class Change(NamedTuple):
    """What is done to the memories of a text."""

    bits: int = FLOAT_BITS
    """Of each dimension."""
    noise: float = 0.0
    """Standard deviation, where memories have root mean square 1."""
    edits: Mapping[int, float] = {}
    """Dimension → value, of one chunk's memory."""
    chunk: int = 0
    """Which."""

    def of(self, vectors: Tensor) -> Tensor:
        """Memories [chunk slot memory_dim] with noise, then rounded, then edited."""
        # The same noise for the same text, so that a slider makes more of it, and not another.
        noise = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(_NOISE_SEED))
        vectors = rounded(vectors + self.noise * noise, self.bits)
        flat = vectors.flatten(1)
        for dim, value in self.edits.items():
            if self.chunk < len(flat) and 0 <= dim < flat.shape[1]:
                flat[self.chunk, dim] = value
        return flat.reshape(vectors.shape)


def rounded(vectors: Tensor, bits: int) -> Tensor:
    """Each dimension rounded to 2^bits levels, at the scale, one for each chunk, that loses least."""
    if bits >= FLOAT_BITS:
        return vectors.clone()
    widest = vectors.double().flatten(1).abs().amax(1).clamp_min(1e-12)[:, None, None]
    tried = [_to_levels(vectors.double(), widest * shrink, bits) for shrink in _SHRINKS]
    lost = torch.stack([(each - vectors).square().flatten(1).sum(1) for each in tried])
    best = lost.argmin(0)
    return torch.stack([tried[best[row]][row] for row in range(len(vectors))]).float() if len(vectors) else vectors


def _to_levels(vectors: Tensor, clip: Tensor, bits: int) -> Tensor:
    step = 2 * clip / 2**bits
    return (((vectors + clip) / step).floor().clamp(0, 2**bits - 1) + 0.5) * step - clip


class GivenBack(NamedTuple):
    """The text that a memory gives back, beside what should have come back."""

    text: str
    unsure: tuple[Span, ...]
    """What the decoder says may be wrong, without knowing the text."""
    wrong: tuple[Span, ...]
    """What is wrong."""
    proven: bool
    """Whether it encodes to the memory that it came from."""
    num_tokens: int
    """Of the original."""
    num_right: int
    num_unsure: int


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A text, its memories after a change, and what they give back."""

    memory: Memory
    """After the change."""
    back: GivenBack
    text_bytes: int
    """Of the part that is shown."""
    bits: int
    """Of each dimension."""
    cut: bool
    """Whether the text goes on."""

    @property
    def num_bits(self) -> int:
        """Of all memories."""
        chunks, slots, dim = self.memory.vectors.shape
        return chunks * (slots * dim * self.bits + _SCALE_BITS * (self.bits < FLOAT_BITS))

    @property
    def num_bytes(self) -> int:
        """Of all memories."""
        return math.ceil(self.num_bits / 8)


def see(model: TextAutoencoder, text: str, change: Change) -> Seen:
    """Encode a text, change its memories, and regenerate it; of a long text, the beginning.

    Raises:
        ValueError: the text is not valid Unicode.
    """
    most = MOST_CHUNKS * model.config.shape.chunk_len
    ids = model.tokenizer.encode(text[:_MOST_CHARACTERS])
    cut, ids = len(ids) > most or len(text) > _MOST_CHARACTERS, ids[:most]
    memory = model.encode_tokens([ids.tolist()])
    changed = replace(memory, vectors=change.of(memory.vectors))
    return Seen(
        memory=changed,
        back=given_back(model, changed, ids.tolist()),
        text_bytes=len(model.tokenizer.decode(ids).encode()),
        bits=change.bits,
        cut=cut,
    )


def given_back(model: TextAutoencoder, memory: Memory, original: Sequence[int]) -> GivenBack:
    """What the memories of one text give back, compared with its tokens."""
    rows = list(model.rows(memory))
    tokens, unsure, wrong, right, start = list[int](), list[bool](), list[bool](), 0, 0
    for row, length in zip(rows, memory.num_tokens.tolist(), strict=True):
        should = original[start : start + length]
        start += length
        same = [place < length and token == should[place] for place, token in enumerate(row.tokens)]
        right += sum(same)
        tokens += row.tokens
        unsure += row.unsure
        wrong += [not each for each in same]
    text, unsure_spans = model.tokenizer.decode_marked(tokens, unsure)
    _, wrong_spans = model.tokenizer.decode_marked(tokens, wrong)
    proven = all(row.proven for row in rows)
    return GivenBack(text, unsure_spans, wrong_spans, proven, len(original), right, sum(unsure))


def first_chunk(model: TextAutoencoder, text: str) -> Memory:
    """The memory of a text's beginning; same errors as `see`."""
    ids = model.tokenizer.encode(text[:_MOST_CHARACTERS])[: model.config.shape.chunk_len]
    return model.encode_tokens([ids.tolist()])


def mixed(one: Memory, other: Memory, how: Mixing, share: float) -> Memory:
    """Memories of one chunk each, made of those of two texts' first chunks.

    Interpolated, there is one, with this share of the other. With swapped halves there are two: the first has its last
    dimensions, this share of all, from the other, and the second from the one.

    Raises:
        ValueError: one of the texts is empty.
    """
    if not len(one.vectors) or not len(other.vectors):
        raise ValueError("both texts must have a memory: one of them is empty")
    first, second = one.vectors[0], other.vectors[0]
    if how == "interpolate":
        made = [(1 - share) * first + share * second]
    else:
        flat = first.flatten(), second.flatten()
        kept = len(flat[0]) - round(share * len(flat[0]))
        crossed = [torch.cat([flat[0][:kept], flat[1][kept:]]), torch.cat([flat[1][:kept], flat[0][kept:]])]
        made = [each.reshape(first.shape) for each in crossed]
    lengths = torch.stack([one.num_tokens[0], other.num_tokens[0]])
    longest = lengths.amax().repeat(len(made)) if len(made) == 1 else lengths
    return Memory(vectors=torch.stack(made), num_tokens=longest, num_chunks=(1,) * len(made), encoder=one.encoder)

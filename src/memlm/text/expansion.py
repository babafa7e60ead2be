"""Expansion: which chunks of a past matter to a prompt, so that they are read as tokens instead of as memories."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memlm.models.memory_reader import MemoryReader, Reading
from memlm.text.past import Past, groups_of

Chooser = Literal["likelihood", "attention", "similarity"]

_CHUNKS_AT_ONCE = 16
_CHUNK_RATIO = 4
"""A chunk that is judged by itself is read at this ratio."""


def choose(
    model: MemoryReader,
    past: Past,
    prompt: Sequence[int],
    surprisal: NDArray[np.float64],
    *,
    ratio: int,
    budget: int,
    by: Chooser = "likelihood",
) -> list[int]:
    """The chunks that matter most to a prompt, in order, with at most `budget` tokens together.

    `likelihood` asks by how much a chunk makes the prompt likelier, `attention` how much the prompt attends to its
    positions, and `similarity` which rare words they share.

    Raises:
        ValueError: there is no such way to choose.
    """
    if by not in CHOOSERS:
        raise ValueError(f"chunks are chosen by {', '.join(CHOOSERS)}, not by {by!r}")
    if not prompt:
        return []
    gains = CHOOSERS[by](model, past, prompt, surprisal, ratio)
    lengths = np.bincount(past.chunk, minlength=len(gains))
    chosen: list[int] = []
    for chunk in np.argsort(-gains, kind="stable"):
        if lengths[[*chosen, chunk]].sum() <= budget:
            chosen.append(int(chunk))
    return sorted(chosen)


@torch.no_grad()
def _likelihood(
    model: MemoryReader, past: Past, prompt: Sequence[int], surprisal: NDArray[np.float64], _: int
) -> NDArray[np.float64]:
    """By how many nats the prompt is likelier after each chunk alone than after the one that helps least."""
    chunks = [past.only(number) for number in range(len(past.vectors))]
    found = []
    for start in range(0, len(chunks), _CHUNKS_AT_ONCE):
        some = chunks[start : start + _CHUNKS_AT_ONCE]
        groups = groups_of(some, model.config, surprisal, _CHUNK_RATIO)
        tokens = torch.tensor([list(prompt)] * len(some))
        real = torch.ones_like(tokens, dtype=torch.bool)
        reading = Reading(groups, tokens, real, real, regenerates=False).rows(slice(None), model.ask.device)
        scored = reading.scored.clone()
        scored[:, 0] = False
        found.append(-model.nats(reading._replace(scored=scored)).sum(1).cpu())
    return torch.cat(found).double().numpy()


@torch.no_grad()
def _attention(
    model: MemoryReader, past: Past, prompt: Sequence[int], surprisal: NDArray[np.float64], ratio: int
) -> NDArray[np.float64]:
    """How much the prompt attends to a position of each chunk, over all layers and heads."""
    hf, device = model.decoder.hf, model.ask.device
    layout = past.layout(model.config, surprisal, ratio)
    context = model.soft_prompt(groups_of([past], model.config, surprisal, ratio).to(device))
    inputs = torch.cat([context.prefix, model.decoder.embed(torch.tensor([list(prompt)], device=device))], dim=1)
    before = hf.config._attn_implementation
    hf.set_attn_implementation("eager")  # the others do not give their weights
    try:
        attentions: Sequence[Tensor] = hf.base_model(inputs_embeds=inputs, output_attentions=True).attentions
    finally:
        hf.set_attn_implementation(before)
    positions = context.prefix.shape[1]
    received = sum(layer[0, :, positions:, :positions].float().sum((0, 1)) for layer in attentions)
    assert isinstance(received, Tensor)
    # A token has its share of its position's.
    share = received.cpu().double().numpy()[layout.group] / np.bincount(layout.group)[layout.group]
    chunk = past.chunk if len(past.tokens) else np.repeat(np.arange(len(past.vectors)), 1)
    return np.bincount(chunk, share, minlength=len(past.vectors)) / np.bincount(
        chunk, minlength=len(past.vectors)
    ).clip(1)


def _similarity(
    model: MemoryReader, past: Past, prompt: Sequence[int], surprisal: NDArray[np.float64], ratio: int
) -> NDArray[np.float64]:
    """The surprisal of the prompt's tokens that each chunk has too."""
    asked = set(prompt)
    return np.array(
        [
            sum(surprisal[token] for token in asked & set(past.tokens[past.chunk == number].tolist()))
            for number in range(len(past.vectors))
        ]
    )


CHOOSERS: Mapping[str, Callable[[MemoryReader, Past, Sequence[int], NDArray[np.float64], int], NDArray[np.float64]]] = {
    "likelihood": _likelihood,
    "attention": _attention,
    "similarity": _similarity,
}
"""Ways to judge chunks: model, past, prompt, surprisal of tokens, ratio → what each chunk is worth."""

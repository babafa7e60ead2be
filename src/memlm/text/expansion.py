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

_TOKENS_AT_ONCE = 512
"""Of the prompt, whose logits are held."""
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
    by: Chooser,
) -> list[int]:
    """The chunks that matter most to a prompt, in order, with at most `budget` tokens together.

    Each brings the one after it, if that fits too: what a chunk begins to say may go on there.

    `likelihood` asks how likely a chunk makes the prompt, `attention` how much the prompt attends to its
    positions, and `similarity` which rare words they share.
    """
    if not prompt:
        return []
    gains = CHOOSERS[by](model, past, prompt, surprisal, ratio)
    lengths = np.bincount(past.chunk, minlength=len(gains))
    chosen: list[int] = []
    for best in np.argsort(-gains, kind="stable").tolist():
        for chunk in (best, best + 1):
            new = chunk < len(gains) and chunk not in chosen
            if new and lengths[[*chosen, chunk]].sum() <= budget:
                chosen.append(chunk)
    return sorted(chosen)


def require_chooser(by: str) -> None:
    """Refuse a way to choose that there is none of."""
    if by not in CHOOSERS:
        raise ValueError(f"chunks are chosen by {', '.join(CHOOSERS)}, not by {by!r}")


@torch.no_grad()
def _likelihood(
    model: MemoryReader, past: Past, prompt: Sequence[int], surprisal: NDArray[np.float64], ratio: int
) -> NDArray[np.float64]:
    """How likely the prompt is after each chunk alone, in nats; its first token is taken as given."""
    if len(prompt) < 2:
        return _similarity(model, past, prompt, surprisal, ratio)
    chunks = [past.only(number) for number in range(len(past.vectors))]
    found, at_once = [], max(1, _TOKENS_AT_ONCE // len(prompt))
    for start in range(0, len(chunks), at_once):
        some = chunks[start : start + at_once]
        tokens = torch.tensor([list(prompt)] * len(some))
        scored = torch.ones_like(tokens, dtype=torch.bool)
        scored[:, 0] = False
        groups = groups_of(some, model.config, surprisal, _CHUNK_RATIO)
        reading = Reading(groups, tokens, scored, regenerates=False)
        found.append(-model.nats(reading.rows(slice(None), model.ask.device)).sum(1).cpu())
    return torch.cat(found).double().numpy()


@torch.no_grad()
def _attention(
    model: MemoryReader, past: Past, prompt: Sequence[int], surprisal: NDArray[np.float64], ratio: int
) -> NDArray[np.float64]:
    """How much the prompt attends to a unit of each chunk, over all layers and heads."""
    hf, device, begin = model.decoder.hf, model.ask.device, len(model.config.begin)
    layout, chunk = past.layout(model.config, surprisal, ratio), past.units(model.config).chunk
    groups = groups_of([past], model.config, surprisal, ratio).rows(slice(None), device)
    inputs, context = model.inputs(groups, torch.tensor([list(prompt)], device=device), regenerates=False)
    before = hf.config._attn_implementation
    hf.set_attn_implementation("eager")  # the others do not give their weights
    try:
        attentions: Sequence[Tensor] = model.decoder.attentions(inputs, context)
    finally:
        hf.set_attn_implementation(before)
    end = context.prefix.shape[1]
    received = torch.stack([layer[0, :, end:, begin:end].float().sum((0, 1)) for layer in attentions]).sum(0)
    # A unit has its share of its position's.
    share = received.cpu().double().numpy()[layout.group] / np.bincount(layout.group)[layout.group]
    number = len(past.vectors)
    return np.bincount(chunk, share, minlength=number) / np.bincount(chunk, minlength=number).clip(1)


def _similarity(
    model: MemoryReader, past: Past, prompt: Sequence[int], surprisal: NDArray[np.float64], ratio: int
) -> NDArray[np.float64]:
    return past.similarity(prompt, surprisal)


CHOOSERS: Mapping[str, Callable[[MemoryReader, Past, Sequence[int], NDArray[np.float64], int], NDArray[np.float64]]] = {
    "likelihood": _likelihood,
    "attention": _attention,
    "similarity": _similarity,
}
"""Ways to judge chunks: model, past, prompt, surprisal of tokens, ratio → what each chunk is worth."""

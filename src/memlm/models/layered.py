"""What probes need of a model: its hidden states, layer by layer, from token embeddings on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, Self

import torch
from jaxtyping import Float
from torch import Tensor

from memlm.nn.mixers import Hidden, Mask, Tokens


class LayeredModel(Protocol):
    """A model whose hidden states can be looked at; a language model of ours or a pretrained one.

    Texts come without special tokens; a model that wants some puts them around the text itself, so that states are
    [batch, num_prefix + token (+ special tokens after the text), dim].
    """

    num_layers: int
    """States are numbered from 0, the token embeddings, to `num_layers`, what the head reads."""
    dim: int
    max_len: int
    """Longest text it reads, in tokens, special tokens not counted in."""
    num_prefix: int
    """Special tokens before the text."""
    causal: bool
    """Whether a state depends on nothing after it."""

    def to(self, device: torch.device | str) -> Self:
        """The model itself, on this device."""
        ...

    @property
    def token_table(self) -> Float[Tensor, "vocab dim"]:
        """The input embedding of every token."""
        ...

    @property
    def fingerprint(self) -> str:
        """A short hash that changes with weights, precision and architecture."""
        ...

    def embed_tokens(self, tokens: Tokens) -> Hidden:
        """Input embeddings [batch token dim] of a text, without positions."""
        ...

    def states(self, embedded: Hidden, mask: Mask, layers: Sequence[int]) -> list[Hidden]:
        """The hidden states at these layers, from a text's input embeddings; differentiable."""
        ...

    def untrained(self, seed: int) -> Self:
        """The same architecture with fresh weights, as a control."""
        ...


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers, on the CPU, of a seed within the block; torch's random state is left as it was."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        yield

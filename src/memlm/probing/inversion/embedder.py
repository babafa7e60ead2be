"""What is inverted: anything that turns texts, as token ids, into vectors of length 1, and counts how many it did."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from memlm.data.tokenizer import Tokenizer
from memlm.probing.encoders import FrozenEncoder
from memlm.runtime.cpu import precision_on
from memlm.text.model import default_device

Ids = tuple[int, ...]
"""A text as token ids."""
Unit = Float[Tensor, "text dim"]
"""Embeddings of length 1."""

_BATCH_TOKENS = 4096


class Missing(NamedTuple):
    """A text that lacks one of its tokens, each in turn."""

    vectors: Unit
    """Of what is left, one for each place."""
    gains: Float[Tensor, "place vocab"] | None
    """By how much each token in that place would raise the cosine, to first order; None where nobody can look inside
    the encoder."""


class Embedder(ABC):
    """Texts → embeddings. Texts are made of the tokens of `tokenizer`, which need not be the encoder's own."""

    name: str
    tokenizer: Tokenizer
    max_len: int
    """Tokens of the longest text."""
    fingerprint: str
    num_encodings: int = 0
    """Texts embedded so far."""

    def tokens(self, text: str) -> Ids:
        """A text as token ids."""
        return tuple(self.tokenizer.encode(text).tolist())

    def text(self, ids: Ids) -> str:
        """Token ids as a text."""
        return self.tokenizer.decode(ids).strip()

    def without(self, text: Ids, target: Float[Tensor, " dim"]) -> Missing:
        """What is lost with each of a text's tokens, seen from the target."""
        rest = [text[:place] + text[place + 1 :] for place in range(len(text))] if len(text) > 1 else [text]
        return Missing(self.embed(rest, exact=False), None)

    @abstractmethod
    def embed(self, texts: Sequence[Ids], *, exact: bool = True) -> Unit:
        """Embeddings of length 1, on the CPU; without `exact` they may be rounded to some thousandths."""


class LocalEmbedder(Embedder):
    """An encoder that runs here."""

    def __init__(self, encoder: FrozenEncoder) -> None:
        self.encoder, self.name, self.tokenizer = encoder, encoder.name, encoder.tokenizer
        self.fingerprint, self.max_len = encoder.fingerprint, encoder.max_len
        self.view = encoder.resolve(encoder.default_view, 1)
        self.device = torch.device(default_device())
        encoder.to(self.device)

    @torch.no_grad()
    def embed(self, texts: Sequence[Ids], *, exact: bool = True) -> Unit:
        """Embeddings of length 1; what has no length stays zero."""
        self.num_encodings += len(texts)
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        step = max(1, _BATCH_TOKENS // max(map(len, texts), default=1))
        rough = not exact and precision_on(self.device) == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16) if rough else nullcontext():
            made = [self._batch([texts[row] for row in order[at : at + step]]) for at in range(0, len(order), step)]
        vectors = torch.cat(made)
        return torch.empty_like(vectors).index_copy_(0, torch.tensor(order), vectors)

    def _batch(self, texts: Sequence[Ids]) -> Unit:
        longest = max([1, *map(len, texts)])
        tokens = torch.zeros(len(texts), longest, dtype=torch.long)
        mask = torch.zeros(len(texts), longest, dtype=torch.bool)
        for row, text in enumerate(texts):
            tokens[row, : len(text)] = torch.tensor(text, dtype=torch.long)
            mask[row, : len(text)] = True
        (vectors,) = self.encoder.embed(tokens, mask, [self.view])
        return F.normalize(vectors.flatten(1).float(), dim=-1).cpu()

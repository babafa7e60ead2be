"""One state of a causal model as the embedding of texts of one length, with its gradients: what a search climbs."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from memlm.config import Quantization
from memlm.nn.quantization import level_indices
from memlm.probing.encoders import StateEncoder
from memlm.probing.inversion.embedder import Embedder, Ids, Missing, Unit
from memlm.probing.inversion.language import Language, NoLanguage
from memlm.probing.inversion.readout import Readout
from memlm.probing.inversion.search import Search
from memlm.probing.results import View
from memlm.probing.transform import Transform
from memlm.runtime.cache import digest

TOLERANCE = 1e-4
"""Distance, in units of the state's length, within which a text's state is the given one: must be above what rounding
does, which is more in bf16."""
_BATCH_TOKENS = 2048
_PER_GRADIENT = 3
"""Encodings that one with its gradient counts as."""


class StateEmbedder(Embedder):
    """A view of an encoder, whitened: the states of a language model are nearly the same along most directions, and it
    is in the others that early tokens are told apart."""

    def __init__(self, encoder: StateEncoder, view: View, transform: Transform, learned: Int[Tensor, " type"]) -> None:
        self.encoder, self.name, self.tokenizer, self.view = encoder, encoder.name, encoder.tokenizer, view
        self.max_len, self.fingerprint = encoder.max_len, digest([encoder.fingerprint, *view])
        self.embed_inputs = encoder.from_inputs(view)
        self.transform = transform
        table = encoder.token_table[: self.tokenizer.vocab_size].float()
        self.blank = table[learned].mean(0)
        self.table = table - self.blank

    def text(self, ids: Ids) -> str:
        """Token ids as a text, with the spaces around it: it is a piece of another."""
        return self.tokenizer.decode(ids)

    def embed(self, texts: Sequence[Ids], *, exact: bool = True) -> Unit:
        """Whitened states of length 1, of texts that have equally many tokens; rounding would hide what they tell."""
        return F.normalize(self.whitened(self.states(texts)), dim=-1)

    @torch.no_grad()
    def states(self, texts: Sequence[Ids]) -> Float[Tensor, "text dim"]:
        """The states as they are."""
        self.num_encodings += len(texts)
        tokens = torch.tensor([*texts])
        parts = torch.split(tokens, max(1, _BATCH_TOKENS // tokens.shape[1]))
        return torch.cat([self.embed_inputs(self.encoder.model.embed_tokens(part)) for part in parts])

    def whitened(self, states: Float[Tensor, "text dim"]) -> Float[Tensor, "text dim"]:
        """States as readers get them, unrounded, so that they have a gradient."""
        return ((states - self.transform.mean) / self.transform.std) @ self.transform.whitening

    def target(self, state: Float[Tensor, " dim"]) -> Float[Tensor, " dim"]:
        """A state as readers get it, of length 1."""
        return F.normalize(self.transform(state[None, None].numpy())[0, 0], dim=-1)

    def same(self, one: Float[Tensor, " dim"], other: Float[Tensor, " dim"]) -> bool:
        """Whether two states are the same: when they are rounded, or but for rounding."""
        if isinstance(rounded := self.transform.degradation, Quantization):
            standard = ((state - self.transform.mean) / self.transform.std for state in (one, other))
            return torch.equal(*(level_indices(each, rounded.num_bits) for each in standard))
        return float((one - other).norm()) <= TOLERANCE * float(other.norm())

    def without(self, text: Ids, target: Float[Tensor, " dim"]) -> Missing:
        """With the mean of all token embeddings in a token's place: a wrong token's own gradient says little of the
        right one's."""
        self.num_encodings += _PER_GRADIENT * len(text)
        place = torch.arange(len(text))
        embedded = self.encoder.model.embed_tokens(torch.tensor([text])).detach().repeat(len(text), 1, 1)
        embedded[place, place] = self.blank.to(embedded.dtype)
        with torch.enable_grad():
            vectors = F.normalize(self.whitened(self.embed_inputs(embedded.requires_grad_())), dim=-1)
            (slopes,) = torch.autograd.grad((vectors @ target).sum(), embedded)
        return Missing(vectors.detach(), slopes[place, place].float() @ self.table.T)


class Found(NamedTuple):
    """What a search ended with."""

    text: Ids
    verified: bool
    """Whether the text, encoded again, gives the state."""
    num_encodings: int


def find_text(
    embedder: StateEmbedder,
    state: Float[Tensor, " dim"],
    starts: Sequence[Ids],
    readout: Readout,
    language: Language | NoLanguage,
    *,
    budget: int,
    seed: int,
) -> Found:
    """Search for the text of a state, from texts of its length on."""
    before = embedder.num_encodings
    search = Search(
        embedder=embedder,
        language=language,
        readout=readout,
        target=embedder.target(state),
        length=len(starts[0]),
        budget=budget,
        seed=seed,
    )
    best = search.run(starts).text
    (again,) = embedder.states([best])
    return Found(best, embedder.same(again, state), embedder.num_encodings - before)

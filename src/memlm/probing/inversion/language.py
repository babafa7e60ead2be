"""The language model of a search: what is English, what comes next, and how its tokens go with an embedder's."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from memlm.data.tokenizer import Tokenizer
from memlm.models.load_pretrained import load_causal, tokenizer_of
from memlm.runtime.cpu import precision_on

_ANCHOR = "the"


class Reading(NamedTuple):
    """What a language model makes of a text."""

    nats: float
    """Of the whole text."""
    following: Float[Tensor, "token vocab"]
    """Log-probability of every token of the language model before each of the text's own, given what is before."""
    begins: Int[np.ndarray, " token"]
    """The character that each token begins at."""


class NoLanguage:
    """In the place of a language model: no text is likelier than another."""

    name = ""

    def __init__(self, vocabulary: Tokenizer) -> None:
        self.vocabulary = vocabulary

    def of(self, target: Float[Tensor, " dim"]) -> Self:
        """What reads texts whose embedding should be this one: the same for all that know nothing of embeddings."""
        return self

    def read(self, texts: Sequence[str]) -> list[Reading]:
        """Nothing is made of them."""
        return [Reading(0.0, torch.zeros(0, 0), np.zeros(0, np.int64))] * len(texts)

    def proposals(self, reading: Reading, prefixes: Sequence[int]) -> Float[Tensor, "place vocab"]:
        """Nothing speaks for any token."""
        return torch.zeros(len(prefixes), self.vocabulary.vocab_size)


class Language(NoLanguage):
    """A causal language model, its tokenizer, and the likeliest of its tokens for each of another tokenizer's."""

    def __init__(self, model: Any, name: str, vocabulary: Tokenizer) -> None:
        super().__init__(vocabulary)
        self.model, self.name, self.tokenizer = model, name, tokenizer_of(name)
        self.device = next(model.parameters()).device
        start = model.config.bos_token_id if model.config.bos_token_id is not None else model.config.eos_token_id
        self.start = int(start[0] if isinstance(start, list) else start or 0)

    @classmethod
    def load(cls, name: str, vocabulary: Tokenizer, *, device: str = "cpu") -> Self:
        """By a folder, hub name or .gguf file; with its errors."""
        low = precision_on(torch.device(device)) == "bf16"
        return cls(load_causal(name).to(device, torch.bfloat16 if low else torch.float32).eval(), name, vocabulary)

    @cached_property
    def pieces(self) -> list[str]:
        """How each token of the vocabulary is written after another word; empty where it is not written at all."""
        anchor = self.vocabulary.encode(_ANCHOR).tolist()
        begin = len(self.vocabulary.decode(anchor))
        return [self.vocabulary.decode([*anchor, token])[begin:] for token in range(self.vocabulary.vocab_size)]

    @cached_property
    def first(self) -> Int[Tensor, " vocab"]:
        """The language model's token that each token of the vocabulary begins with; -1 where there is none."""
        found = self.tokenizer.encode_batch(self.pieces)
        return torch.tensor([int(ids[0]) if len(ids) else -1 for ids in found])

    @torch.no_grad()
    def following(
        self, tokens: Int[Tensor, "text token"], past: Any = None
    ) -> tuple[Float[Tensor, "text token lm_vocab"], Any]:
        """Log-probability of what follows each token of the language model's, and what to give as `past` with the
        tokens that come next. All that a search asks of a language model comes from here."""
        out = self.model(tokens.to(self.device), past_key_values=past, use_cache=True)
        return out.logits.float().log_softmax(-1).cpu(), out.past_key_values

    def read(self, texts: Sequence[str]) -> list[Reading]:
        """Read texts in one batch."""
        placed = [self.tokenizer.encode_placed(text) for text in texts]
        longest = max((len(ids) for ids, _ in placed), default=0)
        rows = torch.full((len(texts), 1 + longest), self.start)
        for row, (ids, _) in enumerate(placed):
            rows[row, 1 : 1 + len(ids)] = torch.from_numpy(ids)
        # Padding on the right changes nothing before it.
        logits, _ = self.following(rows)
        costs = -logits[:, :-1].gather(2, rows[:, 1:, None])[..., 0]
        return [
            Reading(float(costs[row, : len(ids)].sum()), logits[row, : 1 + len(ids)], begins)
            for row, (ids, begins) in enumerate(placed)
        ]

    def proposals(self, reading: Reading, prefixes: Sequence[int]) -> Float[Tensor, "place vocab"]:
        """Log-probability of the vocabulary's tokens after so many characters of a text that was read."""
        # A token of the model's begins with the space before its word.
        before = [int(np.searchsorted(reading.begins, prefix, side="left")) for prefix in prefixes]
        rows = reading.following[before]
        return rows[:, self.first.clamp_min(0)].masked_fill(self.first < 0, -30.0)

    def begins(self, fit: Float[Tensor, " vocab"]) -> Float[Tensor, " lm_vocab"]:
        """What speaks for each of the language model's tokens: the most of all that begin with it, or 0."""
        known = self.first >= 0
        size = self.model.get_input_embeddings().weight.shape[0]
        return torch.zeros(size).scatter_reduce_(0, self.first[known], fit[known], "amax", include_self=False)

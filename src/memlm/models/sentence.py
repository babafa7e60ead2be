"""Sentence-transformers models: a pretrained transformer, and what makes one vector of its states."""

import copy
from collections.abc import Sequence
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from memlm.models.encoder import Tokens
from memlm.models.layered import seeded
from memlm.models.pretrained import PretrainedModel
from memlm.nn.mixers import Hidden, Mask


class SentenceModel(PretrainedModel):
    """A sentence-transformers model: also has one vector for a whole text."""

    def __init__(
        self, *body: Any, name: str, pooling: Sequence[nn.Module], max_sentence_len: int, head: nn.Module | None = None
    ) -> None:
        """Wrap a body and the library's modules after it; the longest text they were made for, special tokens included.

        Raises:
            ValueError: as for any `PretrainedModel`.
        """
        super().__init__(*body, name=name, head=head)
        self.pooling = nn.ModuleList(pooling).requires_grad_(False).eval()
        self.max_sentence_len = min(self.max_len, max_sentence_len - self.num_prefix - self.num_suffix)

    def untrained(self, seed: int) -> Self:
        """The model as it is before training: the transformer, and any layers with weights that come after it."""
        pooling = copy.deepcopy(self.pooling)
        with seeded(seed):
            for module in pooling.modules():
                if isinstance(module, nn.Linear | nn.LayerNorm):
                    module.reset_parameters()
        longest = self.max_sentence_len + self.num_prefix + self.num_suffix
        return self._untrained(seed, pooling=list(pooling), max_sentence_len=longest)

    def sentence_embedding(self, tokens: Tokens, mask: Mask) -> Float[Tensor, "batch dim"]:
        """What `SentenceTransformer.encode` gives for these tokens; special tokens are put around them here.

        Raises:
            ValueError: the text is longer than `max_sentence_len`, where `encode` would truncate it; or as `states`.
        """
        if tokens.shape[1] > self.max_sentence_len:
            raise ValueError(
                f"{self.name} embeds at most {self.max_sentence_len} tokens, not {tokens.shape[1]}: shorten texts"
            )
        with torch.no_grad():
            return self.pooled(self.states(self.embed_tokens(tokens), mask, [self.num_layers])[0], tokens, mask)

    def pooled(self, hidden: Hidden, tokens: Tokens, mask: Mask) -> Float[Tensor, "batch dim"]:
        """One vector of each text's last states, special tokens' included."""
        ids, attended = self._with_special(tokens[..., None], self.prefix[:, None], self.suffix[:, None], mask)
        features: dict[str, Any] = {
            "input_ids": ids[..., 0],
            "attention_mask": attended.long(),
            "token_embeddings": hidden,
        }
        for module in self.pooling:
            features = module(features)
        return features["sentence_embedding"]

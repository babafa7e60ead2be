"""A causal language model of our own: the same stacks as the autoencoder's, trained to predict the next token."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from memlm import config
from memlm.models.autoencoder import weights_fingerprint
from memlm.models.layered import seeded
from memlm.nn.linear import linear, norm, to_compute_dtype
from memlm.nn.mixers import Hidden, Logits, Mask, Tokens
from memlm.nn.stack import Stack


class LanguageModel(nn.Module):
    """Token embeddings and learned positions, a causal stack, and a head; a `LayeredModel`.

    Position i's logits are of token i + 1. Recurrent mixers know where a token stands, and need no positions.
    """

    causal = True
    num_prefix = 0

    def __init__(self, cfg: config.LanguageModelConfig) -> None:
        super().__init__()
        self.config = cfg
        self.num_layers, self.dim, self.max_len = cfg.stack.num_layers, cfg.stack.dim, cfg.chunk_len
        self.embed = nn.Embedding(cfg.vocab_size, cfg.stack.dim)
        nn.init.normal_(self.embed.weight, std=0.35)
        self.positions = None
        if not isinstance(cfg.stack.mixer, config.RecurrentMixer | config.Mamba):
            self.positions = nn.Parameter(torch.randn(cfg.chunk_len, cfg.stack.dim) * 0.1)
        self.stack = Stack(cfg.stack, cfg.chunk_len)
        self.head = linear(cfg.stack.dim, cfg.vocab_size, gain=0.3)
        # Not zero as in other stacks: an untrained model, which is a control, would see its last token alone.
        for name, parameter in self.stack.named_parameters():
            if name.endswith(("outward.weight", "down.weight")):
                nn.init.normal_(parameter, std=(2 * cfg.stack.num_layers * parameter.shape[1]) ** -0.5)

    def forward(self, tokens: Tokens, mask: Mask) -> Logits:
        """Logits [batch token vocab] of each position's next token."""
        return self.head(self.stack(self._inputs(self.embed_tokens(tokens)), mask))

    @property
    def token_table(self) -> Float[Tensor, "vocab dim"]:
        """The input embedding of every token."""
        return self.embed.weight.detach()

    def embed_tokens(self, tokens: Tokens) -> Hidden:
        """Input embeddings [batch token dim], without positions."""
        return self.embed(tokens)

    def states(self, embedded: Hidden, mask: Mask, layers: Sequence[int]) -> list[Hidden]:
        """The hidden states at these layers; the last layer's is normalized, as the head reads it."""
        every = [self._inputs(embedded)]
        for block in self.stack.blocks:
            every.append(block(every[-1], mask))
        every[-1] = norm(every[-1])
        return [every[layer] for layer in layers]

    @property
    def fingerprint(self) -> str:
        """A short hash of weights and configuration."""
        return weights_fingerprint(self, repr(self.config))

    def untrained(self, seed: int) -> "LanguageModel":
        """The same architecture with fresh weights, on the same device."""
        with seeded(seed):
            return LanguageModel(self.config).eval().to(next(self.parameters()).device)

    def _inputs(self, embedded: Hidden) -> Hidden:
        length = embedded.shape[1]
        if length > self.max_len:
            raise ValueError(f"this language model reads at most {self.max_len} tokens, not {length}")
        return to_compute_dtype(embedded if self.positions is None else embedded + self.positions[:length])

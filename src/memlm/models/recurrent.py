"""The recurrent memory model (RMT, Bulatov et al. 2022), as a baseline: memory tokens carried from chunk to chunk."""

from collections.abc import Collection

import torch
from einops import repeat
from torch import nn

from memlm import config
from memlm.models.causal_decoder import DECODERS, CausalDecoder
from memlm.models.memory_model import Predictions, Term, WindowMask, Windows
from memlm.nn.insertion import Context
from memlm.nn.mixers import Hidden, Tokens


class RecurrentModel(nn.Module):
    """Each chunk stands between the memory tokens of the chunk before and those that it writes.

    Chunks are processed in sequence, with backpropagation through all of them.
    """

    def __init__(self, cfg: config.RecurrentConfig) -> None:
        super().__init__()
        self.config = cfg
        self.decoder: CausalDecoder = DECODERS[type(cfg.decoder)](cfg.decoder, cfg.vocab_size)
        dim, rms = self.decoder.dim, self.decoder.embedding_rms
        self.start = nn.Parameter(torch.randn(dim) * rms)
        self.blanks = nn.Parameter(torch.randn(2 * cfg.num_memory_tokens, dim) * rms)

    def forward(
        self, tokens: Windows, mask: WindowMask, memory: None = None, *, terms: Collection[Term]
    ) -> Predictions:
        """Next-token logits of every chunk, the only term."""
        carried, logits = self.nothing_carried(len(tokens)), []
        for chunk in tokens.unbind(1):
            states, carried = self.carry(chunk, carried)
            logits.append(self.decoder.head(states))
        return Predictions(torch.stack(logits, dim=1), None, None, None)

    def nothing_carried(self, num_rows: int) -> Hidden:
        """What stands before the first chunk of each row."""
        return repeat(self.blanks.chunk(2)[0], "k d -> r k d", r=num_rows)

    def carry(self, chunk: Tokens, carried: Hidden) -> tuple[Hidden, Hidden]:
        """States from which each of a chunk's tokens is predicted, and what is carried on to the next chunk."""
        written = repeat(self.blanks.chunk(2)[1], "k d -> r k d", r=len(chunk))
        inputs, context = self.read(chunk, carried)
        hidden = self.decoder.states(torch.cat([inputs, written], dim=1), context)
        return hidden[:, : chunk.shape[1]], hidden[:, -written.shape[1] :].float() + written

    def read(self, chunk: Tokens, carried: Hidden) -> tuple[Hidden, Context]:
        """The decoder's inputs for a chunk so far, of which there is one more, and their context."""
        start = repeat(self.start, "d -> r 1 d", r=len(chunk))
        present = torch.ones(carried.shape[:2], dtype=torch.bool, device=carried.device)
        return torch.cat([start, self.decoder.embed(chunk)], dim=1), Context(carried, present)

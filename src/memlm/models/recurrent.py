"""The recurrent memory model (RMT, Bulatov et al. 2022), as a baseline: memory tokens carried from chunk to chunk."""

from collections.abc import Collection

import torch
from einops import repeat
from torch import nn

from memlm import config
from memlm.models.causal_decoder import DECODERS, CausalDecoder
from memlm.models.memory_model import Predictions, Term, WindowMask, Windows
from memlm.nn.insertion import Context


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
        read, write = self.blanks.chunk(2)
        carried = repeat(read, "k d -> w k d", w=len(tokens))
        logits = []
        for chunk in tokens.unbind(1):
            embedded = self.decoder.embed(chunk)
            start = repeat(self.start, "d -> w 1 d", w=len(tokens))
            written = repeat(write, "k d -> w k d", w=len(tokens))
            inputs = torch.cat([start, embedded, written], dim=1)
            present = torch.ones(carried.shape[:2], dtype=torch.bool, device=carried.device)
            hidden = self.decoder.states(inputs, Context(carried, present))
            logits.append(self.decoder.logits(hidden[:, : chunk.shape[1]]))
            carried = hidden[:, -len(write) :].float() + written
        return Predictions(torch.stack(logits, dim=1), None, None, None)

"""A tokenizer and a causal language model as one; what probes and attacks are tried on."""

import numpy as np
import torch
from jaxtyping import Float

from memlm.config import LanguageModelConfig
from memlm.data.chunks import Chunks, split_into_chunks
from memlm.data.token_store import TokenSplit
from memlm.evaluation.bootstrap import ratio_interval
from memlm.models.batch import batch_chunks, batches, next_token_nats
from memlm.models.language_model import LanguageModel
from memlm.runtime.results import Provenance, Result
from memlm.text.model import TextModel


class TextLanguageModel(TextModel[LanguageModel, LanguageModelConfig]):
    """A causal language model of ours, with its tokenizer."""

    kind = "language_model"
    model_class = LanguageModel

    def evaluate_split(self, split: TokenSplit, *, name: str) -> Result:
        """What next tokens cost within chunks: `causal_nats_per_token`, with a 95% interval over documents."""
        chunks = split_into_chunks(split, self.config.chunk_len)
        nats, mask = causal_nats(self.model, chunks), chunks.mask[:, 1:]
        per_chunk = (nats * mask).sum(1, dtype=np.float64), mask.sum(1)
        sums = np.stack([np.bincount(chunks.document, weights=column) for column in per_chunk], axis=1)
        kept, total = sums[sums[:, 1] > 0], sums.sum(axis=0)
        values = {
            "causal_nats_per_token": float(total[0] / total[1]),
            "num_scored_tokens": int(total[1]),
            "chunk_len": self.config.chunk_len,
        }
        intervals = {"causal_nats_per_token": ratio_interval(kept)} if len(kept) > 1 else {}
        made_by = Provenance.here(model=self.provenance)
        return Result(name=name, measures=values, intervals=intervals, provenance=made_by)


@torch.no_grad()
def causal_nats(model: LanguageModel, chunks: Chunks) -> Float[np.ndarray, "chunk token_less_one"]:
    """What each token but a chunk's first costs the model, given those before it, in nats; 0 at the padding."""
    device = next(model.parameters()).device
    num_chunks = batch_chunks(chunks.tokens.shape[1], model.config.vocab_size)
    rows = [
        next_token_nats(model(batch.tokens, batch.mask), batch).cpu().numpy()
        for batch in batches(chunks, device, num_chunks)
    ]
    return np.concatenate(rows)

"""A tokenizer and a causal language model as one; what probes and attacks are tried on."""

import numpy as np
import torch
from jaxtyping import Float

from memlm.config import LanguageModelConfig
from memlm.data.chunks import Chunks
from memlm.evaluation.metrics import batch_chunks, batches
from memlm.models.language_model import LanguageModel
from memlm.objectives import next_token_nats
from memlm.text_model import TextModel


class TextLanguageModel(TextModel[LanguageModel, LanguageModelConfig]):
    """A causal language model of ours, with its tokenizer."""

    kind = "language_model"
    model_class = LanguageModel


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

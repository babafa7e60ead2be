"""A tokenizer and a causal language model as one; what probes and attacks are tried on."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from memlm import checkpoint_folder
from memlm.config import LanguageModelConfig
from memlm.data.chunks import Chunks
from memlm.data.tokenizer import Tokenizer
from memlm.evaluation.metrics import batch_chunks, batches
from memlm.models.language_model import LanguageModel
from memlm.objectives import next_token_nats


class TextLanguageModel:
    """A causal language model of ours, with its tokenizer, that can be saved and loaded."""

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, provenance: dict[str, Any]) -> None:
        if tokenizer.vocab_size != model.config.vocab_size:
            raise ValueError(
                f"the tokenizer has {tokenizer.vocab_size} types, the model {model.config.vocab_size}: "
                "they do not belong together"
            )
        self.model, self.tokenizer, self.provenance = model.eval(), tokenizer, provenance

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a checkpoint folder (config, safetensors, tokenizer, provenance), all or nothing.

        Raises:
            OSError: the disk is full or not writable; what was in `folder` before still is.
        """
        tensors = self.model.state_dict()
        checkpoint_folder.save(Path(folder), self.model.config, tensors, self.tokenizer, self.provenance)

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path) -> "TextLanguageModel":
        """Load a checkpoint folder.

        Raises:
            ValueError: no such model, or a folder that is not a whole memlm language model; says which part is wrong.
        """
        folder = checkpoint_folder.locate(name_or_path)
        contents = checkpoint_folder.load(folder, "language_model")
        assert isinstance(contents.config, LanguageModelConfig)
        model = LanguageModel(contents.config)
        checkpoint_folder.load_weights(model, contents.tensors, folder)
        return cls(model, contents.tokenizer, contents.provenance)


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

"""A causal language model with its tokenizer; a model for probes and attacks."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from torch import Tensor

from memlm.config import LanguageModelConfig
from memlm.data.chunks import Chunks, split_into_chunks
from memlm.data.token_store import TokenSplit
from memlm.evaluation.bootstrap import ratio_intervals, sums_by_unit
from memlm.models.batch import Batch, batch_chunks, compute_in_batches, next_token_nats
from memlm.models.language_model import LanguageModel
from memlm.runtime.progress import track
from memlm.runtime.results import Provenance, Result
from memlm.text.model import TextModel


class TextLanguageModel(TextModel[LanguageModel, LanguageModelConfig]):
    """A causal language model of ours, with its tokenizer."""

    config_class = LanguageModelConfig

    def evaluate_split(self, split: TokenSplit, *, name: str, quiet: bool = True) -> Result:
        """Cross-entropy of next tokens within chunks (`causal_nats_per_token`), with a 95% interval over documents."""
        sums = self.document_nats(split, name=name, quiet=quiet)
        total = sums.sum(axis=0)
        values = {
            "causal_nats_per_token": float(total[0] / total[1]),
            "num_scored_tokens": int(total[1]),
            "chunk_len": self.config.chunk_len,
        }
        intervals = ratio_intervals("causal_nats_per_token", sums)
        made_by = Provenance.here(model=self.provenance)
        return Result(name=name, measures=values, intervals=intervals, provenance=made_by)

    def document_nats(self, split: TokenSplit, *, name: str, quiet: bool = True) -> Float[np.ndarray, "document 2"]:
        """Cross-entropy of next tokens within each document's chunks, in nats, and the number of these tokens."""
        chunks = split_into_chunks(split, self.config.chunk_len)
        total_tokens = int(chunks.mask.sum())
        with track(f"Predicting {name}", total=total_tokens, unit="tokens", quiet=quiet) as advance:
            nats, mask = causal_nats(self.model, chunks, advance), chunks.mask[:, 1:]
        return sums_by_unit(((nats * mask).sum(1, dtype=np.float64), mask.sum(1)), chunks.document)


def causal_nats(
    model: LanguageModel, chunks: Chunks, advance: Callable[[int], None] | None = None
) -> Float[np.ndarray, "chunk token_less_one"]:
    """Cross-entropy in nats of each token but a chunk's first, given those before it; 0 at the padding."""
    num_chunks = batch_chunks(chunks.tokens.shape[1], model.config.vocab_size)

    def compute(batch: Batch) -> tuple[Tensor]:
        return (next_token_nats(model(batch.tokens, batch.mask), batch),)

    return compute_in_batches(model, chunks, num_chunks, compute, advance=advance)[0]

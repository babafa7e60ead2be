"""Causal language models: predict next tokens, or tell which texts belong together."""

from torch import nn

from memlm.config import LanguageModelRecipe, Stage
from memlm.data.chunks import sample_chunks
from memlm.models.batch import Batch
from memlm.models.language_model import LanguageModel
from memlm.text.language_model import TextLanguageModel, causal_nats
from memlm.training.model_training import Evaluator, ModelTraining, Sampler


class LanguageModelTraining(ModelTraining):
    """A causal language model's training."""

    recipe: LanguageModelRecipe
    text_model = TextLanguageModel

    def sampler(self, stage: Stage, model: nn.Module | None = None) -> Sampler:
        """Random rows of the training split."""
        cfg, row_len, short_fraction = stage.training, self.recipe.model.chunk_len, stage.training.short_fraction
        if stage.weights.retrieval:
            # Two texts that overlap by half are one row of one and a half times the length.
            row_len, short_fraction = row_len * 3 // 2, 0.0
        train, num_rows = self.prepared.splits["train"], cfg.batch_tokens // row_len
        return lambda step: Batch.of(
            sample_chunks(train, row_len, num_rows, seed=cfg.seed, step=step, short_fraction=short_fraction)
        )

    def evaluator(self, stage: Stage) -> Evaluator:
        """The next-token loss."""
        chunks = self.validation_chunks(self.recipe.model.chunk_len)

        def evaluate(model: nn.Module) -> dict[str, float]:
            assert isinstance(model, LanguageModel)
            return {"causal_nats_per_token": float(causal_nats(model, chunks)[chunks.mask[:, 1:]].mean())}

        return evaluate

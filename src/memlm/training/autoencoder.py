"""Autoencoders: regenerate random chunks, in stages of growing chunk length."""

from dataclasses import replace
from typing import Any

from torch import nn

from memlm.config import AutoencoderConfig, AutoencoderRecipe, Stage
from memlm.data.chunks import concat_chunks, insert_repetitions, sample_chunks, scramble, with_end_tokens
from memlm.data.token_store import PreparedData
from memlm.evaluation.metrics import quick_measures, score
from memlm.models.autoencoder import Autoencoder, weights_fingerprint
from memlm.models.batch import Batch
from memlm.models.growth import grow, shrunk
from memlm.text.autoencoder import TextAutoencoder
from memlm.training.model_training import Evaluator, ModelTraining, Sampler, require_fitting


class AutoencoderTraining(ModelTraining):
    """An autoencoder's training.

    Raises:
        ValueError: the model cannot be grown from a stage's chunk length.
    """

    recipe: AutoencoderRecipe
    text_model = TextAutoencoder

    def __init__(self, recipe: AutoencoderRecipe, prepared: PreparedData) -> None:
        super().__init__(recipe, prepared)
        for stage in recipe.stages:
            self.config(stage)
        self._base: Autoencoder | None = None
        if recipe.encoder_from is not None:
            self._base, self.begins_with = _fitting_base(recipe, prepared)

    def config(self, stage: Stage) -> AutoencoderConfig:
        """The recipe's, or its beginning of shorter chunks."""
        return shrunk(self.recipe.model, stage.chunk_len) if stage.chunk_len else self.recipe.model

    def fresh(self, stage: Stage) -> nn.Module:
        """The model, untrained but for the weights that it begins with: a context may be new."""
        model = super().fresh(stage)
        if self._base is not None:
            model.load_state_dict(self._base.state_dict(), strict=False)
        return model

    def begin(self, stage: Stage, model: nn.Module) -> nn.Module:
        """The model, grown where this stage has longer chunks."""
        assert isinstance(model, Autoencoder)
        cfg = self.config(stage)
        return model if model.config == cfg else grow(model, cfg)

    def sampler(self, stage: Stage, model: nn.Module | None = None) -> Sampler:
        """Random chunks of the training split, transformed as configured."""
        cfg, shape, splits = stage.training, self.config(stage).shape, self.prepared.splits
        # A model that grows will be part of a larger one, in whose short chunks whole parts are empty.
        shortest = 0 if stage.chunk_len and shape.end_token else 1
        num_chunks = cfg.batch_tokens // shape.chunk_len
        num_everyday = round(num_chunks * cfg.everyday_fraction)

        def batch(step: int) -> Batch:
            draw = {"seed": cfg.seed, "step": step}
            short: Any = {**draw, "short_fraction": cfg.short_fraction, "shortest": shortest}
            chunks = sample_chunks(splits["train"], shape.chunk_len, num_chunks - num_everyday, **short)
            if num_everyday:
                everyday = sample_chunks(splits["everyday"], shape.chunk_len, num_everyday, from_start=True, **short)
                chunks = concat_chunks([chunks, everyday])
            if cfg.scrambled_fraction:
                chunks = scramble(chunks, shape.vocab_size, fraction=cfg.scrambled_fraction, **draw)
            if cfg.repeated_fraction:
                chunks = insert_repetitions(chunks, shape.vocab_size, fraction=cfg.repeated_fraction, **draw)
            return Batch.of(with_end_tokens(chunks, shape.vocab_size) if shape.end_token else chunks)

        return batch

    def evaluator(self, stage: Stage) -> Evaluator:
        """Fidelity of whole chunks, and how many short ones are exact."""
        shape, split = self.config(stage).shape, self.prepared.splits["validation"]
        whole = self.validation_chunks(shape.chunk_len)
        short = sample_chunks(split, shape.chunk_len, len(whole.mask), seed=0, step=0, short_fraction=1.0)

        def evaluate(model: nn.Module) -> dict[str, float]:
            found, of_short = (quick_measures(score(model, chunks, shape.vocab_size)) for chunks in (whole, short))
            return {**found, "short_exact_match": of_short["exact_match"], "chunk_len": shape.chunk_len}

        return evaluate


def _fitting_base(recipe: AutoencoderRecipe, prepared: PreparedData) -> tuple[Autoencoder, str]:
    """The trained autoencoder that a recipe begins with, and its fingerprint.

    Raises:
        ValueError: it does not fit; says in what.
    """
    name, wanted = str(recipe.encoder_from), recipe.model
    base = TextAutoencoder.from_pretrained(name, device="cpu")
    if base.config.context is None:
        wanted = replace(wanted, context=None)  # it may be new
    require_fitting(name, _sizes(base.config), _sizes(wanted), base.tokenizer, prepared)
    return base.model, f" {weights_fingerprint(base.model, name)}"


def _sizes(cfg: AutoencoderConfig) -> dict[str, Any]:
    """All that decides of a model's weights."""
    context = cfg.context and replace(cfg.context, memory_alone=True)
    return replace(cfg, context=context, memory_noise=0.0, search=None).leaves()

"""Memory models: predict next tokens from memories, and regenerate chunks from them, on windows of chunks."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from memlm.config import MemoryModelConfig, MemoryModelRecipe, Stage
from memlm.data.chunks import Chunks, LazyChunks, all_windows, lazy_chunks, sample_windows, split_into_chunks
from memlm.data.facts import FactTexts
from memlm.data.token_store import PreparedData
from memlm.data.tokenizer import Tokenizer
from memlm.evaluation.metrics import quick_measures, score
from memlm.evaluation.prediction import predict
from memlm.models.autoencoder import Encoder
from memlm.models.batch import Batch, encode_chunks
from memlm.models.memory_model import MemoryModel, Regenerator, WindowMemory
from memlm.text.autoencoder import TextAutoencoder
from memlm.text.checkpoint_folder import config_class
from memlm.text.memory_model import TextMemoryModel
from memlm.training.model_training import Evaluator, ModelTraining, Sampler, evenly_spaced, require_fitting

_MAX_VALIDATION_WINDOWS = 64


class MemoryModelTraining(ModelTraining):
    """A memory model's training.

    Raises:
        ValueError: the encoder that it begins with does not fit.
    """

    recipe: MemoryModelRecipe
    text_model = TextMemoryModel
    # To read memories is not to predict from them: a stage may have no use for some weights.
    all_weights_used = False

    def __init__(self, recipe: MemoryModelRecipe, prepared: PreparedData) -> None:
        super().__init__(recipe, prepared)
        self.chunks: Chunks | LazyChunks = lazy_chunks(prepared.splits["train"], recipe.model.shape.chunk_len)
        self._encoder: Encoder | None = None
        if recipe.encoder_from:
            self._encoder, self.begins_with = _fitting_encoder(recipe, prepared)
        self._frozen: PrecomputedMemories | None = None

    def fresh(self, stage: Stage) -> nn.Module:
        """The memory model, untrained but for an encoder that it begins with."""
        model = super().fresh(stage)
        if self._encoder is not None:
            model.get_submodule("encoder").load_state_dict(self._encoder.state_dict())
        return model

    def sampler(self, stage: Stage, model: nn.Module | None = None) -> Sampler:
        """Random windows of the training split, a share of them with facts to recall.

        A frozen encoder's memories of all chunks are made once, and serve until a stage trains the encoder.

        Raises:
            ValueError: the chunks are too short for a kind of fact.
        """
        if not stage.frozen:
            self._frozen = None
        elif self._frozen is None:
            assert isinstance(model, MemoryModel)
            assert model.encoder is not None
            self._frozen = PrecomputedMemories(model.encoder, self.chunks)
        return window_sampler(self.recipe, stage, self.chunks, self.prepared.tokenizer, self._frozen)

    def evaluator(self, stage: Stage) -> Evaluator:
        """Fidelity of what is regenerated and the next-token loss, of what the stage trains."""
        shape = self.recipe.model.shape
        chunks = self.validation_chunks(shape.chunk_len)
        split = split_into_chunks(self.prepared.splits["validation"], shape.chunk_len)
        windows = all_windows(split, self.recipe.windows.num_chunks)
        windows = windows.rows(evenly_spaced(len(windows.tokens), _MAX_VALIDATION_WINDOWS))

        def evaluate(model: nn.Module) -> dict[str, float]:
            assert isinstance(model, MemoryModel)
            found: dict[str, float] = {}
            if stage.weights.retention:
                found |= quick_measures(score(Regenerator(model), chunks, shape.vocab_size))
            if stage.weights.causal:
                prediction = predict(model, windows, shape.vocab_size)
                found["causal_nats_per_token"] = float(prediction.nats[windows.mask].mean())
            return found

        return evaluate


class PrecomputedMemories:
    """An encoder that learns no more, and its memories of the training chunks."""

    def __init__(self, encoder: Encoder, chunks: Chunks | LazyChunks) -> None:
        self.encoder, self.memories = encoder, encode_chunks(encoder, chunks)

    def encode_windows(self, tokens: NDArray[np.int64], mask: NDArray[np.bool_]) -> WindowMemory:
        """The memories of windows [window chunk token], on the CPU."""
        rows = -1, tokens.shape[-1]
        chunks = Chunks(tokens.reshape(rows), mask.reshape(rows), np.arange(mask[..., 0].size))
        memory = encode_chunks(self.encoder, chunks)
        return memory.view(*tokens.shape[:2], *memory.shape[1:])


def window_sampler(
    recipe: MemoryModelRecipe,
    stage: Stage,
    chunks: Chunks | LazyChunks,
    tokenizer: Tokenizer,
    frozen: PrecomputedMemories | None = None,
) -> Sampler:
    """Step → its batch of random windows of chunks, the recipe's share of them with facts to recall.

    Raises:
        ValueError: the chunks are too short for a kind of fact.
    """
    cfg, windows = stage.training, recipe.windows
    num_windows = cfg.batch_tokens // (windows.num_chunks * chunks.chunk_len)

    def batch(step: int) -> Batch:
        drawn = sample_windows(chunks, windows.num_chunks, num_windows, seed=cfg.seed, step=step)
        return Batch.of(drawn, None if frozen is None else frozen.memories[torch.from_numpy(drawn.chunk)])

    if not windows.recall_fraction:
        return batch
    fact_len = windows.recall_chunk_len or chunks.chunk_len
    filler = chunks.split.tokens if isinstance(chunks, LazyChunks) else chunks.tokens[chunks.mask]
    texts = FactTexts(tokenizer, filler, chunk_len=fact_len)

    def with_facts(step: int) -> Batch:
        others = batch(step)
        # Over many steps the share is exact, however few windows a batch has.
        share = windows.recall_fraction * len(others.tokens)
        number = int((step + 1) * share) - int(step * share)
        if number == 0:
            return others
        num_chunks = windows.num_chunks * chunks.chunk_len // fact_len
        tokens = texts.practice(number, num_chunks, seed=cfg.seed, step=step)
        tokens = tokens.reshape(number, windows.num_chunks, chunks.chunk_len)
        mask = np.ones_like(tokens, dtype=bool)
        memory = None if frozen is None else frozen.encode_windows(tokens, mask)
        ours, rest = Batch(torch.from_numpy(tokens), torch.from_numpy(mask), memory), others.rows(slice(number, None))
        return Batch._make(
            None if one is None or other is None else torch.cat([one, other])
            for one, other in zip(ours, rest, strict=True)
        )

    return with_facts


def _fitting_encoder(recipe: MemoryModelRecipe, prepared: PreparedData) -> tuple[Encoder, str]:
    """The trained encoder that a recipe begins with, and its fingerprint.

    Raises:
        ValueError: it does not fit; says in what, and what would.
    """
    name = str(recipe.encoder_from)
    text_model = TextMemoryModel if config_class(name) is MemoryModelConfig else TextAutoencoder
    other: TextAutoencoder | TextMemoryModel = text_model.from_pretrained(name)
    encoder = other.model.encoder
    if encoder is None or recipe.model.encoder is None:
        raise ValueError(f"{name if encoder is None else recipe.name} has no encoder")
    theirs, wanted = (
        {path: value for path, value in cfg.leaves().items() if path.startswith(("shape.", "encoder.", "pooling."))}
        for cfg in (other.config, recipe.model)
    )
    require_fitting(name, theirs, wanted, other.tokenizer, prepared)
    return encoder, f" {other.encoder_fingerprint}"

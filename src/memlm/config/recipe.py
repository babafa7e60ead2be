"""The recipe: everything that determines a training run."""

import math
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Generic, Literal, Self

import pydantic
from typing_extensions import TypeVar

from memlm.config.base import Config, require, require_fraction, require_positive
from memlm.config.data import DataConfig
from memlm.config.decoder import MemoryModelConfig
from memlm.config.memory_reader import MemoryReaderConfig
from memlm.config.model import AutoencoderConfig, LanguageModelConfig
from memlm.config.training import TrainingConfig

ModelConfig = Annotated[
    AutoencoderConfig | LanguageModelConfig | MemoryModelConfig | MemoryReaderConfig, pydantic.Discriminator("kind")
]
Model = TypeVar("Model", bound=ModelConfig, default=ModelConfig, covariant=True)

_TRAINED_FOR = {
    "autoencoder": ("retention", "likeness"),
    "language_model": ("causal", "retrieval"),
    "memory_model": ("causal", "retention", "copy"),
    "memory_reader": ("causal", "divergence", "retention"),
}
"""The terms of the loss that each kind of model knows."""
_LEAST_BATCH = {
    "autoencoder": (1, "one chunk"),
    "language_model": (2, "two chunks"),
    "memory_model": (1, "one window"),
    "memory_reader": (1, "one row"),
}


@dataclass(frozen=True, kw_only=True)
class Weights(Config):
    """The weight of each term of the loss. A term of weight 0 is not computed."""

    causal: float = 0.0
    """Predict next tokens. A memory model predicts the tokens of every chunk from the memories of earlier chunks."""
    divergence: float = 0.0
    """For a reader: predict what its teacher predicts, the same language model adapted to see the whole past as tokens
    (Kullback-Leibler divergence)."""
    retention: float = 0.0
    """Regenerate each chunk from its memory alone (the paper's copy, on blank inputs)."""
    copy: float = 0.0
    """Regenerate each chunk from its memory and its own tokens as inputs (teacher forcing); for comparison only."""
    likeness: float = 0.0
    """Train the search dimensions of a memory to be near a sentence encoder's vector of the same text."""
    retrieval: float = 0.0
    """Tell which texts belong together by their last states (InfoNCE)."""

    def __post_init__(self) -> None:
        for name, weight in vars(self).items():
            require(weight >= 0, f"{name} must not be negative, not {weight}")
        require(bool(self.terms), "no term of the loss has a weight")

    @property
    def terms(self) -> dict[str, float]:
        """The terms that have a weight."""
        return {name: weight for name, weight in vars(self).items() if weight > 0}


@dataclass(frozen=True, kw_only=True)
class Stage(Config):
    """One stage of training: its objective, its chunk length, and what is frozen."""

    weights: Weights
    """The terms of the loss."""
    training: TrainingConfig
    """How long and how fast to train."""
    chunk_len: int | None = None
    """Tokens per chunk, if shorter than the model's chunks; the model is then grown from this stage's
    (`models.growth`)."""
    frozen: tuple[Literal["encoder"], ...] = ()
    """Parts that are not trained. With a frozen encoder, training chunks are encoded only once."""
    retrieval_temperature: float = 0.1
    """The retrieval loss divides cosines by this."""

    def __post_init__(self) -> None:
        require(self.chunk_len is None or self.chunk_len > 0, f"chunk_len must be positive, not {self.chunk_len}")
        require_positive(self, "retrieval_temperature")
        portions = self.training.num_micro_batches
        alone = portions == 1 or not self.weights.retrieval
        require(alone, f"a text is told from the rest of its batch: num_micro_batches must be 1, not {portions}")


@dataclass(frozen=True, kw_only=True)
class WindowConfig(Config):
    """What a memory model is trained on: consecutive chunks of one document."""

    num_chunks: int = 4
    """Chunks per window."""
    recall_fraction: float = 0.0
    """Share of windows with a fact and a question about it (`data.facts`)."""
    recall_chunk_len: int | None = None
    """Tokens of the chunks in which facts are placed; None is the model's chunk length. A model that reads whole
    windows as tokens has longer chunks than the memory model it is compared with."""

    def __post_init__(self) -> None:
        require_positive(self, "num_chunks")
        require_fraction(self, "recall_fraction")


@dataclass(frozen=True, kw_only=True)
class Recipe(Config, Generic[Model]):
    """Everything that determines a training run: data, model and stages."""

    name: str
    """Name of the recipe, shown in reports."""
    data: DataConfig
    """Corpus, splits and tokenizer."""
    model: Model
    """The model to train."""
    stages: tuple[Stage, ...]
    """Stages of training, run in order. Earlier ones may train a smaller model; the last trains the model itself."""
    windows: WindowConfig = field(default_factory=WindowConfig)
    """For a memory model: the windows it is trained on."""
    encoder_from: str | None = None
    """For a memory model: start with the encoder of this autoencoder or memory model (a checkpoint folder, or one that
    ships with memlm). For an autoencoder: begin with the weights of this one. For a searchable autoencoder: the
    autoencoder to which search dimensions are added."""

    def __post_init__(self) -> None:
        require(len(self.stages) > 0, "a recipe has at least one stage")
        self.data.require_vocabulary(self.model.vocab_size)
        for stage in self.stages:
            self._check_stage(stage)
        require(self.stages[-1].chunk_len is None, "the last stage trains the model itself: leave out its chunk_len")
        if isinstance(self.model, MemoryModelConfig):
            self._check_memory_model(self.model)
            return
        require(self.windows == WindowConfig(), f"only a memory model has windows, not {self._kind}")
        searched = isinstance(self.model, AutoencoderConfig) and self.model.search is not None
        alone = all((stage.weights.likeness > 0) == searched for stage in self.stages)
        what = "what memories are searched by (model.search)"
        require(alone, f"weights: {what} is trained for likeness, and for nothing else; and nothing else for likeness")
        if self.encoder_from is None:
            require(not searched, "memories of which autoencoder? set encoder_from")
            return
        require(isinstance(self.model, AutoencoderConfig), f"{self._kind} has no encoder: leave out encoder_from")
        grown = any(stage.chunk_len for stage in self.stages)
        require(
            not grown,
            "an autoencoder that begins with trained weights (encoder_from) is not grown: leave out chunk_len",
        )

    @property
    def num_tokens(self) -> int:
        """Tokens trained on, over all stages."""
        return sum(stage.training.num_tokens for stage in self.stages)

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Of one row of the last stage's batches: tokens, or a window's chunks of tokens."""
        if isinstance(self.model, LanguageModelConfig):
            return (self.model.chunk_len,)
        if isinstance(self.model, MemoryReaderConfig):
            return (self.model.window.predicted_tokens,)
        windows = (self.windows.num_chunks,) if isinstance(self.model, MemoryModelConfig) else ()
        return (*windows, self.model.shape.chunk_len)

    @property
    def seed(self) -> int:
        """Of the model's first weights."""
        return self.stages[0].training.seed

    def with_stages(self, **changes: Any) -> Self:
        """The recipe with fields of every stage changed."""
        return replace(self, stages=tuple(replace(stage, **changes) for stage in self.stages))

    def with_training(self, **changes: Any) -> Self:
        """The recipe with fields of every stage's training changed."""
        stages = tuple(replace(stage, training=replace(stage.training, **changes)) for stage in self.stages)
        return replace(self, stages=stages)

    @property
    def _kind(self) -> str:
        article = "an" if self.model.kind[0] in "aeiou" else "a"
        return f"{article} {self.model.kind.replace('_', ' ')}"

    def _check_stage(self, stage: Stage) -> None:
        terms, known, training = [*stage.weights.terms], _TRAINED_FOR[self.model.kind], stage.training
        fits = set(terms) <= set(known)
        require(fits, f"weights: {self._kind} is trained for {' or '.join(known)}, not for {', '.join(terms)}")
        if not isinstance(self.model, MemoryModelConfig):
            one = len(terms) == 1 or isinstance(self.model, MemoryReaderConfig)
            require(one, f"weights: a stage of {self._kind} is trained for one term, not for {', '.join(terms)}")
            stays = not stage.frozen
            require(stays, f"frozen: {self._kind} is trained whole; only a memory model's encoder can be frozen")
        if isinstance(self.model, MemoryReaderConfig):
            readable = bool(self.model.ratios) or not stage.weights.retention
            require(
                readable, "a reader without ratios reads no memories, so it has none to regenerate: weights.retention"
            )
        if not isinstance(self.model, AutoencoderConfig):
            require(stage.chunk_len is None, f"only an autoencoder is grown, not {self._kind}: leave out chunk_len")
            for name in ("everyday_fraction", "scrambled_fraction", "repeated_fraction"):
                require(not getattr(training, name), f"only an autoencoder is trained with {name}")
        everyday = self.data.everyday_bytes > 0 or not training.everyday_fraction
        fraction = training.everyday_fraction
        require(everyday, f"everyday_fraction {fraction} needs everyday text to draw from: set data.everyday_bytes")
        rows, what = _LEAST_BATCH[self.model.kind]
        size, batch = stage.chunk_len or math.prod(self.row_shape), training.batch_tokens
        require(batch >= rows * size, f"batch_tokens {batch} is less than {what} of {size} tokens")

    def _check_memory_model(self, model: MemoryModelConfig) -> None:
        if self.windows.recall_fraction:
            window = self.windows.num_chunks * model.shape.chunk_len
            placed = self.windows.recall_chunk_len or model.shape.chunk_len
            several = placed > 0 and window % placed == 0 and window > placed
            require(several, f"recall_fraction needs several chunks of {placed} tokens in a window of {window} tokens")
        if model.encoder is None:
            without = all(stage.weights.retention == stage.weights.copy == 0 for stage in self.stages)
            require(without, "a model without an encoder has nothing to regenerate a chunk from: weights.retention")
        if self.stages[0].frozen:
            require(
                model.encoder is not None and self.encoder_from is not None,
                "the first stage freezes the encoder, which has learned nothing yet: give encoder_from",
            )


AutoencoderRecipe = Recipe[AutoencoderConfig]
LanguageModelRecipe = Recipe[LanguageModelConfig]
MemoryModelRecipe = Recipe[MemoryModelConfig]
MemoryReaderRecipe = Recipe[MemoryReaderConfig]

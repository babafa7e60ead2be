"""Memory models: how a memory enters the decoder, the decoder, phases of training, and the recipe that holds all."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import pydantic

from memlm.config.base import KIND, Config, require, require_fraction, require_positive
from memlm.config.data import DataConfig
from memlm.config.model import MemoryShape, Pooling, Positional, StackConfig
from memlm.config.training import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class Prefix(Config):
    """A memory becomes positions before the text, each a linear map of the whole memory; one is the paper's way."""

    kind: Annotated[Literal["prefix"], KIND] = "prefix"
    num_positions: int = 4
    """Decoder positions that a memory takes."""

    def __post_init__(self) -> None:
        require_positive(self, "num_positions")


@dataclass(frozen=True, kw_only=True)
class Unpooled(Config):
    """A memory is unpooled: `token_dim` dimensions for each token. To regenerate, they are added to the blank inputs,
    as a parallel decoder reads them; to predict, those of neighbouring tokens are joined to positions before the text.
    """

    kind: Annotated[Literal["unpooled"], KIND] = "unpooled"
    num_positions: int = 4
    """Decoder positions that a memory takes to predict; none to be regenerated."""
    token_dim: int = 16

    def __post_init__(self) -> None:
        require_positive(self, "num_positions", "token_dim")


@dataclass(frozen=True, kw_only=True)
class CrossAttention(Config):
    """Every layer attends to parts of the memories, which take no decoder positions; the decoder is GPT-2's kind."""

    kind: Annotated[Literal["cross_attention"], KIND] = "cross_attention"
    num_parts: int | None = 4
    """Keys that a memory is unfolded into, each a linear map of the whole memory; None makes each of its slots one."""

    def __post_init__(self) -> None:
        require(self.num_parts is None or self.num_parts > 0, f"num_parts must be positive, not {self.num_parts}")


Insertion = Annotated[Prefix | Unpooled | CrossAttention, pydantic.Discriminator("kind")]


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(Config):
    """A causal decoder trained from scratch: Llama's kind, or GPT-2's where memories enter by cross-attention."""

    dim: int = 128
    """Width of the hidden state."""
    num_layers: int = 3
    num_heads: int = 4
    mlp_ratio: float = 8 / 3
    """Width of the gated MLP in units of `dim`, rounded to whole dimensions."""

    def __post_init__(self) -> None:
        require_positive(self, "dim", "num_layers", "num_heads", "mlp_ratio")
        require(self.dim % self.num_heads == 0, f"dim {self.dim} is not a multiple of num_heads {self.num_heads}")
        head = self.dim // self.num_heads
        require(head % 2 == 0, f"a head's {head} dimensions must be even, for rotary positions")


@dataclass(frozen=True, kw_only=True)
class MemoryModelConfig(Config):
    """An encoder (chunk → memory) and a causal decoder that reads the memories of earlier chunks."""

    shape: MemoryShape
    encoder: StackConfig | None = field(default_factory=StackConfig)
    """None makes no memories: the decoder sees a chunk's own tokens alone."""
    pooling: Pooling = field(default_factory=Positional)
    insertion: Insertion = field(default_factory=Unpooled)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    max_memories: int = 3
    """A chunk sees the memories of at most so many chunks before it."""
    overlap: int = 4
    """The last tokens of the chunk before, as its memory gives them back, which the decoder reads as if they were
    tokens. 0 adds a linear map of that memory to the chunk's first input instead: for memories that nobody learns to
    regenerate."""
    pointer_span: int = 0
    """Let the decoder point at tokens that memories give back, each found by so many tokens before it, and copy them;
    0 does not. For exact strings; every memory that is read is regenerated once, all tokens at once."""

    def __post_init__(self) -> None:
        require_positive(self, "max_memories")
        self.shape.require_fits(self.pooling)
        fits = 0 <= self.overlap <= self.shape.chunk_len
        require(fits, f"overlap must lie in [0, {self.shape.chunk_len}], a chunk's tokens, not {self.overlap}")
        fits = 0 <= self.pointer_span <= self.shape.chunk_len
        require(fits, f"pointer_span must lie in [0, {self.shape.chunk_len}], not {self.pointer_span}")
        points_somewhere = self.encoder is not None or not self.pointer_span
        require(points_somewhere, "a model without an encoder has no memories to point into: set pointer_span to 0")
        if isinstance(self.insertion, Unpooled):
            positions, chunk_len = self.insertion.num_positions, self.shape.chunk_len
            require(chunk_len % positions == 0, f"num_positions {positions} does not divide chunk_len {chunk_len}")

    @property
    def vocab_size(self) -> int:
        """Token types."""
        return self.shape.vocab_size


@dataclass(frozen=True, kw_only=True)
class RecurrentConfig(Config):
    """A causal decoder that carries memory tokens from chunk to chunk (RMT, Bulatov et al. 2022); a baseline."""

    vocab_size: int
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    num_memory_tokens: int = 4
    """Memory tokens that a chunk reads, and writes."""

    def __post_init__(self) -> None:
        require_positive(self, "vocab_size", "num_memory_tokens")


@dataclass(frozen=True, kw_only=True)
class Weights(Config):
    """How much each term counts in the combined loss; a term of weight 0 is not computed."""

    causal: float = 1.0
    """Predict the next tokens of every chunk from the memories of earlier ones."""
    retention: float = 0.0
    """Regenerate each chunk from its memory alone, on blank inputs (the paper's copy)."""
    copy: float = 0.0
    """The same with the chunk's own tokens as inputs, teacher-forced; for comparison only."""

    def __post_init__(self) -> None:
        for name in ("causal", "retention", "copy"):
            require(getattr(self, name) >= 0, f"{name} must not be negative, not {getattr(self, name)}")
        require(self.causal + self.retention + self.copy > 0, "no term of the loss has a weight")


@dataclass(frozen=True, kw_only=True)
class Phase(Config):
    """A stretch of training: what the loss weighs, and whether the encoder learns."""

    weights: Weights = field(default_factory=Weights)
    training: TrainingConfig
    encoder_frozen: bool = False
    """Keep the encoder as it is; then every training chunk is encoded once, not once a step."""


@dataclass(frozen=True, kw_only=True)
class MemoryModelRecipe(Config):
    """Everything that determines the training of a memory model."""

    name: str
    data: DataConfig
    model: MemoryModelConfig
    window_chunks: int = 4
    """Chunks of a training window: consecutive, of one document."""
    phases: tuple[Phase, ...]
    """The curriculum: one phase after the other."""
    encoder_from: str | None = None
    """Take the encoder of this autoencoder or memory model: a checkpoint folder, or one that ships with memlm."""
    recall_fraction: float = 0.0
    """Share of training windows that hold a fact and a question about it (`data.facts`)."""
    recall_chunk_len: int | None = None
    """Tokens of the chunks that facts are placed in; the model's if None. One that reads whole windows as tokens has
    longer chunks than the model it is compared with."""

    def __post_init__(self) -> None:
        require(len(self.phases) > 0, "a curriculum has at least one phase")
        require_positive(self, "window_chunks")
        window = self.window_chunks * self.model.shape.chunk_len
        for phase in self.phases:
            batch = phase.training.batch_tokens
            require(batch >= window, f"batch_tokens {batch} is less than one window of {window} tokens")
        require_fraction(self, "recall_fraction")
        if self.recall_fraction:
            placed = self.recall_chunk_len or self.model.shape.chunk_len
            several = placed > 0 and window % placed == 0 and window > placed
            require(several, f"recall_fraction needs several chunks of {placed} tokens in a window of {window} tokens")
        if self.model.encoder is None:
            without = all(phase.weights.retention == phase.weights.copy == 0 for phase in self.phases)
            require(without, "a model without an encoder has nothing to regenerate a chunk from: weights.retention")
        if self.phases[0].encoder_frozen:
            require(
                self.model.encoder is not None and self.encoder_from is not None,
                "the first phase freezes the encoder, which has learned nothing yet: give encoder_from",
            )
        self.data.require_vocabulary(self.model.shape.vocab_size)

"""Memory models: how memories enter the causal decoder, which decoder, and the model of encoder and decoder."""

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import pydantic

from memlm.config.base import KIND, Config, require, require_fraction, require_positive
from memlm.config.model import MemoryShape, Pooling, Positional, RecurrentMixer, StackConfig


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(Config):
    """A causal decoder trained from scratch: a Llama, or a GPT-2 if memories enter by cross-attention."""

    cross_attends: ClassVar[bool] = True
    kind: Annotated[Literal["scratch"], KIND] = "scratch"
    dim: int = 128
    """Width of the hidden state."""
    num_layers: int = 3
    """Number of layers."""
    num_heads: int = 4
    """Attention heads per layer."""
    mlp_ratio: float = 8 / 3
    """Width of the gated MLP in units of `dim`, rounded to whole dimensions."""

    def __post_init__(self) -> None:
        require_positive(self, "dim", "num_layers", "num_heads", "mlp_ratio")
        require(self.dim % self.num_heads == 0, f"dim {self.dim} is not a multiple of num_heads {self.num_heads}")
        head = self.dim // self.num_heads
        require(head % 2 == 0, f"a head's {head} dimensions must be even, for rotary positions")


@dataclass(frozen=True, kw_only=True)
class LoraConfig(Config):
    """Low-rank adapters (LoRA, Hu et al. 2021), through the peft library."""

    rank: int = 8
    """Rank of each adapter."""
    alpha: int = 16
    """An adapter's output is scaled by alpha / rank."""
    dropout: float = 0.0
    """Dropout probability on an adapter's input in training."""
    target_modules: tuple[str, ...] = ()
    """Names of the linear maps that get an adapter; by default all except the head."""

    def __post_init__(self) -> None:
        require_positive(self, "rank", "alpha")
        require_fraction(self, "dropout")


@dataclass(frozen=True, kw_only=True)
class PretrainedDecoder(Config):
    """A frozen pretrained causal language model from Hugging Face. The memory model uses its tokenizer."""

    cross_attends: ClassVar[bool] = False
    kind: Annotated[Literal["pretrained"], KIND] = "pretrained"
    name: str
    """A folder or a hub name."""
    revision: str | None = None
    """Revision (branch, tag or commit) on the hub; None is the latest."""
    lora: LoraConfig | None = field(default_factory=LoraConfig)
    """LoRA adapters to train inside the model. None trains only the part that turns memories into soft prompts."""


@dataclass(frozen=True, kw_only=True)
class RecurrentDecoder(Config):
    """A causal decoder of recurrent mixers, trained from scratch. Its state stays small, however much it has read."""

    cross_attends: ClassVar[bool] = False
    kind: Annotated[Literal["recurrent"], KIND] = "recurrent"
    window: int = 512
    """The most positions it can read, memories and text together."""
    stack: StackConfig = field(default_factory=lambda: StackConfig(mixer=RecurrentMixer(), causal=True, num_layers=3))
    """The layers; the mixer must be recurrent."""

    def __post_init__(self) -> None:
        require_positive(self, "window")
        mixer = self.stack.mixer
        require(isinstance(mixer, RecurrentMixer), f"a recurrent decoder has a recurrent_mixer, not {mixer.kind}")


def _decoder_kind(value: Any) -> str:
    """The kind of a decoder; version 0.1's configurations do not say it."""
    return str(value.get("kind", "scratch") if isinstance(value, dict) else getattr(value, "kind", None))


Decoder = Annotated[
    Annotated[DecoderConfig, pydantic.Tag("scratch")]
    | Annotated[PretrainedDecoder, pydantic.Tag("pretrained")]
    | Annotated[RecurrentDecoder, pydantic.Tag("recurrent")],
    pydantic.Discriminator(_decoder_kind),
]


@dataclass(frozen=True, kw_only=True)
class InsertionConfig(Config):
    """Base of the ways in which memories enter a decoder."""

    def require_fits(self, shape: MemoryShape, decoder: Decoder) -> None:
        """Raise ValueError where memories of this shape cannot enter this decoder."""


@dataclass(frozen=True, kw_only=True)
class Prefix(InsertionConfig):
    """A memory becomes decoder positions before the text, each a linear map of the whole memory. The paper uses one."""

    kind: Annotated[Literal["prefix"], KIND] = "prefix"
    num_positions: int = 4
    """Decoder positions that a memory takes."""

    def __post_init__(self) -> None:
        require_positive(self, "num_positions")


@dataclass(frozen=True, kw_only=True)
class Unpooled(InsertionConfig):
    """Each memory is unpooled to `token_dim` dimensions per token.

    For regeneration they are added to the blank inputs, as in a parallel decoder. For prediction, the dimensions of
    neighbouring tokens are joined into decoder positions before the text.
    """

    kind: Annotated[Literal["unpooled"], KIND] = "unpooled"
    num_positions: int = 4
    """Decoder positions that a memory takes in prediction. In regeneration it takes none."""
    token_dim: int = 16
    """Dimensions per token of the chunk."""

    def __post_init__(self) -> None:
        require_positive(self, "num_positions", "token_dim")

    def require_fits(self, shape: MemoryShape, decoder: Decoder) -> None:
        """Raise ValueError where the positions do not divide the chunk's tokens."""
        positions, chunk_len = self.num_positions, shape.chunk_len
        require(chunk_len % positions == 0, f"num_positions {positions} does not divide chunk_len {chunk_len}")


@dataclass(frozen=True, kw_only=True)
class CrossAttention(InsertionConfig):
    """Every layer attends to parts of the memories, which take no decoder positions. The decoder is a GPT-2."""

    kind: Annotated[Literal["cross_attention"], KIND] = "cross_attention"
    num_parts: int | None = 4
    """Keys per memory, each a linear map of the whole memory. None makes each slot of the memory one key."""

    def __post_init__(self) -> None:
        require(self.num_parts is None or self.num_parts > 0, f"num_parts must be positive, not {self.num_parts}")

    def require_fits(self, shape: MemoryShape, decoder: Decoder) -> None:
        """Raise ValueError where the decoder has no cross-attention."""
        can = f"a {decoder.kind} decoder has no cross-attention to memories: choose the insertion prefix or unpooled"
        require(decoder.cross_attends, can)


Insertion = Annotated[Prefix | Unpooled | CrossAttention, pydantic.Discriminator("kind")]


@dataclass(frozen=True, kw_only=True)
class MemoryModelConfig(Config):
    """An encoder (chunk → memory) and a causal decoder that reads the memories of earlier chunks."""

    kind: Annotated[Literal["memory_model"], KIND] = "memory_model"
    shape: MemoryShape
    """Shape of chunks and memories."""
    encoder: StackConfig | None = field(default_factory=StackConfig)
    """The encoder. None is a model without memories, whose decoder sees only a chunk's own tokens."""
    pooling: Pooling = field(default_factory=Positional)
    """How the encoder's states become a memory."""
    insertion: Insertion = field(default_factory=Unpooled)
    """How memories enter the decoder."""
    decoder: Decoder = field(default_factory=DecoderConfig)
    """The causal decoder."""
    max_memories: int = 3
    """The most memories that the decoder reads for a chunk: those of the latest earlier chunks."""
    overlap: int = 4
    """The decoder also reads this many tokens from the end of the chunk before, regenerated from its memory. 0 adds a
    linear map of that memory to the chunk's first input instead, for models that are not trained to regenerate."""
    pointer_span: int = 0
    """Tokens per key of the pointer, which finds and copies regenerated tokens of past chunks, to recall exact strings;
    0 for no pointer."""

    def __post_init__(self) -> None:
        require_positive(self, "max_memories")
        if self.encoder is not None:
            self.pooling.require_fits(self.shape, self.encoder.dim)
        self.insertion.require_fits(self.shape, self.decoder)
        fits = 0 <= self.overlap <= self.shape.chunk_len
        require(fits, f"overlap must lie in [0, {self.shape.chunk_len}], a chunk's tokens, not {self.overlap}")
        fits = 0 <= self.pointer_span <= self.shape.chunk_len
        require(fits, f"pointer_span must lie in [0, {self.shape.chunk_len}], not {self.pointer_span}")
        points_somewhere = self.encoder is not None or not self.pointer_span
        require(points_somewhere, "a model without an encoder has no memories to point into: set pointer_span to 0")

    @property
    def vocab_size(self) -> int:
        """Token types."""
        return self.shape.vocab_size


@dataclass(frozen=True, kw_only=True)
class RecurrentConfig(Config):
    """A causal decoder that carries memory tokens from chunk to chunk (RMT, Bulatov et al. 2022); a baseline."""

    vocab_size: int
    """Number of token types."""
    decoder: Decoder = field(default_factory=DecoderConfig)
    """The causal decoder."""
    num_memory_tokens: int = 4
    """Memory tokens that each chunk reads and writes."""

    def __post_init__(self) -> None:
        require_positive(self, "vocab_size", "num_memory_tokens")

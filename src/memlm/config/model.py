"""Mixers, stacks, pooling, unpooling, autoencoders, language models."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import pydantic

from memlm.config.base import KIND, Config, require, require_positive


@dataclass(frozen=True, kw_only=True)
class MixerConfig(Config):
    """Base of the token mixers' configurations."""

    causal_only: ClassVar[bool] = False
    """Whether each position can see none but itself and those before it."""

    def require_fits(self, dim: int) -> None:
        """Raise ValueError where a stack of width `dim` cannot have this mixer."""


class _MultiHead(MixerConfig):
    num_heads: int

    def __post_init__(self) -> None:
        require_positive(self, "num_heads")

    def require_fits(self, dim: int) -> None:
        """Raise ValueError where the width is not a multiple of the number of heads."""
        fits = dim % self.num_heads == 0
        require(fits, f"dim {dim} is not a multiple of the mixer's num_heads {self.num_heads}")


@dataclass(frozen=True, kw_only=True)
class Attention(_MultiHead):
    """Softmax attention with rotary positions (the paper's transformer)."""

    kind: Annotated[Literal["attention"], KIND] = "attention"
    num_heads: int = 4

    def require_fits(self, dim: int) -> None:
        """Raise ValueError also where heads have an odd width."""
        super().require_fits(dim)
        head_dim = dim // self.num_heads
        require(head_dim % 2 == 0, f"rotary positions need an even head width, not dim / num_heads = {head_dim}")


@dataclass(frozen=True, kw_only=True)
class MaskedMixer(_MultiHead):
    """One learned [token, token] matrix per head, masked by multiplication (the paper's masked mixer)."""

    kind: Annotated[Literal["masked_mixer"], KIND] = "masked_mixer"
    num_heads: int = 8


@dataclass(frozen=True, kw_only=True)
class RecurrentMixer(_MultiHead):
    """A structured recurrent mixer (arXiv 2605.08696): a few weights per position and head. In training they form a
    matrix over tokens, in generation a state of constant size. Causal only."""

    causal_only: ClassVar[bool] = True
    kind: Annotated[Literal["recurrent_mixer"], KIND] = "recurrent_mixer"
    num_heads: int = 8
    structure: Literal["row", "column", "mixed"] = "mixed"
    """What a position's weights apply to: what enters the state there (row), or what is read from it (column). In
    mixed, half of the heads are of each kind."""
    kernel: int = 1
    """Weights per position, one for each of as many neighbouring dimensions."""
    decay: bool = True
    """Whether a head forgets what lies far back, at a learned rate."""
    diagonal: bool = True
    """Whether each position has one more weight, for its own token."""

    def __post_init__(self) -> None:
        require_positive(self, "num_heads", "kernel")
        halves = self.structure != "mixed" or self.num_heads % 2 == 0
        require(halves, f"half of the heads are rows in structure mixed: num_heads {self.num_heads} must be even")

    def require_fits(self, dim: int) -> None:
        """Raise ValueError also where the kernel is wider than a head."""
        super().require_fits(dim)
        head_dim = dim // self.num_heads
        require(self.kernel <= head_dim, f"kernel {self.kernel} is wider than a head, dim / num_heads = {head_dim}")


@dataclass(frozen=True, kw_only=True)
class Mamba(MixerConfig):
    """A selective state space (Gu and Dao 2023), as in transformers; causal only, for texts of any length."""

    causal_only: ClassVar[bool] = True
    kind: Annotated[Literal["mamba"], KIND] = "mamba"
    state_size: int = 16
    """Numbers in the state per dimension."""
    expand: int = 2
    """Dimensions of the state in units of `dim`."""
    kernel: int = 4
    """Positions that the convolution before the state space covers."""

    def __post_init__(self) -> None:
        require_positive(self, "state_size", "expand", "kernel")


Mixer = Annotated[Attention | MaskedMixer | RecurrentMixer | Mamba, pydantic.Discriminator("kind")]


@dataclass(frozen=True, kw_only=True)
class StackConfig(Config):
    """A stack of residual blocks: token mixer, then MLP, each on the normalized input."""

    dim: int = 128
    """Width of the hidden state."""
    num_layers: int = 2
    mlp_ratio: float = 4.0
    """Width of the MLP in units of `dim`, rounded to whole dimensions."""
    activation: Literal["relu_squared", "swiglu"] = "relu_squared"
    """The MLP's nonlinearity; swiglu is Llama's, with a gate as wide as its value."""
    mixer: Mixer = field(default_factory=MaskedMixer)
    causal: bool = False
    """Whether a position sees only itself and those before it."""

    def __post_init__(self) -> None:
        require_positive(self, "dim", "num_layers", "mlp_ratio")
        self.mixer.require_fits(self.dim)
        fits = self.causal or not self.mixer.causal_only
        require(fits, f"a {self.mixer.kind} reads from left to right only: set causal=true, in an encoder too")


@dataclass(frozen=True, kw_only=True)
class MemoryShape(Config):
    """The shape of chunks and memories, which encoder and decoder share."""

    vocab_size: int
    """Number of token types."""
    chunk_len: int
    """Tokens per chunk."""
    memory_dim: int
    """Dimensions of one memory vector."""
    num_slots: int = 1
    """Memory vectors per chunk."""
    num_bits: int | None = None
    """Quantize each dimension of a memory to this many bits, in training too; None does not quantize."""
    end_token: bool = False
    """Whether empty positions are encoded and regenerated as an end token, so that a memory holds the length of its
    chunk. Otherwise they are masked, and decoding needs the length."""

    def __post_init__(self) -> None:
        require_positive(self, "vocab_size", "chunk_len", "memory_dim", "num_slots")
        require(self.num_bits is None or 1 <= self.num_bits <= 16, f"num_bits must be 1 to 16, not {self.num_bits}")

    @property
    def num_types(self) -> int:
        """Token types of encoder and decoder: the vocabulary, then the end token, if there is one."""
        return self.vocab_size + self.end_token


@dataclass(frozen=True, kw_only=True)
class PoolingConfig(Config):
    """Base of poolings (hidden states → memory) and unpoolings (memory → hidden states)."""

    def require_fits(self, shape: MemoryShape, dim: int) -> None:
        """Raise ValueError where memories of this shape or states of width `dim` do not fit."""


@dataclass(frozen=True, kw_only=True)
class LastToken(PoolingConfig):
    """Memory from the last token's hidden state (the paper's pooling)."""

    kind: Annotated[Literal["last_token"], KIND] = "last_token"


@dataclass(frozen=True, kw_only=True)
class Mean(PoolingConfig):
    """Memory from the mean hidden state."""

    kind: Annotated[Literal["mean"], KIND] = "mean"


@dataclass(frozen=True, kw_only=True)
class Positional(PoolingConfig):
    """Pooling: each position is projected to `token_dim`, and one linear map of all makes the memory. Unpooling: one
    linear map of the memory makes `token_dim` dimensions for each position."""

    kind: Annotated[Literal["positional"], KIND] = "positional"
    token_dim: int = 32
    """Dimensions per position."""

    def __post_init__(self) -> None:
        require_positive(self, "token_dim")


@dataclass(frozen=True, kw_only=True)
class LearnedQuery(PoolingConfig):
    """Pooling: learned queries attend to the tokens. Unpooling: each position's query attends to a memory's parts."""

    kind: Annotated[Literal["learned_query"], KIND] = "learned_query"
    num_heads: int = 4
    num_parts: int = 8
    """Pooling: queries per slot, whose results are concatenated. Unpooling: parts that each slot is divided into."""

    def __post_init__(self) -> None:
        require_positive(self, "num_heads", "num_parts")

    def require_fits(self, shape: MemoryShape, dim: int) -> None:
        """Raise ValueError where heads do not divide the width, or parts the memory."""
        width = shape.memory_dim
        require(dim % self.num_heads == 0, f"num_heads {self.num_heads} does not divide the width {dim}")
        require(width % self.num_parts == 0, f"num_parts {self.num_parts} does not divide memory_dim {width}")


@dataclass(frozen=True, kw_only=True)
class Aligned(PoolingConfig):
    """No pooling: each token's hidden state has its own slot, as in a standard encoder-decoder."""

    kind: Annotated[Literal["aligned"], KIND] = "aligned"

    def require_fits(self, shape: MemoryShape, dim: int) -> None:
        """Raise ValueError where slots and tokens differ in number."""
        slots, tokens = shape.num_slots, shape.chunk_len
        require(slots == tokens, f"aligned pooling has a slot for each of {tokens} tokens, not num_slots {slots}")


@dataclass(frozen=True, kw_only=True)
class Repeat(PoolingConfig):
    """The memory is projected to the decoder's width and repeated at every position (the paper's plain unpooling)."""

    kind: Annotated[Literal["repeat"], KIND] = "repeat"


@dataclass(frozen=True, kw_only=True)
class SlidingWindow(PoolingConfig):
    """Position i reads half of the memory's dimensions, from the i-th on and wrapping around, through one shared linear
    map (the paper's unrolled unpooling)."""

    kind: Annotated[Literal["sliding_window"], KIND] = "sliding_window"

    def require_fits(self, shape: MemoryShape, dim: int) -> None:
        """Raise ValueError where the memory has an odd number of dimensions."""
        require(shape.memory_dim % 2 == 0, f"sliding_window needs an even memory_dim, not {shape.memory_dim}")


Pooling = Annotated[LastToken | Mean | Positional | LearnedQuery | Aligned, pydantic.Discriminator("kind")]
Unpooling = Annotated[Repeat | SlidingWindow | Positional | LearnedQuery, pydantic.Discriminator("kind")]


@dataclass(frozen=True, kw_only=True)
class ContextConfig(Config):
    """A small network that predicts each token from the decoder's state there and the embeddings of the tokens before.
    It makes the patches of memory files smaller; nothing else depends on it."""

    num_tokens: int = 4
    """Number of tokens before that are read."""
    dim: int = 64
    """Width of a token embedding."""
    inner: int = 512
    """Width of the hidden layer."""
    memory_alone: bool = True
    """Whether training also regenerates from the memory alone. Without, files are smaller, and vectors tell less."""

    def __post_init__(self) -> None:
        require_positive(self, "num_tokens", "dim", "inner")


@dataclass(frozen=True, kw_only=True)
class SearchConfig(Config):
    """A separate network that makes the last dimensions of a memory, the search vector, from the same tokens. Search
    vectors are close where texts mean the same, as learned from a sentence encoder, the teacher."""

    dim: int = 128
    """Dimensions of the search vector, beside those that hold the text."""
    teacher: str = "minilm"
    """The teacher, a sentence-transformers model: a folder, a hub name, or minilm."""
    teacher_fingerprint: str = ""
    """Fingerprint of the teacher's weights, set in training."""
    teacher_dim: int = 384
    """Dimensions of the teacher's vectors. They are reduced to the `dim` directions in which they differ most."""
    reduced_from: int = 16_384
    """Number of texts whose teacher vectors determine these directions."""
    stack: StackConfig = field(default_factory=lambda: StackConfig(dim=256, num_layers=4, mixer=Attention(num_heads=8)))
    num_words: int = 32_768
    """Rows of an embedding table, looked up by a hash of the word so far; 0 for no table."""
    word_dim: int = 64
    """Dimensions of a row of this table."""
    base: str = ""
    """The autoencoder that this extends, if it ships with memlm: checkpoints then do not hold it. Set in training."""
    base_sha256: str = ""
    """SHA-256 of that autoencoder's weights."""

    def __post_init__(self) -> None:
        require_positive(self, "dim", "teacher_dim", "reduced_from", "word_dim")
        require(self.num_words >= 0, f"num_words must not be negative, not {self.num_words}")
        narrower = self.dim <= self.teacher_dim
        require(narrower, f"search has at most the teacher's {self.teacher_dim} dimensions, not {self.dim}")


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(Config):
    """An encoder (chunk → memory) and a parallel decoder (memory → all tokens of the chunk at once)."""

    kind: Annotated[Literal["autoencoder"], KIND] = "autoencoder"
    shape: MemoryShape
    encoder: StackConfig = field(default_factory=StackConfig)
    pooling: Pooling = field(default_factory=Positional)
    unpooling: Unpooling = field(default_factory=Positional)
    decoder: StackConfig = field(default_factory=StackConfig)
    context: ContextConfig | None = None
    """For smaller memory files. Memories that learn with it hold what the text before does not tell."""
    memory_noise: float = 0.0
    """Standard deviation of Gaussian noise added to memories in training. A memory's root mean square is 1."""
    search: SearchConfig | None = None
    """Adds search vectors to memories; None adds none."""

    def __post_init__(self) -> None:
        single = self.search is None or self.shape.num_slots == 1
        require(single, f"memories that are searched have one vector: num_slots must be 1, not {self.shape.num_slots}")
        require(self.memory_noise >= 0, f"memory_noise must not be negative, not {self.memory_noise}")
        for name, stack, part in (("pooling", self.encoder, self.pooling), ("unpooling", self.decoder, self.unpooling)):
            try:
                part.require_fits(self.shape, stack.dim)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None

    @property
    def vocab_size(self) -> int:
        """Token types."""
        return self.shape.vocab_size

    @property
    def search_dim(self) -> int:
        """Dimensions of a memory by which it is searched, the last ones."""
        return self.search.dim if self.search else 0

    @property
    def vector_dim(self) -> int:
        """Dimensions of one vector of a memory, all in all."""
        return self.shape.memory_dim + self.search_dim


@dataclass(frozen=True, kw_only=True)
class LanguageModelConfig(Config):
    """A causal language model: token embeddings and learned positions, a causal stack, a head."""

    kind: Annotated[Literal["language_model"], KIND] = "language_model"
    vocab_size: int
    chunk_len: int
    """The longest text that the model reads, in tokens."""
    stack: StackConfig = field(default_factory=lambda: StackConfig(causal=True))

    def __post_init__(self) -> None:
        require_positive(self, "vocab_size", "chunk_len")
        require(self.stack.causal, "a language model's stack must be causal: set causal=true")

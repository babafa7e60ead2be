"""Memory readers: adapters by which a pretrained causal language model reads an encoder's memories."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from memlm.config.base import KIND, Config, require, require_fraction, require_positive
from memlm.config.decoder import PretrainedDecoder
from memlm.config.model import MemoryShape

PER_MEMORY = 0
"""The ratio of one position for each memory, however many tokens it holds."""
AS_TOKENS = 1
"""The ratio of one position for each token: the text itself, without an adapter's doing."""
MAX_RATIO = 16

Source = Literal["text", "states", "vector"]


@dataclass(frozen=True, kw_only=True)
class ReadingWindow(Config):
    """What a reader is trained on: memories of a text's past, the last tokens of the past, and the tokens after them.
    It also regenerates a stretch of one memory."""

    max_memories: int = 2
    """The most memories of the past. Each step draws a number up to this."""
    recent_tokens: int = 16
    """The model also reads this many tokens at the end of the past as tokens (counted by the language model)."""
    predicted_tokens: int = 64
    """The model predicts this many tokens after the past (counted by the language model)."""
    regenerated_tokens: int = 64
    """The longest stretch to regenerate, in tokens of the encoder. Each step draws a length of a quarter of this or
    more."""
    unread_fraction: float = 0.1
    """Share of steps without memories, so that the model still works without them."""
    expanded_fraction: float = 0.0
    """Share of steps that expand a chunk: in each past, the chunk most similar to the text after it is read as
    tokens."""
    facts_fraction: float = 0.0
    """Share of texts in which facts are hidden and asked for (`data.facts`), so that the model can still look them
    up."""
    misplaced_fraction: float = 0.0
    """Share of steps in which each text follows another text's memories, to learn to ignore memories that do not
    matter."""
    chat_fraction: float = 0.0
    """Share of steps that answer questions about the past in the language model's chat format. Half of the questions
    are about facts hidden in the past. The others have the answers that the language model itself gives when it reads
    the text (`text.chats`)."""
    num_chats: int = 64
    """Number of these answers, which the language model writes before training."""
    begin_with: str | None = None
    """Start from this reader of the same language model, encoder and adapters: its checkpoint folder."""
    teacher: str | None = None
    """The model whose predictions the divergence learns: a checkpoint folder of the same language model, adapted to see
    the whole past as tokens."""

    def __post_init__(self) -> None:
        require_positive(self, "max_memories", "recent_tokens", "predicted_tokens", "regenerated_tokens")
        require(0 <= self.unread_fraction < 1, f"unread_fraction must lie in [0, 1), not {self.unread_fraction}")
        require_positive(self, "num_chats")
        require_fraction(self, "expanded_fraction", "facts_fraction", "misplaced_fraction", "chat_fraction")


@dataclass(frozen=True, kw_only=True)
class MemoryReaderConfig(Config):
    """A frozen pretrained causal language model that reads each memory as a soft prompt of a few input embeddings."""

    kind: Annotated[Literal["memory_reader"], KIND] = "memory_reader"
    encoder: str
    """The autoencoder whose memories are read: a checkpoint folder, or one that ships with memlm."""
    shape: MemoryShape
    """Shape of the encoder's memories."""
    encoder_fingerprint: str = ""
    """Fingerprint of the encoder, set in training. Memories of other encoders are refused."""
    decoder: PretrainedDecoder
    """The language model and its LoRA adapters."""
    decoder_fingerprint: str = ""
    """Fingerprint of the language model's own weights, set in training."""
    begin: tuple[int, ...] = ()
    """Tokens that the language model expects at the beginning, set in training."""
    source: Source = "text"
    """What the soft prompt is made of. text: the text that the parallel decoder regenerates, as tokens of the language
    model. states: the parallel decoder's last states, one per token of a chunk. vector: the bare vector."""
    state_dim: int = 0
    """Width of the parallel decoder's states, needed for the source states."""
    ratios: tuple[int, ...] = (2, 4, 8, 16, PER_MEMORY)
    """Tokens of the past per position of the soft prompt; each step draws one of these ratios. 0 gives each memory one
    position, 1 reads the text itself as tokens. Without any ratio, the model reads only recent tokens, no memories."""
    recent_share: float = 0.7
    """For predicting next tokens: the share of positions given to the last tokens of a past, one token each."""
    positions: Literal["consecutive", "text"] = "consecutive"
    """Position ids. consecutive: one after another, as other engines count them. text: those that the tokens of the
    past would have."""
    hidden_dim: int = 1024
    """Width of the adapter's network. 0 for none: a state or a bare vector then becomes an input by one linear map, and
    a bare vector gets one position at every ratio."""
    window: ReadingWindow = field(default_factory=ReadingWindow)
    """What the reader is trained on."""

    def __post_init__(self) -> None:
        require(self.hidden_dim >= 0, f"hidden_dim must not be negative, not {self.hidden_dim}")
        wide = self.source != "states" or self.state_dim > 0
        require(wide, f"state_dim must be the width of the encoder's parallel decoder, not {self.state_dim}")
        require(0 <= self.recent_share < 1, f"recent_share must lie in [0, 1), not {self.recent_share}")
        unknown = [ratio for ratio in self.ratios if not 0 <= ratio <= MAX_RATIO]
        require(not unknown, f"ratios must lie from 0 (one position a memory) to {MAX_RATIO}, not {unknown[:1]}")
        learns = self.decoder.lora is not None or bool({*self.ratios} - {AS_TOKENS})
        require(learns, "without lora and without memories to read there is nothing to train: set one of them")
        longest, chunk_len = self.window.regenerated_tokens, self.shape.chunk_len
        require(longest <= chunk_len, f"regenerated_tokens {longest} are more than a chunk's {chunk_len}")

    @property
    def vocab_size(self) -> int:
        """Token types of the encoder."""
        return self.shape.vocab_size

    @property
    def unpools(self) -> bool:
        """Whether a bare vector is first taken apart, into a part for each token of its chunk."""
        return self.source == "vector" and self.hidden_dim > 0

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
    """What a reader is trained on: memories of a text's past, its last tokens as they are, and the tokens after them;
    and a stretch of one memory, to regenerate."""

    max_memories: int = 2
    """The most memories of the past; each step draws how many, up to this."""
    recent_tokens: int = 16
    """Tokens of the language model at the end of the past that it also reads as they are."""
    predicted_tokens: int = 64
    """Tokens of the language model that are predicted, of the chunk after the past."""
    regenerated_tokens: int = 64
    """Tokens of the encoder in a stretch that is regenerated; each step draws how many, from a quarter of this on."""
    unread_fraction: float = 0.1
    """Share of steps without memories, so that the model stays able to do without."""
    expanded_fraction: float = 0.0
    """Share of steps in which the chunk of each past that is most like the text after it is read as tokens."""
    facts_fraction: float = 0.0
    """Share of texts in which facts are hidden and asked for (`data.facts`), to stay able to look them up."""
    misplaced_fraction: float = 0.0
    """Share of steps in which each text stands after the memories of another, to learn to leave such alone."""
    chat_fraction: float = 0.0
    """Share of steps that answer questions about the past, in the language model's chat format: half of them about
    facts hidden in it, half with what the language model itself answers when it reads the text (`text.chats`)."""
    num_chats: int = 64
    """Such answers of its own, which it writes before training."""
    begin_with: str | None = None
    """Go on from another reader of the same language model, encoder and adapters: its checkpoint folder."""
    teacher: str | None = None
    """For the divergence: a checkpoint folder of the same language model, adapted to see all of the past as tokens."""

    def __post_init__(self) -> None:
        require_positive(self, "max_memories", "recent_tokens", "predicted_tokens", "regenerated_tokens")
        require(0 <= self.unread_fraction < 1, f"unread_fraction must lie in [0, 1), not {self.unread_fraction}")
        require_positive(self, "num_chats")
        require_fraction(self, "expanded_fraction", "facts_fraction", "misplaced_fraction", "chat_fraction")


@dataclass(frozen=True, kw_only=True)
class MemoryReaderConfig(Config):
    """A frozen pretrained causal language model that reads memories as a soft prompt: a few input embeddings each."""

    kind: Annotated[Literal["memory_reader"], KIND] = "memory_reader"
    encoder: str
    """The autoencoder whose memories are read: a checkpoint folder, or one that ships with memlm."""
    shape: MemoryShape
    """Of its memories."""
    encoder_fingerprint: str = ""
    """Of its encoder, set in training: memories of another one are refused."""
    decoder: PretrainedDecoder
    decoder_fingerprint: str = ""
    """Of the language model's own weights, set in training."""
    begin: tuple[int, ...] = ()
    """Tokens that the language model expects at the beginning, set in training."""
    source: Source = "text"
    """What positions are made of: the text that the parallel decoder gives back, as tokens of the language model; the
    parallel decoder's last states, one for each token of a chunk; or the bare vector."""
    state_dim: int = 0
    """Width of the parallel decoder's states, where those are read."""
    ratios: tuple[int, ...] = (2, 4, 8, 16, PER_MEMORY)
    """Tokens of the past for each position of the soft prompt; each step draws one of these. 0 is one position for each
    memory, 1 the text itself as tokens; without any, the model reads no memories, only recent tokens."""
    recent_share: float = 0.7
    """Share of the positions that the last tokens of a past have to themselves, where next tokens are predicted."""
    positions: Literal["consecutive", "text"] = "consecutive"
    """Position ids: one after another, as other engines count them; or those of the text, as if it were there."""
    hidden_dim: int = 1024
    """Of the adapter's network; 0 for none: a state or a bare vector then becomes an input by one linear map, and a
    bare vector has a position of its own at every ratio."""
    window: ReadingWindow = field(default_factory=ReadingWindow)

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

"""What clients may ask for; the embeddings are OpenAI's."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Input = str | list[str] | list[int] | list[list[int]]
"""A text, texts, or their token ids."""


class _Asked(BaseModel):
    # Numbers are not read from strings; what other fields a client sends (user) is passed over, as OpenAI does.
    model_config = ConfigDict(strict=True)

    model: str
    """One that the server was started with."""


class EmbeddingsRequest(_Asked):
    """Texts to embed, each of at most one chunk."""

    input: Input
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    """The model's own: its embeddings cannot be cut."""


class MemoriesRequest(_Asked):
    """Texts of any length to encode."""

    input: Input
    verify: bool = False
    """Also regenerate each chunk, and say whether it comes back without an error."""


class TextMemory(BaseModel):
    """The memories of one text, as `/v1/memories` gives them."""

    model_config = ConfigDict(strict=True)

    vectors: str
    """Base64 of float32 numbers, little-endian."""
    shape: Annotated[list[Annotated[int, Field(ge=0, le=2**31)]], Field(min_length=3, max_length=3)]
    """Chunks, slots and dimensions."""
    num_tokens: list[Annotated[int, Field(ge=0, le=2**31)]] | None = None
    """Of each chunk; only models whose memories do not hold their length need it."""


class RegenerateRequest(_Asked):
    """Memories to read."""

    encoder: str
    """The fingerprint of the encoder that made them."""
    data: list[TextMemory]

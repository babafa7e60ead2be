"""What clients may ask for; the embeddings are OpenAI's."""

from http import HTTPStatus
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from memlm.config import MAX_RATIO
from memlm.serve.errors import ApiError

Asked = TypeVar("Asked", bound=BaseModel)

Input = str | list[str] | list[int] | list[list[int]]
"""A text, texts, or their token ids."""
_ANSWER_TOKENS = 256
"""Where a client says nothing."""
_Nothing = Annotated[list[object], Field(max_length=0)]
_Zero = Annotated[float, Field(ge=0, le=0)]


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


class Memories(BaseModel):
    """Memories to read, as `/v1/memories` gives them."""

    model_config = ConfigDict(strict=True)

    encoder: str
    """The fingerprint of the encoder that made them."""
    data: list[TextMemory]


class RegenerateRequest(_Asked, Memories):
    """Memories to give back as text."""


class TextPart(BaseModel):
    """A part of a message's content."""

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """A message, as OpenAI's."""

    model_config = ConfigDict(strict=True)

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    def to_dict(self) -> dict[str, str]:
        """As readers take it."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": content}


class TextFormat(BaseModel):
    """The one form of an answer."""

    type: Literal["text"]


class StreamOptions(BaseModel):
    """What a stream tells besides."""

    include_usage: bool = False


class ChatRequest(_Asked):
    """Messages to answer, and memories to read for that."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    memories: Memories | None = None
    """All texts' chunks, in order, are one past."""
    ratio: Annotated[int, Field(ge=0, le=MAX_RATIO)] | None = None
    """Tokens of the past that share a position; by default as few as fit, from 4 on."""
    expand: Annotated[int, Field(ge=0, lt=2**31)] = 400
    """Tokens of the past that may be read as text besides."""
    max_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = 0.0
    """0 takes the likeliest token each time."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = 1.0
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    # What would change the answer, and cannot be had, is refused; other fields are passed over.
    n: Literal[1] | None = 1
    logprobs: Literal[False] | None = False
    tools: _Nothing | None = None
    functions: _Nothing | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    response_format: TextFormat | None = None
    presence_penalty: _Zero | None = 0.0
    frequency_penalty: _Zero | None = 0.0

    @property
    def most_tokens(self) -> int:
        """Of an answer."""
        return self.max_completion_tokens or self.max_tokens or _ANSWER_TOKENS

    @property
    def stops(self) -> list[str]:
        """Texts before which an answer ends."""
        return [stop for stop in ([self.stop] if isinstance(self.stop, str) else self.stop or []) if stop]


async def asked_by(request: Request, kind: type[Asked]) -> Asked:
    """What the body of a request asks for.

    Raises:
        ApiError: it is sent as something else than JSON; a page of another site could do that without being allowed to.
        ValidationError: it is none, or has other fields.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(HTTPStatus.BAD_REQUEST, "the body must be a JSON object, sent as application/json")
    return kind.model_validate_json(await request.body())

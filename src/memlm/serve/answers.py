"""What is answered, as what JSON can hold."""

import base64
import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray
from starlette.responses import Response

from memlm.serve.errors import FAILED
from memlm.serve.model import Embeddings, ServedModel
from memlm.serve.reader import Finish, ServedReader
from memlm.text.memory import Memory, Regenerated

Answer = dict[str, Any]


def response(answer: Answer) -> Response:
    """As it is sent; in fp32, a number has as many digits as tell it from others."""
    return Response(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


def embeddings(served: ServedModel, vectors: Embeddings, num_tokens: int, form: Literal["float", "base64"]) -> Answer:
    """One vector for each text, as OpenAI's embeddings have."""
    data = [
        {"object": "embedding", "index": index, "embedding": _base64(row) if form == "base64" else row}
        for index, row in enumerate(vectors)
    ]
    return _listed(served, data, num_tokens)


def memories(served: ServedModel, memory: Memory, num_tokens: int) -> Answer:
    """The memories of each text; what `/v1/memories/regenerate` takes."""
    data = []
    for index, each in enumerate(memory):
        verified = {} if each.exact is None else {"exact": each.exact.tolist()}
        known = {"object": "memory", "index": index, "shape": [*each.vectors.shape]}
        data.append(known | {"vectors": _base64(each.numpy()), "num_tokens": each.num_tokens.tolist()} | verified)
    return {"encoder": memory.encoder} | _listed(served, data, num_tokens)


def texts(served: ServedModel, regenerated: Sequence[Regenerated], num_tokens: int) -> Answer:
    """Each text, with the spans of characters that may be wrong."""
    data = [
        {"object": "text", "index": index, "text": str(text), "unsure": text.unsure, "proven": text.proven}
        for index, text in enumerate(regenerated)
    ]
    return _listed(served, data, num_tokens)


def completion(served: ServedReader, text: str, end: Finish) -> Answer:
    """A whole answer to messages."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": end.reason}
    return _chat(served, "chat.completion") | {"choices": [choice | {"logprobs": None}], "usage": _usage(end)}


async def streamed(served: ServedReader, pieces: AsyncIterator[str | Finish], *, usage: bool) -> AsyncIterator[str]:
    """An answer as server-sent events: its pieces, why it ends, and what it took, if that is asked for."""
    about = _chat(served, "chat.completion.chunk")

    def event(delta: Answer, reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        return _event(about | {"choices": [choice]} | ({"usage": None} if usage else {}))

    yield event({"role": "assistant", "content": ""})
    try:
        async for piece in pieces:
            if isinstance(piece, str):
                yield event({"content": piece})
                continue
            yield event({}, piece.reason)
            if usage:
                yield _event(about | {"choices": [], "usage": _usage(piece)})
    except Exception:  # the status is told already
        yield _event(FAILED.content)
        raise
    yield "data: [DONE]\n\n"


def _chat(served: ServedReader, kind: str) -> Answer:
    about = {"object": kind, "created": int(time.time()), "model": served.name}
    return {"id": f"chatcmpl-{secrets.token_hex(12)}"} | about


def _usage(end: Finish) -> Answer:
    counts = {name: count for name, count in end._asdict().items() if name != "reason"}
    return counts | {"total_tokens": end.prompt_tokens + end.completion_tokens}


def _event(what: Answer) -> str:
    return f"data: {json.dumps(what)}\n\n"


def _listed(served: ServedModel, data: Sequence[Answer], num_tokens: int) -> Answer:
    usage = {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
    return {"object": "list", "model": served.name, "data": data, "usage": usage}


def _base64(vectors: NDArray[np.float32]) -> str:
    return base64.b64encode(vectors.astype("<f4").tobytes()).decode()

"""Errors as OpenAI's clients expect them: `{"error": {"message", "type", "param", "code"}}`."""

from http import HTTPStatus
from typing import Any

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from memlm.config import MAX_RATIO

EXPECTED = {
    "input": "must be a string, a list of strings, a list of token ids, or a list of such lists",
    "encoding_format": "must be float or base64",
    "dimensions": "must be a whole number",
    "ratio": f"must be a whole number from 0 (one position for each memory) to {MAX_RATIO}",
    "expand": "must be a whole number of tokens, 0 or more",
    "n": "must be 1: one answer is written",
    "logprobs": "must be false: they cannot be had",
    "tools": "must be empty: these models call none",
    "functions": "must be empty: these models call none",
    "logit_bias": "must be empty: it cannot be had",
    "response_format": "must be text: no other can be promised",
    "presence_penalty": "must be 0: it cannot be had",
    "frequency_penalty": "must be 0: it cannot be had",
    "stop": "must be a string, or a list of at most 4",
}
"""What a field must be, where pydantic would say it in many words."""


class ApiError(Exception):
    """What is answered in place of what was asked for."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None, retry_after: int = 0
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.retry_after = status, message, param, code, retry_after

    @property
    def content(self) -> dict[str, Any]:
        """What is sent."""
        error = {"message": self.message, "type": _kind(self.status), "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> JSONResponse:
        """As it is sent."""
        headers = {"Retry-After": str(self.retry_after)} if self.retry_after else None
        return JSONResponse(self.content, status_code=self.status, headers=headers)


def _kind(status: int) -> str:
    if status >= 500:
        return "server_error"
    return "rate_limit_error" if status == 429 else "invalid_request_error"


FAILED = ApiError(500, "the server failed; its log says why")


def client_left() -> ApiError:
    """As nginx counts it; nobody gets to see it."""
    return ApiError(499, "the client has left")


async def _answered(request: Request, error: Any) -> JSONResponse:
    match error:
        case ApiError():
            return error.response()
        case HTTPException():
            response = ApiError(error.status_code, f"{request.method} {request.url.path}: {error.detail}").response()
            response.headers.update(error.headers or {})  # such as Allow
            return response
        case ValidationError():
            return _refused(error.errors()).response()
        case ClientDisconnect():
            return client_left().response()
        case _:
            return FAILED.response()


HANDLERS = dict.fromkeys((ApiError, HTTPException, ValidationError, ClientDisconnect, Exception), _answered)
"""Every error of an application is answered in this form."""


def _refused(flaws: Any) -> ApiError:
    """What is wrong with a request's fields; only the first is told."""
    first = flaws[0]
    if first["type"] == "json_invalid":
        return ApiError(HTTPStatus.BAD_REQUEST, f"the body is not valid JSON: {first['ctx']['error']}")
    if not first["loc"]:
        return ApiError(HTTPStatus.BAD_REQUEST, "the body must be a JSON object")
    param = str(first["loc"][0])
    missing = first["type"] == "missing" and len(first["loc"]) == 1
    wrong = "is missing" if missing else EXPECTED.get(param) or f"is wrong: {first['msg']}"
    place = param if missing or param in EXPECTED else ".".join(map(str, first["loc"]))
    return ApiError(HTTPStatus.BAD_REQUEST, f"{place} {wrong}", param=param)

"""The Hugging Face hub, where it can be reached; where it cannot, its cache, at once."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TIMEOUT = 3.0
"""Seconds in which the hub must begin to answer."""


@contextmanager
def hub(kind: str, name: str, *, instead: str) -> Iterator[None]:
    """A block that loads a model, tokenizer or dataset (`kind`) by a name that may be a folder here, or one on the hub.

    Hugging Face's libraries try for minutes to reach a hub that cannot be reached. So it is asked once, briefly, and
    within the block they are told to be offline where it does not answer.

    Raises:
        ValueError: the hub cannot be reached, and the cache does not have it; `instead` is what would work.
    """
    if Path(name).is_dir() or not _can_be_on_hub(name):
        yield
        return
    from huggingface_hub import constants

    why, before = _why_unreachable(), constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or why is not None
    try:
        yield
    except Exception as error:
        if why is None:
            raise
        raise ValueError(
            f"there is no {kind} {name!r} here: it is neither a folder nor in the Hugging Face cache, and the hub "
            f"cannot be reached ({why}); {instead}"
        ) from error
    finally:
        constants.HF_HUB_OFFLINE = before


def _can_be_on_hub(name: str) -> bool:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _why_unreachable() -> str | None:
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        get_session().head(constants.ENDPOINT, timeout=_TIMEOUT)
    except Exception as error:  # of whichever library it uses to connect
        return said(error)
    return None


def said(error: Exception) -> str:
    """The first line of what an error says, without its number; or its type."""
    return re.sub(r"\[Errno -?\d+\] ", "", str(error).strip()).partition("\n")[0] or type(error).__name__

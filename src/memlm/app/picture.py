"""A memory as an image of its dimensions, which can be edited."""

from collections.abc import Mapping
from importlib import resources
from typing import Any

import gradio as gr
from torch import Tensor

_ASSETS = resources.files("memlm.app") / "assets"
_COLUMNS = 32


def picture(value: Mapping[str, Any], *, editable: bool, elem_id: str) -> gr.HTML:
    """An image of one chunk's vectors; its value has them, and what was edited."""
    # No class of its own: Gradio would write a stub file beside it.
    return gr.HTML(
        value,
        html_template=asset("picture.html"),
        js_on_load=asset("picture.js"),
        elem_id=elem_id,
        elem_classes=["picture", *([] if editable else ["fixed"])],
        editable=editable,
    )


def asset(name: str) -> str:
    """A file of the page."""
    return (_ASSETS / name).read_text(encoding="utf-8")


def drawn(vectors: Tensor | None, key: str, edits: Mapping[int, float] | None = None) -> dict[str, Any]:
    """The value of a picture of vectors [slot memory_dim]; edits are kept as long as the key stays the same."""
    values = [] if vectors is None else [round(value, 3) for value in vectors.flatten().tolist()]
    return {
        "vector": values,
        "columns": _COLUMNS,
        "key": key,
        "edits": {str(dim): value for dim, value in (edits or {}).items()},
    }


def edits_in(value: Mapping[str, Any] | None, key: str) -> dict[int, float]:
    """What was edited, of the memory with this key."""
    if not value or value.get("key") != key:
        return {}
    return {int(dim): float(number) for dim, number in (value.get("edits") or {}).items()}

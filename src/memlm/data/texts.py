"""Texts to evaluate on that come with memlm or with Python, far from the default corpus and from each other."""

import importlib.util
import io
from importlib.machinery import SourceFileLoader
from importlib.resources import files

from memlm.data.corpus import Document, cut

EVALUATION_TEXTS = ("novel", "verse", "code")

_DOCUMENT_BYTES = 8 * 1024
_MODULES = ("bisect", "calendar", "csv", "heapq", "queue", "random", "shlex", "textwrap", "tokenize", "zipfile")


def evaluation_documents(name: str) -> list[Document]:
    """The documents, of about 8 KB each, of one of the `EVALUATION_TEXTS`.

    `novel` and `verse` are always the same; `code` is source of the standard library of the Python that runs.

    Raises:
        ValueError: an unknown name, or a Python that comes without source.
    """
    match name:
        case "novel" | "verse":
            text = files("memlm.data").joinpath("texts", f"{name}.txt").read_bytes()
            return _documents(name, text)
        case "code":
            return [document for module in _MODULES for document in _documents(f"code/{module}", module_source(module))]
    raise ValueError(f"there is no evaluation text {name!r}; there are {', '.join(EVALUATION_TEXTS)}")


def _documents(name: str, text: bytes) -> list[Document]:
    pieces = cut(io.BytesIO(text), _DOCUMENT_BYTES)
    return [Document(f"{name}/{number}", piece.decode("utf-8")) for number, piece in enumerate(pieces)]


def module_source(module: str) -> bytes:
    """Source of a module of the standard library.

    Raises:
        ValueError: this Python comes without it.
    """
    spec = importlib.util.find_spec(module)
    source = spec.loader.get_source(module) if spec and isinstance(spec.loader, SourceFileLoader) else None
    if source is None:
        raise ValueError(f"this Python comes without the source of {module}, which is needed as text")
    return source.encode("utf-8")

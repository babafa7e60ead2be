"""Texts to evaluate on that come with memlm or with Python, far from the default corpus and from each other."""

import importlib.util
import random
import re
import string
from importlib.machinery import SourceFileLoader
from importlib.resources import files

from memlm.data.documents import Document, split_document

EVALUATION_TEXTS = ("novel", "verse", "code")

EVERYDAY_KINDS = (
    *("prose", "words", "names", "numbers", "addresses", "python", "german", "french", "digits", "alphabets", "emoji"),
    "repeats",
)
"""Kinds of everyday text to evaluate on; `numbers` are dates and amounts, `addresses` of web pages, files, e-mail."""
_RUNNING = ("prose", "german", "french", "alphabets")
"""Of these a text may begin with any word; others are made of whole lines."""

_DOCUMENT_BYTES = 8 * 1024
EVALUATION_MODULES = (
    *("bisect", "calendar", "csv", "heapq", "queue", "random", "shlex", "textwrap", "tokenize", "zipfile"),
)
"""Of the Python that runs, whose source is the evaluation text `code`."""


def evaluation_documents(name: str) -> list[Document]:
    """The documents, of about 8 KB each, of one of the `EVALUATION_TEXTS`.

    `novel` and `verse` are always the same; `code` is source of the standard library of the Python that runs.

    Raises:
        ValueError: an unknown name, or a Python that comes without source.
    """
    match name:
        case "novel" | "verse":
            texts = {str(name): _read(f"{name}.txt")}
        case "code":
            texts = {f"code/{module}": module_source(module) for module in EVALUATION_MODULES}
        case _:
            raise ValueError(f"there is no evaluation text {name!r}; there are {', '.join(EVALUATION_TEXTS)}")
    return [part for document in texts.items() for part in split_document(Document(*document), _DOCUMENT_BYTES)]


def everyday_lines(kind: str) -> list[str]:
    """What people type, of one of the `EVERYDAY_KINDS`: a word, a name, a date, an address, a sentence, ... each.

    Raises:
        ValueError: an unknown kind, or a Python that comes without source.
    """
    match kind:
        case "words":
            return sorted(set(re.findall(r"[A-Za-z]+(?:'[a-z]+)?", _read("novel.txt"))))
        case "prose":
            return [line for line in re.split(r"(?<=[.!?;]) |\n+", _read("novel.txt").strip()) if line]
        case "python":
            return [line for document in evaluation_documents("code") for line in document.text.splitlines() if line]
        case "repeats":
            rng = random.Random(0)
            novel = everyday_lines("words")
            pieces = [*string.printable[:95], *(rng.choice(novel) + rng.choice(("", " ", ", ")) for _ in range(205))]
            return [piece * max(1, round(40 ** rng.random() * 8 / len(piece))) for piece in pieces]
        case "digits":
            rng = random.Random(0)
            return ["".join(rng.choices(string.digits, k=rng.randint(1, 40))) for _ in range(500)]
    if kind not in EVERYDAY_KINDS:
        raise ValueError(f"there is no everyday text of kind {kind!r}; there is {', '.join(EVERYDAY_KINDS)}")
    return _read(f"everyday/{kind}.txt").splitlines()


def everyday_documents(kind: str, number: int, num_characters: int, seed: int = 0) -> list[Document]:
    """Texts of one of the `EVERYDAY_KINDS`, each of at least so many characters: random lines below each other; code,
    and in running text the words of the first line, in their order."""
    rng, lines = random.Random(f"{seed} {kind}"), everyday_lines(kind)
    return [Document(f"{kind}/{place}", _run(kind, lines, num_characters, rng)) for place in range(number)]


def _run(kind: str, lines: list[str], num_characters: int, rng: random.Random) -> str:
    start = rng.randrange(len(lines))
    text = lines[start]
    if kind in _RUNNING:
        words = text.split(" ")
        text = " ".join(words[rng.randrange(len(words)) :])
    while len(text) < num_characters:
        start = (start + 1) % len(lines) if kind in ("python", "prose") else rng.randrange(len(lines))
        text += ("\n" if kind not in _RUNNING else " ") + lines[start]
    return text


def _read(name: str) -> str:
    return files("memlm.data").joinpath("texts", name).read_text(encoding="utf-8")


def module_source(module: str) -> str:
    """Source of a module of the standard library.

    Raises:
        ValueError: this Python comes without it.
    """
    spec = importlib.util.find_spec(module)
    source = spec.loader.get_source(module) if spec and isinstance(spec.loader, SourceFileLoader) else None
    if source is None:
        raise ValueError(f"this Python comes without the source of {module}, which is needed as text")
    return source

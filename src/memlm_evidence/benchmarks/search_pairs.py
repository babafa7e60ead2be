"""Queries and the passages that they are to find, of text that `english` and what it is searched by did not learn."""

import ast
import random
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from memlm.config import DataConfig, NamedCorpus
from memlm.data.corpus import read_documents
from memlm.data.documents import split_of
from memlm.data.texts import evaluation_documents
from memlm.data.tokenizer import Tokenizer

_LEAST_BODY = 200
"""Characters of a docstring after its summary that make a passage."""
_OUTSIDE = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3"}


@dataclass(frozen=True)
class Pairs:
    """Queries, each with the place of its passage among all passages."""

    name: str
    queries: Sequence[str]
    passages: Sequence[str]
    own: Sequence[int]
    same: Sequence[int] | None = None
    """The place of the query itself, where it is one of the passages: then it is not looked at."""

    @property
    def num_bytes(self) -> int:
        """Of all of its text."""
        return sum(len(text.encode()) for text in (*self.queries, *self.passages))


def novel(tokenizer: Tokenizer, chunk_len: int, most: int) -> Pairs:
    """A chunk of a novel is to find the one after it."""
    return _neighbours(
        "novel", ["".join(one.text for one in evaluation_documents("novel"))], tokenizer, chunk_len, most
    )


def addresses(tokenizer: Tokenizer, chunk_len: int, most: int) -> Pairs:
    """The same of presidential addresses that are held out."""
    held_out = [one.text for one in read_documents(NamedCorpus()) if split_of(one, DataConfig()) == "test"]
    return _neighbours("addresses", held_out, tokenizer, chunk_len, most)


def docstrings(tokenizer: Tokenizer, chunk_len: int, most: int) -> Pairs:
    """The first line of a docstring of the standard library, which is like a title, is to find the rest."""
    found = dict(_summaries())
    chosen = random.Random(0).sample(sorted(found.items()), min(most, len(found)))
    passages = [_cut(body, tokenizer, chunk_len) for _, body in chosen]
    return Pairs("docstrings", [title for title, _ in chosen], passages, range(len(chosen)))


PAIRS: tuple[Callable[[Tokenizer, int, int], Pairs], ...] = (novel, addresses, docstrings)
"""What is measured: of a tokenizer, tokens of a chunk, and how many passages at most."""


def _neighbours(name: str, texts: Sequence[str], tokenizer: Tokenizer, chunk_len: int, most: int) -> Pairs:
    pieces: list[str] = []
    pairs: list[tuple[int, int]] = []
    for text in texts:
        first, ids = len(pieces), tokenizer.encode(text)
        chunks = [ids[start : start + chunk_len] for start in range(0, len(ids), chunk_len)]
        pieces += tokenizer.decode_pieces([chunk.tolist() for chunk in chunks])
        pairs += [(place, place + 1) for place in range(first, len(pieces) - 1)]
    chosen = sorted(random.Random(0).sample(pairs, min(most, len(pairs))))
    kept = sorted({place for pair in chosen for place in pair})
    places = {place: number for number, place in enumerate(kept)}
    same, own = ([places[pair[end]] for pair in chosen] for end in (0, 1))
    passages = [pieces[place] for place in kept]
    return Pairs(name, [passages[place] for place in same], passages, own, same)


def _cut(text: str, tokenizer: Tokenizer, chunk_len: int) -> str:
    return tokenizer.decode(tokenizer.encode(text)[:chunk_len]).strip("\ufffd")


def _summaries() -> Iterator[tuple[str, str]]:
    """First lines of docstrings, and what follows them after a blank line."""
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if _OUTSIDE & {*path.parts}:
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, documented) and (text := ast.get_docstring(node)):
                title, blank, body = text.partition("\n\n")
                if blank and "\n" not in title and len(body) >= _LEAST_BODY:
                    yield title, body.strip()

"""A book as a memory file: made, searched, and opened one chunk at a time."""

import math
import re
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from memlm.app.explorer import Explorer, own_folder
from memlm.data.texts import evaluation_documents
from memlm.runtime.progress import track
from memlm.store.chunk import ChunkInfo
from memlm.store.file import MemoryFile
from memlm.store.store import file_version
from memlm.text.memory import Memory, Regenerated, Span

SAMPLE = "Persuasion"
_SAMPLE_CHARACTERS = 12_000
_WORD = re.compile(r"\w+")
_MOST_HITS = 20
_AROUND = 90
"""Characters that are shown before and after the first word that was found."""


class Hit(NamedTuple):
    """A chunk that was found."""

    chunk: int
    excerpt: str
    spans: tuple[Span, ...]
    """Of what was looked for, in the excerpt."""


class Opened(NamedTuple):
    """A chunk, as its vector alone gives it back."""

    chunk: int
    memory: Memory
    back: Regenerated | None
    """None, where the file keeps text instead of a vector."""
    exact: str
    """With what the file keeps beside the vector."""
    about: ChunkInfo
    seconds: float
    """That the decoder took."""


@dataclass(frozen=True, eq=False)
class Book:
    """A text in a memory file."""

    name: str
    notes: MemoryFile
    texts: Sequence[str]
    """Of each chunk, as the file gives it back."""
    seconds: float
    """That it took to remember."""

    def __deepcopy__(self, memo: object) -> "Book":
        return self  # a page's state is copied, and an open file cannot be

    @cached_property
    def _chunks_of(self) -> dict[str, Counter[int]]:
        """Each word's chunks, and how often it occurs there."""
        found: defaultdict[str, Counter[int]] = defaultdict(Counter)
        for number, text in enumerate(self.texts):
            for word in _words(text + self._end_of_word(number)):
                found[word][number] += 1
        return dict(found)

    def _end_of_word(self, number: int) -> str:
        """What the next chunk begins with, where a word goes on there."""
        after = self.texts[number + 1] if number + 1 < len(self.texts) else ""
        begun = _WORD.match(after)
        return begun[0] if begun and self.texts[number][-1:].isalnum() else ""

    def best(self, query: str, most: int = _MOST_HITS) -> list[int]:
        """The chunks that share most with a query, by how rare its words are here (tf-idf), best first."""
        scores: defaultdict[int, float] = defaultdict(float)
        for word in self._telling(query):
            for number, count in self._chunks_of.get(word, Counter()).items():
                scores[number] += self._rarity(word) * (1 + math.log(count))
        return [number for number, _ in sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:most]]

    def _rarity(self, word: str) -> float:
        return math.log((1 + len(self.texts)) / (1 + len(self._chunks_of.get(word, ()))))

    def _telling(self, query: str) -> list[str]:
        """The words of a query, but for those that most chunks have, unless there are no others."""
        words = [*dict.fromkeys(_words(query))]
        return [word for word in words if self._rarity(word) > math.log(2)] or words

    def search(self, query: str) -> list[Hit]:
        """The best chunks, with what was found in them."""
        words = self._telling(query)
        pattern = re.compile(rf"\b({'|'.join(map(re.escape, words))})\b", re.I) if words else None
        return [self._hit(number, pattern) for number in self.best(query)] if pattern else []

    def _hit(self, number: int, pattern: re.Pattern[str]) -> Hit:
        text = self.texts[number] + self._end_of_word(number)
        found = max(pattern.finditer(text), key=lambda match: self._rarity(match[0].lower()), default=None)
        first = found.start() if found else 0
        start, stop = max(0, first - _AROUND), min(len(text), first + _AROUND)
        excerpt = " ".join(text[start:stop].split())
        return Hit(number, excerpt, tuple(match.span() for match in pattern.finditer(excerpt)))

    def open(self, number: int) -> Opened:
        """One chunk, from its vector."""
        memory, about = self.notes.memories(number, number + 1), self.notes.chunks[number]
        begin = time.monotonic()
        back = self.notes.model.regenerate(memory)[0] if len(memory.vectors) else None
        return Opened(number, memory, back, self.texts[number], about, time.monotonic() - begin)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def remember(explorer: Explorer, name: str, text: str) -> Book:
    """Write a text into a new memory file, and read it back; watched as the library's own work is.

    Raises:
        ValueError: the text is not valid Unicode.
        OSError: the disk is full.
    """
    begin, path = time.monotonic(), own_folder() / f"{uuid.uuid4().hex}.memory"
    with track(f"Remembering {name}", total=len(text.encode()), unit="bytes", quiet=True) as advance:
        notes = MemoryFile.create(path, explorer.model, [(name, text)], name=explorer.name, advance=advance)
    return _opened(name, notes, begin)


def opened(explorer: Explorer, path: Path) -> Book:
    """A memory file that `memlm remember` has made.

    Raises:
        ValueError: it is damaged, or its encoder is not there.
    """
    notes = MemoryFile.open(path, device=explorer.device)
    return _opened(path.name, notes, time.monotonic())


def is_memory_file(path: Path) -> bool:
    """Whether it is one."""
    return file_version(path) > 0


def sample(explorer: Explorer) -> Book:
    """The beginning of a novel."""
    text = "".join(document.text for document in evaluation_documents("novel")[:3])[:_SAMPLE_CHARACTERS]
    return remember(explorer, f"{SAMPLE}, its beginning", text)


def whole_sample() -> str:
    """The whole of the novel, as far as it comes with memlm."""
    return "".join(document.text for document in evaluation_documents("novel"))


def _opened(name: str, notes: MemoryFile, begin: float) -> Book:
    total, texts = sum(chunk.num_bytes for chunk in notes.chunks), list[str]()
    with track("Reading it back", total=total, unit="bytes", quiet=True) as advance:
        for piece in notes.pieces():
            texts.append(piece.decode("utf-8", "replace"))
            advance(len(piece))
    return Book(name, notes, texts, time.monotonic() - begin)

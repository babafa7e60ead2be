"""The parts of a leak's measurement: each is done once, in whatever process, and kept."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from memlm.config import Degradation, LeakConfig, NamedCorpus
from memlm.data.corpus import read_documents
from memlm.probing.inversion.embedder import Unit
from memlm.probing.inversion.invert import Inverter, pieces_of
from memlm.probing.inversion.likeness import f1
from memlm.probing.leak.results import stored_as
from memlm.probing.leak.retrieval import LEAST_QUERIES, Pair, hits, pairs_of
from memlm.probing.leak.storage import Storage
from memlm.probing.leak.summary import GUESS
from memlm.probing.leak.words import Shares, came_back, names_in, tokens_of_words, words_in, words_of_tokens
from memlm.runtime.cache import digest
from memlm.runtime.executor import Job, Row
from memlm.runtime.wording import installed_version

LENGTHS = (8, 16, 32, 64, 128)
_SAMPLE = 256
"""Texts that tell the spread of each dimension, of vectors of texts of their length."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What is measured of one encoder; a worker gets all but the encoder, which it opens itself."""

    open: Callable[[], Inverter]
    texts: tuple[str, ...]
    cfg: LeakConfig

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("inverter", "embedded")}

    @cached_property
    def inverter(self) -> Inverter:
        """The encoder, and what inverting it takes."""
        return self.open()

    @cached_property
    def own(self) -> bool:
        """Whether the vectors are memories, which their own decoder gives back."""
        return self.inverter.autoencoder is not None

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        embedder = self.inverter.embedder
        return embedder.embed([embedder.tokens("a")]).shape[1]

    @cached_property
    def names(self) -> frozenset[str]:
        """Names in the texts."""
        return names_in(self.texts)

    @cached_property
    def pieces(self) -> dict[int, list[str]]:
        """Texts, by their lengths.

        Raises:
            ValueError: the encoder does not read so many tokens, or the text has no two pieces of them.
        """
        embedder, asked = self.inverter.embedder, self.cfg.chunk_lens
        made: dict[int, list[str]] = {}
        for length in asked or [each for each in LENGTHS if each <= embedder.max_len]:
            if length > embedder.max_len:
                raise ValueError(f"{embedder.name} reads texts of 1 to {embedder.max_len} tokens, not {length}")
            try:
                made[length] = pieces_of(embedder, self.texts, length, self.cfg.num_texts, self.cfg.seed)
            except ValueError:
                if asked or not made:
                    raise
                break
            if len(made[length]) < 2:
                raise ValueError(f"the text has a single piece of {length} tokens, and two are needed; give more text")
        return made

    @cached_property
    def pairs(self) -> list[Pair]:
        """Queries, and their passages; none if there are too few."""
        found = pairs_of(self.inverter.embedder, self.texts, self._passage_len, self.cfg.num_passages, self.cfg.seed)
        return found if len(found) >= LEAST_QUERIES else []

    @cached_property
    def others(self) -> list[Pair]:
        """Of the presidential addresses, to fill up the store."""
        missing = self.cfg.num_passages - len(self.pairs)
        addresses = [document.text for document in read_documents(NamedCorpus())] if missing else []
        return pairs_of(self.inverter.embedder, addresses, self._passage_len, missing, self.cfg.seed)

    @property
    def _passage_len(self) -> int:
        return min(self.cfg.passage_len, self.inverter.embedder.max_len)

    @cached_property
    def embedded(self) -> dict[int, tuple[Unit, Storage]]:
        """Vectors of the texts, and what is done to them, by length; filled as they are wanted."""
        return {}

    def _stored(self, length: int, degradation: Degradation | None) -> Unit:
        """Vectors of the texts of a length, as they are stored."""
        embedder, seed = self.inverter.embedder, self.cfg.seed
        if length not in self.embedded:
            sample = pieces_of(embedder, self.texts, length, _SAMPLE, seed)
            vectors, others = (
                embedder.embed(list(map(embedder.tokens, some))) for some in (self.pieces[length], sample)
            )
            self.embedded[length] = vectors, Storage(others)
        vectors, storage = self.embedded[length]
        return storage(vectors, degradation, seed)

    def jobs(self) -> list[Job]:
        """All parts: the cheap ones first, then the longest, so that no core waits long for another."""
        made, stored = list[Job](), list(map(stored_as, self.cfg.degradations))
        if self.cfg.num_passages and self.pairs:
            tokens = (len(self.pairs) + self.cfg.num_passages) * self._passage_len
            made.append(self._job("recall", self.retrieve, tokens, stored=stored))
        for length in sorted(self.pieces) if not self.own else ():
            tokens = length * len(self.pieces[length])
            made.append(self._job(f"words-{length}", partial(self.read_off, length), tokens, stored=stored))
        for length in sorted(self.pieces, reverse=True):
            made += self._decodes(length) if self.own else self._searches(length)
        return made

    def _searches(self, length: int) -> Iterator[Job]:
        for degradation in self.cfg.precisions if length in self.cfg.searched_lens else ():
            for number in range(min(self.cfg.num_searched, len(self.pieces[length]))):
                run = partial(self.give_back, length, degradation, [number])
                name = f"search-{length}-{stored_as(degradation)}-{number}"
                yield self._job(name, run, self.cfg.encodings * length, encodings=self.cfg.encodings)

    def _decodes(self, length: int) -> Iterator[Job]:
        numbers = range(len(self.pieces[length]))
        for degradation in self.cfg.degradations:
            run = partial(self.give_back, length, degradation, numbers)
            yield self._job(f"decoder-{length}-{stored_as(degradation)}", run, length * len(numbers))

    @cached_property
    def _about(self) -> dict[str, Any]:
        """What every part depends on."""
        depends = {"texts": digest(self.texts), "pieces": self.cfg.num_texts, "seed": self.cfg.seed}
        depends |= {"passages": [self.cfg.passage_len, self.cfg.num_passages]}
        depends |= {"encoder": self.inverter.embedder.fingerprint, "language_model": self.inverter.language_model}
        return {"memlm": installed_version("memlm"), **depends}

    def _job(self, name: str, run: Callable[[], Row], num_tokens: int, **depends: Any) -> Job:
        plan = digest({**self._about, "part": name, **depends})
        return Job(name=name.replace(" ", "-"), run=run, plan=plan, num_tokens=num_tokens)

    def give_back(self, length: int, degradation: Degradation | None, numbers: Sequence[int]) -> Row:
        """Some texts of a length given back, by search or by their own decoder, and compared."""
        pieces, tokens = self.pieces[length], self.inverter.embedder.tokens
        vectors = self._stored(length, degradation)[list(numbers)]
        found = self.inverter.invert(
            vectors, chunk_len=length, encodings=self.cfg.encodings, seed=self.cfg.seed, quiet=True
        )
        rows = [
            {
                **came_back(words_in(pieces[number]), words_in(text.text), self.names),
                **{name: getattr(text, name) for name in ("cosine", "encodings", "seconds")},
                "f1": f1(text.text, pieces[number]),
                "f1_other": f1(text.text, pieces[(number + 1) % len(pieces)]),
                "exact": tokens(text.text) == tokens(pieces[number]),
                "original": pieces[number],
                "found": text.text,
            }
            for number, text in zip(numbers, found, strict=True)
        ]
        return {"texts": {stored_as(degradation): rows}}

    def read_off(self, length: int) -> Row:
        """Words read off at once, as many tokens as the text has different ones: of each text, stored in each way, and
        off the next text's vector."""
        stored = {stored_as(each): self._stored(length, each) for each in self.cfg.degradations}
        stored[GUESS] = stored[stored_as(None)].roll(-1, 0)
        made: dict[str, list[Shares]] = {name: [] for name in stored}
        for row, piece in enumerate(self.pieces[length]):
            tokens = tokens_of_words(self.inverter.embedder.tokenizer, piece)
            number = len(set(self.inverter.embedder.tokens(piece)))
            for name, kept in stored.items():
                listed = self.inverter.readout.words(kept[row]).topk(number).indices.tolist()
                made[name].append(came_back(tokens, words_of_tokens(tokens, listed), self.names))
        return {"texts": made}

    def retrieve(self) -> Row:
        """Queries whose passage is found, by how the passages are stored; queries are as they are."""
        embed = self.inverter.embedder.embed
        queries = embed([query for query, _ in self.pairs])
        passages = embed([passage for _, passage in (*self.pairs, *self.others)])
        storage = Storage(passages)
        found = {
            stored_as(each): hits(queries, storage(passages, each, self.cfg.seed)).int().tolist()
            for each in self.cfg.degradations
        }
        return {"hits": found, "num_passages": len(passages)}

"""What a reader is trained and measured on: rows of a past, as memories give it back, and of the text after it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from memlm.config import MemoryReaderConfig
from memlm.data.chunks import Windows
from memlm.data.tokenizer import Tokenizer
from memlm.models.decoded import decode
from memlm.models.memory_reader import Reading, pad
from memlm.text.autoencoder import TextAutoencoder
from memlm.text.chats import Chat
from memlm.text.past import Past, Vectors, as_tokens, groups_of, past_of, vectors_of


class GivenBack(NamedTuple):
    """Consecutive chunks of a text, as their memories give them back."""

    chunks: list[list[int]]
    """Tokens of the encoder."""
    vectors: Vectors
    """Or states, whichever are read."""


class Continuation(NamedTuple):
    """A past and the text after it, as tokens of the language model."""

    past: Past
    recent: list[int]
    """The last tokens of the past, which are read as they are."""
    next: list[int]
    before: tuple[int, ...] | None = None
    """What stands before the past, if it is a chat about it (`text.chats`); `recent` is then what is asked."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Readings:
    """Makes readings of windows of chunks."""

    config: MemoryReaderConfig
    encoder: TextAutoencoder
    model_tokenizer: Tokenizer
    surprisal: NDArray[np.float64]
    """Of the language model's tokens, in nats."""

    def given_back(self, windows: Windows) -> list[GivenBack]:
        """All chunks of each window but the last."""
        model, number = self.encoder.model, windows.tokens.shape[1] - 1
        tokens, mask = (
            torch.from_numpy(part[:, :-1]).flatten(0, 1).to(self.encoder.device)
            for part in (windows.tokens, windows.mask)
        )
        with torch.no_grad():
            memory = model.encoder(tokens, mask)
        rows = decode(model, memory, None if self.encoder.holds_length else mask.sum(1)).rows()
        chunks, vectors = [row.tokens for row in rows], vectors_of(memory, self.encoder, self.config)
        starts = range(0, len(chunks), number)
        return [GivenBack(chunks[start : start + number], vectors[start : start + number]) for start in starts]

    def continuations(self, windows: Windows, found: list[GivenBack]) -> list[Continuation]:
        """The last chunk's first tokens, after the past that memories of the chunks before it give back."""
        window, last, rows = self.config.window, windows.tokens.shape[1] - 1, []
        for (chunks, vectors), tokens, mask in zip(found, windows.tokens[:, last], windows.mask[:, last], strict=True):
            whole = self._past([*chunks, tokens[mask].tolist()], vectors)
            now = int(np.searchsorted(whole.chunk, last))
            split = max(0, now - window.recent_tokens)
            recent, following = whole.tokens[split:now].tolist(), whole.tokens[now : now + window.predicted_tokens]
            rows.append(
                Continuation(Past(whole.tokens[:split], whole.chunk[:split], vectors), recent, following.tolist())
            )
        return rows

    def answers(self, found: list[GivenBack], chats: Sequence[Chat], answers: Sequence[str]) -> list[Continuation]:
        """Answers in chats about all chunks of each window but the last; what stands before the past is the same."""
        encode, rows = self.model_tokenizer.encode, []
        for (chunks, vectors), chat, answer in zip(found, chats, answers, strict=True):
            following = [*encode(answer).tolist(), *chat.end]
            rows.append(Continuation(self._past(chunks, vectors), chat.after, following, tuple(chat.before)))
        return rows

    def predictions(
        self, rows: list[Continuation], ratio: int | None, *, expanded: bool = False, whole: bool = False
    ) -> Reading:
        """Next tokens after memories at a ratio, or without any, and the last tokens of the past.

        `expanded` reads the chunk most like the text that follows as tokens; `whole` adds all of the past as tokens,
        for a teacher.
        """
        texts = [[*row.recent, *row.next] for row in rows]
        scored = [
            [place >= max(len(row.recent), 1) for place in range(len(text))]
            for row, text in zip(rows, texts, strict=True)
        ]
        pasts = [row.past for row in rows]
        chosen = [self._most_alike(row) for row in rows] if expanded else ()
        reading = self.reading(pasts, texts, scored, ratio, chosen, regenerates=False)
        reading = reading._replace(before=rows[0].before)
        return reading._replace(whole=as_tokens(pasts)) if whole else reading

    def _most_alike(self, row: Continuation) -> list[int]:
        """The chunk of a past that is most like the text after it; or, in a chat, like the question."""
        alike = row.past.similarity(row.next if row.before is None else row.recent, self.surprisal)
        return [int(alike.argmax())] if alike.any() else []

    def stretches(self, found: list[GivenBack], random: np.random.Generator) -> list[Past]:
        """A stretch of one memory of each row, all of the same length; of a bare vector, all of it."""
        longest, chunk_len = self.config.window.regenerated_tokens, self.config.shape.chunk_len
        drawn = int(random.integers(max(1, longest // 4), longest + 1))
        length = chunk_len if self.config.source == "vector" else drawn
        pasts = []
        for chunks, vectors in found:
            number = int(random.integers(len(chunks)))
            start = int(random.integers(max(1, len(chunks[number]) - length + 1)))
            # Of states, those of the stretch; a bare vector is not cut, for its stretch is all of the chunk.
            read = vectors[number : number + 1, start : start + length]
            pasts.append(self._past([chunks[number][start : start + length]], read))
        return pasts

    def regenerations(self, pasts: list[Past], ratio: int) -> Reading:
        """Pasts to be given back."""
        texts = [past.tokens.tolist() for past in pasts]
        return self.reading(pasts, texts, [[True] * len(text) for text in texts], ratio, regenerates=True)

    def reading(
        self,
        pasts: list[Past],
        texts: list[list[int]],
        scored: list[list[bool]],
        ratio: int | None,
        expanded: Sequence[Sequence[int]] = (),
        *,
        regenerates: bool,
    ) -> Reading:
        """Rows of pasts, with some chunks expanded, and of the texts after them, of which some tokens are scored."""
        past = groups_of(pasts, self.config, self.surprisal, ratio, expanded, evenly=regenerates)
        return Reading(past, pad(texts), pad(scored).bool(), regenerates)

    def _past(self, chunks: list[list[int]], vectors: Vectors) -> Past:
        return past_of(chunks, vectors, self.encoder.tokenizer, self.model_tokenizer)

"""Rows of text that a model writes, chunk by chunk, and in which it is asked for what it has read."""

from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from memlm.data.facts import FactWindows
from memlm.data.tokenizer import Tokenizer
from memlm.models.memory_model import MemoryModel
from memlm.models.recurrent import RecurrentModel
from memlm.nn.mixers import Logits
from memlm.nn.pointer import PastTokens
from memlm_evidence.benchmarks.recall import greedy, likeliest


class Writer(Protocol):
    """Rows of text so far, whose last chunk has been read."""

    chunks: list[Tensor]
    """[row token] of each."""

    def written(self, temperature: float) -> Tensor:
        """The next chunk of every row, as the model draws it."""

    def read(self, chunk: Tensor) -> None:
        """Go on after a chunk of every row."""

    def answers(self, windows: FactWindows, *, blind: bool = False) -> NDArray[np.int64]:
        """The windows' tokens [window chunk token] with the answers of their last chunks decoded greedily, each after
        all that its row has written; a `blind` model reads nothing of that."""


def drawn_from(text: NDArray[np.integer[Any]], chunks: list[Tensor]) -> Tensor:
    """One more chunk of every row, from anywhere in a text [token]."""
    rows, length = chunks[0].shape
    begins = torch.randint(len(text) - length, (rows, 1))
    return torch.from_numpy(text.astype(np.int64))[begins + torch.arange(length)].to(chunks[0].device)


def has_written(
    chunks: list[Tensor], tokenizer: Tokenizer, windows: FactWindows, answers: NDArray[np.int64]
) -> Bool[np.ndarray, " text"]:
    """Whether each of these answers stands in what came after the first chunk of its row."""
    between = torch.cat([chunks[0][:, :0], *chunks[1:]], dim=1).cpu().numpy()
    given = [tokenizer.decode(row[answer]).strip() for row, answer in zip(answers, windows.answer, strict=True)]
    return np.array([each in tokenizer.decode(row) for each, row in zip(given, between, strict=True)])


def _drawn(length: int, temperature: float) -> dict[str, Any]:
    """Options of transformers' `generate`."""
    return {"max_new_tokens": length, "do_sample": True, "temperature": temperature, "top_k": 0}


class MemoryWriter:
    """Each chunk is read as a memory; or, where the model has no encoder, as tokens, of which it sees those of the last
    `window` chunks, or of all."""

    def __init__(self, model: MemoryModel, first: Tensor, window: int | None) -> None:
        self.model, self.window, self.device = model, window, model.start.device
        self.chunks = [first.to(self.device)]
        self.memory = self._memory(self.chunks[0])
        self.recalled = model.past_tokens(self.memory)

    @torch.no_grad()
    def written(self, temperature: float) -> Tensor:
        """As `Writer.written`."""
        inputs, context = self.model.read(self._seen(), self.memory, self._present(), self.recalled)
        with self.model.pointing(self.recalled, self._present()):
            return self.model.decoder.generate(inputs, context, **_drawn(self.chunks[0].shape[1], temperature))

    def read(self, chunk: Tensor) -> None:
        """As `Writer.read`."""
        self.chunks.append(chunk)
        memory = self._memory(chunk)
        latest = self.model.past_tokens(memory)
        self.memory = torch.cat([self.memory, memory], dim=1)
        self.recalled = PastTokens(*(torch.cat(pair, dim=1) for pair in zip(self.recalled, latest, strict=True)))

    @torch.no_grad()
    def answers(self, windows: FactWindows, *, blind: bool = False) -> NDArray[np.int64]:
        """As `Writer.answers`."""
        answer = torch.from_numpy(windows.answer[:, -1]).to(self.device)
        tokens = torch.from_numpy(windows.tokens).to(self.device, copy=True)
        before = self._seen()[:, : 0 if blind else None]
        rows = torch.cat([before, tokens[:, -1].masked_fill(answer, 0)], dim=1)
        places = torch.cat([torch.zeros_like(before, dtype=torch.bool), answer], dim=1)
        present = self._present() & (not blind)
        tokens[:, -1] = greedy(self.model, rows, places, self.memory, present, self.recalled)[:, before.shape[1] :]
        return tokens.cpu().numpy()

    def _present(self) -> Tensor:
        return torch.ones(self.memory.shape[:2], dtype=torch.bool, device=self.device)

    def _seen(self) -> Tensor:
        """The tokens [row token] that are read as tokens."""
        seen = self.chunks if self.window is None else self.chunks[-self.window :]
        return torch.cat(seen, dim=1)[:, : 0 if self.model.encoder else None]

    def _memory(self, chunk: Tensor) -> Tensor:
        """The memory of a chunk of every row; of a model without an encoder, none."""
        if self.model.encoder is None:
            shape = self.model.config.shape
            return self.model.start.new_zeros(len(chunk), 0, shape.num_slots, shape.memory_dim)
        return self.model.encode(chunk[:, None], torch.ones_like(chunk[:, None], dtype=torch.bool)).detach()


class RecurrentWriter:
    """What is carried from chunk to chunk is all that is known of the past."""

    def __init__(self, model: RecurrentModel, first: Tensor) -> None:
        self.model, self.chunks = model, list[Tensor]()
        self.carried = model.nothing_carried(len(first))
        self.read(first.to(model.start.device))

    @torch.no_grad()
    def written(self, temperature: float) -> Tensor:
        """As `Writer.written`."""
        inputs, context = self.model.read(self.chunks[-1][:, :0], self.carried)
        return self.model.decoder.generate(inputs, context, **_drawn(self.chunks[0].shape[1], temperature))

    @torch.no_grad()
    def read(self, chunk: Tensor) -> None:
        """As `Writer.read`."""
        self.chunks.append(chunk)
        _, self.carried = self.model.carry(chunk, self.carried)

    @torch.no_grad()
    def answers(self, windows: FactWindows, *, blind: bool = False) -> NDArray[np.int64]:
        """As `Writer.answers`."""
        answer = torch.from_numpy(windows.answer[:, -1]).to(self.carried.device)
        tokens = torch.from_numpy(windows.tokens).to(answer.device, copy=True)
        carried = self.model.nothing_carried(len(tokens)) if blind else self.carried

        def predict(rows: Tensor, tokens: Tensor) -> Logits:
            states, _ = self.model.carry(tokens, carried[rows])
            return self.model.decoder.head(states)

        tokens[:, -1] = likeliest(predict, tokens[:, -1].masked_fill(answer, 0), answer)
        return tokens.cpu().numpy()

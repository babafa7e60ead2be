"""What a memory model answers in the last chunk of a window, decoded greedily."""

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

from memlm.data.facts import FactWindows
from memlm.models.batch import batch_chunks
from memlm.models.memory_model import MemoryModel
from memlm.nn.insertion import Memories, Present
from memlm.nn.pointer import PastTokens


class WindowReader:
    """Reads windows as a model does: past chunks as memories, or, with full context, as tokens."""

    def __init__(self, model: MemoryModel, chunk_len: int | None) -> None:
        shape = model.config.shape
        self.model, self.chunk_len = model, chunk_len or shape.chunk_len
        self.full_context = model.encoder is None and self.chunk_len < shape.chunk_len
        self.max_chunks = model.config.max_memories
        if self.full_context:
            self.max_chunks = shape.chunk_len // self.chunk_len - 1
            if self.max_chunks < 1:
                raise ValueError(f"{shape.chunk_len} tokens have no room for two chunks of {self.chunk_len}")
        elif self.chunk_len != shape.chunk_len:
            raise ValueError(f"this model's chunks are of {shape.chunk_len} tokens, not of {self.chunk_len}")

    @torch.no_grad()
    def answers(self, windows: FactWindows, *, blind: bool) -> NDArray[np.int64]:
        """The windows' tokens [window chunk token], the answers' among them greedily decoded anew.

        A `blind` model reads nothing of the past.
        """
        device = self.model.start.device
        answer = torch.from_numpy(windows.answer).to(device)
        tokens = torch.from_numpy(windows.tokens).to(device).masked_fill(answer, 0)
        mask = torch.from_numpy(windows.mask).to(device)
        at_once = batch_chunks(tokens[0].numel(), self.model.config.shape.vocab_size)
        for begin in range(0, len(tokens), at_once):
            batch = slice(begin, begin + at_once)
            self._answer(tokens[batch], mask[batch], answer[batch], blind)
        return tokens.cpu().numpy()

    def _answer(self, tokens: Tensor, mask: Tensor, answer: Tensor, blind: bool) -> None:
        """Write answers into `tokens`."""
        read = slice(None) if self.full_context and not blind else slice(-1, None)
        rows, asked = tokens[:, read].flatten(1), answer[:, read].flatten(1)
        memory, present = self._memories(tokens[:, :-1], mask[:, :-1], blind)
        tokens[:, read] = greedy(self.model, rows, asked, memory, present).view_as(tokens[:, read])

    def _memories(self, past: Tensor, mask: Tensor, blind: bool) -> tuple[Memories, Present]:
        if self.model.encoder is None:
            shape = self.model.config.shape
            return self.model.start.new_zeros(len(past), 0, shape.num_slots, shape.memory_dim), mask[:, :0, 0]
        present = mask.any(-1)
        return self.model.encode(past, mask), present & (not blind)


def greedy(
    model: MemoryModel,
    tokens: Int[Tensor, "row token"],
    asked: Bool[Tensor, "row token"],
    memory: Memories,
    present: Present,
) -> Int[Tensor, "row token"]:
    """The tokens, where `asked` (a stretch of each row) the likeliest, each after those before it."""
    tokens, begin, length = tokens.clone(), asked.int().argmax(-1), asked.sum(-1)
    recalled = model.past_tokens(memory)
    for place in range(int(length.max())):
        row = torch.nonzero(length > place).flatten()
        at = begin[row] + place
        known = PastTokens(*(part[row] for part in recalled))
        logits = model.predict(tokens[row, : int(at.max()) + 1], memory[row], present[row], known)
        tokens[row, at] = logits[torch.arange(len(row), device=row.device), at].argmax(-1)
    return tokens

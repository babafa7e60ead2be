"""Arbitrary access: can a memory model give back an exact string that stands anywhere in its past?"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from memlm.data.facts import KINDS, FactTexts, FactWindows
from memlm.data.texts import evaluation_documents
from memlm.data.tokenizer import Tokenizer
from memlm.evaluation.bootstrap import ratio_interval
from memlm.models.batch import batch_chunks
from memlm.models.memory_model import MemoryModel
from memlm.nn.insertion import Memories, Present
from memlm.nn.pointer import PastTokens
from memlm.runtime.progress import track
from memlm.runtime.results import Interval, Provenance
from memlm.text.memory_model import TextMemoryModel


class Outcome(NamedTuple):
    """What became of each text's answer, as sums."""

    exact: Bool[np.ndarray, " text"]
    """Whether the decoded answer is the string that was asked for."""
    correct: Int[np.ndarray, " text"]
    """Tokens of the answer that are right at their place."""
    tokens: Int[np.ndarray, " text"]
    """Tokens of the answer, the one that ends it among them."""


class _Setting(NamedTuple):
    """Texts of one kind."""

    kind: str
    num_chunks: int
    """Past chunks."""
    distance: int | None
    """Chunks from the fact to the question; None where the model is blind to the past, so that any will do."""


def recall(
    model: TextMemoryModel,
    *,
    num_texts: int,
    kinds: Sequence[str] = tuple(KINDS),
    seed: int = 0,
    num_facts: int = 2,
    chunk_len: int | None = None,
    texts: Sequence[str] = (),
    quiet: bool = False,
) -> dict[str, Any]:
    """Hide facts in text, ask for one of them in the last chunk, and decode the answer greedily (`data.facts`).

    Every kind of fact is asked for after every number of past chunks that the model can read, at every distance. What
    the model has of the past are its memories; only the question is there as tokens. A model without an encoder has
    no past, unless its chunks have room for several of `chunk_len` (`without_memory(..., full_context=True)`): then
    it reads the whole window as tokens.

    Args:
        model: what to ask.
        num_texts: texts for each kind, number of past chunks and distance; units of the bootstrap.
        kinds: of `data.facts.KINDS`.
        seed: of facts and texts; they are never those of training.
        num_facts: facts in each past, with different keys; at most one in a chunk.
        chunk_len: tokens of the chunks that facts are put in; the model's own if None.
        texts: real text to put them in; by default a novel that comes with memlm.
        quiet: show no progress.

    Returns:
        - `rows`: for each `kind`, `num_chunks` (past chunks) and `distance` (1 is the chunk right before the question),
          `exact_match`, the share of answers decoded to exactly the string that was asked for, the period that ends it
          included, and `token_accuracy`, that of tokens which are right at their place; their 95% `intervals` over
          texts, and `num_texts`.
        - `recall`: exact match by distance, over all kinds and numbers of past chunks; `recall_by_kind`: over all
          distances. `recall_intervals` and `recall_by_kind_intervals` belong to them.
        - `chance` and `chance_by_kind`: exact match of the same model where its memories are masked, or, with full
          context, where it reads the question alone.

    Raises:
        ValueError: fewer than two texts, chunks too short for a kind or not the model's, or no such kind.
    """
    if num_texts < 2:
        raise ValueError(f"num_texts must be at least 2, for intervals over texts, not {num_texts}")
    reader = _Reader(model.model, chunk_len)
    filler = np.concatenate(model.tokenizer.encode_batch(texts or _novel()))
    by_kind = {
        kind: FactTexts(model.tokenizer, filler, chunk_len=reader.chunk_len, kinds=(kind,), num_facts=num_facts)
        for kind in kinds
    }
    numbers = range(1, reader.max_chunks + 1)
    settings = [
        *(_Setting(kind, past, distance) for kind in by_kind for past in numbers for distance in range(1, past + 1)),
        *(_Setting(kind, reader.max_chunks, None) for kind in by_kind),
    ]
    total = num_texts * reader.chunk_len * sum(setting.num_chunks + 1 for setting in settings)
    outcomes: dict[_Setting, Outcome] = {}
    with track("Recalling", total=total, unit="tokens", quiet=quiet) as advance:
        for step, setting in enumerate(settings):  # each has texts of its own
            kind, past, distance = setting
            source = by_kind[kind]
            windows = source.sample(num_texts, past + 1, seed=seed, step=step, distance=distance, use="benchmark")
            answers = reader.answers(windows, blind=distance is None)
            outcomes[setting] = judge(model.tokenizer, windows, answers)
            advance(windows.tokens.size)
    made_by = Provenance.here(seed=seed, model=model.provenance, encoder=model.encoder_fingerprint)
    return {
        **_summary(outcomes),
        "chunk_len": reader.chunk_len,
        "full_context": reader.full_context,
        "num_facts": num_facts,
        "num_texts": num_texts,
        "provenance": asdict(made_by),
    }


def _summary(outcomes: Mapping[_Setting, Outcome]) -> dict[str, Any]:
    """Exact matches by distance and by kind, blind ones as chance, and every setting's row."""
    seeing = {setting: outcome for setting, outcome in outcomes.items() if setting.distance is not None}
    blind = {setting: outcome for setting, outcome in outcomes.items() if setting.distance is None}
    distances = sorted({setting.distance for setting in seeing if setting.distance is not None})
    kinds = list(dict.fromkeys(setting.kind for setting in outcomes))
    by_distance = {str(far): _exact(_of(seeing, distance=far)) for far in distances}
    by_kind = {kind: _exact(_of(seeing, kind=kind)) for kind in kinds}
    return {
        "recall": {far: rate for far, (rate, _) in by_distance.items()},
        "recall_intervals": {far: list(interval) for far, (_, interval) in by_distance.items()},
        "recall_by_kind": {kind: rate for kind, (rate, _) in by_kind.items()},
        "recall_by_kind_intervals": {kind: list(interval) for kind, (_, interval) in by_kind.items()},
        "chance": _exact(_of(blind))[0],
        "chance_by_kind": {kind: _exact(_of(blind, kind=kind))[0] for kind in kinds},
        "rows": [_row(setting, outcome) for setting, outcome in seeing.items()],
    }


class _Reader:
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


def judge(tokenizer: Tokenizer, windows: FactWindows, written: NDArray[np.int64]) -> Outcome:
    """Compare what was written [window chunk token] in the place of answers with the answers."""
    same = [
        tokenizer.decode(theirs[answer]) == tokenizer.decode(ours[answer])
        for theirs, ours, answer in zip(written, windows.tokens, windows.answer, strict=True)
    ]
    correct = (written == windows.tokens) & windows.answer
    return Outcome(np.array(same), correct.sum((1, 2)), windows.answer.sum((1, 2)))


def _of(outcomes: Mapping[_Setting, Outcome], **wanted: Any) -> list[Outcome]:
    """The outcomes of settings with these values."""
    return [
        outcome
        for setting, outcome in outcomes.items()
        if all(getattr(setting, name) == value for name, value in wanted.items())
    ]


def _exact(outcomes: Iterable[Outcome]) -> tuple[float, Interval]:
    """Exact match over all texts."""
    exact = np.concatenate([outcome.exact for outcome in outcomes])
    return _share(exact, np.ones(len(exact)))


def _row(setting: _Setting, outcome: Outcome) -> dict[str, Any]:
    exact, tokens = _exact([outcome]), _share(outcome.correct, outcome.tokens)
    return {
        **setting._asdict(),
        "exact_match": exact[0],
        "token_accuracy": tokens[0],
        "intervals": {"exact_match": list(exact[1]), "token_accuracy": list(tokens[1])},
        "num_texts": len(outcome.exact),
    }


def _share(part: NDArray[Any], whole: NDArray[Any]) -> tuple[float, Interval]:
    """The one's total as a share of the other's, over texts, with its interval."""
    sums: Float[np.ndarray, "text sum"] = np.column_stack((part, whole)).astype(np.float64)
    return float(part.sum() / whole.sum()), ratio_interval(sums)


def _novel() -> list[str]:
    return [document.text for document in evaluation_documents("novel")]

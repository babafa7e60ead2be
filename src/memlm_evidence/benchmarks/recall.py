"""`memlm bench recall`."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import tyro
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from memlm.cli.command import Answer, ReadsText, UsesModel
from memlm.data.facts import FactTexts, FactWindows
from memlm.data.texts import evaluation_documents
from memlm.data.tokenizer import Tokenizer
from memlm.evaluation.bootstrap import ratio_interval
from memlm.models.batch import batch_chunks
from memlm.models.memory_model import MemoryModel
from memlm.nn.insertion import Memories, Present
from memlm.nn.mixers import Logits
from memlm.nn.pointer import PastTokens
from memlm.runtime.progress import track
from memlm.runtime.results import Interval
from memlm.text.memory_model import TextMemoryModel
from memlm_evidence.benchmarks.measuring import Benchmark, made_here


@dataclass(frozen=True, kw_only=True)
class Recall(Benchmark, UsesModel, ReadsText):
    """Measure how often a memory model gives back an exact string from anywhere in its past.

    Facts are hidden in real text: the number or code of a name, or the words after a marker. The last chunk asks for
    one of them, and the model answers from the memories of the chunks before. It must be trained on such questions:

    memlm train memory-model --out runs/recall --recall-fraction 0.5

    memlm bench recall runs/recall/model --num-texts 200
    """

    model: tyro.conf.Positional[str]
    """A memory model: a checkpoint folder, or a Hugging Face hub name."""
    num_texts: int = 100
    """Number of texts for each kind of fact, number of past chunks and distance. The bootstrap resamples texts."""
    kinds: tuple[Literal["digits", "identifier", "words"], ...] = ("digits", "identifier", "words")
    """Kinds of fact to ask for: five digits, an identifier of eight hexadecimal digits, or four words."""
    num_facts: int = 2
    """Number of facts in each past. They have different keys, and at most one is in a chunk. One is asked for."""
    chunk_len: int | None = None
    """Tokens of the chunks in which facts are placed, for a model that reads whole windows as tokens. By default the
    model's own chunk length."""
    text: tuple[str, ...] = ()
    """Text to hide facts in: files, globs, or - for standard input; by default a novel that comes with memlm."""
    seed: int = 0
    """Random seed for facts and texts, which are never those of training."""

    def run(self) -> Answer:
        """Ask the model that is named."""
        texts = self.documents(self.text) if self.text else ()
        return self.measure(TextMemoryModel.from_pretrained(self.model, device=self.device), texts)

    def measure(self, model: TextMemoryModel, texts: Sequence[str] = ()) -> Answer:
        """Hide facts in text, ask for one of them in the last chunk, and decode the answer greedily (`data.facts`).

        Every kind of fact is asked for after every number of past chunks that the model can read, at every distance.
        What the model has of the past are its memories; only the question is there as tokens. A model without an
        encoder has no past, unless its chunks have room for several of `chunk_len`
        (`without_memory(..., full_context=True)`): then it reads the whole window as tokens.

        Returns:
            `rows`, for each kind, number of past chunks and distance (1 is the chunk right before the question);
            `recall`, exact match by distance, `recall_by_kind`, and their intervals; `chance`, that of the same model
            where its memories are masked, or, with full context, where it reads the question alone.

        Raises:
            ValueError: fewer than two texts, chunks too short for a kind or not the model's, or no such kind.
        """
        if self.num_texts < 2:
            raise ValueError(f"num_texts must be at least 2, for intervals over texts, not {self.num_texts}")
        reader = WindowReader(model.model, self.chunk_len)
        texts = texts or [document.text for document in evaluation_documents("novel")]
        filler = np.concatenate(model.tokenizer.encode_batch(texts))
        by_kind: dict[str, FactTexts] = {
            kind: FactTexts(
                model.tokenizer, filler, chunk_len=reader.chunk_len, kinds=(kind,), num_facts=self.num_facts
            )
            for kind in self.kinds
        }
        settings = list(_settings(self.kinds, reader.max_chunks))
        total = self.num_texts * reader.chunk_len * sum(num_chunks + 1 for _, num_chunks, _ in settings)
        asked = []
        with track("Recalling", total=total, unit="tokens") as advance:
            for step, (kind, past, distance) in enumerate(settings):  # each has texts of its own
                texts_of_kind = by_kind[kind]
                windows = texts_of_kind.sample(self.num_texts, past + 1, seed=self.seed, step=step, distance=distance)
                answers = reader.answers(windows, blind=distance is None)
                asked.append(Asked(kind, past, distance, *judge(model.tokenizer, windows, answers)))
                advance(windows.tokens.size)
        return {
            **_summary(asked),
            "chunk_len": reader.chunk_len,
            "full_context": reader.full_context,
            "num_facts": self.num_facts,
            "num_texts": self.num_texts,
            **made_here(seed=self.seed, model=model.provenance, encoder=model.encoder_fingerprint),
        }


@dataclass(frozen=True)
class Asked:
    """Texts of one kind of fact, and what became of each text's answer."""

    kind: str
    num_chunks: int
    """Past chunks."""
    distance: int | None
    """Chunks from the fact to the question; None where the model is blind to the past, so that any will do."""
    exact: Bool[np.ndarray, " text"]
    """Whether the decoded answer is the string that was asked for."""
    correct: Int[np.ndarray, " text"]
    """Tokens of the answer that are right at their place."""
    tokens: Int[np.ndarray, " text"]
    """Tokens of the answer, the one that ends it among them."""

    def row(self) -> dict[str, Any]:
        """What the answer says of these texts."""
        exact, tokens = exact_share([self]), _share(self.correct, self.tokens)
        return {
            "kind": self.kind,
            "num_chunks": self.num_chunks,
            "distance": self.distance,
            "exact_match": exact[0],
            "token_accuracy": tokens[0],
            "intervals": {"exact_match": list(exact[1]), "token_accuracy": list(tokens[1])},
            "num_texts": len(self.exact),
        }


def _settings(kinds: Sequence[str], max_chunks: int) -> Iterator[tuple[str, int, int | None]]:
    """Kind, number of past chunks and distance of all that is asked, then what is asked of a blind model."""
    for kind in kinds:
        for past in range(1, max_chunks + 1):
            for distance in range(1, past + 1):
                yield kind, past, distance
    for kind in kinds:
        yield kind, max_chunks, None


def judge(
    tokenizer: Tokenizer, windows: FactWindows, written: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]:
    """Compare what was written [window chunk token] in the place of answers with the answers: `Asked`'s last fields."""
    same = [
        tokenizer.decode(theirs[answer]) == tokenizer.decode(ours[answer])
        for theirs, ours, answer in zip(written, windows.tokens, windows.answer, strict=True)
    ]
    correct = (written == windows.tokens) & windows.answer
    return np.array(same), correct.sum((1, 2)), windows.answer.sum((1, 2))


def _summary(asked: Sequence[Asked]) -> dict[str, Any]:
    """Exact matches by distance and by kind, blind ones as chance, and every setting's row."""
    seeing = [each for each in asked if each.distance is not None]
    blind = [each for each in asked if each.distance is None]
    distances, kinds = sorted({each.distance or 0 for each in seeing}), [each.kind for each in blind]
    by_distance = {str(far): exact_share(each for each in seeing if each.distance == far) for far in distances}
    by_kind = {kind: exact_share(each for each in seeing if each.kind == kind) for kind in kinds}
    return {
        "recall": {far: rate for far, (rate, _) in by_distance.items()},
        "recall_intervals": {far: list(interval) for far, (_, interval) in by_distance.items()},
        "recall_by_kind": {kind: rate for kind, (rate, _) in by_kind.items()},
        "recall_by_kind_intervals": {kind: list(interval) for kind, (_, interval) in by_kind.items()},
        "chance": exact_share(blind)[0],
        "chance_by_kind": {each.kind: exact_share([each])[0] for each in blind},
        "rows": [each.row() for each in seeing],
    }


def exact_share(asked: Iterable[Asked]) -> tuple[float, Interval]:
    """Exact match over all texts."""
    exact = np.concatenate([each.exact for each in asked])
    return _share(exact, np.ones(len(exact)))


def _share(part: NDArray[Any], whole: NDArray[Any]) -> tuple[float, Interval]:
    """The one's total as a share of the other's, over texts, with its interval."""
    sums: Float[np.ndarray, "text sum"] = np.column_stack((part, whole)).astype(np.float64)
    return float(part.sum() / whole.sum()), ratio_interval(sums)


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
        read = slice(None) if self.full_context and not blind else slice(-1, None)
        at_once = batch_chunks(tokens[0].numel(), self.model.config.shape.vocab_size)
        for begin in range(0, len(tokens), at_once):
            batch = slice(begin, begin + at_once)
            memory, present = self._memories(tokens[batch, :-1], mask[batch, :-1], blind)
            rows, asked = tokens[batch, read].flatten(1), answer[batch, read].flatten(1)
            tokens[batch, read] = greedy(self.model, rows, asked, memory, present).view_as(tokens[batch, read])
        return tokens.cpu().numpy()

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
    recalled: PastTokens | None = None,
) -> Int[Tensor, "row token"]:
    """The tokens, where `asked` (a stretch of each row) the likeliest, each after those before it.

    `recalled`, if it is known, is what the model's `past_tokens` makes of the memories.
    """
    recalled = recalled or model.past_tokens(memory)

    def predict(rows: Tensor, tokens: Tensor) -> Logits:
        known = PastTokens(*(part[rows] for part in recalled))
        return model.predict(tokens, memory[rows], present[rows], known)

    return likeliest(predict, tokens, asked)


def likeliest(
    predict: Callable[[Tensor, Tensor], Logits], tokens: Int[Tensor, "row token"], asked: Bool[Tensor, "row token"]
) -> Int[Tensor, "row token"]:
    """The same, where `predict` gives the logits [some token vocab] of some rows' tokens from those before each."""
    tokens, begin, length = tokens.clone(), asked.int().argmax(-1), asked.sum(-1)
    for place in range(int(length.max())):
        rows = torch.nonzero(length > place).flatten()
        at = begin[rows] + place
        logits = predict(rows, tokens[rows, : int(at.max()) + 1])
        tokens[rows, at] = logits[torch.arange(len(rows), device=rows.device), at].argmax(-1)
    return tokens

"""Claim: what memories retain is not lost as generation goes on; what they do not retain is.

Memory models by combined and by causal training, and the same decoder with the last chunks as tokens, all trained on
the same windows with facts and questions, read one chunk with a fact in it, and are asked for it after many more: of
their own writing, in which they may say the fact again, and wrongly; or of a novel, which says nothing of it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from memlm.config import MemoryModelRecipe
from memlm.data.facts import KINDS, FactTexts, FactWindows
from memlm.data.texts import evaluation_documents
from memlm.data.token_store import prepare
from memlm.data.tokenizer import Tokenizer
from memlm.models.memory_model import MemoryModel
from memlm.nn.pointer import PastTokens
from memlm.recipes.memory_model import without_memory
from memlm.runtime.progress import track
from memlm.runtime.results import Provenance
from memlm.text.memory_model import TextMemoryModel
from memlm.text.model import default_device
from memlm.training.train import train
from memlm_evidence.benchmarks.recall import Asked, exact_share, greedy, judge
from memlm_evidence.experiments.long_generation import ByChunks, LongPlan, LongResult, LongRow
from memlm_evidence.experiments.memory_model.run import autoencoder_recipe, combined_recipe
from memlm_evidence.experiments.memory_model.training import trained_encoder


def run(out: Path, plan: LongPlan | None = None, *, quiet: bool = False) -> LongResult:
    """Train every model, let it write, and ask it. What was trained before is not trained again."""
    plan = plan or LongPlan()
    recipe = partial(combined_recipe, plan, pointer_span=plan.pointer_span, recall_fraction=plan.recall_fraction)
    rich = partial(recipe, reading_fraction=plan.reading_fraction)
    recipes: Mapping[str, Callable[[], MemoryModelRecipe]] = {
        "frozen": lambda: rich(encoder_from=trained_encoder(autoencoder_recipe(plan), out, quiet=quiet)),
        "combined": rich,
        "causal": lambda: recipe(retention=0.0),
        "sliding_window": lambda: without_memory(recipe(), full_context=True),
    }
    prepared = prepare(recipe().data, quiet=quiet)
    asked: dict[str, list[Answers]] = {}
    for name in plan.models:
        trained = train(recipes[name](), out / f"{name}-seed-{plan.seed}", prepared=prepared, quiet=quiet)
        asked[name] = list(_asked(trained, plan, name, quiet=quiet))
    return LongResult(
        own=_by_chunks(asked, plan, "own"),
        text=_by_chunks(asked, plan, "text"),
        chance={
            name: exact_share(each.asked for each in found if each.between == "nothing")[0]
            for name, found in asked.items()
        },
        rows=[_row(name, each) for name, found in asked.items() for each in found if each.between != "nothing"],
        seed=plan.seed,
        provenance=Provenance.here(plan=vars(plan), data=prepared.fingerprint),
    )


class Answers(NamedTuple):
    """To questions of one kind, after as many chunks."""

    between: str
    """`own`: chunks that the model wrote itself; `text`: of a novel; `nothing`: it was blind."""
    asked: Asked
    repeated: Bool[np.ndarray, " text"]
    """Whether the answer stands in the chunks between."""


def _by_chunks(asked: Mapping[str, Sequence[Answers]], plan: LongPlan, between: str) -> dict[str, ByChunks]:
    found: dict[str, ByChunks] = {}
    for name, answers in asked.items():
        rates = {
            str(number): exact_share(
                each.asked for each in answers if (each.between, each.asked.num_chunks) == (between, 1 + number)
            )
            for number in plan.chunks
        }
        found[name] = ByChunks(
            exact={number: rate for number, (rate, _) in rates.items()},
            intervals={number: among for number, (_, among) in rates.items()},
        )
    return found


def _row(model: str, answers: Answers) -> LongRow:
    row, wrong = answers.asked.row(), ~answers.asked.exact
    told = {name: row[name] for name in ("kind", "exact_match", "token_accuracy", "num_texts", "intervals")}
    repeated = float(answers.repeated[wrong].mean()) if wrong.any() else None
    where = {"model": model, "between": answers.between, "chunks": answers.asked.num_chunks - 1}
    return LongRow.from_dict({**told, **where, "wrong_but_written": repeated})


def _asked(trained: TextMemoryModel, plan: LongPlan, name: str, *, quiet: bool) -> Iterator[Answers]:
    """Questions of each kind after every number of chunks, its own or a novel's; and what a blind model answers."""
    model, tokenizer = trained.model.eval().to(default_device()), trained.tokenizer
    filler = np.concatenate(tokenizer.encode_batch([document.text for document in evaluation_documents("novel")]))
    last = max(plan.chunks)
    total = 2 * len(KINDS) * last * plan.num_texts * plan.chunk_len
    with track(f"Writing, {name}", total=total, unit="tokens", quiet=quiet) as advance:
        for (step, kind), between in product(enumerate(KINDS), ("nothing", "own", "text")):
            facts = FactTexts(tokenizer, filler, chunk_len=plan.chunk_len, kinds=(kind,))
            windows = facts.sample(plan.num_texts, 2, seed=plan.seed, step=step, distance=1)
            torch.manual_seed(plan.seed)
            writer = Writer(model, torch.from_numpy(windows.tokens[:, 0]), plan.window_chunks - 1)
            for number in range(1 if between == "nothing" else 1 + last):
                if number in plan.chunks:
                    answers = writer.answers(windows, blind=between == "nothing")
                    judged = Asked(kind, 1 + number, 1 + number, *judge(tokenizer, windows, answers))
                    yield Answers(between, judged, writer.has_written(tokenizer, windows, answers))
                if number < last and between != "nothing":
                    writer.read(writer.written(plan.temperature) if between == "own" else writer.drawn_from(filler))
                    advance(plan.num_texts * plan.chunk_len)


class Writer:
    """Rows of text that a model writes, chunk by chunk: each is read as a memory, or, where the model has no encoder,
    as tokens of which it sees the last `window` chunks."""

    def __init__(self, model: MemoryModel, first: Tensor, window: int) -> None:
        self.model, self.window, self.device = model, window, model.start.device
        self.chunks = [first.to(self.device)]
        self.memory = self._memory(self.chunks[0])
        self.recalled = model.past_tokens(self.memory)

    @torch.no_grad()
    def written(self, temperature: float) -> Tensor:
        """The next chunk of every row, as the model draws it."""
        inputs, context = self.model.read(self._seen(), self.memory, self._present(), self.recalled)
        options = {"max_new_tokens": self.chunks[0].shape[1], "do_sample": True, "temperature": temperature, "top_k": 0}
        with self.model.pointing(self.recalled, self._present()):
            return self.model.decoder.generate(inputs, context, **options)

    def drawn_from(self, text: NDArray[np.integer[Any]]) -> Tensor:
        """A chunk of every row, from anywhere in a text [token]."""
        rows, length = self.chunks[0].shape
        begins = torch.randint(len(text) - length, (rows, 1))
        return torch.from_numpy(text.astype(np.int64))[begins + torch.arange(length)].to(self.device)

    def read(self, chunk: Tensor) -> None:
        """Go on after a chunk of every row."""
        self.chunks.append(chunk)
        memory = self._memory(chunk)
        latest = self.model.past_tokens(memory)
        self.memory = torch.cat([self.memory, memory], dim=1)
        self.recalled = PastTokens(*(torch.cat(pair, dim=1) for pair in zip(self.recalled, latest, strict=True)))

    def has_written(
        self, tokenizer: Tokenizer, windows: FactWindows, answers: NDArray[np.int64]
    ) -> Bool[np.ndarray, " text"]:
        """Whether each of these answers stands in what came after the first chunk of its row."""
        between = torch.cat([self.chunks[0][:, :0], *self.chunks[1:]], dim=1).cpu().numpy()
        given = [tokenizer.decode(row[answer]).strip() for row, answer in zip(answers, windows.answer, strict=True)]
        return np.array([each in tokenizer.decode(row) for each, row in zip(given, between, strict=True)])

    @torch.no_grad()
    def answers(self, windows: FactWindows, *, blind: bool = False) -> NDArray[np.int64]:
        """The windows' tokens [window chunk token] with the answers of their last chunks decoded greedily, each after
        all that its row has written; a `blind` model reads nothing of that."""
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
        return torch.cat(self.chunks[-self.window :], dim=1)[:, : 0 if self.model.encoder else None]

    def _memory(self, chunk: Tensor) -> Tensor:
        """The memory of a chunk of every row; of a model without an encoder, none."""
        if self.model.encoder is None:
            shape = self.model.config.shape
            return self.model.start.new_zeros(len(chunk), 0, shape.num_slots, shape.memory_dim)
        return self.model.encode(chunk[:, None], torch.ones_like(chunk[:, None], dtype=torch.bool)).detach()

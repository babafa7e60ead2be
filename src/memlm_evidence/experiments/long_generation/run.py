"""Claim: what memories retain is not lost as generation goes on; what they do not retain is.

Memory models by combined and by causal training, and the same decoder with the last chunks as tokens, all trained on
the same windows with facts and questions, read one chunk with a fact in it, and are asked for it after many more: of
their own writing, in which they may say the fact again, and wrongly; or of a novel, which says nothing of it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from memlm.config import MemoryModelRecipe
from memlm.data.facts import KINDS, FactTexts
from memlm.data.texts import evaluation_documents
from memlm.data.token_store import prepare
from memlm.data.tokenizer import Tokenizer
from memlm.recipes.memory_model import without_memory
from memlm.runtime.progress import track
from memlm.runtime.results import Provenance
from memlm.text.model import default_device
from memlm.training.train import train
from memlm_evidence.benchmarks.recall import Asked, exact_share, judge
from memlm_evidence.experiments.long_generation import ByChunks, LongPlan, LongResult, LongRow
from memlm_evidence.experiments.long_generation.writers import (
    MemoryWriter,
    RecurrentWriter,
    Writer,
    drawn_from,
    has_written,
)
from memlm_evidence.experiments.memory_model.run import autoencoder_recipe, combined_recipe
from memlm_evidence.experiments.memory_model.training import Data, trained_encoder

TRAINED_AS = {"full_context": "sliding_window"}
"""Whose training another model has."""


def run(out: Path, plan: LongPlan) -> LongResult:
    """Train every model, let it write, and ask it. What was trained before is not trained again."""
    recipe = partial(combined_recipe, plan, pointer_span=plan.pointer_span, recall_fraction=plan.recall_fraction)
    rich = partial(recipe, reading_fraction=plan.reading_fraction)
    recipes: Mapping[str, Callable[[], MemoryModelRecipe]] = {
        "frozen": lambda: rich(encoder_from=trained_encoder(autoencoder_recipe(plan), out)),
        "combined": rich,
        "causal": lambda: recipe(retention=0.0),
        "sliding_window": lambda: without_memory(recipe(), full_context=True),
    }
    prepared = prepare(recipe().data)

    def writer(name: str) -> Callable[[Tensor], Writer]:
        """How a model's writing begins, after the first chunk of every row."""
        trained_as = TRAINED_AS.get(name, name)
        folder = out / f"{trained_as}-seed-{plan.seed}"
        if name == "recurrent":
            data = Data(prepared, plan.chunk_len)
            carries, _ = data.recurrent(recipe(retention=0.0), plan.num_positions, folder, plan.seed)
            return partial(RecurrentWriter, carries.eval().to(default_device()))
        trained = train(recipes[trained_as](), folder, prepared=prepared)
        window = None if name == "full_context" else plan.window_chunks - 1
        return partial(MemoryWriter, trained.model.eval().to(default_device()), window=window)

    asked = {name: list(_asked(writer(name), prepared.tokenizer, plan, name)) for name in plan.models}
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


def _asked(begun: Callable[[Tensor], Writer], tokenizer: Tokenizer, plan: LongPlan, name: str) -> Iterator[Answers]:
    """Questions of each kind after every number of chunks, its own or a novel's; and what a blind model answers."""
    filler = np.concatenate(tokenizer.encode_batch([document.text for document in evaluation_documents("novel")]))
    last = max(plan.chunks)
    total = 2 * len(KINDS) * last * plan.num_texts * plan.chunk_len
    with track(f"Writing, {name}", total=total, unit="tokens") as advance:
        for (step, kind), between in product(enumerate(KINDS), ("nothing", "own", "text")):
            facts = FactTexts(tokenizer, filler, chunk_len=plan.chunk_len, kinds=(kind,))
            windows = facts.sample(plan.num_texts, 2, seed=plan.seed, step=step, distance=1)
            torch.manual_seed(plan.seed)
            writer = begun(torch.from_numpy(windows.tokens[:, 0]))
            for number in range(1 if between == "nothing" else 1 + last):
                if number in plan.chunks:
                    answers = writer.answers(windows, blind=between == "nothing")
                    judged = Asked(kind, 1 + number, 1 + number, *judge(tokenizer, windows, answers))
                    yield Answers(between, judged, has_written(writer.chunks, tokenizer, windows, answers))
                if number < last and between != "nothing":
                    writer.read(
                        writer.written(plan.temperature) if between == "own" else drawn_from(filler, writer.chunks)
                    )
                    advance(plan.num_texts * plan.chunk_len)

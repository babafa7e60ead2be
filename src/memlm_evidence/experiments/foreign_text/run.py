"""Claim: memories are not trivial codes. What was never in training is held too, and what is unlikely is held worse.

Autoencoders, of masked mixers and of attention, give back text of their training's kind and of ever stranger ones from
their memories alone, down to uniformly random tokens, which a code that knew nothing of text would hold as well.
"""

from collections.abc import Iterator
from pathlib import Path

from memlm.data.token_store import PreparedData, prepare
from memlm.runtime.results import Provenance
from memlm.text.autoencoder import TextAutoencoder
from memlm.text.evaluation_sets import evaluate_sets, foreign_sets, standard_sets
from memlm.text.samples import Sample, random_passages
from memlm.training.train import train
from memlm_evidence.experiments.foreign_text import ForeignTextPlan, ForeignTextResult, TextRow

MIXERS = ("masked_mixer", "attention")


def run(out: Path, plan: ForeignTextPlan) -> ForeignTextResult:
    """Train, and give back. What was trained before is not trained again."""
    prepared = prepare(plan.recipe(MIXERS[0]).data)
    rows, samples = [], {}
    for mixer in MIXERS:
        trained = train(plan.recipe(mixer), out / plan.folder(mixer), prepared=prepared)
        for found in evaluate_sets(trained, standard_sets(prepared, trained.tokenizer)):
            rows.append(TextRow.from_dict({**found.to_dict(), "mixer": mixer, "text": found.name}))
        samples[mixer] = list(_samples(trained, prepared, plan.seed))
    made_by = Provenance.here(plan=vars(plan), data=prepared.fingerprint)
    return ForeignTextResult(rows=rows, samples=samples, provenance=made_by)


def _samples(model: TextAutoencoder, prepared: PreparedData, seed: int) -> Iterator[Sample]:
    """A passage of held-out text, and one of each kind that was never in training."""
    yield from random_passages(model, prepared.splits["test"], num_passages=1, seed=seed)
    for _, split in foreign_sets(model.tokenizer):
        yield from random_passages(model, split, num_passages=1, seed=seed)

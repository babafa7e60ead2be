"""Claim: memories are not trivial codes. What was never in training is held too, and what is unlikely is held worse.

Autoencoders, of masked mixers and of attention, give back text of their training's kind and of ever stranger ones from
their memories alone, down to uniformly random tokens, which a code that knew nothing of text would hold as well.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from memlm.config import Attention, RecipeConfig
from memlm.data.token_store import PreparedData, prepare
from memlm.recipes.autoencoder import autoencoder
from memlm.recipes.scale import Scale
from memlm.runtime.results import Provenance, Result
from memlm.text.autoencoder import TextAutoencoder
from memlm.text.evaluation_sets import corpus_sets, evaluate_sets, foreign_sets
from memlm.text.samples import Sample, random_passages
from memlm.training.autoencoder import train_autoencoder

MIXERS = ("masked_mixer", "attention")


@dataclass(frozen=True, kw_only=True)
class ForeignTextPlan:
    """What to train, and on how much."""

    chunk_len: int = 64
    memory_dim: int = 256
    num_tokens: int = 750_000
    seed: int = 0

    def recipe(self, mixer: str) -> RecipeConfig:
        """Ours; or the same with attention, which nothing can be grown into."""
        scale = Scale(chunk_len=self.chunk_len, memory_dim=self.memory_dim, num_tokens=self.num_tokens, seed=self.seed)
        if mixer == "masked_mixer":
            return autoencoder(scale)
        whole = autoencoder(scale, grown_from=0)
        encoder, decoder = (replace(stack, mixer=Attention()) for stack in (whole.model.encoder, whole.model.decoder))
        return replace(whole, model=replace(whole.model, encoder=encoder, decoder=decoder))

    def folder(self, mixer: str) -> str:
        """Of the run; that of ours is `reproduce.embeddings`' too."""
        name = "positional" if mixer == "masked_mixer" else mixer
        return f"autoencoder-{name}-seed-{self.seed}"


def reproduce_foreign_text(out: Path, plan: ForeignTextPlan | None = None, *, quiet: bool = False) -> Result:
    """Train, and give back. What was trained before is not trained again.

    Returns:
        `rows`, one for each mixer and kind of text (`evaluation_sets`), with the measures of an evaluation and their
        `intervals`; `samples`, passages drawn at random, by mixer.
    """
    plan = plan or ForeignTextPlan()
    prepared = prepare(plan.recipe(MIXERS[0]).data, quiet=quiet)
    rows, samples = [], {}
    for mixer in MIXERS:
        trained = train_autoencoder(plan.recipe(mixer), out / plan.folder(mixer), prepared=prepared, quiet=quiet)
        sets = itertools.chain(corpus_sets(prepared), foreign_sets(trained.tokenizer))
        for found in evaluate_sets(trained, sets, quiet=quiet):
            row = found.to_dict()
            row.pop("provenance")  # that of the whole is enough
            rows.append({"mixer": mixer, "text": row.pop("name"), **row})
        samples[mixer] = list(_samples(trained, prepared, plan.seed))
    made_by = Provenance.here(plan=vars(plan), data=prepared.fingerprint)
    return Result(name="foreign-text", measures={"rows": rows, "samples": samples}, provenance=made_by)


def _samples(model: TextAutoencoder, prepared: PreparedData, seed: int) -> Iterator[Sample]:
    """A passage of held-out text, and one of each kind that was never in training."""
    yield from random_passages(model, prepared.splits["test"], num_passages=1, seed=seed)
    for _, split in foreign_sets(model.tokenizer):
        yield from random_passages(model, split, num_passages=1, seed=seed)

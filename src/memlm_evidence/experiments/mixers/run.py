"""Claims: parts of recurrent mixers lower the loss in the published order; their states hold little, memories much.

Causal language models and autoencoders, one of each for every mixer: the same data in the same order, tokens and,
through the width of the language models' MLP, parameters.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from memlm.config import AutoencoderRecipe, LanguageModelRecipe, ReadingConfig
from memlm.data.token_store import prepare
from memlm.evaluation.bootstrap import ratio_intervals
from memlm.evaluation.prediction import excess
from memlm.models.language_model import LanguageModel
from memlm.probing.encoders import StateEncoder
from memlm.recipes.autoencoder import autoencoder
from memlm.recipes.causal import causal
from memlm.recipes.scale import Scale
from memlm.runtime.results import Provenance
from memlm.text.language_model import TextLanguageModel
from memlm.training.train import train
from memlm_evidence.benchmarks.measuring import num_parameters
from memlm_evidence.claims import Difference
from memlm_evidence.experiments.embeddings.run import Encoder
from memlm_evidence.experiments.mixers import MIXERS, PUBLISHED, LossRow, MemoryRow, MixersPlan, MixersResult
from memlm_evidence.experiments.readers import Readers

LIKE = "diagonal"
"""The mixer whose number of parameters all language models have."""


def run(out: Path, plan: MixersPlan) -> MixersResult:
    """Train, measure and probe. What was trained or read before is not made again."""
    data = language_model(plan, LIKE).data
    prepared = prepare(data)
    reading = ReadingConfig(num_steps=plan.reading_steps, max_chunks=plan.reading_chunks)
    readers = Readers(data, prepared.tokenizer, plan.chunk_len, reading, plan.seed)
    losses, rows, given_back = [], [], []
    nats: dict[str, Float[np.ndarray, "document 2"]] = {}
    for mixer in plan.mixers:
        folder, test = f"{mixer}-seed-{plan.seed}", prepared.splits["test"]
        written = train(language_model(plan, mixer), out / f"causal-{folder}", prepared=prepared)
        kept = train(memories(plan, mixer), out / f"autoencoder-{folder}", prepared=prepared)
        nats[mixer] = written.document_nats(test, name=f"held-out text, {mixer}", quiet=False)
        losses.append(_loss(mixer, num_parameters(written.model), nats))
        rows += [each.row(readers, mixer) for each in states(written, mixer, plan.seed)]
        back = kept.evaluate_split(test, name=f"held-out text, {mixer}", quiet=False)
        measures = ("token_accuracy", "exact_match", "retained_fraction")
        given_back.append(
            MemoryRow(
                mixer=mixer,
                num_parameters=num_parameters(kept.model.encoder),
                intervals={name: back.intervals[name] for name in measures},
                **{name: back.measures[name] for name in measures},
            )
        )
    return MixersResult(
        losses=losses,
        rows=rows,
        memories=given_back,
        chunk_len=plan.chunk_len,
        seed=plan.seed,
        provenance=Provenance.here(plan=vars(plan), data=prepared.fingerprint),
    )


def _loss(mixer: str, size: int, nats: Mapping[str, Float[np.ndarray, "document 2"]]) -> LossRow:
    """The loss with a mixer, and what it saves over the one that is published before it, where that was measured."""
    before = dict(zip(PUBLISHED[1:], PUBLISHED, strict=False)).get(mixer, "")
    total, number = nats[mixer].sum(axis=0)
    return LossRow(
        mixer=mixer,
        num_parameters=size,
        next_token_nats=float(total / number),
        saved=Difference.from_dict(excess(nats[before], nats[mixer])) if before in nats else None,
        intervals=ratio_intervals("next_token_nats", nats[mixer]),
    )


def states(trained: TextLanguageModel, mixer: str, seed: int) -> Iterator[Encoder]:
    """The last state of a language model, untrained and trained."""
    model = StateEncoder(trained.model.eval(), trained.tokenizer, name=f"causal, {mixer}")
    made = Encoder.of("causal", trained, model)
    yield made._replace(objective="untrained", encoder=model.untrained(seed), num_tokens=0)
    yield made


def language_model(plan: MixersPlan, mixer: str) -> LanguageModelRecipe:
    """A causal language model whose MLP is as wide as makes its parameters as many as those of `LIKE`."""
    recipe = causal(plan.chunk_len, plan.dim, num_tokens=plan.num_tokens, seed=plan.seed)

    def with_mixer(name: str) -> LanguageModelRecipe:
        stack = replace(recipe.model.stack, mixer=MIXERS[name])
        return replace(recipe, name=f"causal {name} {plan.dim}", model=replace(recipe.model, stack=stack))

    made, like = with_mixer(mixer), with_mixer(LIKE)
    with torch.device("meta"):
        missing = num_parameters(LanguageModel(like.model)) - num_parameters(LanguageModel(made.model))
    stack = made.model.stack
    wider = stack.mlp_ratio + missing / (stack.num_layers * 2 * stack.dim**2)
    return replace(made, model=replace(made.model, stack=replace(stack, mlp_ratio=wider)))


def memories(plan: MixersPlan, mixer: str) -> AutoencoderRecipe:
    """An autoencoder whose encoder has this mixer; its decoder is ours."""
    scale = Scale(chunk_len=plan.chunk_len, memory_dim=plan.dim, num_tokens=plan.memory_tokens, seed=plan.seed)
    recipe = autoencoder(scale, grown_from=0)
    chosen = MIXERS[mixer]
    encoder = replace(recipe.model.encoder, mixer=chosen, causal=chosen.causal_only)
    return replace(recipe, name=f"autoencoder {mixer}", model=replace(recipe.model, encoder=encoder))

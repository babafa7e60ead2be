"""The claims at the paper's sizes: its own models, trained on several GPUs, and what they hold.

Launched on several processes (torchrun), an experiment trains and no more. In one process it measures what was trained,
after training what was not.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from memlm.config import (
    DataConfig,
    HubCorpus,
    LanguageModelRecipe,
    MemoryModelRecipe,
    ProbeConfig,
    ReadingConfig,
    RecipeConfig,
)
from memlm.data.cache import default_cache
from memlm.data.chunks import split_into_chunks
from memlm.data.token_store import prepare
from memlm.data.tokenizer import Tokenizer
from memlm.data.windows import all_windows
from memlm.evaluation.prediction import excess, predict, prediction_measures
from memlm.probing.encoder_probe import EncoderProbe
from memlm.probing.encoders import FrozenEncoder, MemoryEncoder, language_model_encoder
from memlm.probing.texts import ProbeTexts
from memlm.recipes.paper import paper_autoencoder, paper_causal, paper_memory_model
from memlm.runtime.results import Provenance, Result
from memlm.training.accelerator import world_size
from memlm.training.autoencoder import train_autoencoder
from memlm.training.footprint import require_fits, work
from memlm.training.language_model import train_language_model
from memlm.training.memory_model import train_memory_model
from memlm_evidence.benchmarks.paper import GPU, GPU_FLOPS, UTILIZATION, Recipe, training_of

_MOST_WITHOUT_GPU = 1e17
"""Operations: a day or two of a good processor's."""
_READ_BYTES = 1_000_000_000
"""Of text that readers are trained and measured on."""

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class PaperEmbeddings:
    """Autoencoder and causal model to compare, and how they are read."""

    autoencoder: RecipeConfig
    causal: LanguageModelRecipe
    reading: ReadingConfig = field(default_factory=lambda: ReadingConfig(num_steps=10_000, max_chunks=500_000))
    seed: int = 0

    @classmethod
    def of_seed(cls, seed: int) -> "PaperEmbeddings":
        """The paper's."""
        return cls(autoencoder=paper_autoencoder(seed=seed), causal=paper_causal("masked_mixer", seed=seed), seed=seed)


@dataclass(frozen=True, kw_only=True)
class PaperMemoryModels:
    """Memory models to compare, and how their memories are read."""

    causal: MemoryModelRecipe
    combined: MemoryModelRecipe
    reading: ReadingConfig = field(default_factory=lambda: ReadingConfig(num_steps=10_000, max_chunks=500_000))
    seed: int = 0

    @classmethod
    def of_seed(cls, seed: int) -> "PaperMemoryModels":
        """The paper's."""
        causal = paper_memory_model(retention=0.0, seed=seed)
        return cls(causal=causal, combined=paper_memory_model(seed=seed), seed=seed)


def reproduce_paper_embeddings(out: Path, plan: PaperEmbeddings) -> Result | None:
    """`rows`, what a reader finds in each embedding, as `reproduce.embeddings` has them; None if it was to train only.

    Raises:
        ValueError: a model that is yet to be trained does not fit into memory, or would take years without a GPU; says
            what it needs, before anything is begun.
    """
    _require_machine(plan.autoencoder, out / "autoencoder")
    _require_machine(plan.causal, out / "causal")
    autoencoder = train_autoencoder(plan.autoencoder, out / "autoencoder")
    causal = train_language_model(plan.causal, out / "causal")
    if world_size() > 1:
        return None
    encoders: Mapping[str, FrozenEncoder] = {
        "causal": language_model_encoder(causal.model, causal.tokenizer, name=plan.causal.name),
        "autoencoder": MemoryEncoder(autoencoder.model.encoder, autoencoder.tokenizer, name=plan.autoencoder.name),
    }
    texts = _texts(plan.autoencoder.data, autoencoder.tokenizer, plan.reading)
    rows = [
        {"objective": name, **_read(encoder, texts, plan.causal.model.chunk_len, plan.reading, plan.seed)}
        for name, encoder in encoders.items()
    ]
    values = {"rows": rows, "chunk_len": plan.causal.model.chunk_len, "seed": plan.seed}
    return Result(name="embeddings", measures=values, provenance=_made_by(plan))


def reproduce_paper_memory_models(out: Path, plan: PaperMemoryModels) -> Result | None:
    """`probes`, what a reader finds in memories, `causal_nats` and the `gap` of combined to causal training, as
    `reproduce.memory_model` has them; None if it was to train only.

    Raises:
        ValueError: as `reproduce_paper_embeddings`.
    """
    recipes = {"causal": plan.causal, "combined": plan.combined}
    for name, recipe in recipes.items():
        _require_machine(recipe, out / name)
    trained = {name: train_memory_model(recipe, out / name) for name, recipe in recipes.items()}
    if world_size() > 1:
        return None
    shape = plan.combined.model.shape
    texts = _texts(plan.combined.data, trained["combined"].tokenizer, plan.reading)
    test = prepare(plan.combined.data).splits["test"]
    windows = all_windows(split_into_chunks(test, shape.chunk_len), plan.combined.window_chunks)
    probes, predictions = {}, {}
    for name, model in trained.items():
        assert model.model.encoder is not None
        encoder = MemoryEncoder(model.model.encoder, model.tokenizer, name=recipes[name].name)
        probes[name] = _read(encoder, texts, shape.chunk_len, plan.reading, plan.seed)
        predictions[name] = predict(model.model, windows, shape.vocab_size)
    nats = {name: prediction_measures(prediction)[0] for name, prediction in predictions.items()}
    values = {
        "probes": probes,
        "retention_accuracy": {name: row["token_accuracy"] for name, row in probes.items()},
        "causal_nats": {name: found["causal_nats_per_token"] for name, found in nats.items()},
        "gap": {"combined": excess(predictions["combined"], predictions["causal"], relative=True)},
        "seed": plan.seed,
    }
    return Result(name="memory-model", measures=values, provenance=_made_by(plan))


def _require_machine(recipe: Recipe, folder: Path) -> None:
    if (folder / "model").exists():
        return
    require_fits(recipe)
    cfg, objective, row_shape = training_of(recipe)
    operations = work(recipe.model, objective, row_shape).flops_per_token * cfg.num_tokens
    if operations > _MOST_WITHOUT_GPU and not torch.accelerator.is_available():
        hours = operations / (GPU_FLOPS * UTILIZATION) / 3600
        raise ValueError(
            f"{recipe.name} takes {operations:.1e} operations, some {hours:,.0f} hours of one {GPU}, and this "
            "machine has no GPU; run it where there are some, torchrun --nproc_per_node 8 -m memlm reproduce --preset "
            "paper, or take another preset (memlm bench paper tells what each model takes)"
        )


def _texts(data: DataConfig, tokenizer: Tokenizer, reading: ReadingConfig) -> ProbeTexts:
    """The beginning of a corpus, which is enough for readers."""
    corpus = data.corpus
    if isinstance(corpus, HubCorpus):
        corpus = replace(corpus, max_bytes=min(corpus.max_bytes, _READ_BYTES))
    return ProbeTexts.of_splits(replace(data, corpus=corpus), tokenizer, reading.test_fraction)


def _read(encoder: FrozenEncoder, texts: ProbeTexts, chunk_len: int, reading: ReadingConfig, seed: int) -> Row:
    cfg = ProbeConfig(chunk_lens=(chunk_len,), seeds=(seed,), reading=reading)
    (row,) = EncoderProbe(encoder, texts, cfg, chunk_len, cache=default_cache(), quiet=False).rows()
    return row.to_dict()


def _made_by(plan: PaperEmbeddings | PaperMemoryModels) -> Provenance:
    recipes: Iterator[tuple[str, Any]] = ((name, value) for name, value in vars(plan).items() if hasattr(value, "name"))
    return Provenance.here(seed=plan.seed, **{name: recipe.name for name, recipe in recipes})

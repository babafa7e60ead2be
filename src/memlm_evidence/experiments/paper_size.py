"""The comparisons of embeddings and of memory models at the paper's sizes.

Launched on several processes (torchrun), an experiment trains and no more. In one process it measures what was trained,
after training what was not.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from memlm.config import DataConfig, HubCorpus, ProbeConfig, ReadingConfig, Recipe
from memlm.data.cache import default_cache
from memlm.data.chunks import all_windows, split_into_chunks
from memlm.data.token_store import prepare
from memlm.data.tokenizer import Tokenizer
from memlm.evaluation.prediction import excess, predict, prediction_measures
from memlm.probing.encoder_probe import EncoderProbe
from memlm.probing.encoders import FrozenEncoder, MemoryEncoder, StateEncoder
from memlm.probing.results import ProbeRow
from memlm.probing.texts import ProbeTexts
from memlm.runtime.results import Provenance
from memlm.text.model import TextModel
from memlm.training.accelerator import world_size
from memlm.training.footprint import require_fits, work
from memlm.training.train import train
from memlm_evidence.benchmarks.paper import GPU, GPU_FLOPS, UTILIZATION, training_of
from memlm_evidence.experiments import embeddings, memory_model

_MOST_WITHOUT_GPU = 1e17
"""Operations: a day or two of a good processor's."""
_READ_BYTES = 1_000_000_000
"""Of text that readers are trained and measured on."""


def require_machine(recipe: Recipe, folder: Path) -> None:
    """Check that a model can be trained here, unless it has been, before anything is begun.

    Raises:
        ValueError: it does not fit into memory, or would take years without a GPU; says what it needs.
    """
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


def _texts_of(data: DataConfig, tokenizer: Tokenizer, reading: ReadingConfig) -> ProbeTexts:
    """The beginning of a corpus, which is enough for readers."""
    corpus = data.corpus
    if isinstance(corpus, HubCorpus):
        corpus = replace(corpus, max_bytes=min(corpus.max_bytes, _READ_BYTES))
    return ProbeTexts.of_splits(replace(data, corpus=corpus), tokenizer, reading.test_fraction)


def _read(encoder: FrozenEncoder, texts: ProbeTexts, chunk_len: int, reading: ReadingConfig, seed: int) -> ProbeRow:
    """What a reader finds in an encoder's default view."""
    cfg = ProbeConfig(chunk_lens=(chunk_len,), seeds=(seed,), reading=reading)
    (row,) = EncoderProbe(encoder, texts, cfg, chunk_len, cache=default_cache(), quiet=False).rows()
    return row


def compare_embeddings(out: Path, plan: embeddings.PaperPlan) -> embeddings.EmbeddingsResult | None:
    """Train both and read them; None where one of several processes only trains.

    Raises:
        ValueError: as `require_machine`.
    """
    require_machine(plan.autoencoder, out / "autoencoder")
    require_machine(plan.causal, out / "causal")
    autoencoder = train(plan.autoencoder, out / "autoencoder")
    causal = train(plan.causal, out / "causal")
    if world_size() > 1:
        return None
    texts, chunk_len = (
        _texts_of(plan.autoencoder.data, autoencoder.tokenizer, plan.reading),
        plan.causal.model.chunk_len,
    )

    def row(objective: str, model: TextModel[Any, Any], encoder: FrozenEncoder) -> embeddings.EmbeddingRow:
        about = {
            "objective": objective,
            "mixer": "masked_mixer",
            "num_tokens": model.provenance["tokens"],
            "num_parameters": sum(parameter.numel() for parameter in model.model.parameters()),
        }
        found = _read(encoder, texts, chunk_len, plan.reading, plan.seed)
        return embeddings.EmbeddingRow.from_dict({**found.to_dict(), **about})

    last_state = StateEncoder(causal.model.eval(), causal.tokenizer, name=plan.causal.name)
    memory = MemoryEncoder(autoencoder.model.encoder, autoencoder.tokenizer, name=plan.autoencoder.name)
    rows = [row("causal", causal, last_state), row("autoencoder", autoencoder, memory)]
    made_by = Provenance.here(seed=plan.seed, autoencoder=plan.autoencoder.name, causal=plan.causal.name)
    return embeddings.EmbeddingsResult(rows=rows, chunk_len=chunk_len, seed=plan.seed, provenance=made_by)


def compare_memory_models(out: Path, plan: memory_model.PaperPlan) -> memory_model.MemoryModelResult | None:
    """Train both and measure them; None where one of several processes only trains.

    Raises:
        ValueError: as `require_machine`.
    """
    recipes = {"causal": plan.causal, "combined": plan.combined}
    for name, recipe in recipes.items():
        require_machine(recipe, out / name)
    trained = {name: train(recipe, out / name) for name, recipe in recipes.items()}
    if world_size() > 1:
        return None
    shape = plan.combined.model.shape
    texts = _texts_of(plan.combined.data, trained["combined"].tokenizer, plan.reading)
    test = prepare(plan.combined.data).splits["test"]
    windows = all_windows(split_into_chunks(test, shape.chunk_len), plan.combined.windows.num_chunks)
    probes, predictions = {}, {}
    for name, model in trained.items():
        assert model.model.encoder is not None
        encoder = MemoryEncoder(model.model.encoder, model.tokenizer, name=recipes[name].name)
        probes[name] = _read(encoder, texts, shape.chunk_len, plan.reading, plan.seed)
        predictions[name] = predict(model.model, windows, shape.vocab_size)
    nats = {name: prediction_measures(prediction)[0] for name, prediction in predictions.items()}
    return memory_model.MemoryModelResult(
        probes=probes,
        retention_accuracy={name: row.token_accuracy for name, row in probes.items()},
        causal_nats={name: found["causal_nats_per_token"] for name, found in nats.items()},
        gap={
            "combined": memory_model.Difference.from_dict(
                excess(predictions["combined"], predictions["causal"], relative=True)
            )
        },
        seed=plan.seed,
        provenance=Provenance.here(seed=plan.seed, causal=plan.causal.name, combined=plan.combined.name),
    )

"""The comparison of memory models at the paper's sizes: by combined and by causal training."""

from pathlib import Path

from memlm.data.chunks import all_windows, split_into_chunks
from memlm.data.token_store import prepare
from memlm.evaluation.prediction import excess, predict, prediction_measures
from memlm.probing.encoders import MemoryEncoder
from memlm.runtime.results import Provenance
from memlm.training.accelerator import world_size
from memlm.training.train import train
from memlm_evidence.experiments.memory_model.plan import PaperPlan
from memlm_evidence.experiments.memory_model.result import Difference, MemoryModelResult
from memlm_evidence.experiments.paper_size import read, require_machine, texts_of


def compare_paper_size(out: Path, plan: PaperPlan) -> MemoryModelResult | None:
    """Train both and measure them; None where one of several processes only trains.

    Raises:
        ValueError: as `paper_size.require_machine`.
    """
    recipes = {"causal": plan.causal, "combined": plan.combined}
    for name, recipe in recipes.items():
        require_machine(recipe, out / name)
    trained = {name: train(recipe, out / name) for name, recipe in recipes.items()}
    if world_size() > 1:
        return None
    shape = plan.combined.model.shape
    texts = texts_of(plan.combined.data, trained["combined"].tokenizer, plan.reading)
    test = prepare(plan.combined.data).splits["test"]
    windows = all_windows(split_into_chunks(test, shape.chunk_len), plan.combined.windows.num_chunks)
    probes, predictions = {}, {}
    for name, model in trained.items():
        assert model.model.encoder is not None
        encoder = MemoryEncoder(model.model.encoder, model.tokenizer, name=recipes[name].name)
        probes[name] = read(encoder, texts, shape.chunk_len, plan.reading, plan.seed)
        predictions[name] = predict(model.model, windows, shape.vocab_size)
    nats = {name: prediction_measures(prediction)[0] for name, prediction in predictions.items()}
    return MemoryModelResult(
        probes=probes,
        retention_accuracy={name: row.token_accuracy for name, row in probes.items()},
        causal_nats={name: found["causal_nats_per_token"] for name, found in nats.items()},
        gap={"combined": Difference.from_dict(excess(predictions["combined"], predictions["causal"], relative=True))},
        seed=plan.seed,
        provenance=Provenance.here(seed=plan.seed, causal=plan.causal.name, combined=plan.combined.name),
    )

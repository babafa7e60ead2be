"""The comparison of embeddings at the paper's sizes: an autoencoder's and a causal model's."""

from pathlib import Path
from typing import Any

from memlm.probing.encoders import FrozenEncoder, MemoryEncoder, StateEncoder
from memlm.runtime.results import Provenance
from memlm.text.model import TextModel
from memlm.training.accelerator import world_size
from memlm.training.train import train
from memlm_evidence.experiments.embeddings.plan import PaperPlan
from memlm_evidence.experiments.embeddings.result import EmbeddingRow, EmbeddingsResult
from memlm_evidence.experiments.paper_size import read, require_machine, texts_of


def compare_paper_size(out: Path, plan: PaperPlan) -> EmbeddingsResult | None:
    """Train both and read them; None where one of several processes only trains.

    Raises:
        ValueError: as `paper_size.require_machine`.
    """
    require_machine(plan.autoencoder, out / "autoencoder")
    require_machine(plan.causal, out / "causal")
    autoencoder = train(plan.autoencoder, out / "autoencoder")
    causal = train(plan.causal, out / "causal")
    if world_size() > 1:
        return None
    texts, chunk_len = texts_of(plan.autoencoder.data, autoencoder.tokenizer, plan.reading), plan.causal.model.chunk_len

    def row(objective: str, model: TextModel[Any, Any], encoder: FrozenEncoder) -> EmbeddingRow:
        about = {
            "objective": objective,
            "mixer": "masked_mixer",
            "num_tokens": model.provenance["tokens"],
            "num_parameters": sum(parameter.numel() for parameter in model.model.parameters()),
        }
        found = read(encoder, texts, chunk_len, plan.reading, plan.seed)
        return EmbeddingRow.from_dict({**found.to_dict(), **about})

    last_state = StateEncoder(causal.model.eval(), causal.tokenizer, name=plan.causal.name)
    memory = MemoryEncoder(autoencoder.model.encoder, autoencoder.tokenizer, name=plan.autoencoder.name)
    rows = [row("causal", causal, last_state), row("autoencoder", autoencoder, memory)]
    made_by = Provenance.here(seed=plan.seed, autoencoder=plan.autoencoder.name, causal=plan.causal.name)
    return EmbeddingsResult(rows=rows, chunk_len=chunk_len, seed=plan.seed, provenance=made_by)

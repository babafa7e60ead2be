"""Claim: causal training alone leaves memories poor; the combined objective makes them rich at the same next-token
loss; a frozen autoencoder's encoder and a curriculum make that cheap.

One decoder under several conditions, trained on equal causal tokens: no memory, memories by causal training, by
combined training, from a frozen autoencoder with a curriculum, the whole context as tokens, and recurrent memory.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from memlm.config import AutoencoderRecipe, MemoryModelRecipe, ReadingConfig
from memlm.data.chunks import all_windows, split_into_chunks
from memlm.data.token_store import prepare
from memlm.evaluation.prediction import excess, predict, prediction_measures
from memlm.probing.encoders import MemoryEncoder
from memlm.recipes.autoencoder import autoencoder
from memlm.recipes.memory_model import encoder_decoder, memory_model, oracle, without_memory
from memlm.recipes.scale import Scale
from memlm.runtime.results import Provenance, Result, read_json_lines
from memlm.text.memory_model import TextMemoryModel
from memlm.training.accelerator import world_size
from memlm.training.train import train
from memlm_evidence.benchmarks.paper import require_machine
from memlm_evidence.claims import Difference
from memlm_evidence.experiments.exact_recall import RecallPlan
from memlm_evidence.experiments.memory_model import MemoryModelResult, PaperPlan, Plan, VariantRow
from memlm_evidence.experiments.memory_model.training import Data, Trained, trained_encoder
from memlm_evidence.experiments.readers import Readers

WITH_MEMORIES = ("causal", "combined", "curriculum")
RICH = 0.995
"""Token accuracy at which a memory counts as rich."""
RECURRENT = "recurrent"
"""Memory tokens carried from chunk to chunk: a model of its own, trained as `combined`'s decoder."""


def combined_recipe(plan: Plan | RecallPlan, **changes: Any) -> MemoryModelRecipe:
    """Memories trained for next tokens and to give back their text."""
    usual = ("chunk_len", "memory_dim", "window_chunks", "num_positions", "dim", "num_tokens", "seed")
    return memory_model(**{**{name: getattr(plan, name) for name in usual}, **changes})


def autoencoder_recipe(plan: Plan | RecallPlan) -> AutoencoderRecipe:
    """The autoencoder whose encoder the curriculum freezes."""
    num_tokens = plan.autoencoder_tokens
    assert num_tokens
    return autoencoder(
        Scale(chunk_len=plan.chunk_len, memory_dim=plan.memory_dim, num_tokens=num_tokens, seed=plan.seed)
    )


def _curriculum(plan: Plan, encoder: str) -> MemoryModelRecipe:
    whole = 1 + plan.reading_fraction
    tokens, fraction = round(plan.num_tokens * whole), plan.reading_fraction / whole
    return combined_recipe(plan, num_tokens=tokens, reading_fraction=fraction, encoder_from=encoder)


CONDITIONS: Mapping[str, Callable[[Plan, str], MemoryModelRecipe]] = {
    "no_memory": lambda plan, _: without_memory(combined_recipe(plan)),
    "causal": lambda plan, _: combined_recipe(plan, retention=0.0),
    "combined": lambda plan, _: combined_recipe(plan),
    "curriculum": _curriculum,
    "full_context": lambda plan, _: without_memory(combined_recipe(plan), full_context=True),
    "encoder_decoder": lambda plan, _: encoder_decoder(combined_recipe(plan)),
    "oracle": lambda plan, _: oracle(combined_recipe(plan)),
}
"""Plan, and where a trained autoencoder is → recipe."""


Variant = tuple[Mapping[str, Any], Mapping[str, Any]]
"""What its row says of it, and the changes that make it of the combined condition."""


def variants(plan: Plan) -> Mapping[str, list[Variant]]:
    """By the field of the result that they are rows of."""
    return {
        "trade_off": [({"retention_weight": weight}, {"retention": weight}) for weight in plan.weights],
        "by_size": [
            ({"dim": dim, "objective": objective}, {"dim": dim, **changes})
            for dim in plan.dims
            for objective, changes in (("causal", {"retention": 0.0}), ("combined", {}))
        ],
        "by_insertion": [
            ({"insertion": kind, "number": number}, {"insertion": kind, "num_positions": number})
            for kind, number in plan.insertions
        ],
    }


def run(out: Path, plan: Plan | PaperPlan) -> MemoryModelResult | None:
    """Train every condition, measure and compare. What was trained before is not trained again.

    Returns:
        None where one of several processes only trains, at the paper's sizes.

    Raises:
        ValueError: as `require_machine`, at the paper's sizes.
    """
    return compare_two(out, plan) if isinstance(plan, PaperPlan) else compare(out, plan)


def compare_two(out: Path, plan: PaperPlan) -> MemoryModelResult | None:
    """Those of the paper's sizes: on several processes (torchrun) they are trained and no more."""
    recipes = {"causal": plan.causal, "combined": plan.combined}
    for name, recipe in recipes.items():
        require_machine(recipe, out / name)
    trained = {name: train(recipe, out / name) for name, recipe in recipes.items()}
    if world_size() > 1:
        return None
    cfg, shape = plan.combined, plan.combined.model.shape
    readers = Readers(cfg.data, trained["combined"].tokenizer, shape.chunk_len, plan.reading, plan.seed)
    test = split_into_chunks(prepare(cfg.data).splits["test"], shape.chunk_len)
    windows = all_windows(test, cfg.windows.num_chunks)
    probes = {name: readers.row(_memories(model, recipes[name].name)) for name, model in trained.items()}
    found = {name: predict(model.model, windows, shape.vocab_size) for name, model in trained.items()}
    gap = Difference.from_dict(excess(found["combined"].later_sums(), found["causal"].later_sums(), relative=True))
    return MemoryModelResult(
        probes=probes,
        retention_accuracy={name: row.token_accuracy for name, row in probes.items()},
        causal_nats={name: prediction_measures(each)[0]["causal_nats_per_token"] for name, each in found.items()},
        gap={"combined": gap},
        seed=plan.seed,
        provenance=Provenance.here(seed=plan.seed, **{name: recipe.name for name, recipe in recipes.items()}),
    )


def compare(out: Path, plan: Plan) -> MemoryModelResult:
    """All conditions of a plan, and of a full one all variants."""
    data = Data(prepare(combined_recipe(plan).data), plan.chunk_len)
    trained = {name: _trained(data, name, out, plan) for name in plan.compared}
    nats = {name: prediction_measures(each.prediction) for name, each in trained.items()}
    reading = ReadingConfig(num_steps=plan.reading_steps, max_chunks=plan.reading_chunks)
    data_config, tokenizer = combined_recipe(plan).data, data.prepared.tokenizer
    readers = Readers(data_config, tokenizer, plan.chunk_len, reading, plan.seed)
    probes = {name: readers.row(_memories(trained[name].model, "memory model")) for name in WITH_MEMORIES}
    of_variants = {
        field: [_variant(each, data, out, plan) for each in found]
        for field, found in (variants(plan) if plan.full else {}).items()
    }
    flops = {name: each.train_flops for name, each in trained.items()}
    return MemoryModelResult(
        retention_accuracy={name: row.token_accuracy for name, row in probes.items()},
        own_retention_accuracy={name: _own_retention(trained[name], data).token_accuracy for name in WITH_MEMORIES},
        causal_nats={name: found["causal_nats_per_token"] for name, (found, _) in nats.items()},
        causal_nats_by_chunk={name: found["causal_nats_by_chunk"] for name, (found, _) in nats.items()},
        causal_nats_intervals={name: spread["causal_nats_per_token"] for name, (_, spread) in nats.items() if spread},
        gain={name: _difference(trained["no_memory"], each) for name, each in trained.items() if name != "no_memory"},
        gap={name: _difference(trained[name], trained["causal"], relative=True) for name in WITH_MEMORIES[1:]},
        train_flops={**flops, "autoencoder": data.autoencoder_flops(autoencoder_recipe(plan))},
        flops_to_rich={name: _flops_to_rich(trained[name], _folder(out, name, plan)) for name in WITH_MEMORIES[1:]},
        tokens={name: each.num_tokens for name, each in trained.items()},
        probes=probes,
        decoder_positions_per_chunk=_positions(trained["combined"]),
        chunk_len=plan.chunk_len,
        window_chunks=plan.window_chunks,
        seed=plan.seed,
        provenance=Provenance.here(plan=vars(plan), data=data.prepared.fingerprint),
        trade_off=of_variants.get("trade_off", []),
        by_size=of_variants.get("by_size", []),
        by_insertion=of_variants.get("by_insertion", []),
    )


def _folder(out: Path, name: str, plan: Plan) -> Path:
    return out / f"{name}-seed-{plan.seed}"


def _trained(data: Data, name: str, out: Path, plan: Plan) -> Trained:
    """A condition, trained or loaded."""
    folder = _folder(out, name, plan)
    if name == RECURRENT:
        return data.train_recurrent(combined_recipe(plan), plan.num_positions, folder, plan.seed)
    encoder = trained_encoder(autoencoder_recipe(plan), out) if name == "curriculum" else ""
    return data.train(CONDITIONS[name](plan, encoder), folder, "copy" if name == "oracle" else "causal")


def _difference(one: Trained, other: Trained, *, relative: bool = False) -> Difference:
    """How much more the one's next tokens cost than the other's."""
    return Difference.from_dict(excess(one.prediction.later_sums(), other.prediction.later_sums(), relative=relative))


def _variant(variant: Variant, data: Data, out: Path, plan: Plan) -> VariantRow:
    """Train a variant of fewer tokens, or load it, and measure it; by sizes, against causal training of the same."""
    usual = {"retention": 1.0, "insertion": "unpooled", "dim": plan.dim, "num_positions": plan.num_positions}

    def trained(changes: Mapping[str, Any]) -> Trained:
        # Where variants of several questions are the same, they are trained once.
        changed = [f"{name}-{value}" for name, value in changes.items() if value != usual[name]]
        recipe = combined_recipe(plan, num_tokens=plan.variant_tokens, **changes)
        return data.train(recipe, _folder(out, "-".join(["sweep", *changed]), plan))

    label, changes = variant
    made = trained(changes)
    causal = trained({**changes, "retention": 0.0}) if label.get("objective") == "combined" else None
    found, spread = prediction_measures(made.prediction)
    measures: Mapping[str, Any] = {
        **label,
        "causal_nats": found["causal_nats_per_token"],
        "interval": spread["causal_nats_per_token"],
        "gap": _difference(made, causal, relative=True) if causal else None,
        "retention_accuracy": _own_retention(made, data).token_accuracy if made.model.model.encoder else None,
        "decoder_positions_per_chunk": _positions(made),
        "train_flops": made.train_flops,
    }
    return VariantRow(**measures)


def _memories(model: TextMemoryModel, name: str) -> MemoryEncoder:
    """The encoder of a model that has one."""
    assert model.model.encoder is not None
    return MemoryEncoder(model.model.encoder, model.tokenizer, name=name)


def _own_retention(trained: Trained, data: Data) -> Result:
    """What the model's own decoder gives back of its memories."""
    return trained.model.evaluate_retention(data.prepared.splits["test"], name="held-out", quiet=False)


def _positions(trained: Trained) -> int:
    """Decoder positions that the memory of a chunk takes."""
    return trained.model.model.decoder_positions_per_chunk


def _flops_to_rich(trained: Trained, folder: Path) -> float | None:
    """Training operations until held-out retention first reached `RICH`; None if it never did."""
    for row in read_json_lines(folder / "metrics.jsonl"):
        if row.get("token_accuracy", 0.0) >= RICH:
            return trained.flops_until(int(row["tokens"]))
    return None

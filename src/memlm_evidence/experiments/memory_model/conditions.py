"""What is compared: named conditions, and variants of the combined one, each with the recipe that trains it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from memlm.config import AutoencoderRecipe, MemoryModelRecipe
from memlm.recipes.autoencoder import autoencoder
from memlm.recipes.memory_model import encoder_decoder, memory_model, oracle, without_memory
from memlm.recipes.scale import Scale
from memlm_evidence.experiments.memory_model import Plan

RECURRENT = "recurrent"
"""Memory tokens carried from chunk to chunk: a model of its own, trained as `combined`'s decoder."""


def combined_recipe(plan: Plan, **changes: Any) -> MemoryModelRecipe:
    """Memories trained for next tokens and to give back their text."""
    usual = ("chunk_len", "memory_dim", "window_chunks", "num_positions", "dim", "num_tokens", "seed")
    return memory_model(**{**{name: getattr(plan, name) for name in usual}, **changes})


def autoencoder_recipe(plan: Plan) -> AutoencoderRecipe:
    """The autoencoder whose encoder the curriculum freezes."""
    scale = Scale(
        chunk_len=plan.chunk_len, memory_dim=plan.memory_dim, num_tokens=plan.autoencoder_tokens, seed=plan.seed
    )
    return autoencoder(scale)


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


@dataclass(frozen=True)
class Variant:
    """The combined condition with a few changes, of fewer tokens."""

    label: Mapping[str, Any]
    """What it differs in, as its row says it."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    against: "Variant | None" = None
    """What its next tokens are compared with."""

    def recipe(self, plan: Plan) -> MemoryModelRecipe:
        """What trains it."""
        return combined_recipe(plan, num_tokens=plan.variant_tokens, **self.changes)

    def name(self, plan: Plan) -> str:
        """Of its folder; where variants of several questions are the same, they are trained once."""
        usual = {"retention": 1.0, "insertion": "unpooled", "dim": plan.dim, "num_positions": plan.num_positions}
        changed = {name: value for name, value in self.changes.items() if value != usual[name]}
        return "-".join(["sweep", *(f"{name}-{value}" for name, value in changed.items())])


def variants(plan: Plan) -> Mapping[str, list[Variant]]:
    """By the field of the result that they are rows of."""

    def sizes() -> Iterator[Variant]:
        for dim in plan.dims:
            causal = Variant({"dim": dim, "objective": "causal"}, {"dim": dim, "retention": 0.0})
            yield from (causal, Variant({"dim": dim, "objective": "combined"}, {"dim": dim}, causal))

    return {
        "trade_off": [Variant({"retention_weight": weight}, {"retention": weight}) for weight in plan.weights],
        "by_size": list(sizes()),
        "by_insertion": [
            Variant({"insertion": kind, "number": number}, {"insertion": kind, "num_positions": number})
            for kind, number in plan.insertions
        ],
    }

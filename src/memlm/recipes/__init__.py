"""Recipes: functions that return a full configuration. A docstring holds the claim, its cost and what to expect."""

from collections.abc import Callable, Mapping

from memlm.config import Recipe
from memlm.recipes.autoencoder import autoencoder, demo, density, english, finetuned, reference, searchable
from memlm.recipes.causal import causal, retrieval
from memlm.recipes.memory_model import memory_model
from memlm.recipes.paper import paper_autoencoder, paper_causal, paper_memory_model, paper_reader
from memlm.recipes.reader import reader

__all__ = ["RECIPES"]

RECIPES: Mapping[str, Callable[..., Recipe]] = {
    "autoencoder": autoencoder,
    "reference": reference,
    "demo": demo,
    "english": english,
    "density": density,
    "finetuned": finetuned,
    "searchable": searchable,
    "paper-autoencoder": paper_autoencoder,
    "causal": causal,
    "retrieval": retrieval,
    "paper-causal": paper_causal,
    "memory-model": memory_model,
    "paper-memory-model": paper_memory_model,
    "reader": reader,
    "paper-reader": paper_reader,
}
"""Every recipe, by the name it has on the command line."""

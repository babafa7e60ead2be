"""Small recipes of every kind of training, which save often."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from memlm.config.recipe import Recipe
from memlm.data.tokenizer import Tokenizer
from memlm.recipes.autoencoder import autoencoder
from memlm.recipes.causal import causal
from memlm.recipes.memory_model import memory_model
from memlm.recipes.reader import reader
from memlm.recipes.scale import Scale

_CHUNK_LEN, _VOCABULARY = 16, 300


def first_recipe(corpus: Path) -> Recipe[Any]:
    """An autoencoder, in two stages: of short chunks, and grown."""
    sizes: dict[str, Any] = {"chunk_len": _CHUNK_LEN, "memory_dim": 32, "dim": 32, "vocab_size": _VOCABULARY}
    return _on(autoencoder(Scale(**sizes, num_tokens=6_000, batch_chunks=8)), corpus, 500)


def recipes(corpus: Path, encoder: Path, folder: Path) -> Mapping[str, Recipe[Any]]:
    """By name; memory models and readers begin with an encoder, and what else they need is made in the folder."""
    sizes: dict[str, Any] = {"chunk_len": _CHUNK_LEN, "dim": 32, "vocab_size": _VOCABULARY}
    curriculum = memory_model(
        **sizes, memory_dim=32, num_layers=1, num_tokens=6_000, encoder_from=str(encoder), reading_fraction=0.4
    ).with_values(("model.encoder.dim=32",))
    read = reader(str(_language_model(folder / "language-model")), str(encoder), num_tokens=600, lora_rank=2)
    small: tuple[str, ...] = ("hidden_dim=16", "window.chat_fraction=0.0", "window.recent_tokens=4")
    small += ("window.predicted_tokens=12", "window.regenerated_tokens=12")
    read = read.with_values((*(f"model.{each}" for each in small), "stages.*.training.batch_tokens=48"))
    return {
        "autoencoder": first_recipe(corpus),
        "memory model": _on(curriculum, corpus, 500),
        "language model": _on(causal(**sizes, num_layers=1, num_tokens=6_000), corpus, 500),
        "reader": _on(read, corpus, 50),
    }


def _on(recipe: Recipe[Any], corpus: Path, checkpoint_tokens: int) -> Recipe[Any]:
    """On these texts, in full precision."""
    files = {"kind": "files", "paths": [str(corpus / "*.txt")]}
    return recipe.with_values(
        (
            f"data.corpus={json.dumps(files)}",
            "data.validation_fraction=0.2",
            "data.test_fraction=0.2",
            "stages.*.training.precision=fp32",
            f"stages.*.training.checkpoint_tokens={checkpoint_tokens}",
            f"stages.*.training.eval_tokens={4 * checkpoint_tokens}",
        )
    )


def _language_model(folder: Path) -> Path:
    """A tiny one of random weights, whose tokens are bytes."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "max_position_embeddings": 256}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=1, vocab_size=264))
    model.generation_config.eos_token_id = None
    model.save_pretrained(folder)
    Tokenizer.train([], 256).save(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    return folder

"""Adapting a pretrained language model to an encoder's memories: one call."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from memlm.config import Corpus, FileCorpus, MemoryReaderConfig, MemoryReaderRecipe, PretrainedDecoder
from memlm.recipes.reader import arms
from memlm.recipes.reader import reader as reader_recipe
from memlm.text.checkpoint_folder import config_class, locate
from memlm.text.memory_reader import TextMemoryReader
from memlm.training.memory_reader import require_same_base
from memlm.training.train import train


def adapt(
    model: str,
    *,
    folder: str | Path,
    encoder: str = "english",
    text: Sequence[str] = (),
    quiet: bool = False,
    **options: Any,
) -> TextMemoryReader:
    """Teach a causal language model to read an encoder's memories; go on where an interrupted run stopped.

    Args:
        model: a Hugging Face folder or hub name, a .gguf file, or smollm2.
        folder: for checkpoints and metrics; the reader is saved in its subfolder `model`.
        encoder: the autoencoder whose memories are read.
        text: files to learn from (globs); by default presidential addresses.
        quiet: show no progress.
        options: of the recipe (`recipes.reader`): ratios, num_tokens, source, ...

    Raises:
        ValueError: there is no such model or encoder, or it cannot be adapted; says why.
    """
    corpus = FileCorpus(paths=tuple(text)) if text else None
    return train(recipe_of(model, encoder, corpus, **options), Path(folder), quiet=quiet)


def recipe_of(
    model: str,
    encoder: str,
    corpus: Corpus | None,
    arm: Literal["reader", "last", "full", "paper"] = "reader",
    **options: Any,
) -> MemoryReaderRecipe:
    """The recipe of a reader on a corpus, or of what it is compared with (`recipes.reader.arms`).

    Raises:
        ValueError: the arm has nothing to train, as it reads no memories and has no LoRA; a number is out of range;
            there is no ratio to learn; or a reader to go on from or to learn from is none, or is not of this model.
    """
    for name, least in (("num_tokens", 1), ("batch_rows", 1), ("lora_rank", 0)):
        if (given := options.get(name, least)) < least:
            raise ValueError(f"{name} must be at least {least}, not {given}")
    if not options.get("ratios", (0,)):
        raise ValueError("a reader learns at least one ratio: give some, such as 4 (or --arm last, to read none)")
    # Training would come to these only later.
    for name in ("begin_with", "teacher"):
        if (path := options.get(name)) is not None:
            if arm != "reader":
                raise ValueError(f"{name} is of a reader, and the arm {arm!r} learns without one: leave it out")
            _require_reader(path, model)
    recipe = reader_recipe(model, encoder, **options)
    if corpus is not None:
        recipe = replace(recipe, data=replace(recipe.data, corpus=corpus))
    found = {"reader": recipe, **arms(recipe)}
    if arm not in found:
        raise ValueError(f"without LoRA, {arm!r} is the language model as it is, with nothing to train: set lora_rank")
    return found[arm]


def _require_reader(path: str, model: str) -> None:
    """Refuse what is no reader of this language model."""
    folder = locate(path, cls=MemoryReaderConfig)
    if config_class(folder) is not MemoryReaderConfig:
        raise ValueError(f"{path} is no reader: give the folder model of what memlm adapt has made")
    require_same_base(path, MemoryReaderConfig.read(folder / "config.json").decoder, PretrainedDecoder(name=model))

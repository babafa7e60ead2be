"""Readers: a pretrained language model learns to read an encoder's memories."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from memlm import config
from memlm.runtime.files import boxed_folder

_ROOM_FOR_FACTS = 64
"""Tokens of a chunk that holds any fact (`data.facts`) or question about it."""


def reader(
    model: str = "smollm2",
    encoder: str = "english",
    source: Literal["text", "vector"] = "text",
    ratios: tuple[int, ...] = (2, 4, 8, 16, 0),
    max_memories: int = 2,
    regenerating_fraction: float = 0.35,
    expanded_fraction: float = 0.2,
    facts_fraction: float = 0.1,
    begin_with: str | None = None,
    teacher: str | None = None,
    num_tokens: int = 256_000,
    batch_rows: int = 4,
    seed: int = 0,
) -> config.MemoryReaderRecipe:
    """An adapter by which a frozen language model reads memories as a soft prompt, at any ratio.

    Claim: past text costs a language model a fraction of its positions. An hour is not enough to show it: SmolLM2-135M
    then recovers 0.40 of what the text is worth to it at ratio 2, 0.18 at ratio 4, nothing from 8 on.
    Cost: an hour on one core for 256,000 tokens with SmolLM2-135M.

    Args:
        model: A causal language model: a folder, a name on the hub, a .gguf file, or smollm2.
        encoder: The autoencoder whose memories are read: a checkpoint folder, or one that ships with memlm.
        source: Make positions of the text that memories give back, or of their bare vectors.
        ratios: Tokens of the past for each position; 0 is one position for each memory, 1 the text as tokens.
        max_memories: The most memories of the past.
        regenerating_fraction: Share of the tokens by which it learns first, and only, to give memories back.
        expanded_fraction: Share of steps in which a chunk of the past is read as tokens.
        facts_fraction: Share of texts in which facts are hidden and asked for, where chunks have room for them.
        begin_with: Go on from this reader, a checkpoint folder; it has learned to give memories back.
        teacher: A checkpoint folder of the same model adapted to the whole past as tokens, whose predictions are
            learned besides.
        num_tokens: Predicted tokens trained on, over all stages.
        batch_rows: Texts per step.
        seed: Of everything that is drawn.
    """
    shape = _shape_of(encoder)
    stretch = min(config.ReadingWindow.regenerated_tokens, shape.chunk_len)
    window = config.ReadingWindow(
        max_memories=max_memories,
        regenerated_tokens=stretch,
        expanded_fraction=expanded_fraction,
        facts_fraction=facts_fraction if shape.chunk_len >= _ROOM_FOR_FACTS else 0.0,
        begin_with=begin_with,
        teacher=teacher,
    )
    model_config = config.MemoryReaderConfig(
        encoder=encoder,
        shape=shape,
        decoder=config.PretrainedDecoder(name=model, lora=config.LoraConfig(rank=16, alpha=32)),
        source=source,
        ratios=ratios,
        window=window,
    )
    learns = bool(set(ratios) - {config.AS_TOKENS})
    regenerating = round(regenerating_fraction * num_tokens) if learns and begin_with is None else 0
    divergence, retention = float(teacher is not None), 0.5 * learns
    weights = config.Weights(causal=1.0, divergence=divergence, retention=retention)
    parts = [(config.Weights(retention=1.0), regenerating)] if regenerating else []
    parts.append((weights, num_tokens - regenerating))
    return config.Recipe(
        name=f"reader of {encoder} for {model}",
        data=config.DataConfig(tokenizer=config.PretrainedTokenizer(name=encoder)),
        model=model_config,
        stages=tuple(
            config.Stage(weights=each, training=_training(number, batch_rows * window.predicted_tokens, seed))
            for each, number in parts
        ),
    )


def _training(num_tokens: int, batch_tokens: int, seed: int) -> config.TrainingConfig:
    return config.TrainingConfig(
        num_tokens=num_tokens,
        batch_tokens=batch_tokens,
        optimizer=config.AdamW(learning_rate=1e-3, betas=(0.9, 0.98)),
        warmup_tokens=30 * batch_tokens,
        decay_fraction=0.5,
        short_fraction=0.0,
        seed=seed,
        eval_tokens=200 * batch_tokens,
        checkpoint_tokens=50 * batch_tokens,
    )


def arms(recipe: config.MemoryReaderRecipe) -> dict[str, config.MemoryReaderRecipe]:
    """What a reader is compared with, with the same LoRA, data and steps: the model that sees recent tokens alone
    (`last`), and the one that sees all of the past as tokens (`full`)."""
    training = replace(recipe.stages[-1].training, num_tokens=recipe.num_tokens)
    stage = config.Stage(weights=config.Weights(causal=1.0), training=training)
    return {
        name: replace(
            recipe,
            name=f"{name} of {recipe.name}",
            model=replace(
                recipe.model, ratios=ratios, source="text", window=replace(recipe.model.window, begin_with=None)
            ),
            stages=(stage,),
        )
        for name, ratios in (("last", ()), ("full", (config.AS_TOKENS,)))
    }


def _shape_of(encoder: str) -> config.MemoryShape:
    """The shape of an autoencoder's memories, which its checkpoint says."""
    folder = Path(encoder) if Path(encoder).is_dir() else boxed_folder(encoder)
    if folder is None:
        raise ValueError(f"no encoder {encoder!r} here: give a checkpoint folder, or a model that ships with memlm")
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"{folder} is no checkpoint: it has no config.json; of a training run, give its subfolder model"
        )
    try:
        return config.AutoencoderConfig.read(folder / "config.json").shape
    except ValueError as error:
        raise ValueError(
            f"{folder} is no autoencoder of memlm's: give the subfolder model of one's run, or english"
        ) from error

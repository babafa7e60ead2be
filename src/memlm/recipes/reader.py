"""Readers: a pretrained language model learns to read an encoder's memories."""

from dataclasses import replace
from typing import Literal

from memlm import config
from memlm.recipes.autoencoder import config_of

_ROOM_FOR_FACTS = 64
"""Tokens of a chunk that holds any fact (`data.facts`) or question about it."""
_WINDOW = config.ReadingWindow(expanded_fraction=0.2, facts_fraction=0.1, chat_fraction=0.1, misplaced_fraction=0.05)


def reader(
    model: str = "smollm2",
    encoder: str = "english",
    source: Literal["text", "states", "vector"] = "text",
    ratios: tuple[int, ...] = (2, 4, 8, 16, 0),
    lora_rank: int = 16,
    max_memories: int = 2,
    regenerating_fraction: float = 0.35,
    begin_with: str | None = None,
    teacher: str | None = None,
    num_tokens: int = 256_000,
    batch_rows: int = 4,
    seed: int = 0,
) -> config.MemoryReaderRecipe:
    """An adapter that lets a frozen language model read memories as a soft prompt, at any ratio.

    Claim: past text costs a language model a fraction of its positions. With a teacher, SmolLM2-135M recovers 0.87 of
    what the past's text is worth to it at ratio 2, 0.66 at 4 and 0.52 at 8, on text of the kind that it was trained on.
    Cost: two hours on one core for 282,000 tokens with SmolLM2-135M and a teacher.

    Args:
        model: A causal language model: a folder, a hub name, a .gguf file, or smollm2.
        encoder: The autoencoder whose memories are read: a checkpoint folder, or one that ships with memlm.
        source: What the soft prompt is made of: the text regenerated from memories, the decoder's states, or vectors.
        ratios: Tokens of the past per position; 0 gives each memory one position, 1 reads the text as tokens.
        lora_rank: Rank of the adapters inside the language model; 0 for none, which trains the soft prompt alone.
        max_memories: The most memories of the past.
        regenerating_fraction: Share of the tokens on which it first learns only to regenerate text from memories.
        begin_with: Start from this reader, a checkpoint folder; it has already learned to regenerate.
        teacher: Also learn the predictions of this model: a checkpoint folder of the same language model, adapted to
            the whole past as tokens.
        num_tokens: Predicted tokens to train on, over all stages.
        batch_rows: Texts per step.
        seed: Random seed.
    """
    window = replace(_WINDOW, max_memories=max_memories, begin_with=begin_with, teacher=teacher)
    learns = bool(set(ratios) - {config.AS_TOKENS})
    regenerating = round(regenerating_fraction * num_tokens) if learns and begin_with is None else 0
    weights = config.Weights(causal=1.0, divergence=float(teacher is not None), retention=0.5 * learns)
    parts = [(config.Weights(retention=1.0), regenerating), (weights, num_tokens - regenerating)]
    return config.Recipe(
        name=f"reader of {encoder} for {model}",
        data=config.DataConfig(tokenizer=config.PretrainedTokenizer(name=encoder)),
        model=_model(model, encoder, lora_rank, source, ratios, window),
        stages=_stages(parts, batch_rows * window.predicted_tokens, seed),
    )


def _model(
    model: str,
    encoder: str,
    lora_rank: int,
    source: Literal["text", "states", "vector"],
    ratios: tuple[int, ...],
    window: config.ReadingWindow,
) -> config.MemoryReaderConfig:
    """A reader of this encoder's memories, on what its chunks have room for."""
    autoencoder = config_of(encoder)
    shape, lora = autoencoder.shape, config.LoraConfig(rank=lora_rank, alpha=2 * lora_rank) if lora_rank else None
    return config.MemoryReaderConfig(
        encoder=encoder,
        shape=shape,
        decoder=config.PretrainedDecoder(name=model, lora=lora),
        source=source,
        state_dim=autoencoder.decoder.dim,
        ratios=ratios,
        window=replace(
            window,
            regenerated_tokens=min(window.regenerated_tokens, shape.chunk_len),
            facts_fraction=window.facts_fraction if shape.chunk_len >= _ROOM_FOR_FACTS else 0.0,
            unread_fraction=window.unread_fraction if lora else 0.0,  # without LoRA it stays itself
        ),
    )


def _stages(parts: list[tuple[config.Weights, int]], batch_tokens: int, seed: int) -> tuple[config.Stage, ...]:
    """A stage for these weights and numbers of tokens, each that has any."""
    return tuple(
        config.Stage(weights=weights, training=_training(num_tokens, batch_tokens, seed))
        for weights, num_tokens in parts
        if num_tokens
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
    (`last`), the one that sees all of the past as tokens (`full`), and the paper's way to read (`paper`)."""
    training = replace(recipe.stages[-1].training, num_tokens=recipe.num_tokens)
    stage = config.Stage(weights=config.Weights(causal=1.0), training=training)
    # Without adapters, these are the language model as it is.
    texts = {"last": (), "full": (config.AS_TOKENS,)} if recipe.model.decoder.lora else {}
    as_text = {
        name: replace(
            recipe,
            name=f"{name} of {recipe.name}",
            model=replace(
                recipe.model, ratios=ratios, source="text", window=replace(recipe.model.window, begin_with=None)
            ),
            stages=(stage,),
        )
        for name, ratios in texts.items()
    }
    return {**as_text, "paper": _as_paper(recipe)}


def _as_paper(recipe: config.MemoryReaderRecipe) -> config.MemoryReaderRecipe:
    """One linear map of a bare vector, one position each, of 4 chunks; half of the tokens to copy, half for both."""
    copying = recipe.num_tokens // 2
    window = replace(
        recipe.model.window, max_memories=4, expanded_fraction=0.0, chat_fraction=0.0, begin_with=None, teacher=None
    )
    training = replace(recipe.stages[-1].training, num_tokens=copying)
    both = replace(training, num_tokens=recipe.num_tokens - copying)
    return replace(
        recipe,
        name=f"paper's {recipe.name}",
        model=replace(recipe.model, source="vector", hidden_dim=0, ratios=(config.PER_MEMORY,), window=window),
        stages=(
            config.Stage(weights=config.Weights(retention=1.0), training=training),
            config.Stage(weights=config.Weights(causal=1.0, retention=1.0), training=both),
        ),
    )

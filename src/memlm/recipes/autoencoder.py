"""Our autoencoder: positional projection, bidirectional masked mixers, Muon, growth."""

from dataclasses import replace
from typing import Annotated

import tyro

from memlm import config
from memlm.recipes.scale import DEFAULT_SCALE, Scale, muon_training

TUNED_FRACTION = 0.25
"""Share of the budget that is spent on chunks of full length."""
TUNED_LEARNING_RATE = 0.15
"""Of the grown model, in units of the short chunks': more undoes what it has grown from."""


def autoencoder(
    scale: Annotated[Scale, tyro.conf.arg(name="")] = DEFAULT_SCALE, *, grown_from: int = 16
) -> config.AutoencoderRecipe:
    """A chunk of text in one vector: ours.

    Three quarters of the token budget go to chunks of `grown_from` tokens, the rest to the model grown from them
    (`models.growth`); 0 trains on full chunks from the start.

    Claim: 64 tokens in 256 dimensions, held-out token accuracy ≥ 0.998 after 1 M tokens; half a minute on one core.
    """
    if grown_from < 0:
        raise ValueError(f"grown_from must be a chunk length, or 0 for no growth, not {grown_from}")
    stack = config.StackConfig(dim=scale.dim, mixer=config.MaskedMixer(num_heads=8))
    return config.Recipe(
        name=f"autoencoder {scale.chunk_len} → {scale.memory_dim}",
        data=config.DataConfig(tokenizer=config.BpeTokenizer(vocab_size=scale.vocab_size)),
        model=config.AutoencoderConfig(
            shape=config.MemoryShape(
                vocab_size=scale.vocab_size, chunk_len=scale.chunk_len, memory_dim=scale.memory_dim, end_token=True
            ),
            encoder=replace(stack, num_layers=scale.encoder_layers),
            pooling=config.Positional(token_dim=16),
            unpooling=config.Positional(token_dim=16),
            decoder=replace(stack, num_layers=scale.decoder_layers),
        ),
        stages=_stages(scale, grown_from),
    )


def _stages(scale: Scale, grown_from: int) -> tuple[config.Stage, ...]:
    weights, full_batch = config.Weights(retention=1.0), scale.batch_chunks * scale.chunk_len
    if not grown_from:
        return (config.Stage(weights=weights, training=_training(scale.num_tokens, full_batch, scale.seed)),)
    tuned = round(scale.num_tokens * TUNED_FRACTION)
    # Short chunks in small batches: steps are cheap there, and steps are what counts.
    short = _training(scale.num_tokens - tuned, 2 * scale.batch_chunks * grown_from, scale.seed)
    full = _training(tuned, full_batch, scale.seed, TUNED_LEARNING_RATE)
    return (
        config.Stage(weights=weights, chunk_len=grown_from, training=short),
        config.Stage(weights=weights, training=full),
    )


def _training(num_tokens: int, batch_tokens: int, seed: int, rate: float = 1.0) -> config.TrainingConfig:
    return muon_training(
        num_tokens,
        batch_tokens,
        seed,
        rates=(0.05 * rate, 1e-2 * rate),
        warmup_tokens=10 * batch_tokens,
        short_fraction=0.3,
        eval_tokens=max(batch_tokens, num_tokens // 20),
        checkpoint_tokens=max(batch_tokens, num_tokens // 5),
    )

"""Our autoencoder: positional projection, bidirectional masked mixers, Muon."""

from dataclasses import replace

from memlm.config import (
    AdamW,
    AutoencoderConfig,
    BpeTokenizer,
    Corpus,
    DataConfig,
    GrowthStage,
    MaskedMixer,
    MemoryShape,
    Muon,
    NamedCorpus,
    Positional,
    RecipeConfig,
    StackConfig,
    TrainingConfig,
)


def autoencoder(
    *,
    chunk_len: int = 64,
    memory_dim: int = 256,
    dim: int = 128,
    encoder_layers: int = 1,
    decoder_layers: int = 2,
    token_dim: int = 16,
    vocab_size: int = 1024,
    num_tokens: int = 2_000_000,
    batch_chunks: int = 32,
    grown_from: int | None = 16,
    corpus: Corpus | None = None,
    seed: int = 0,
) -> RecipeConfig:
    """A chunk in one vector, scaled by a few knobs; `reference.reference` takes the same ones.

    `num_tokens` is the whole budget. With `grown_from`, three quarters of it are spent on chunks of that many tokens,
    the rest on the model grown from them.
    """
    stack = StackConfig(dim=dim, mixer=MaskedMixer(num_heads=8))
    growth: tuple[GrowthStage, ...] = ()
    training = _training(num_tokens, batch_chunks * chunk_len, seed=seed)
    if grown_from:
        tuning = num_tokens // 4
        # Short chunks in small batches: steps are cheap, and steps are what counts.
        short = _training(num_tokens - tuning, 2 * batch_chunks * grown_from, seed=seed)
        growth = (GrowthStage(chunk_len=grown_from, training=short),)
        training = _training(tuning, batch_chunks * chunk_len, seed=seed, learning_rate_scale=0.15)
    return RecipeConfig(
        name=f"autoencoder {chunk_len} → {memory_dim}",
        data=DataConfig(corpus=corpus or NamedCorpus(), tokenizer=BpeTokenizer(vocab_size=vocab_size)),
        model=AutoencoderConfig(
            shape=MemoryShape(vocab_size=vocab_size, chunk_len=chunk_len, memory_dim=memory_dim),
            encoder=replace(stack, num_layers=encoder_layers),
            pooling=Positional(token_dim=token_dim),
            unpooling=Positional(token_dim=token_dim),
            decoder=replace(stack, num_layers=decoder_layers),
        ),
        training=training,
        growth=growth,
    )


def _training(num_tokens: int, batch_tokens: int, *, seed: int, learning_rate_scale: float = 1.0) -> TrainingConfig:
    return TrainingConfig(
        num_tokens=num_tokens,
        batch_tokens=batch_tokens,
        optimizer=Muon(learning_rate=0.05 * learning_rate_scale, adamw=AdamW(learning_rate=1e-2 * learning_rate_scale)),
        warmup_tokens=10 * batch_tokens,
        eval_tokens=max(batch_tokens, num_tokens // 20),
        checkpoint_tokens=max(batch_tokens, num_tokens // 5),
        seed=seed,
    )

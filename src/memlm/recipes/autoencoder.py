"""Our autoencoder: positional projection, bidirectional masked mixers, Muon."""

from dataclasses import replace

from memlm.config import (
    AdamW,
    AutoencoderConfig,
    BpeTokenizer,
    Corpus,
    DataConfig,
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
    token_dim: int = 32,
    vocab_size: int = 1024,
    num_tokens: int = 5_000_000,
    batch_tokens: int = 4096,
    corpus: Corpus | None = None,
    seed: int = 0,
) -> RecipeConfig:
    """A chunk in one vector, scaled by a few knobs; `reference.reference` takes the same ones."""
    stack = StackConfig(dim=dim, mixer=MaskedMixer(num_heads=8))
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
        training=TrainingConfig(
            num_tokens=num_tokens,
            batch_tokens=batch_tokens,
            optimizer=Muon(learning_rate=0.05, adamw=AdamW(learning_rate=1e-2)),
            warmup_tokens=10 * batch_tokens,
            eval_tokens=max(batch_tokens, num_tokens // 20),
            checkpoint_tokens=max(batch_tokens, num_tokens // 5),
            seed=seed,
        ),
    )

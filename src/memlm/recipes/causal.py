"""Causal language models, to be probed: what next-token training leaves in a hidden state."""

from dataclasses import replace
from typing import Literal

from memlm import config
from memlm.recipes.scale import muon_training


def causal(
    chunk_len: int = 64,
    dim: int = 256,
    num_layers: int = 2,
    mixer: Literal["attention", "masked_mixer", "recurrent_mixer", "mamba"] = "attention",
    vocab_size: int = 1024,
    num_tokens: int = 2_000_000,
    seed: int = 0,
) -> config.LanguageModelRecipe:
    """A causal language model, trained on the next token.

    Claim (paper, §3): its last token's state holds next to nothing of the 64 tokens it was made from, whatever the
    model's size and budget. Cost: 2 M tokens, about two minutes on one core.
    """
    mixers: dict[str, config.Mixer] = {
        "attention": config.Attention(num_heads=4),
        "masked_mixer": config.MaskedMixer(num_heads=8),
        "recurrent_mixer": config.RecurrentMixer(num_heads=8),
        "mamba": config.Mamba(),
    }
    stack = config.StackConfig(dim=dim, num_layers=num_layers, mixer=mixers[mixer], causal=True)
    training = _training(num_tokens, 32 * chunk_len, seed)
    return config.Recipe(
        name=f"causal {mixer} {dim}",
        data=config.DataConfig(tokenizer=config.BpeTokenizer(vocab_size=vocab_size)),
        model=config.LanguageModelConfig(vocab_size=vocab_size, chunk_len=chunk_len, stack=stack),
        stages=(config.Stage(weights=config.Weights(causal=1.0), training=training),),
    )


def retrieval(
    chunk_len: int = 64,
    dim: int = 256,
    num_layers: int = 2,
    mixer: Literal["attention", "masked_mixer", "recurrent_mixer", "mamba"] = "attention",
    vocab_size: int = 1024,
    num_tokens: int = 2_000_000,
    seed: int = 0,
) -> config.LanguageModelRecipe:
    """A causal language model that is trained, for the second half of its tokens, to tell which texts belong together.

    Claim (paper, §3): retrieval training adds next to nothing to what its last token's state holds of the text.
    Cost: as `causal`.
    """
    first = causal(chunk_len, dim, num_layers, mixer, vocab_size, num_tokens // 2, seed)
    # The batch's other texts are what each is told from: 64 of one and a half chunks.
    second = _training(num_tokens - num_tokens // 2, 96 * chunk_len, seed, rate=0.5)
    stage = config.Stage(weights=config.Weights(retrieval=1.0), training=second)
    return replace(first, name=f"retrieval {mixer} {dim}", stages=(*first.stages, stage))


def _training(num_tokens: int, batch_tokens: int, seed: int, rate: float = 1.0) -> config.TrainingConfig:
    return muon_training(num_tokens, batch_tokens, seed, rates=(0.02 * rate, 5e-3 * rate), momentum=0.95)

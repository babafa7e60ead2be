"""The paper's own autoencoder, as a baseline on the same data, tokens and seed."""

from dataclasses import replace
from typing import Annotated, Any, Literal

import tyro

from memlm import config
from memlm.recipes.autoencoder import autoencoder
from memlm.recipes.scale import DEFAULT_SCALE, Scale


def reference(
    scale: Annotated[Scale, tyro.conf.arg(name="")] = DEFAULT_SCALE,
    *,
    mixer: Literal["attention", "masked_mixer"] = "attention",
) -> config.AutoencoderRecipe:
    """The paper's autoencoder recipe, to compare with, on our scale.

    Causal stacks, last-token memory, sliding-window unrolling, AdamW at 2e-4 with 500 steps of warm-up and linear
    decay. `mixer` is a Llama-style transformer, or the masked mixer, which is the paper's stronger autoencoder. Both
    read learned positions too, without which a causal transformer cannot tell apart the places of one repeated vector.
    Not the paper's: layers that start silent, orthogonal mixers, norms without parameters, a memory of unit root mean
    square, batches of `batch_chunks`, and of course the size.

    Claim: under a fifth of the tokens, where ours has nearly all.
    """
    ours = autoencoder(scale, grown_from=0)
    blocks: dict[str, Any] = {"causal": True, "mixer": config.MaskedMixer(num_heads=4)}
    if mixer == "attention":
        # SwiGLU has three matrices where our MLP has two: 8/3 of the width keeps the parameters equal.
        blocks |= {"mixer": config.Attention(num_heads=4), "activation": "swiglu", "mlp_ratio": 8 / 3}
    batch_tokens = ours.stages[0].training.batch_tokens
    recipe = replace(
        ours,
        name=f"reference {mixer} {scale.chunk_len} → {scale.memory_dim}",
        model=replace(
            ours.model,
            shape=replace(ours.model.shape, end_token=False),
            encoder=replace(ours.model.encoder, **blocks),
            decoder=replace(ours.model.decoder, **blocks),
            pooling=config.LastToken(),
            unpooling=config.SlidingWindow(),
        ),
    )
    return recipe.with_training(
        optimizer=config.AdamW(learning_rate=2e-4),
        warmup_tokens=500 * batch_tokens,
        decay_fraction=1.0,
        short_fraction=0.02,
    )

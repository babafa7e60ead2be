"""The paper's own autoencoder, as a baseline on the same data, tokens and seed."""

from dataclasses import replace
from typing import Any, Literal

from memlm.config import (
    AdamW,
    Attention,
    LastToken,
    MaskedMixer,
    RecipeConfig,
    SlidingWindow,
)
from memlm.recipes.autoencoder import autoencoder


def reference(*, mixer: Literal["attention", "masked_mixer"] = "attention", **knobs: Any) -> RecipeConfig:
    """Causal stacks, last-token memory, sliding-window unrolling, AdamW at 2e-4, warm-up of 500 steps, linear decay.

    `mixer` is a Llama-style transformer, or the masked mixer, which is the paper's stronger autoencoder. The knobs
    are `autoencoder`'s; data, width, depth, budget and seed are the same. Both read learned positions, without which
    a causal transformer reading one repeated vector cannot tell positions apart.

    Claim (pilots): about a fifth of the tokens at 32 tokens in 256 dimensions after 2.3 M tokens.
    """
    ours = autoencoder(**knobs, grown_from=None)
    match mixer:
        case "attention":
            # SwiGLU has three matrices where our MLP has two: 8/3 of the width keeps the parameters equal.
            blocks: dict[str, Any] = {
                "mixer": Attention(num_heads=4),
                "activation": "swiglu",
                "mlp_ratio": 8 / 3,
                "causal": True,
            }
        case "masked_mixer":
            blocks = {"mixer": MaskedMixer(num_heads=4), "causal": True}
    shape = ours.model.shape
    return replace(
        ours,
        name=f"reference {mixer} {shape.chunk_len} → {shape.memory_dim}",
        model=replace(
            ours.model,
            encoder=replace(ours.model.encoder, **blocks),
            decoder=replace(ours.model.decoder, **blocks),
            pooling=LastToken(),
            unpooling=SlidingWindow(),
        ),
        training=replace(
            ours.training,
            optimizer=AdamW(learning_rate=2e-4),
            warmup_tokens=500 * ours.training.batch_tokens,
            decay_fraction=1.0,
        ),
    )

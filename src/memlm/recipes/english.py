"""The model that ships with memlm."""

from dataclasses import replace

from memlm.config import AutoencoderRecipe
from memlm.recipes.autoencoder import autoencoder
from memlm.recipes.scale import Scale


def english(seed: int = 0) -> AutoencoderRecipe:
    """The model that ships with memlm: 128 tokens (350 to 460 bytes of English prose) in one vector of 512 dimensions.

    A quarter of the training chunks are everyday text (words, names, dates, amounts, addresses, code, other alphabets),
    a quarter are scrambled, so that rare strings are held too, and memories are trained with a little noise, so that
    they may be stored in few bits.

    Claim: exact at every length from 1 to 128 tokens, for text of every kind: 0.995 of English prose, words, names,
    dates, addresses, code, German, French and digits, 0.97 of other alphabets and emoji (`memlm bench everyday`).
    Cost: 40 M tokens, about an hour on one core.
    """
    scale = Scale(chunk_len=128, memory_dim=512, decoder_layers=3, vocab_size=2048, num_tokens=40_000_000, seed=seed)
    recipe = autoencoder(scale)
    recipe = replace(
        recipe,
        name="english",
        data=replace(recipe.data, everyday_bytes=8_000_000),
        model=replace(recipe.model, memory_noise=0.03),
    )
    return recipe.with_training(everyday_fraction=0.25, scrambled_fraction=0.25, repeated_fraction=0.1)

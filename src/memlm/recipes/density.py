"""How many tokens fit into a dimension."""

from memlm.config import RecipeConfig
from memlm.recipes.autoencoder import autoencoder


def density(*, chunk_len: int, tokens_per_dim: float, num_tokens: int = 4_000_000, seed: int = 0) -> RecipeConfig:
    """One cell of the density table: `chunk_len` tokens in `chunk_len / tokens_per_dim` dimensions, one vector.

    Cost: two to five minutes on one core for each four million tokens.
    """
    memory_dim = round(chunk_len / tokens_per_dim)
    return autoencoder(chunk_len=chunk_len, memory_dim=memory_dim, decoder_layers=3, num_tokens=num_tokens, seed=seed)

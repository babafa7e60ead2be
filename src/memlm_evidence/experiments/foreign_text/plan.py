"""Which autoencoders to train, and on how much."""

from dataclasses import dataclass, replace

from memlm.config import Attention, AutoencoderRecipe
from memlm.recipes.autoencoder import autoencoder
from memlm.recipes.scale import Scale


@dataclass(frozen=True, kw_only=True)
class ForeignTextPlan:
    """What to train, and on how much; as it is, the standard preset's."""

    chunk_len: int = 64
    memory_dim: int = 256
    num_tokens: int = 750_000
    seed: int = 0

    @classmethod
    def quick(cls, seed: int) -> "ForeignTextPlan":
        """As small as the claims can be decided."""
        return cls(chunk_len=32, memory_dim=128, num_tokens=300_000, seed=seed)

    def recipe(self, mixer: str) -> AutoencoderRecipe:
        """Ours; or the same with attention, which nothing can be grown into."""
        scale = Scale(chunk_len=self.chunk_len, memory_dim=self.memory_dim, num_tokens=self.num_tokens, seed=self.seed)
        if mixer == "masked_mixer":
            return autoencoder(scale)
        whole = autoencoder(scale, grown_from=0)
        encoder, decoder = (replace(stack, mixer=Attention()) for stack in (whole.model.encoder, whole.model.decoder))
        return replace(whole, model=replace(whole.model, encoder=encoder, decoder=decoder))

    def folder(self, mixer: str) -> str:
        """Of the run; that of ours is the embeddings experiment's too."""
        name = "positional" if mixer == "masked_mixer" else mixer
        return f"autoencoder-{name}-seed-{self.seed}"

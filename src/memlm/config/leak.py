"""How much of the texts of a vector store its vectors give away: what is measured, and how hard the attack is."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from memlm.config.base import Config, require, require_positive
from memlm.config.probe import Degradation, Noise, Quantization


@dataclass(frozen=True, kw_only=True)
class LeakConfig(Config):
    """Lengths, ways to store a vector, and the budget."""

    chunk_lens: Annotated[tuple[int, ...], tyro.conf.arg(name="chunk-len")] = ()
    """Tokens of the texts; by default 8 to 128, as far as the encoder reads and the text has room."""
    bits: tuple[int, ...] = (8, 1)
    """Beside float32, vectors rounded to so many bits a dimension: 8 is int8, 1 is binary."""
    noise: tuple[float, ...] = (0.5, 1.0, 2.0)
    """And with noise of so many standard deviations of a dimension."""
    num_texts: int = 100
    """Texts of each length whose words are read off at once."""
    num_searched: int = 4
    """Of these, texts that are searched for, at each precision; 0 for none."""
    searched_lens: tuple[int, ...] = (8, 16, 32)
    """Lengths at which texts are searched for."""
    encodings: int = 4000
    """Texts that may be embedded in the search for one: more find more, and take longer."""
    num_passages: int = 2000
    """Passages among which Recall@10 is measured; 0 leaves it out."""
    passage_len: int = 32
    """Tokens of a passage, and of its query, with which it shares the half of them."""
    seed: int = 0
    """Of the texts, the noise and the search."""

    def __post_init__(self) -> None:
        require_positive(self, "encodings", "passage_len")
        require(self.num_texts > 1, f"num_texts must be at least 2, not {self.num_texts}")
        require(
            0 <= self.num_searched <= self.num_texts,
            f"num_searched must lie in [0, {self.num_texts}], the number of texts, not {self.num_searched}",
        )
        require(self.num_passages >= 0, f"num_passages must not be negative, not {self.num_passages}")
        for length in (*self.chunk_lens, *self.searched_lens):
            require(length > 0, f"a text has at least one token, not {length}")

    @property
    def precisions(self) -> list[Quantization | None]:
        """None, for the vectors as they are, then roundings."""
        return [None, *(Quantization(num_bits=bits) for bits in self.bits)]

    @property
    def degradations(self) -> list[Degradation | None]:
        """Every way to store a vector: precisions, then noise."""
        return [*self.precisions, *(Noise(std=std) for std in self.noise)]

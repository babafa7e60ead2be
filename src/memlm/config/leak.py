"""How much of the texts of a vector store its vectors give away: what is measured, and how hard the attack is."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from memlm.config.base import Config, require, require_positive
from memlm.config.probe import Degradation, Noise, Quantization


@dataclass(frozen=True, kw_only=True)
class LeakConfig(Config):
    """What `memlm leak` measures: lengths of text, ways to store a vector, and the budget of the attack."""

    chunk_lens: Annotated[tuple[int, ...], tyro.conf.arg(name="chunk-len")] = ()
    """Tokens per text; each length is measured. By default lengths from 8 to 128 that the encoder can read and the text
    is long enough for."""
    bits: tuple[int, ...] = (8, 1)
    """Beside float32, attack vectors rounded to this many bits per dimension: 8 is int8, 1 is binary."""
    noise: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Also attack vectors with Gaussian noise, given in standard deviations of each dimension."""
    num_texts: int = 100
    """Number of texts of each length. Words are read directly from all of their vectors."""
    num_searched: int = 4
    """Number of these texts that the search tries to recover, at each precision; 0 for none."""
    searched_lens: tuple[int, ...] = (8, 16, 32)
    """Lengths, in tokens, at which texts are searched for."""
    encodings: int = 4000
    """Budget of the search: the number of texts that may be embedded to find one text. More find more, and take
    longer."""
    num_passages: int = 2000
    """Number of passages among which Recall@10 is measured; 0 leaves it out."""
    passage_len: int = 32
    """Tokens per passage, and per query. A query shares half of its tokens with its passage."""
    seed: int = 0
    """Random seed for the texts, the noise and the search."""

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

"""A language model that has learned to read an encoder's embeddings, in the place of one that has not."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from memlm.config import PretrainedReader, ProbeConfig, ReadingConfig
from memlm.data.cache import default_cache
from memlm.data.tokenizer import Tokenizer
from memlm.models.language_reader import LanguageReader
from memlm.nn.mixers import Tokens
from memlm.nn.pooling import MemoryVectors
from memlm.probing.embed import Vectors
from memlm.probing.encoders import FrozenEncoder
from memlm.probing.inversion.language import Language
from memlm.probing.probe import EncoderProbe
from memlm.probing.specs import ReaderSpec
from memlm.probing.texts import ProbeTexts, documents_of
from memlm.runtime.cpu import precision_on

Prepare = Callable[[Vectors], tuple[MemoryVectors, Tokens]]
"""Embeddings as a reader gets them, and what is guessed of them."""


class ReadingLanguage(Language):
    """What is likely of texts whose embedding should be the target: beams write what it says, changes are proposed
    and judged by it."""

    given: tuple[MemoryVectors, Tokens]
    """Of the target."""
    num_pairs: int = 0
    """Texts, with their embeddings, that it was trained on."""

    @classmethod
    def trained(
        cls, encoder: FrozenEncoder, chunk_len: int, model: str, num_steps: int, *, cache: Path | None, quiet: bool
    ) -> Self:
        """On texts of so many tokens of the addresses, as `memlm probe --reader pretrained` does; kept, as there.

        Raises:
            ValueError: the encoder's embeddings are not of length 1, or it cannot read as many tokens.
        """
        view, text = encoder.resolve(encoder.default_view, chunk_len), torch.ones(1, chunk_len, dtype=torch.long)
        (vectors,) = encoder.embed(text, text > 0, [view])
        if abs(float(vectors.norm()) - 1) > 0.01:
            raise ValueError(
                f"the embeddings of {encoder.name} are not of length 1, as a reader would see them; search without one"
            )
        pretrained, reading = PretrainedReader(model=model), ReadingConfig(num_steps=num_steps)
        cfg = ProbeConfig(chunk_lens=(chunk_len,), readers=("pretrained",), pretrained=pretrained, reading=reading)
        texts = ProbeTexts(encoder.tokenizer, documents_of(None), reading.test_fraction)
        probe = EncoderProbe(encoder, texts, cfg, chunk_len, cache=cache or default_cache(), quiet=quiet)
        spec = ReaderSpec(view, pretrained, seed=0, degradation=None)
        reader = probe.language_reader(spec, pretrained)
        course = reader.course
        trained = cls(course.reader(reader.number), course.prepare, model, encoder.tokenizer)
        trained.num_pairs = len(course.train.tokens)
        return trained

    def __init__(self, reader: LanguageReader, prepare: Prepare, name: str, vocabulary: Tokenizer) -> None:
        super().__init__(reader.decoder.hf, name, vocabulary)
        self.reader, self.prepare = reader.eval(), prepare

    def of(self, target: Float[Tensor, " dim"]) -> Self:
        """The same, reading this embedding."""
        assert len(self.first)  # worked out once for all targets
        reading = copy.copy(self)
        memory, guess = self.prepare(target[None, None].numpy())
        reading.given = memory.to(self.device), guess.to(self.device)
        return reading

    @torch.no_grad()
    def following(
        self, tokens: Int[Tensor, "text token"], past: Any = None
    ) -> tuple[Float[Tensor, "text token lm_vocab"], Any]:
        """As of any language model, and of texts with this embedding; its soft prompt is in the first token's place."""
        tokens = tokens.to(self.device) if past is not None else tokens[:, 1:].to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=precision_on(self.device) == "bf16"):
            logits, past = self.reader.following(*self.given, tokens, past)
        return logits.float().log_softmax(-1).cpu(), past

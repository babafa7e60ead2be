"""Frozen encoders: any model, seen as chunks of tokens → embeddings. One more kind is a class, and a way to load it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from memlm import config
from memlm.config import AutoencoderConfig, LanguageModelConfig, MemoryModelConfig
from memlm.data.tokenizer import Tokenizer
from memlm.models.autoencoder import Encoder
from memlm.models.layered import LayeredModel, seeded
from memlm.models.load_pretrained import load_pretrained
from memlm.models.pretrained import PretrainedModel, SentenceModel
from memlm.nn.mixers import Hidden, Mask, Tokens
from memlm.nn.pooling import MemoryVectors, PositionalPooling, last_token, mean_token
from memlm.probing.results import View
from memlm.text.autoencoder import TextAutoencoder
from memlm.text.checkpoint_folder import boxed_models, config_class
from memlm.text.language_model import TextLanguageModel
from memlm.text.memory_model import TextMemoryModel

_RANDOM_CODE_SEED = 0
_RANDOM_CODE = config.Positional(token_dim=16)


class FrozenEncoder(ABC):
    """A model whose embeddings are read; it is never trained here."""

    name: str
    tokenizer: Tokenizer
    fingerprint: str
    """Changes with the weights, the tokenizer and the precision."""
    token_table: Float[Tensor, "vocab dim"]
    """The input embedding of every token."""
    default_view: View
    """The embedding that the model was made to give."""
    max_len: int
    """Longest text it reads, in tokens, special tokens not counted in."""

    @abstractmethod
    def resolve(self, view: View, chunk_len: int) -> View:
        """The view with its layer counted from 0.

        Raises:
            ValueError: the encoder has no such layer or pooling, or cannot read as many tokens.
        """

    @abstractmethod
    def embed(self, tokens: Tokens, mask: Mask, views: Sequence[View]) -> list[MemoryVectors]:
        """The embeddings [chunk slot dim] of chunks, one for each resolved view, in fp32."""

    @abstractmethod
    def untrained(self, seed: int) -> "FrozenEncoder":
        """The same architecture with fresh weights, as a control, on the same device."""

    def to(self, device: torch.device | str) -> Self:
        """Compute on this device from now on, wherever the tokens are; by default, an encoder stays where it is."""
        return self

    def next_token_nats(self, tokens: Tokens, mask: Mask) -> Float[Tensor, "chunk token"] | None:
        """What each token costs the encoder as a language model, as `PretrainedModel` says; None where it is none."""
        return None


class MemoryEncoder(FrozenEncoder):
    """A memlm encoder, of an autoencoder or a memory model; its one view is the memory."""

    def __init__(self, encoder: Encoder, tokenizer: Tokenizer, *, name: str) -> None:
        self.encoder, self.tokenizer, self.name = encoder.eval(), tokenizer, name
        self.fingerprint = encoder.fingerprint(tokenizer.fingerprint)
        self.token_table = encoder.embed.weight.detach()
        self.default_view, self.max_len = View(len(encoder.stack.blocks), "memory"), encoder.shape.chunk_len

    @classmethod
    def of(cls, model: TextAutoencoder | TextMemoryModel, *, name: str) -> Self:
        """Of a loaded model.

        Raises:
            ValueError: it has no encoder.
        """
        if model.model.encoder is None:
            raise ValueError(f"{name} has no encoder: it reads no memories")
        return cls(model.model.encoder, model.tokenizer, name=name)

    def resolve(self, view: View, chunk_len: int) -> View:
        """The memory, whatever layer is asked for; no other pooling, and no longer chunks than it was made for."""
        own = self.encoder.shape.chunk_len
        if view.pooling != "memory":
            raise ValueError(f"{self.name} makes memories: its only embedding is its memory, not {view.pooling!r}")
        if chunk_len > own:
            raise ValueError(
                f"{self.name} makes memories of at most {own} tokens, not {chunk_len}; take shorter chunks"
            )
        return self.default_view

    @torch.no_grad()
    def embed(self, tokens: Tokens, mask: Mask, views: Sequence[View]) -> list[MemoryVectors]:
        """Memories [chunk slot memory_dim]; chunks shorter than the model's are padded, as a text's last chunk is."""
        missing = self.encoder.shape.chunk_len - tokens.shape[1]
        device = next(self.encoder.parameters()).device
        memory = self.encoder(F.pad(tokens, (0, missing)).to(device), F.pad(mask, (0, missing)).to(device))
        return [memory] * len(views)

    def to(self, device: torch.device | str) -> Self:
        """As `FrozenEncoder`."""
        self.encoder.to(device)
        return self

    def untrained(self, seed: int) -> "MemoryEncoder":
        """The same architecture with fresh weights."""
        with seeded(seed):
            encoder = Encoder(*self.encoder.configs).to(next(self.encoder.parameters()).device)
        return MemoryEncoder(encoder, self.tokenizer, name=f"untrained {self.name}")


def _random_code(text: Hidden, mask: Mask) -> MemoryVectors:
    """A fixed random positional projection: what the architecture of our pooling gives without any training."""
    dim = text.shape[-1]
    shape = config.MemoryShape(vocab_size=1, chunk_len=mask.shape[1], memory_dim=dim)
    with seeded(_RANDOM_CODE_SEED):
        pooling = PositionalPooling(_RANDOM_CODE, shape, dim)
    return pooling.to(text.device)(text.float(), mask)


_POOLINGS: dict[str, Callable[[Hidden, Mask], Tensor]] = {
    "last": lambda text, mask: last_token(text, mask)[:, None],
    "second_to_last": lambda text, mask: last_token(text, mask[:, 1:])[:, None],
    "mean": lambda text, mask: mean_token(text.float(), mask)[:, None],
    "all": lambda text, mask: text * mask[..., None],
    "positional": _random_code,
}
"""From the states [chunk token dim] of the text's own tokens to an embedding [chunk slot dim]."""


class StateEncoder(FrozenEncoder):
    """A model with hidden states, of which a layer's are pooled; a sentence-transformers model has its own pooling."""

    def __init__(self, model: LayeredModel, tokenizer: Tokenizer, *, name: str) -> None:
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.fingerprint, self.token_table = model.fingerprint, model.token_table
        self._device = torch.device(self.token_table.device)
        self.sentence = model if isinstance(model, SentenceModel) else None
        self.max_len = self.sentence.max_sentence_len if self.sentence else model.max_len
        own = "sentence" if self.sentence else "last" if model.causal else "mean"
        self.default_view = View(model.num_layers, own)

    def resolve(self, view: View, chunk_len: int) -> View:
        """The view with its layer counted from 0; no text longer than the model's context."""
        last = self.model.num_layers
        if not -last - 1 <= view.layer <= last:
            raise ValueError(
                f"{self.name} has no layer {view.layer}: there are 0 to {last}, or -1 (the last) backwards"
            )
        if view.pooling == "memory":
            raise ValueError(f"{self.name} is no autoencoder and has no memory; choose last, mean or another pooling")
        if view.pooling == "sentence" and not self.sentence:
            raise ValueError(f"{self.name} is no sentence-transformers model; choose last, mean or another pooling")
        if chunk_len > self.max_len:
            raise ValueError(
                f"{self.name} reads at most {self.max_len} tokens, not chunks of {chunk_len}; take shorter ones"
            )
        if view.pooling == "second_to_last" and chunk_len < 2:
            raise ValueError("chunks of one token have no second to last")
        return view._replace(layer=last if view.pooling == "sentence" else view.layer % (last + 1))

    @torch.no_grad()
    def embed(self, tokens: Tokens, mask: Mask, views: Sequence[View]) -> list[MemoryVectors]:
        """Embeddings [chunk slot dim], all from one pass through the model."""
        layers = sorted({view.layer for view in views})
        tokens, mask = tokens.to(self._device), mask.to(self._device)
        states = self.model.states(self.model.embed_tokens(tokens), mask, layers)
        by_layer = dict(zip(layers, states, strict=True))
        return [self._pooled(by_layer[view.layer], tokens, mask, view.pooling).float() for view in views]

    def to(self, device: torch.device | str) -> Self:
        """As `FrozenEncoder`."""
        self.model.to(device)
        self._device = torch.device(device)
        return self

    def from_inputs(self, view: View) -> Callable[[Hidden], Float[Tensor, "chunk dim"]]:
        """A view of one slot as a differentiable function of a text's input embeddings [chunk token dim]."""

        def embed(embedded: Hidden) -> Float[Tensor, "chunk dim"]:
            mask = torch.ones(embedded.shape[:2], dtype=torch.bool, device=embedded.device)
            (states,) = self.model.states(embedded, mask, [view.layer])
            return self._pooled(states, mask.long(), mask, view.pooling)[:, 0].float()

        return embed

    def untrained(self, seed: int) -> "StateEncoder":
        """The same architecture with fresh weights."""
        return type(self)(self.model.untrained(seed), self.tokenizer, name=f"untrained {self.name}")

    def next_token_nats(self, tokens: Tokens, mask: Mask) -> Float[Tensor, "chunk token"] | None:
        """What each token costs a pretrained causal model; None of another."""
        if isinstance(self.model, PretrainedModel) and self.model.causal and self.model.head is not None:
            return self.model.next_token_nats(tokens.to(self._device), mask.to(self._device))
        return None

    def _pooled(self, states: Hidden, tokens: Tokens, mask: Mask, pooling: str) -> MemoryVectors:
        if pooling == "sentence" and self.sentence:
            return self.sentence.pooled(states, tokens, mask)[:, None]
        if pooling == "cls":
            return states[:, :1]
        return _POOLINGS[pooling](states[:, self.model.num_prefix : self.model.num_prefix + mask.shape[1]], mask)


def load_encoder(name_or_path: str | Path, *, precision: Literal["fp32", "bf16"] = "fp32") -> FrozenEncoder:
    """Any encoder: a memlm checkpoint (or `english`), a Hugging Face or sentence-transformers model, a GGUF file.

    Raises:
        ValueError: there is no such model, it is damaged, or it has no hidden states to read.
    """
    name, kind = str(name_or_path), config_class(name_or_path)
    if kind is None:
        pretrained, tokenizer = load_pretrained(
            name_or_path, precision=precision, others=boxed_models(AutoencoderConfig)
        )
        return StateEncoder(pretrained, tokenizer, name=name)
    if kind is LanguageModelConfig:
        model = TextLanguageModel.from_pretrained(name_or_path)
        return StateEncoder(model.model.eval(), model.tokenizer, name=name)
    text_model = (TextMemoryModel if kind is MemoryModelConfig else TextAutoencoder).from_pretrained(name_or_path)
    return MemoryEncoder.of(text_model, name=name)

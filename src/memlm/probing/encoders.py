"""Frozen encoders: any model, seen as chunks of tokens → embeddings."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from memlm import config
from memlm.config import StatePooling
from memlm.data.tokenizer import Tokenizer
from memlm.models.encoder import Encoder, Tokens, weights_fingerprint
from memlm.models.language_model import LanguageModel
from memlm.models.layered import LayeredModel
from memlm.models.load_pretrained import load_pretrained
from memlm.models.pretrained import PretrainedModel
from memlm.models.sentence import SentenceModel
from memlm.nn.mixers import Hidden, Mask
from memlm.nn.pooling import MemoryVectors, PositionalPooling, last_token, mean_token
from memlm.text.autoencoder import TextAutoencoder
from memlm.text.checkpoint_folder import kind_of
from memlm.text.language_model import TextLanguageModel
from memlm.text.memory_model import TextMemoryModel

_RANDOM_CODE_SEED = 0
_RANDOM_CODE = config.Positional(token_dim=16)


class View(NamedTuple):
    """Which of an encoder's embeddings is meant."""

    layer: int
    """From 0, the token embeddings; negative counts from the last, which is -1."""
    pooling: StatePooling | Literal["memory"]
    """`memory` is an autoencoder's own."""

    def __str__(self) -> str:
        return self.pooling if self.pooling in ("memory", "sentence") else f"layer {self.layer}, {self.pooling}"


class FrozenEncoder(ABC):
    """A model whose embeddings are read; it is never trained here."""

    name: str
    tokenizer: Tokenizer
    fingerprint: str
    """Changes with the weights, the tokenizer and the precision."""

    @property
    @abstractmethod
    def default_view(self) -> View:
        """The embedding that the model was made to give."""

    @property
    @abstractmethod
    def token_table(self) -> Float[Tensor, "vocab dim"]:
        """The input embedding of every token."""

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
        """The same architecture with fresh weights, as a control."""


class MemoryEncoder(FrozenEncoder):
    """A memlm encoder, of an autoencoder or a memory model; its one view is the memory."""

    def __init__(self, encoder: Encoder, tokenizer: Tokenizer, *, name: str) -> None:
        self.encoder, self.tokenizer, self.name = encoder.eval(), tokenizer, name
        self.fingerprint = encoder.fingerprint(tokenizer.fingerprint)

    @property
    def default_view(self) -> View:
        """The memory."""
        return View(len(self.encoder.stack.blocks), "memory")

    @property
    def token_table(self) -> Float[Tensor, "vocab dim"]:
        """The input embedding of every token."""
        return self.encoder.embed.weight.detach()

    def resolve(self, view: View, chunk_len: int) -> View:
        """The memory, whatever layer is asked for.

        Raises:
            ValueError: another pooling is asked for, or longer chunks than it was made for.
        """
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
        memory = self.encoder(F.pad(tokens, (0, missing)), F.pad(mask, (0, missing)))
        return [memory] * len(views)

    def untrained(self, seed: int) -> "MemoryEncoder":
        """The same architecture with fresh weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder = Encoder(*self.encoder.configs)
        return MemoryEncoder(encoder, self.tokenizer, name=f"untrained {self.name}")


class StateEncoder(FrozenEncoder):
    """A model with hidden states, of which a layer's are pooled."""

    def __init__(self, model: LayeredModel, tokenizer: Tokenizer, *, name: str, fingerprint: str) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.name, self.fingerprint = name, fingerprint

    @property
    def default_view(self) -> View:
        """The last layer's last token of a causal model, a sentence model's own embedding, else the mean."""
        if isinstance(self.model, SentenceModel):
            return View(self.model.num_layers, "sentence")
        return View(self.model.num_layers, "last" if self.model.causal else "mean")

    @property
    def token_table(self) -> Float[Tensor, "vocab dim"]:
        """The input embedding of every token."""
        return self.model.token_table

    def resolve(self, view: View, chunk_len: int) -> View:
        """The view with its layer counted from 0.

        Raises:
            ValueError: there is no such layer or pooling, or the text is longer than the model's context.
        """
        last = self.model.num_layers
        if not -last - 1 <= view.layer <= last:
            raise ValueError(
                f"{self.name} has no layer {view.layer}: there are 0 to {last}, or -1 (the last) backwards"
            )
        if view.pooling == "memory":
            raise ValueError(f"{self.name} is no autoencoder and has no memory; choose last, mean or another pooling")
        if view.pooling == "sentence" and not isinstance(self.model, SentenceModel):
            raise ValueError(f"{self.name} is no sentence-transformers model; choose last, mean or another pooling")
        longest = self.model.max_sentence_len if isinstance(self.model, SentenceModel) else self.model.max_len
        if chunk_len > longest:
            raise ValueError(
                f"{self.name} reads at most {longest} tokens, not chunks of {chunk_len}; take shorter ones"
            )
        if view.pooling == "second_to_last" and chunk_len < 2:
            raise ValueError("chunks of one token have no second to last")
        return view._replace(layer=last if view.pooling == "sentence" else view.layer % (last + 1))

    @torch.no_grad()
    def embed(self, tokens: Tokens, mask: Mask, views: Sequence[View]) -> list[MemoryVectors]:
        """Embeddings [chunk slot dim], all from one pass through the model."""
        layers = sorted({view.layer for view in views if view.pooling != "sentence"})
        states = self.model.states(self.model.embed_tokens(tokens), mask, layers) if layers else []
        by_layer = dict(zip(layers, states, strict=True))
        return [
            (
                self._sentence(tokens, mask)
                if view.pooling == "sentence"
                else self._pooled(by_layer[view.layer], mask, view.pooling)
            ).float()
            for view in views
        ]

    def from_inputs(self, view: View) -> Callable[[Hidden], Float[Tensor, "chunk dim"]]:
        """A view of one slot as a differentiable function of a text's input embeddings [chunk token dim]."""

        def embed(embedded: Hidden) -> Float[Tensor, "chunk dim"]:
            mask = torch.ones(embedded.shape[:2], dtype=torch.bool, device=embedded.device)
            (states,) = self.model.states(embedded, mask, [view.layer])
            return self._pooled(states, mask, view.pooling)[:, 0].float()

        return embed

    def untrained(self, seed: int) -> "StateEncoder":
        """The same architecture with fresh weights."""
        if isinstance(self.model, PretrainedModel):
            fresh = self.model.untrained(seed)
            return StateEncoder(fresh, self.tokenizer, name=f"untrained {self.name}", fingerprint=fresh.fingerprint)
        assert isinstance(self.model, LanguageModel)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = LanguageModel(self.model.config).eval()
        return StateEncoder(model, self.tokenizer, name=f"untrained {self.name}", fingerprint=_hash(model))

    def _sentence(self, tokens: Tokens, mask: Mask) -> MemoryVectors:
        assert isinstance(self.model, SentenceModel)
        return self.model.sentence_embedding(tokens, mask)[:, None]

    def _pooled(self, states: Hidden, mask: Mask, pooling: str) -> MemoryVectors:
        text = states[:, self.model.num_prefix : self.model.num_prefix + mask.shape[1]]
        match pooling:
            case "last":
                return last_token(text, mask)[:, None]
            case "second_to_last":
                return last_token(text, mask[:, 1:])[:, None]
            case "mean":
                return mean_token(text.float(), mask)[:, None]
            case "cls":
                return states[:, :1]
            case "all":
                return text * mask[..., None]
            case _:
                return self._random_code(mask.shape[1])(text.float(), mask)

    def _random_code(self, chunk_len: int) -> PositionalPooling:
        """A fixed random positional projection: what the architecture of our pooling gives without any training."""
        shape = config.MemoryShape(vocab_size=1, chunk_len=chunk_len, memory_dim=self.model.dim)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_RANDOM_CODE_SEED)
            return PositionalPooling(_RANDOM_CODE, shape, self.model.dim)


def load_encoder(name_or_path: str | Path, *, precision: Literal["fp32", "bf16"] = "fp32") -> FrozenEncoder:
    """Any encoder: a memlm checkpoint (or `english`), a Hugging Face or sentence-transformers model, a GGUF file.

    Raises:
        ValueError: there is no such model, it is damaged, or it has no hidden states to read.
    """
    name = str(name_or_path)
    kind = kind_of(name_or_path)
    if kind == "autoencoder":
        own = TextAutoencoder.from_pretrained(name_or_path)
        return MemoryEncoder(own.model.encoder, own.tokenizer, name=name)
    if kind == "memory_model":
        reads = TextMemoryModel.from_pretrained(name_or_path)
        if reads.model.encoder is None:
            raise ValueError(f"{name} has no encoder: it reads no memories")
        return MemoryEncoder(reads.model.encoder, reads.tokenizer, name=name)
    if kind == "language_model":
        model = TextLanguageModel.from_pretrained(name_or_path)
        return language_model_encoder(model.model, model.tokenizer, name=name)
    pretrained, tokenizer = load_pretrained(name_or_path, precision=precision)
    return StateEncoder(pretrained, tokenizer, name=pretrained.name, fingerprint=pretrained.fingerprint)


def language_model_encoder(model: LanguageModel, tokenizer: Tokenizer, *, name: str) -> StateEncoder:
    """One of our language models, as an encoder."""
    return StateEncoder(model.eval(), tokenizer, name=name, fingerprint=_hash(model))


def _hash(model: torch.nn.Module) -> str:
    return weights_fingerprint(model, repr(getattr(model, "config", "")))

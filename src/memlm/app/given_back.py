"""The same text, given back from each of several models' vectors."""

import time
from typing import Literal, NamedTuple

import torch

import memlm
from memlm.app.change import given_back
from memlm.app.curve import measured
from memlm.app.explorer import Explorer
from memlm.config import AutoencoderConfig, ReadingConfig
from memlm.data.cache import default_cache
from memlm.probing.encoders import FrozenEncoder, load_encoder
from memlm.probing.inversion.likeness import f1
from memlm.probing.small_reader import SmallReader
from memlm.text.autoencoder import TextAutoencoder
from memlm.text.checkpoint_folder import config_class

How = Literal["a small reader", "a search"]
WAYS: tuple[How, ...] = ("a small reader", "a search")
LENGTHS = (8, 16, 32)
"""Tokens that are read, of each model's own."""
QUICK = ReadingConfig(num_steps=400, max_chunks=4_000, test_chunks=200)
"""So that a reader of MiniLM learns in a minute or two on one core."""
_ENCODINGS = 20_000


class Card(NamedTuple):
    """What one model's vector gave back."""

    model: str
    vector: str
    """Which of its vectors."""
    how: str
    """How it was read."""
    original: str
    text: str
    right: float | None
    """Share of tokens that stand where they were; not known of a search, whose text has other tokens."""
    seconds: float
    recorded: bool = False

    @property
    def f1(self) -> float:
        """Of the words, wherever they stand."""
        return f1(self.text, self.original)


def recorded(num_tokens: int) -> tuple[str, list[Card]]:
    """The example that is shown first: a text, and what was given back of it when it was recorded."""
    example = measured()["examples"][str(num_tokens)]
    return example["text"], [Card(**card, recorded=True) for card in example["cards"]]


def read_back(explorer: Explorer, name: str, text: str, num_tokens: int, how: How) -> Card:
    """Read the first tokens of a text back from a model's vector.

    Raises:
        ValueError: there is no such model, or the text is too short; says what is wrong.
    """
    if name == explorer.name:
        return _of_memory(name, explorer.model, text, num_tokens)
    if config_class(name) is AutoencoderConfig:
        return _of_memory(name, memlm.load(name, device=explorer.device), text, num_tokens)
    encoder = load_encoder(name)
    return _searched(encoder, text, num_tokens) if how == "a search" else _read(encoder, text, num_tokens)


def _of_memory(name: str, model: TextAutoencoder, text: str, num_tokens: int) -> Card:
    begin, shape = time.monotonic(), model.config.shape
    ids = model.tokenizer.encode(text)[: min(num_tokens, shape.chunk_len)].tolist()
    _require(len(ids), num_tokens, name)
    back = given_back(model, model.encode_tokens([ids]), ids)
    vector = f"memory of {shape.num_slots * shape.memory_dim} dimensions"
    original, share = model.tokenizer.decode(ids), back.num_right / len(ids)
    return Card(name, vector, "its own decoder", original, back.text, share, time.monotonic() - begin)


def _read(encoder: FrozenEncoder, text: str, num_tokens: int) -> Card:
    _require(len(encoder.tokenizer.encode(text)), num_tokens, encoder.name)  # before a reader learns
    begin = time.monotonic()
    reader = SmallReader.learn(encoder, num_tokens, reading=QUICK)
    found = reader.read(text)
    vector, seconds = _named(encoder, reader.transform.shape[-1]), time.monotonic() - begin
    return Card(encoder.name, vector, "a small reader", found.original, found.given_back, found.token_accuracy, seconds)


def _searched(encoder: FrozenEncoder, text: str, num_tokens: int) -> Card:
    begin, ids = time.monotonic(), encoder.tokenizer.encode(text)[:num_tokens]
    _require(len(ids), num_tokens, encoder.name)
    tokens = torch.from_numpy(ids.astype("int64"))[None]
    view = encoder.resolve(encoder.default_view, num_tokens)
    (vector,) = encoder.embed(tokens, torch.ones_like(tokens, dtype=torch.bool), [view])
    (found,) = memlm.invert(
        vector[:, 0].cpu().numpy(),
        encoder,
        chunk_len=num_tokens,
        encodings=_ENCODINGS,
        cache=default_cache(),
        quiet=True,
    )
    how, original = f"a search, {found.encodings:,} encodings", encoder.tokenizer.decode(ids)
    seconds = time.monotonic() - begin
    return Card(encoder.name, _named(encoder, vector.shape[-1]), how, original, found.text, None, seconds)


def _require(found: int, wanted: int, name: str) -> None:
    if found < wanted:
        raise ValueError(f"the text has {found} tokens of {name}: give a longer one, or read fewer than {wanted}")


def _named(encoder: FrozenEncoder, dim: int) -> str:
    view = encoder.default_view.pooling
    what = {
        "sentence": "sentence embedding",
        "last": "last token’s state, last layer",
        "mean": "mean state, last layer",
    }
    return f"{what.get(view, view)}, {dim} dimensions"

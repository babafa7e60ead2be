"""The standard evaluation sets of autoencoders: held-out text, later years, and text of other kinds."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from memlm.data.texts import EVALUATION_TEXTS, evaluation_documents
from memlm.data.token_store import PreparedData, TokenSplit, tokenize_documents
from memlm.data.tokenizer import Tokenizer
from memlm.runtime.files import atomic_write
from memlm.runtime.results import Result, json_lines
from memlm.text.autoencoder import TextAutoencoder

HELD_OUT = "held_out"
RANDOM = "random_tokens"


def standard_sets(prepared: PreparedData, tokenizer: Tokenizer) -> Iterator[tuple[str, TokenSplit]]:
    """Held-out documents of the training corpus, and text of other kinds."""
    yield HELD_OUT, prepared.splits["test"]
    if "temporal" in prepared.splits:
        yield "temporal", prepared.splits["temporal"]
    yield from foreign_sets(tokenizer)


def foreign_texts(tokenizer: Tokenizer) -> Iterator[tuple[str, TokenSplit]]:
    """Text of other kinds than the default corpus: a novel, verse and source code."""
    for name in EVALUATION_TEXTS:
        yield name, tokenize_documents(tokenizer, evaluation_documents(name))


def foreign_sets(tokenizer: Tokenizer) -> Iterator[tuple[str, TokenSplit]]:
    """Text of other kinds than the default corpus, and uniformly random tokens."""
    yield from foreign_texts(tokenizer)
    yield RANDOM, uniform_tokens(tokenizer)


def uniform_tokens(
    tokenizer: Tokenizer, *, num_documents: int = 16, document_tokens: int = 1024, seed: int = 0
) -> TokenSplit:
    """Independent, uniformly random tokens, of ln V nats each.

    Their bytes are those of the decoded text, in which invalid UTF-8 has become U+FFFD.
    """
    shape = (num_documents, document_tokens)
    tokens = np.random.default_rng(seed).integers(tokenizer.vocab_size, size=shape)
    sizes = [len(tokenizer.decode(row).encode()) for row in tokens]
    return TokenSplit(
        tokens=tokens.astype(np.uint32).ravel(),
        document_starts=np.arange(num_documents + 1, dtype=np.int64) * document_tokens,
        document_bytes=np.array(sizes, dtype=np.int64),
        document_names=[f"random {number}" for number in range(num_documents)],
    )


def evaluate_sets(
    model: TextAutoencoder, sets: Iterator[tuple[str, TokenSplit]], *, quiet: bool = False
) -> list[Result]:
    """Evaluate on each set; one result each, named after it."""
    return [model.evaluate_split(split, name=name, quiet=quiet) for name, split in sets]


def evaluate_standard_sets(
    model: TextAutoencoder, prepared: PreparedData, folder: Path, *, quiet: bool = False
) -> list[Result]:
    """Evaluate on all of the above; results go to `results.jsonl` in the folder, too."""
    results = evaluate_sets(model, standard_sets(prepared, model.tokenizer), quiet=quiet)
    atomic_write(folder / "results.jsonl", json_lines(result.to_dict() for result in results))
    return results

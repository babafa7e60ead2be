"""Spans of one tokenizer's tokens are the same text in another's."""

import numpy as np
import pytest

from memlm.data.aligned import AlignedSplit
from memlm.data.documents import Document
from memlm.data.token_store import TokenSplit, tokenize_documents
from memlm.data.tokenizer import Tokenizer
from memlm.models.load_pretrained import tokenizer_of

CHUNK = 16
TEXTS = (
    "Call me Ishmael.  Some years ago -- never mind how long -- I thought I'd sail:\n\nthe watery part of the world!",
    "Äpfel für 3,50 €, naïve café… 漢字 and more words, unbelievably interconnected ones.",
    "x",
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS * 3, 280)


@pytest.fixture(scope="module")
def other() -> Tokenizer:
    return tokenizer_of("minilm")


@pytest.fixture(scope="module")
def aligned(tokenizer: Tokenizer, other: Tokenizer) -> AlignedSplit:
    split = tokenize_documents(tokenizer, [Document(str(i), text) for i, text in enumerate(TEXTS)])
    return AlignedSplit.of(split, tokenizer, other)


def spans(split: TokenSplit, length: int) -> tuple[np.ndarray, np.ndarray]:
    begin = np.arange(len(split.tokens))
    return begin, np.full(len(begin), length)


@pytest.mark.parametrize("length", [1, 3, 9])
def test_whole_words_are_what_the_other_tokenizer_makes_of_them(
    aligned: AlignedSplit, tokenizer: Tokenizer, other: Tokenizer, length: int
) -> None:
    own, others = aligned.read(*aligned.whole_words(*spans(aligned.split, length), CHUNK), CHUNK)
    alike = []
    for row in range(len(own.mask)):
        data = b"".join(tokenizer.token_bytes[token] for token in own.tokens[row][own.mask[row]])
        assert data
        text = data.decode(errors="replace")
        if own.mask[row].all():  # a word longer than a chunk is cut in it
            continue
        alike.append(others.tokens[row][others.mask[row]].tolist() == other.encode(text).tolist())
        assert all(alike), text
    assert len(alike) > 40


def test_what_begins_within_a_span_is_its(aligned: AlignedSplit) -> None:
    begin, length = spans(aligned.split, 4)
    own, others = aligned.read(begin, length, CHUNK)
    # Each of the other's tokens begins in one token of ours, and so in as many spans as that is in.
    ours = np.searchsorted(aligned.begins, aligned.other_begins, side="right") - 1
    covered = np.array([(own.mask.sum(1) > place - begin)[begin <= place].sum() for place in ours])
    assert covered.sum() == others.mask.sum()


def test_documents_do_not_run_into_each_other(aligned: AlignedSplit) -> None:
    own, others = aligned.read(*spans(aligned.split, CHUNK), CHUNK)
    last = own.document == len(TEXTS) - 1
    assert (own.mask[last].sum(1), others.mask[last].sum(1)) == (1, 1)


def test_tokens_that_spell_no_text_are_refused(other: Tokenizer) -> None:
    split = tokenize_documents(other, [Document("one", "Äpfel")])
    ids = Tokenizer.train(["漢"], 256)
    with pytest.raises(ValueError, match="byte-level"):
        AlignedSplit.of(
            TokenSplit(
                tokens=np.array([ids.encode("漢")[0]], np.uint16),
                document_starts=np.array([0, 1]),
                document_bytes=np.array([1]),
                document_names=["cut"],
            ),
            ids,
            other,
        )
    assert len(split.tokens)

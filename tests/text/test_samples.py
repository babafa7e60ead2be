"""Passages to look at."""

from memlm.data.documents import Document
from memlm.data.token_store import tokenize_documents
from memlm.text.autoencoder import TextAutoencoder
from memlm.text.samples import PASSAGE_CHUNKS, random_passages, regenerated

TEXT = "the memory of a chunk holds a vector, and the vector holds the text. " * 20


def test_passages_are_whole_stretches_of_one_document(trained: TextAutoencoder) -> None:
    split = tokenize_documents(trained.tokenizer, [Document("short", "a text"), Document("long", TEXT)])
    passages = list(random_passages(trained, split, num_passages=5))
    assert len(passages) == 5
    for passage in passages:
        assert passage["document"] == "long"
        original = "".join(piece[0] for piece in passage["pieces"])
        assert original in TEXT
        num_tokens = len(trained.tokenizer.encode(original))
        assert (PASSAGE_CHUNKS - 1) * trained.config.shape.chunk_len < num_tokens


def test_no_document_is_long_enough(trained: TextAutoencoder) -> None:
    split = tokenize_documents(trained.tokenizer, [Document("short", "a text")])
    assert list(random_passages(trained, split)) == []


def test_pieces_give_both_texts_back(trained: TextAutoencoder) -> None:
    [sample] = regenerated(trained, [TEXT])
    original, came_out = ("".join(side) for side in zip(*sample["pieces"], strict=True))
    assert original == TEXT
    assert came_out == trained.regenerate(trained.encode([TEXT]))[0]

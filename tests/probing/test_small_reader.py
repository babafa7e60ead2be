"""A small reader gives any text back, and is kept."""

from dataclasses import replace
from pathlib import Path

import pytest
from test_probe import LONGER, texts

from memlm import TextAutoencoder
from memlm.probing import probe as probe_module
from memlm.probing import small_reader
from memlm.probing.encoders import MemoryEncoder
from memlm.probing.small_reader import SmallReader
from memlm.probing.texts import documents_of


def test_it_reads_texts_that_it_has_not_seen_and_is_kept(
    trained: TextAutoencoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small_reader, "documents_of", lambda _: documents_of(texts()))
    reading = replace(LONGER, num_steps=80)
    encoder = MemoryEncoder.of(trained, name="ours")
    reader = SmallReader.learn(encoder, 16, reading=reading, cache=tmp_path)
    unseen = texts(20, seed=9)
    found = [reader.read(text) for text in unseen]
    assert all(text.startswith(each.original) for each, text in zip(found, unseen, strict=True))
    shares = [each.token_accuracy for each in found]
    assert sum(shares) / len(shares) > 0.3
    assert all((each.token_accuracy == 1) == (each.given_back == each.original) for each in found)
    # A token that did not occur where it learned may be chosen and met.
    assert reader.read("ZZZZ~~~~{{{{||||^^^^").token_accuracy < 1

    monkeypatch.setattr(probe_module, "train_reader", lambda *_, **__: pytest.fail("it has learned before"))
    again = SmallReader.learn(encoder, 16, reading=reading, cache=tmp_path)
    assert again.read(unseen[0]) == found[0]
    with pytest.raises(ValueError, match=r"has 3 tokens of ours.*give a longer text"):
        reader.read("ZZZ")

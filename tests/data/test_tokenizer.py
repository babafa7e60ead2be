import random
import time
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import example, given
from hypothesis import strategies as st

from memlm.data.texts import evaluation_documents
from memlm.data.tokenizer import Tokenizer

TEXTS = [document.text for document in evaluation_documents("novel")[:4]]
BPE = Tokenizer.train(TEXTS, 400)

unicode_text = st.text(st.characters(exclude_categories=["Cs"]))


@given(unicode_text)
@example("\0")
@example("\ufeffbyte order mark")
@example("windows\r\nlines\r")
@example("e\u0301 a\u200db \u202e")
@example("🏴\U000e0067\U000e007f\U0010ffff")
@example("<|endoftext|><s></s>[CLS]<pad>")
@example("   leading, trailing \t\n\n ")
def test_text_to_tokens_to_text_is_the_identity(text: str) -> None:
    assert BPE.decode(BPE.encode(text)) == text
    assert BPE.is_lossless(text)


@given(st.lists(unicode_text))
def test_a_batch_is_its_texts_one_by_one(texts: list[str]) -> None:
    for one, ids in zip(texts, BPE.encode_batch(texts), strict=True):
        np.testing.assert_array_equal(ids, BPE.encode(one))
        assert ids.dtype == np.int32
        assert np.all((ids >= 0) & (ids < BPE.vocab_size))


@given(st.lists(st.integers(0, 399)))
def test_any_ids_decode_to_text(ids: list[int]) -> None:
    BPE.decode(np.array(ids, dtype=np.int64)).encode("utf-8")


def test_invalid_bytes_decode_to_the_replacement_character() -> None:
    assert BPE.decode(BPE.encode("é")[:1]) in ("\ufffd", "é")
    assert BPE.decode(BPE.encode("🏴")[:1]) == "\ufffd"


@pytest.mark.parametrize(("text", "index"), [("\ud800", 0), ("ab\udfffc", 2)])
def test_lone_surrogates_are_refused_with_their_index(text: str, index: int) -> None:
    with pytest.raises(ValueError, match=f"U\\+D.* at index {index},"):
        BPE.encode_batch(["fine", text])


def test_training_gives_the_size_asked_for_and_repeats_exactly() -> None:
    again = Tokenizer.train(iter(TEXTS), 400)
    assert BPE.vocab_size == 400
    assert again.fingerprint == BPE.fingerprint
    assert Tokenizer.train(TEXTS, 401).fingerprint != BPE.fingerprint


def test_the_smallest_vocabulary_is_bytes() -> None:
    assert len(Tokenizer.train([], 256).encode("aé\0")) == 4


def test_too_little_text_is_refused_with_the_number_reached() -> None:
    with pytest.raises(ValueError, match="only 258 token types, not vocab_size 1024"):
        Tokenizer.train(["ababab ab"], 1024)


def test_errors_in_the_texts_reach_the_caller() -> None:
    def texts():
        yield "fine"
        raise ValueError("broken corpus")

    with pytest.raises(ValueError, match="broken corpus"):
        Tokenizer.train(texts(), 300)


def test_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    BPE.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert loaded.fingerprint == BPE.fingerprint
    np.testing.assert_array_equal(loaded.encode(TEXTS[0]), BPE.encode(TEXTS[0]))


@pytest.mark.parametrize("content", [None, "", "{}", "not json"])
def test_a_broken_folder_is_refused_by_name(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=f"{tmp_path}/tokenizer.json"):
        Tokenizer.load(tmp_path)


def test_a_pretrained_tokenizer_reads_special_tokens_as_text_and_cuts_nothing(tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    BPE.save(tmp_path)
    fast = PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "tokenizer.json"), eos_token="<|end|>", pad_token="<p>"
    )
    fast.backend_tokenizer.enable_truncation(3)
    fast.backend_tokenizer.enable_padding(length=9)
    folder = tmp_path / "pretrained"
    fast.save_pretrained(folder)

    loaded = Tokenizer.from_pretrained(str(folder))
    assert loaded.vocab_size == 402
    text = "the <|end|> of this<p> is not the end"
    np.testing.assert_array_equal(loaded.encode(text), BPE.encode(text))
    loaded.save(tmp_path)  # keeps reading special tokens as text after a round trip through the file
    np.testing.assert_array_equal(Tokenizer.load(tmp_path).encode(text), BPE.encode(text))


def test_an_unknown_pretrained_tokenizer_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no-such-folder"):
        Tokenizer.from_pretrained(str(tmp_path / "no-such-folder"))


def test_learning_from_text_without_spaces_takes_linear_time() -> None:
    dna = "".join(random.Random(0).choices("ACGT", k=200_000))
    begin = time.process_time()
    tokenizer = Tokenizer.train([dna], 300)
    assert time.process_time() - begin < 5  # it was minutes
    assert tokenizer.is_lossless(dna)


@pytest.mark.parametrize("bytes_are_tokens", [True, False])
def test_pieces_of_a_text_join_to_it_and_tokens_say_where_they_begin(bytes_are_tokens: bool) -> None:
    text = "the memory ünd 漢字\nof a vector"
    if bytes_are_tokens:
        tokenizer = Tokenizer.train([], 256)
    else:
        backend = tokenizers.Tokenizer(
            tokenizers.models.BPE({letter: number for number, letter in enumerate(sorted({*text, "▁"}))}, [])
        )
        backend.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
        backend.decoder = tokenizers.decoders.Metaspace()
        tokenizer = Tokenizer(backend)
    ids, begins = tokenizer.encode_placed(text)
    assert begins[0] == 0
    assert (np.diff(begins) >= 0).all()
    assert begins[-1] < len(text)
    pieces = [ids[start : start + 7].tolist() for start in range(0, len(ids), 7)]
    texts = tokenizer.decode_pieces(pieces)
    assert "".join(texts) == tokenizer.decode(ids.tolist())
    assert len(texts) == len(pieces)
    assert tokenizer.decode_pieces([]) == []

"""Whatever the encoder misses, text comes back byte for byte; and how much the vectors hold is said truthfully."""

import random
import uuid

import numpy as np
import pytest
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memlm import TextAutoencoder
from memlm.data.documents import split_bytes
from memlm.data.texts import evaluation_documents
from memlm.data.tokenizer import Tokenizer
from memlm.models.autoencoder import Autoencoder
from memlm.models.exact import ExactDecoder
from memlm.runtime.untrusted import inflated
from memlm.store.chunk import Coding, StoredChunk, deflated
from memlm.store.codec import Codec
from memlm.store.patches import PlacedPatches, patch_of, patched
from tiny import tiny_model

any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=200) | st.text(
    "the memory 👩‍👩‍👧漢ü\0\x1b\r\n", max_size=200
)
SENTENCES = "the memory holds one long text and the vector reads short chunk whole text. " * 6


def fidelity(kept: list[StoredChunk]) -> float:
    return 1 - sum(chunk.num_wrong for chunk in kept) / sum(chunk.num_tokens for chunk in kept)


@settings(max_examples=80, deadline=None)
@given(text=any_text, bits=st.sampled_from([32, 8, 4]), target=st.sampled_from([0.0, 0.9, 1.0]))
@pytest.mark.parametrize("which", ["trained", "untrained"])
def test_any_text_comes_back_byte_for_byte(
    which: str, text: str, bits: int, target: float, request: pytest.FixtureRequest
) -> None:
    codec = Codec(request.getfixturevalue(which), bits, target)
    kept = list(codec.write(text))
    read = codec.read(kept)
    assert b"".join(read) == text.encode()
    assert "".join(piece.decode() for piece in read) == text, "no chunk ends inside a character"
    assert [len(piece) for piece in read] == [chunk.num_bytes for chunk in kept]
    for chunk in kept:
        assert 0 <= chunk.num_wrong <= chunk.num_tokens
        assert chunk.vector is None or chunk.num_tokens <= 16


@settings(max_examples=30, deadline=None)
@given(text=any_text)
def test_chunks_read_alone_are_those_read_together(trained: TextAutoencoder, text: str) -> None:
    codec = Codec(trained)
    kept = list(codec.write(text))
    assert [codec.read([chunk])[0] for chunk in kept] == codec.read(kept)


def test_a_very_long_line_comes_back(trained: TextAutoencoder) -> None:
    codec, text = Codec(trained, target=0), "ünd漢" * 30_000
    assert b"".join(codec.read(list(codec.write(text)))) == text.encode()


def test_what_is_said_of_a_vector_is_what_it_gives_back(english: TextAutoencoder) -> None:
    text = evaluation_documents("novel")[0].text[:6000]  # a single piece, to the tokenizer
    codec = Codec(english, 4, target=0)
    kept = list(codec.write(text))
    tokens = iter(english.tokenizer.encode(text).tolist())
    with_vector = [chunk for chunk in kept if chunk.vector is not None]
    exact = ExactDecoder(english.model)
    states = exact.states(codec.about.memory(with_vector).vectors)
    predicted = iter(exact.ranked(states.flatten(0, 1)).best.view(states.shape[:2]).tolist())
    differ = 0  # one decoder rounds, the other does not: where none is sure, their tokens may differ
    for chunk, text, alone in zip(kept, codec.read(kept), codec.read_vectors(kept), strict=True):
        right = [next(tokens) for _ in range(chunk.num_tokens)]
        if chunk.vector is not None:
            wrong = sum(one != other for one, other in zip(right, next(predicted), strict=False))
            assert chunk.num_wrong == wrong
            differ += alone != text and wrong == 0
    assert differ <= 1
    assert 0 < sum(chunk.num_wrong == 0 for chunk in kept) < len(kept)


def test_the_longest_chunks_that_reach_the_target_are_taken(trained: TextAutoencoder) -> None:
    longest = list(Codec(trained, target=0).write(SENTENCES))
    assert {chunk.num_tokens for chunk in longest[:-1]} == {16}
    whole = list(Codec(trained, 4, target=1).write(SENTENCES))
    assert any(chunk.num_tokens < 16 for chunk in whole[:-1])
    assert all(chunk.num_tokens <= 8 or chunk.num_wrong == 0 for chunk in whole if chunk.vector is not None)


def test_what_a_vector_cannot_hold_is_raw_and_says_so(untrained: TextAutoencoder) -> None:
    kept = list(Codec(untrained, target=None).write(SENTENCES))
    raw = [chunk for chunk in kept if chunk.vector is None]
    assert sum(chunk.num_bytes for chunk in raw) > len(SENTENCES) / 2
    assert fidelity(kept) < 0.2
    assert fidelity(list(Codec(untrained).write(SENTENCES))) < 0.2
    assert all(chunk.num_wrong == chunk.num_tokens for chunk in raw)
    assert len(raw) < len(SENTENCES) / 40, "neighbours are kept together"


def test_what_a_model_cannot_expect_is_raw_together(trained: TextAutoencoder) -> None:
    line = "".join(random.Random(0).choices("the memory holds one long text", k=14))
    kept = list(Codec(trained, 1, target=None).write(line * 40))
    assert all(chunk.vector is None for chunk in kept)
    assert len(kept) < 40 / 4
    assert sum(len(chunk.payload) for chunk in kept) < len(line) * 40 / 4
    text = "".join(map(chr, random.Random(0).choices(range(32, 127), k=3000)))
    stored = Codec(trained, 1, target=None).write(text)
    assert sum(len(chunk.vector or b"") + len(chunk.payload) for chunk in stored) < 1.02 * len(text)


def test_tokens_that_lead_by_too_little_are_patched(english: TextAutoencoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memlm.store.codec.patches_of", lambda model: [PlacedPatches(model)])
    text = evaluation_documents("novel")[1].text[:400]
    whole = []
    for margin in (0.01, 18.0, 1e9):
        monkeypatch.setattr("memlm.store.patches._LEAST_MARGIN", margin)
        codec = Codec(english)
        whole.append(list(codec.write(text)))
        assert b"".join(codec.read(whole[-1])) == text.encode()
    sure, unsure, all_unsure = whole
    assert {chunk.coding for chunk in unsure} == {Coding.PLACED}
    assert not any(len(chunk.payload) > 8 for chunk in sure), "nothing but the text's checksum"
    assert any(len(chunk.payload) > 8 for chunk in unsure)
    assert not any(chunk.num_wrong for chunk in unsure if chunk.vector is not None), "they are right all the same"
    assert all(chunk.vector is None for chunk in all_unsure), "every token as a patch would be larger than the text"


def test_a_tokenizer_that_loses_something_leaves_the_text_raw(english: TextAutoencoder) -> None:
    backend = tokenizers.Tokenizer.from_str(english.tokenizer._backend.to_str())
    backend.normalizer = tokenizers.normalizers.Lowercase()
    lossy = TextAutoencoder(english.model, Tokenizer(backend), english.unconditional, {})
    codec = Codec(lossy)
    for text in ("The Memory " * 100, "the memory " * 100):
        kept = list(codec.write(text))
        assert b"".join(codec.read(kept)) == text.encode()
        assert all(chunk.vector is None for chunk in kept) == (text != text.lower())


def test_tokens_that_straddle_characters_are_not_cut(trained: TextAutoencoder) -> None:
    rng = random.Random(0)
    text = "".join(rng.choice([chr(0x4E00 + 64 * number) for number in range(128)]) for _ in range(4000))
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([text], trainer)
    straddling = TextAutoencoder(trained.model, Tokenizer(backend), trained.unconditional, {})
    kept = list(Codec(straddling).write(text))
    assert b"".join(Codec(straddling).read(kept)) == text.encode()
    assert all(chunk.vector is None for chunk in kept)


def test_nothing_is_kept_for_a_gradient(trained: TextAutoencoder) -> None:
    graded: list[bool] = []
    hook = trained.model.decoder.register_forward_hook(lambda *_: graded.append(torch.is_grad_enabled()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("memlm.store.codec.patches_of", lambda model: [PlacedPatches(model)])
        codec = Codec(trained)
        codec.read(list(codec.write(SENTENCES)))
    hook.remove()
    assert len(graded) >= 2
    assert not any(graded)


def test_lone_surrogates_and_tiny_chunks_are_refused(trained: TextAutoencoder) -> None:
    for target in (-0.1, 90, float("nan")):
        with pytest.raises(ValueError, match="target fidelity"):
            Codec(trained, target=target)
    with pytest.raises(ValueError, match="lone surrogate"):
        list(Codec(trained).write("a\ud800"))
    shape = tiny_model().shape
    tiny = Autoencoder(tiny_model(shape=type(shape)(vocab_size=300, chunk_len=2, memory_dim=32)))
    with pytest.raises(ValueError, match="at least 4"):
        Codec(TextAutoencoder(tiny, trained.tokenizer, trained.unconditional, {}))


def test_the_progress_is_that_of_the_bytes(trained: TextAutoencoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memlm.store.codec._SIDE_BY_SIDE", 3)
    heard: list[int] = []
    list(Codec(trained).write(SENTENCES, heard.append))
    assert sum(heard) == len(SENTENCES)
    assert len(heard) > 3


@given(st.lists(st.tuples(st.integers(0, 100_000), st.booleans()), max_size=600), st.binary())
@settings(deadline=None)
def test_patches_put_right_what_was_wrong(rows: list[tuple[int, bool]], data: bytes) -> None:
    tokens = np.array([token for token, _ in rows], np.int64)
    places = np.flatnonzero([wrong for _, wrong in rows])
    broken = tokens.copy()
    broken[places] += 1
    assert np.array_equal(patched(broken, patch_of(tokens, places)), tokens)
    assert inflated(deflated(data), len(data)) == data


@given(st.text(st.characters(exclude_categories=["Cs"])))
@settings(deadline=None)
def test_tokens_spell_the_text(trained: TextAutoencoder, text: str) -> None:
    table = trained.tokenizer.token_bytes
    assert b"".join(table[token] for token in trained.tokenizer.encode(text)) == text.encode()
    assert len(table) == trained.tokenizer.vocab_size


def test_english_holds_english_and_says_what_it_does_not_hold(english: TextAutoencoder) -> None:
    codec = Codec(english)
    rng = random.Random(0)
    novel = evaluation_documents("novel")[1].text
    chinese = "".join(chr(rng.randrange(0x4E00, 0x9FFF)) for _ in range(400))
    uuids = "\n".join(str(uuid.UUID(int=rng.getrandbits(128))) for _ in range(40))
    measured = {}
    for name, text in {"novel": novel, "chinese": chinese, "uuids": uuids}.items():
        kept = list(codec.write(text))
        assert b"".join(codec.read(kept)) == text.encode()
        measured[name] = fidelity(kept)
    assert measured["novel"] >= 0.99
    assert measured["chinese"] <= measured["novel"]
    assert measured["uuids"] <= measured["novel"]
    poor = Codec(codec.model, 4, target=0)
    kept = list(poor.write(chinese))
    assert fidelity(kept) < 0.99
    assert b"".join(poor.read(kept)) == chinese.encode()


def test_reading_does_not_depend_on_the_batch(trained: TextAutoencoder, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = Codec(trained)
    kept = list(codec.write(SENTENCES))
    monkeypatch.setattr("memlm.store.codec._SIDE_BY_SIDE", 1)
    assert b"".join(codec.read(kept)) == SENTENCES.encode()


def test_a_text_is_tokenized_in_pieces(trained: TextAutoencoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memlm.store.codec._PIECE_BYTES", 100)
    codec, text = Codec(trained), SENTENCES + "ünd漢" * 100
    heard: list[int] = []
    kept = list(codec.write(text, heard.append))
    assert b"".join(codec.read(kept)) == text.encode()
    assert sum(heard) == len(text.encode())
    ends = np.cumsum([chunk.num_bytes for chunk in kept])
    pieces = np.cumsum([len(piece) for piece in split_bytes([text.encode()], 100)])
    assert set(pieces) <= set(ends), "each is remembered for itself"


@settings(max_examples=30, deadline=None)
@given(text=any_text)
def test_whole_chunks_are_all_but_the_last(trained: TextAutoencoder, text: str) -> None:
    codec = Codec(trained)
    kept = list(codec.write(text, whole_chunks=True))
    begun = b"".join(codec.read(kept))
    assert text.encode().startswith(begun)
    assert bool(text) == (len(begun) < len(text.encode())), "the last chunk may become fuller"
    assert len(trained.tokenizer.encode(text.encode()[len(begun) :].decode())) <= 2 * codec.chunk_len

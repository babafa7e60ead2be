"""The exact decoder with kernels between its products gives the same bits as without."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from memlm import TextAutoencoder
from memlm.config import ContextConfig, MaskedMixer, MemoryShape, StackConfig
from memlm.data.texts import evaluation_documents
from memlm.models import decoded, exact, exact_fused
from memlm.models.autoencoder import Autoencoder
from memlm.models.exact import ExactDecoder
from memlm.models.exact_fused import FusedDecoder, guesser, load_kernels
from tiny import randomized, tiny_model

pytest.importorskip("numba")


@pytest.fixture(autouse=True)
def int8_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Right wherever torch has it, if not fast; and kernels from the first chunk on."""
    monkeypatch.setattr(exact, "has_int8", lambda device: device == "cpu")
    monkeypatch.setattr(exact_fused, "_WORTHWHILE", 0)


def all_of(decoder: ExactDecoder, memory: Tensor, before: Tensor | None = None) -> list[Tensor]:
    """Everything that it says of memories."""
    states = decoder.states(memory)
    ranked = decoder.ranked(states.flatten(0, 1), before)
    return [states, ranked.best, ranked.lead, ranked.ends(torch.arange(len(ranked.best)))]


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("with_end", [False, True])
def test_kernels_change_no_bit(english: TextAutoencoder, with_end: bool) -> None:
    memory = torch.randn(19, 1, 512, generator=torch.Generator().manual_seed(0))
    fused = FusedDecoder(english.model, with_end=with_end)
    assert fused.fuses
    found = all_of(fused, memory)
    assert_same(found, all_of(ExactDecoder(english.model, with_end=with_end), memory))
    assert found[-1].shape[1] == english.config.vocab_size + with_end


@settings(deadline=None, max_examples=30)
@given(
    size=st.integers(-24, 24),
    num_chunks=st.integers(1, 40),
    shape=st.sampled_from([(1, 32, 300), (8, 16, 302), (2, 30, 64)]),
    seed=st.integers(0, 99),
)
def test_of_whatever_size_numbers_are(size: int, num_chunks: int, shape: tuple[int, int, int], seed: int) -> None:
    heads, dim, vocab_size = shape
    stack = StackConfig(dim=dim, num_layers=2, mixer=MaskedMixer(num_heads=heads))
    cfg = tiny_model(
        shape=MemoryShape(vocab_size=vocab_size, chunk_len=11, memory_dim=24, end_token=True),
        encoder=stack,
        decoder=stack,
        context=ContextConfig(num_tokens=3, dim=16, inner=24),
    )
    torch.manual_seed(seed)
    model = randomized(Autoencoder(cfg))
    memory, before = torch.randn(num_chunks, 1, 24) * 10.0**size, torch.randint(vocab_size, (num_chunks * 11, 3))
    memory[0] *= seed % 2  # with and without a chunk of nothing but zeros
    fused = FusedDecoder(model, in_context=True)
    assert_same(all_of(fused, memory, before), all_of(ExactDecoder(model, in_context=True), memory, before))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 3e38])
@pytest.mark.parametrize("vocab_size", [64, 300])
def test_what_is_no_number_does_no_harm(bad: float, vocab_size: int) -> None:
    shape = MemoryShape(vocab_size=vocab_size, chunk_len=16, memory_dim=32, end_token=True)
    model = randomized(Autoencoder(tiny_model(shape=shape)))
    memory = torch.randn(40, 1, 32)
    expected = all_of(FusedDecoder(model), memory[1:])
    memory[0, 0, 3] = bad
    _, best, _, ends = found = all_of(FusedDecoder(model), memory)
    assert ((best >= 0) & (best < vocab_size)).all()
    assert ends.shape == (40 * 16, vocab_size)
    assert_same(
        [part.unflatten(0, (40, -1))[1:] if part.ndim < 3 else part[1:] for part in found][1:3],
        [part.unflatten(0, (39, -1)) for part in expected[1:3]],
    )


def test_each_thread_has_its_own_batches(english: TextAutoencoder) -> None:
    memory = torch.randn(70, 1, 512, generator=torch.Generator().manual_seed(0))
    threads, fused = torch.get_num_threads(), FusedDecoder(english.model)
    expected = fused.states(memory)
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            assert torch.equal(fused.states(memory), expected)
            assert torch.get_num_threads() == number
            parts = list(fused.batches(memory, lambda states, rows: (rows.start, len(states), torch.get_num_threads())))
            assert [start for start, *_ in parts] == [0, 16, 32, 48, 64]
            assert [length for _, length, _ in parts] == [16, 16, 16, 16, 6]
            assert {each for *_, each in parts} == {1}
    finally:
        torch.set_num_threads(threads)


def test_kernels_are_loaded_for_many_chunks_only(english: TextAutoencoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact_fused, "_WORTHWHILE", 40)
    load_kernels.cache_clear()
    decoder, memory = FusedDecoder(english.model), torch.randn(30, 1, 512)
    before = decoder.states(memory)
    assert not decoder.fuses
    assert torch.equal(decoder.states(memory), before)
    assert decoder.fuses, "60 chunks"
    assert FusedDecoder(english.model).fuses, "they are there"


@pytest.mark.parametrize("kept", [True, False])
def test_what_numba_kept_may_be_damaged(kept: bool, tmp_path: Path) -> None:
    """Or nothing can be kept: the kernels are compiled again."""
    used = "from memlm.models import exact_kernels as kernels; import numpy; rows = numpy.ones((2, 3), 'f4'); "
    used += "found = numpy.ones((2, 3), 'i1'); kernels.rounded(rows, numpy.float32(9), found, rows[:, 0].copy()); "
    used += "print(found.tolist())"
    cache = tmp_path / "cache"
    for _ in range(1 + kept):
        if not kept:
            cache.write_text("no folder")
        ran = subprocess.run(
            [sys.executable, "-c", used],
            env={**os.environ, "NUMBA_CACHE_DIR": str(cache)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert ran.stdout.strip() == "[[9, 9, 9], [9, 9, 9]]"
        for file in cache.rglob("*.nb*"):
            file.write_bytes(b"damaged")


def test_without_numba_or_int8_nothing_is_fused(english: TextAutoencoder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert guesser(english.model, 1000) is not None
    assert guesser(english.model, 3) is None, "not worth rounding weights for"
    with monkeypatch.context() as patched:
        patched.setattr(exact, "has_int8", lambda device: False)
        assert guesser(english.model, 1000) is None
        assert not FusedDecoder(english.model).fuses
    monkeypatch.setattr(exact_fused, "find_spec", lambda name: None)
    assert guesser(english.model, 1000) is None
    assert FusedDecoder(english.model).states(torch.randn(2, 1, 512)).isfinite().all()


@pytest.mark.parametrize("noise", [0.0, 0.03, 0.2])
def test_a_guess_in_whole_numbers_regenerates_the_same(
    english: TextAutoencoder, noise: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    novel = evaluation_documents("novel")[1].text
    short = [novel[start : start + start % 97] for start in range(0, 6_000, 101)]
    texts = [novel[:12_000], *short, "", "it was the 3rd of May\n", "ünd 漢字 →"]
    memory, random = english.encode(texts), torch.Generator().manual_seed(1)
    noisy = memory.vectors + noise * torch.randn(memory.vectors.shape, generator=random)
    memory = replace(memory, vectors=noisy)
    monkeypatch.setattr(exact_fused, "_GUESSED", len(memory.vectors))
    found = english.regenerate(memory)
    monkeypatch.setattr(exact_fused, "_GUESSED", len(memory.vectors) + 1)
    monkeypatch.setattr(decoded, "precision_on", lambda device: "fp32")
    usual = english.regenerate(memory)
    assert [*map(str, found)] == [*map(str, usual)]
    assert [(text.proven, text.unsure) for text in found] == [(text.proven, text.unsure) for text in usual]
    assert all(text.proven for text in found) == (noise == 0)

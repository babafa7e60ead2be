import errno
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from memlm import TextAutoencoder
from memlm.config import Attention, LanguageModelConfig, MemoryShape, Positional, StackConfig
from memlm.data.chunks import Chunks
from memlm.data.tokenizer import Tokenizer
from memlm.models.language_model import LanguageModel
from memlm.nn.pooling import PositionalPooling
from memlm.probing import embed
from memlm.probing.embed import embed_chunks
from memlm.probing.encoders import MemoryEncoder, StateEncoder
from memlm.probing.results import View
from tiny import randomized

VOCAB, LENGTH, DIM, LAYERS = 256, 6, 16, 2
BATCH = 4
LAST = View(LAYERS, "last")
VIEWS = [LAST, View(1, "mean"), View(0, "all"), View(LAYERS, "positional")]


class Counting(StateEncoder):
    """A state encoder that remembers what it was asked to embed, and can break down."""

    breaks_after: int | None = None

    def __init__(self, *about: Any, **names: Any) -> None:
        super().__init__(*about, **names)
        self.asked: list[Tensor] = []

    def embed(self, tokens: Tensor, mask: Tensor, views: Sequence[View]) -> list[Tensor]:
        if len(self.asked) == self.breaks_after:
            raise RuntimeError("the power is gone")
        self.asked.append(tokens)
        return super().embed(tokens, mask, views)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([], VOCAB)


@pytest.fixture
def make(tokenizer: Tokenizer) -> Callable[..., Counting]:
    def build(seed: int = 0, breaks_after: int | None = None) -> Counting:
        stack = StackConfig(dim=DIM, num_layers=LAYERS, mlp_ratio=2.0, mixer=Attention(num_heads=2), causal=True)
        model = randomized(LanguageModel(LanguageModelConfig(vocab_size=VOCAB, chunk_len=LENGTH, stack=stack)), seed)
        plain = StateEncoder(model.eval(), tokenizer, name=f"tiny {seed}")
        encoder = Counting(plain.model, plain.tokenizer, name=plain.name)
        encoder.breaks_after = breaks_after
        return encoder

    return build


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of four chunks."""
    monkeypatch.setattr(embed, "_BATCH_TOKENS", BATCH * LENGTH)


def chunks(num_chunks: int = 18, seed: int = 0) -> Chunks:
    """Chunks of all lengths, padded with token 0."""
    random = np.random.default_rng(seed)
    mask = np.arange(LENGTH) < (np.arange(num_chunks) % LENGTH + 1)[:, None]
    tokens = np.where(mask, random.integers(VOCAB, size=mask.shape), 0)
    return Chunks(tokens, mask, np.zeros(num_chunks, dtype=np.int64))


def states(encoder: StateEncoder, of: Chunks, layer: int) -> np.ndarray:
    tokens, mask = torch.from_numpy(of.tokens), torch.from_numpy(of.mask)
    (found,) = encoder.model.states(encoder.model.embed_tokens(tokens), mask, [layer])
    return found.detach().numpy()


# --- what is computed ---


def naive(encoder: StateEncoder, of: Chunks, view: View) -> np.ndarray:
    rows = []
    for row, mask in zip(states(encoder, of, view.layer), of.mask, strict=True):
        number = int(mask.sum())
        match view.pooling:
            case "last":
                rows.append(row[number - 1][None])
            case "second_to_last":
                rows.append(row[max(number - 2, 0)][None])
            case "mean":
                rows.append(np.mean([row[i] for i in range(number)], axis=0)[None])
            case "cls":
                rows.append(row[0][None])
            case "all":
                rows.append(np.concatenate([row[:number], np.zeros((LENGTH - number, DIM))]))
    return np.stack(rows)


@pytest.mark.parametrize("layer", range(LAYERS + 1))
@pytest.mark.parametrize("pooling", ["last", "second_to_last", "mean", "cls", "all"])
def test_poolings_are_the_naive_ones(pooling: str, layer: int, make: Callable[..., Counting], tmp_path: Path) -> None:
    encoder, view = make(), View(layer, pooling)
    (vectors,) = embed_chunks(encoder, [view], chunks(), cache=tmp_path, quiet=True)
    expected = naive(encoder, chunks(), view)
    assert vectors.dtype == np.float32
    assert vectors.shape == expected.shape == (18, LENGTH if pooling == "all" else 1, DIM)
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-5)


def test_the_random_code_is_a_fixed_projection_of_every_real_position(
    make: Callable[..., Counting], tmp_path: Path
) -> None:
    encoder, view = make(), View(1, "positional")
    torch.manual_seed(12345)  # of no consequence
    drawn = torch.rand(1)
    torch.manual_seed(12345)
    (vectors,) = embed_chunks(encoder, [view], chunks(), cache=tmp_path, quiet=True)
    assert torch.equal(torch.rand(1), drawn)
    torch.manual_seed(0)
    pooling = PositionalPooling(
        Positional(token_dim=16), MemoryShape(vocab_size=1, chunk_len=LENGTH, memory_dim=DIM), DIM
    )
    narrow, gather = pooling.narrow.weight.detach().numpy(), pooling.gather.weight.detach().numpy()
    narrowed = np.einsum("ctd,pd->ctp", states(encoder, chunks(), 1), narrow) * chunks().mask[..., None]
    expected = narrowed.reshape(18, -1) @ gather.T
    np.testing.assert_allclose(vectors[:, 0], expected, rtol=0, atol=1e-4)
    assert len(np.unique(expected.round(3), axis=0)) == 18


def test_several_views_in_one_pass_are_the_single_ones(make: Callable[..., Counting], tmp_path: Path) -> None:
    together = make()
    several = embed_chunks(together, VIEWS, chunks(), cache=tmp_path / "together", quiet=True)
    assert len(together.asked) == 5
    for view, vectors in zip(VIEWS, several, strict=True):
        (alone,) = embed_chunks(make(), [view], chunks(), cache=tmp_path / "alone", quiet=True)
        np.testing.assert_allclose(vectors, alone, rtol=0, atol=1e-6)


def test_an_autoencoders_embedding_is_its_memory(trained: TextAutoencoder, tmp_path: Path) -> None:
    encoder = MemoryEncoder(trained.model.encoder, trained.tokenizer, name="ours")
    tokens = np.random.default_rng(0).integers(300, size=(10, 16))
    whole = Chunks(tokens, np.ones_like(tokens, dtype=np.bool_), np.zeros(10, dtype=np.int64))
    (vectors,) = embed_chunks(encoder, [encoder.default_view], whole, cache=tmp_path, quiet=True)
    expected = trained.model(torch.from_numpy(tokens), torch.from_numpy(whole.mask)).memory
    np.testing.assert_allclose(vectors, expected.detach().numpy(), rtol=0, atol=1e-5)


# --- once ---


def test_everything_is_computed_once(make: Callable[..., Counting], tmp_path: Path) -> None:
    first, second = make(), make()
    made = embed_chunks(first, VIEWS, chunks(), cache=tmp_path, quiet=True)
    np.testing.assert_array_equal(np.concatenate([asked.numpy() for asked in first.asked]), chunks().tokens)
    again = embed_chunks(second, VIEWS, chunks(), cache=tmp_path, quiet=True)
    assert second.asked == []
    for one, other in zip(made, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not again[0].flags.writeable


@pytest.mark.parametrize("breaks_after", [0, 1, 3, 4])
def test_interrupted_and_run_again_it_ends_in_the_same_and_repeats_nothing(
    breaks_after: int, make: Callable[..., Counting], tmp_path: Path
) -> None:
    whole = embed_chunks(make(), VIEWS, chunks(), cache=tmp_path / "whole", quiet=True)
    with pytest.raises(RuntimeError, match="power"):
        embed_chunks(make(breaks_after=breaks_after), VIEWS, chunks(), cache=tmp_path / "cut", quiet=True)
    again = make()
    resumed = embed_chunks(again, VIEWS, chunks(), cache=tmp_path / "cut", quiet=True)
    rest = np.concatenate([asked.numpy() for asked in again.asked])
    np.testing.assert_array_equal(rest, chunks().tokens[breaks_after * BATCH :])
    for one, other in zip(resumed, whole, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_chunk_that_is_not_whole_is_computed_again_and_no_other(
    make: Callable[..., Counting], tmp_path: Path
) -> None:
    embed_chunks(make(), [LAST], chunks(), cache=tmp_path, quiet=True)
    (path,) = tmp_path.glob("*/*.npy")
    np.load(path, mmap_mode="r+")[7, 0, DIM // 2 :] = np.nan
    again = make()
    (vectors,) = embed_chunks(again, [LAST], chunks(), cache=tmp_path, quiet=True)
    assert [asked.tolist() for asked in again.asked] == [[chunks().tokens[7].tolist()]]
    np.testing.assert_allclose(vectors, naive(again, chunks(), LAST), rtol=0, atol=1e-5)


def test_a_view_that_is_new_leaves_the_old_ones_vectors(make: Callable[..., Counting], tmp_path: Path) -> None:
    (before,) = embed_chunks(make(), [LAST], chunks(), cache=tmp_path, quiet=True)
    kept = np.array(before)
    encoder = make()
    last, mean = embed_chunks(encoder, [LAST, View(1, "mean")], chunks(), cache=tmp_path, quiet=True)
    np.testing.assert_array_equal(last, kept)
    np.testing.assert_allclose(mean, naive(encoder, chunks(), View(1, "mean")), rtol=0, atol=1e-5)


def test_other_weights_views_and_chunks_have_entries_of_their_own(
    make: Callable[..., Counting], tmp_path: Path
) -> None:
    changed = chunks()
    changed.tokens[0, 0] += 1
    shorter = chunks()
    shorter.mask[-1, -1] = False
    cases = [
        (make(), LAST, chunks()),
        (make(seed=1), LAST, chunks()),
        (make().untrained(0), LAST, chunks()),
        (make().untrained(1), LAST, chunks()),
        (make(), View(1, "last"), chunks()),
        (make(), View(LAYERS, "mean"), chunks()),
        (make(), View(LAYERS, "cls"), chunks()),
        (make(), LAST, changed),
        (make(), LAST, shorter),
        (make(), LAST, chunks(seed=1)),
    ]
    made = []
    for number, (encoder, view, of) in enumerate(cases):
        (vectors,) = embed_chunks(encoder, [view], of, cache=tmp_path, quiet=True)
        np.testing.assert_allclose(vectors, naive(encoder, of, view), rtol=0, atol=1e-5)
        assert len(list(tmp_path.glob("*/*.npy"))) == number + 1
        made.append(np.array(vectors))
    assert all(not np.array_equal(made[0], other) for other in made[1:])
    assert make().fingerprint == make().fingerprint != make(seed=1).fingerprint


def test_the_cache_is_memlms_own_by_default(make: Callable[..., Counting], memlm_home: Path) -> None:
    embed_chunks(make(seed=77), [LAST], chunks(), quiet=True)
    again = make(seed=77)
    embed_chunks(again, [LAST], chunks(), quiet=True)
    assert again.asked == []
    assert any(memlm_home.rglob("embeddings/*/layer 2, last.npy"))


# --- damage ---


@pytest.mark.parametrize("size", [0, 60, 200])
def test_a_damaged_file_is_named(size: int, make: Callable[..., Counting], tmp_path: Path) -> None:
    embed_chunks(make(), [LAST], chunks(), cache=tmp_path, quiet=True)
    (path,) = tmp_path.glob("*/*.npy")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=f"{path} is damaged .*delete it"):
        embed_chunks(make(), [LAST], chunks(), cache=tmp_path, quiet=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_damaged_weights_are_refused_with_the_encoders_name(
    value: float, make: Callable[..., Counting], tmp_path: Path
) -> None:
    encoder = make()
    with torch.no_grad():
        encoder.model.embed.weight[int(chunks().tokens[9, 0])] = value
    with pytest.raises(ValueError, match=r"tiny 0 gives embeddings that are NaN or infinite \(layer 2, last\)"):
        embed_chunks(encoder, [LAST], chunks(), cache=tmp_path, quiet=True)


def test_a_full_disk_is_said_and_leaves_nothing_that_counts(
    make: Callable[..., Counting], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.posix_fallocate", full)
        with pytest.raises(OSError, match=r"could not write .*layer 2, last\.npy.*free some space"):
            embed_chunks(make(), [LAST], chunks(), cache=tmp_path, quiet=True)
    assert not list(tmp_path.rglob("*.npy"))
    encoder = make()
    (vectors,) = embed_chunks(encoder, [LAST], chunks(), cache=tmp_path, quiet=True)
    np.testing.assert_allclose(vectors, naive(encoder, chunks(), LAST), rtol=0, atol=1e-5)

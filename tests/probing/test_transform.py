import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from memlm.config import Degradation, Noise, Quantization
from memlm.probing.transform import Transform

DIM = 6
bits = st.integers(1, 16)
values = st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=50)


def skewed(num_chunks: int = 400, num_slots: int = 1, seed: int = 0) -> np.ndarray:
    """Correlated embeddings that have a thousand times the variance along some directions than along others."""
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).normal(size=(DIM, DIM)) * np.logspace(-1, 0.5, DIM)[:, None]
    return (random.normal(size=(num_chunks, num_slots, DIM)) @ mixing + 5 * np.arange(DIM)).astype(np.float32)


def covariance(read: Tensor) -> Tensor:
    return torch.cov(read.flatten(0, 1).T)


# --- quantization ---


def test_a_quantized_embedding_takes_no_more_values_than_its_bits_can_tell_apart() -> None:
    train = skewed()
    transform = Transform(train, Quantization(num_bits=1))
    read = transform(train).flatten(0, 1)
    # What is read is a linear map of signs, and a map that can be undone: as many distinct vectors as sign patterns.
    signs = torch.from_numpy(train).flatten(0, 1) > torch.from_numpy(train).flatten(0, 1).mean(0)
    assert len((read * 1e3).round().unique(dim=0)) == len(signs.unique(dim=0)) <= 2**DIM


# --- whitening ---


@pytest.mark.parametrize("num_slots", [1, 3])
@pytest.mark.parametrize("degradation", [None, Quantization(num_bits=3), Noise(std=0.5)], ids=str)
def test_what_is_read_of_the_training_embeddings_is_white(degradation: Degradation | None, num_slots: int) -> None:
    train = skewed(num_slots=num_slots)
    transform = Transform(train, degradation)
    read = transform(train)
    assert read.shape == train.shape
    assert read.dtype == torch.float32
    assert transform.shape == train.shape[1:]
    torch.testing.assert_close(covariance(read), torch.eye(DIM), rtol=0, atol=2e-3)
    if degradation is None:
        torch.testing.assert_close(read.mean(dim=(0, 1)), torch.zeros(DIM), rtol=0, atol=1e-3)


def test_whitening_can_be_undone_for_any_embeddings() -> None:
    transform, others = Transform(skewed()), skewed(50, seed=1)
    read = transform(others)
    restored = read.double() @ torch.linalg.inv(transform.whitening.double()) * transform.std + transform.mean
    np.testing.assert_allclose(restored.numpy(), others, rtol=0, atol=1e-3)


def test_what_is_white_already_is_left_nearly_as_it_is() -> None:
    white = np.random.default_rng(0).normal(size=(5000, 1, DIM)).astype(np.float32)
    torch.testing.assert_close(Transform(white)(white), torch.from_numpy(white), rtol=0, atol=0.3)


def test_scale_and_place_of_each_dimension_make_no_difference() -> None:
    train = np.random.default_rng(1).normal(size=(500, 1, DIM)).astype(np.float32)
    moved = (train * np.logspace(-2, 2, DIM) + 3).astype(np.float32)
    torch.testing.assert_close(Transform(moved)(moved), Transform(train)(train), rtol=0, atol=1e-2)


@pytest.mark.parametrize("num_chunks", [40, 60, 70])
def test_unseen_embeddings_are_on_the_scale_of_those_seen_however_few_these_are(num_chunks: int) -> None:
    embeddings = np.random.default_rng(3).normal(size=(num_chunks + 100, 1, 64)).astype(np.float32)
    transform = Transform(embeddings[:num_chunks])
    seen, unseen = (
        transform(embeddings[:num_chunks]).square().mean(),
        transform(embeddings[num_chunks:]).square().mean(),
    )
    assert unseen < 4 * seen


@pytest.mark.parametrize("value", [0.0, 3.1])
def test_embeddings_that_never_vary_are_read_as_finite(value: float) -> None:
    same = np.full((100, 1, DIM), value, dtype=np.float32)
    for degradation in (None, Quantization(num_bits=2), Noise(std=1.0)):
        assert torch.isfinite(Transform(same, degradation)(same)).all()
    partly = skewed()
    partly[..., 0] = value
    assert torch.isfinite(Transform(partly)(partly)).all()


def test_a_memory_mapped_file_is_read_and_left_alone(tmp_path) -> None:
    np.save(tmp_path / "vectors.npy", skewed())
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    torch.testing.assert_close(Transform(mapped)(mapped[3:5]), Transform(skewed())(skewed()[3:5]))
    assert np.array_equal(np.load(tmp_path / "vectors.npy"), skewed())


# --- noise ---


def test_noise_is_its_generators() -> None:
    train = skewed()
    transform = Transform(train, Noise(std=0.5))

    def read(seed: int | None) -> Tensor:
        return transform(train, None if seed is None else torch.Generator().manual_seed(seed))

    assert torch.equal(read(7), read(7))
    assert not torch.allclose(read(7), read(8), atol=0.1)
    assert torch.equal(read(None), read(None))  # on what is measured, always the same


@pytest.mark.parametrize("std", [0.1, 1.0, 3.0])
def test_noise_is_measured_in_each_dimensions_own_deviations(std: float) -> None:
    train = skewed(4000)
    transform = Transform(train, Noise(std=std))
    read = transform(train, torch.Generator().manual_seed(1))
    noisy = read.double() @ torch.linalg.inv(transform.whitening.double())
    noise = noisy - (torch.from_numpy(train).double() - transform.mean) / transform.std
    torch.testing.assert_close(noise.std(dim=(0, 1)), torch.full((DIM,), std, dtype=torch.float64), rtol=0.1, atol=0)


def test_without_noise_a_generator_changes_nothing() -> None:
    transform = Transform(skewed(), Quantization(num_bits=4))
    assert torch.equal(transform(skewed(), torch.Generator().manual_seed(5)), transform(skewed()))

"""The memory model's benchmarks, run small; and that what they compare is the same."""

import math
from typing import Any

import pytest
import torch

from memlm.config import (
    CrossAttention,
    DecoderConfig,
    Insertion,
    MaskedMixer,
    MemoryModelConfig,
    MemoryModelRecipe,
    MemoryShape,
    Positional,
    Prefix,
    StackConfig,
    Unpooled,
    Weights,
)
from memlm.models.batch import Batch
from memlm.models.memory_model import MemoryModel
from memlm.recipes.memory_model import memory_model
from memlm.training.objectives import combined
from memlm_evidence.benchmarks import memory_training, substitution
from memlm_evidence.benchmarks.memory_training import MemoryTraining, chunk_by_chunk, loss_difference
from memlm_evidence.benchmarks.substitution import Substitution
from tiny import randomized

VOCAB, LENGTH, CHUNKS = 50, 6, 4
WEIGHTS = Weights(causal=1.0, retention=0.5)
INSERTIONS: list[Insertion] = [
    Prefix(num_positions=2),
    Unpooled(num_positions=2, token_dim=8),
    CrossAttention(num_parts=2),
]

CHUNK_LEN, CONTEXTS = 8, (16, 64)
OVERLAP = 4
"""Of the default configuration."""


def model(insertion: Insertion, seed: int, max_memories: int) -> MemoryModel:
    cfg = MemoryModelConfig(
        shape=MemoryShape(vocab_size=VOCAB, chunk_len=LENGTH, memory_dim=24),
        encoder=StackConfig(dim=32, num_layers=1, mlp_ratio=2.0, mixer=MaskedMixer(num_heads=2)),
        pooling=Positional(token_dim=8),
        insertion=insertion,
        decoder=DecoderConfig(dim=32, num_layers=2, num_heads=2),
        max_memories=max_memories,
    )
    return randomized(MemoryModel(cfg), seed)


def windows(seed: int) -> Batch:
    tokens = torch.randint(VOCAB, (3, CHUNKS, LENGTH), generator=torch.Generator().manual_seed(seed))
    return Batch(tokens, torch.ones_like(tokens, dtype=torch.bool))


def gradients(model: MemoryModel, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("insertion", INSERTIONS, ids=lambda each: each.kind)
@pytest.mark.parametrize("max_memories", [2, CHUNKS - 1])
@pytest.mark.parametrize("seed", range(3))
def test_chunk_by_chunk_is_all_at_once(insertion: Insertion, max_memories: int, seed: int) -> None:
    both, batch = model(insertion, seed, max_memories), windows(seed)
    ours, theirs = combined(WEIGHTS), chunk_by_chunk(WEIGHTS)
    assert list(ours.terms.items()) == list(theirs.terms.items())
    expected, found = (objective.nats(both, batch) for objective in (ours, theirs))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
    assert loss_difference(both, batch, ours, theirs) < 1e-4
    one, other = gradients(both, expected.sum()), gradients(both, found.sum())
    assert one.keys() == other.keys()
    for name in one:
        assert (one[name] - other[name]).norm() <= 1e-3 * one[name].norm() + 1e-5, name


def test_a_document_that_ends_early_is_the_same_chunk_by_chunk() -> None:
    both, batch = model(Prefix(num_positions=2), 0, CHUNKS - 1), windows(0)
    mask = batch.mask.clone()
    mask[0, 1, 4:] = mask[0, 2:] = False
    ours, theirs = combined(WEIGHTS), chunk_by_chunk(WEIGHTS)
    assert loss_difference(both, batch._replace(mask=mask), ours, theirs) < 1e-4


def small_recipe() -> MemoryModelRecipe:
    return memory_model(chunk_len=8, memory_dim=32, window_chunks=3, dim=16, num_layers=1, vocab_size=256)


def test_training_steps_are_measured_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_training, "memory_model", small_recipe)
    monkeypatch.setattr(memory_training, "ROUNDS", 1)
    answer = MemoryTraining(window_chunks=(3, 6)).run()
    assert [row["window_chunks"] for row in answer["rows"]] == [3, 6]
    assert max(row["loss_difference"] for row in answer["rows"]) < 1e-4
    rates = answer["tokens_per_second"]
    assert answer["combined_step_ratio"] == pytest.approx(rates["ours"] / rates["chunk_by_chunk"])
    assert answer["recurrent_step_ratio"] == pytest.approx(rates["causal"] / rates["recurrent"])
    assert answer["encoder_decoder_step_ratio"] == pytest.approx(rates["causal"] / rates["encoder_decoder"])
    assert min(rates.values()) > 0
    assert all(row["combined_step_limit"] > row["combined_step_ratio"] for row in answer["rows"])
    assert answer["loss_difference"] < 1e-4
    assert answer["batch_tokens"] == 8 * 3 * 8
    assert answer["num_threads"] == answer["provenance"]["num_threads"]


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def substituted(request: pytest.FixtureRequest) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(substitution, "ROUNDS", 1)
        patch.setattr(substitution, "NEW_TOKENS", 2)
        # Several batches of the encoder.
        patch.setattr(substitution, "ENCODER_TOKENS", 3 * CHUNK_LEN)
        bench = Substitution(
            chunk_len=CHUNK_LEN, num_positions=2, dim=32, num_layers=2, contexts=CONTEXTS, precision=request.param
        )
        return dict(bench.run())


def test_memories_are_compared_with_tokens_at_every_length(substituted: dict[str, Any]) -> None:
    assert [row["context_tokens"] for row in substituted["rows"]] == list(CONTEXTS)
    for row in substituted["rows"]:
        ratios = {name: value for name, value in row.items() if "ratio" in name}
        assert set(ratios) == {
            "ttft_ratio_cold",
            "ttft_ratio_cached",
            "decode_ratio",
            "cache_bytes_ratio",
            "flops_ratio_cold",
            "flops_ratio_cached",
        }
        assert all(math.isfinite(ratio) and ratio > 0 for ratio in ratios.values())
        for measure in ("seconds", "decode_tokens_per_second", "cache_bytes", "flops"):
            assert set(row[measure]) == {"full", "cold", "cached"}
            assert min(row[measure].values()) > 0
        assert ratios["ttft_ratio_cold"] == row["seconds"]["full"] / row["seconds"]["cold"]
        assert row["flops"]["cached"] < row["flops"]["cold"]
    assert substituted["num_threads"] == substituted["provenance"]["num_threads"]


def test_a_cache_has_as_many_bytes_as_positions(substituted: dict[str, Any]) -> None:
    item = {"fp32": 4, "bf16": 2}[substituted["precision"]]
    for row in substituted["rows"]:
        tokens, chunks = row["context_tokens"], row["context_tokens"] // CHUNK_LEN
        assert row["position_limit"] == (tokens + 1) / (2 * chunks + OVERLAP)
        assert row["cache_bytes_ratio"] == row["position_limit"]
        assert row["cache_bytes"]["full"] == (tokens + 1) * 2 * 2 * 32 * item  # keys and values of two layers
        assert row["memory_bytes"] == chunks * substitution.MEMORY_DIM * 4


def test_operations_are_those_of_all_products(substituted: dict[str, Any]) -> None:
    dim, layers, inner = 32, 2, round(8 / 3 * 32)
    a_position = 2 * layers * (4 * dim**2 + 3 * dim * inner)
    head = 2 * dim * substitution.VOCAB_SIZE
    for row in substituted["rows"]:
        tokens, chunks = row["context_tokens"], row["context_tokens"] // CHUNK_LEN

        def attention(positions: int) -> int:
            return layers * 4 * dim * positions * (positions + 1) // 2

        unfolding = 2 * 2 * chunks * substitution.MEMORY_DIM * dim
        for name, positions, more in (("full", tokens + 1, 0), ("cached", 2 * chunks + OVERLAP, unfolding)):
            # Some versions of transformers make rotary angles by a product too, which is next to nothing.
            assert row["flops"][name] == pytest.approx(
                positions * a_position + attention(positions) + head + more, rel=1e-3
            )


def test_tokens_and_memories_are_read_as_the_model_reads_them() -> None:
    bench = Substitution(chunk_len=CHUNK_LEN, num_positions=2, dim=32, num_layers=2, contexts=(3 * CHUNK_LEN,))
    reads = randomized(MemoryModel(bench.model())).eval()
    with torch.no_grad():
        read = substitution.Past(reads, 3 * CHUNK_LEN)
        first = read.cached()
        assert read.cold().token.equal(first.token)
        present = torch.ones(1, 3, dtype=torch.bool)
        blank = torch.zeros(1, CHUNK_LEN, dtype=torch.long)
        logits = reads.predict(blank, read.memory, present)
        assert int(first.token) == int(logits[0, 0].argmax())


def test_a_context_is_a_whole_number_of_chunks() -> None:
    with pytest.raises(ValueError, match="a context of 20 tokens is not a whole number of chunks of 8"):
        Substitution(chunk_len=8, contexts=(16, 20)).run()

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from memlm.data.chunks import Chunks
from memlm.evaluation.information import random_logits_nats
from memlm.evaluation.metrics import Scores, quick_measures, regeneration_measures, score
from memlm.models.autoencoder import Regeneration

VOCAB, LENGTH = 11, 5


def random_chunks(seed: int = 0, num_documents: int = 6, num_chunks: int = 30) -> Chunks:
    rng = np.random.default_rng(seed)
    mask = np.arange(LENGTH) < rng.integers(1, LENGTH, size=num_chunks, endpoint=True)[:, None]
    tokens = np.where(mask, rng.integers(VOCAB, size=mask.shape), 0)
    document = np.sort(np.r_[np.arange(num_documents), rng.integers(num_documents, size=num_chunks - num_documents)])
    return Chunks(tokens, mask, document)


def random_scores(chunks: Chunks, seed: int = 1) -> tuple[Scores, np.ndarray]:
    """About half of the tokens right; and what they cost without a memory."""
    rng = np.random.default_rng(seed)
    shape = chunks.tokens.shape
    predicted = np.where(rng.random(shape) < 0.5, chunks.tokens, rng.integers(VOCAB, size=shape))
    predicted = np.where(chunks.mask, predicted, -1)
    return Scores(predicted, rng.exponential(1, shape), chunks), rng.exponential(2, shape)


def naive(scores: Scores, unconditional: np.ndarray, num_bytes: np.ndarray) -> dict[str, float]:
    """Every measure, one token at a time."""
    right = tokens = exact = 0
    nats = baseline = 0.0
    chunks = scores.chunks
    for i in range(len(chunks.tokens)):
        all_right = True
        for j in range(LENGTH):
            if chunks.mask[i, j]:
                tokens += 1
                nats += scores.nats[i, j]
                baseline += unconditional[i, j]
                right += scores.predicted[i, j] == chunks.tokens[i, j]
                all_right &= bool(scores.predicted[i, j] == chunks.tokens[i, j])
        exact += all_right
    baseline = min(baseline, tokens * math.log(VOCAB))
    retained = (baseline - nats) / math.log(2)
    return {
        "token_accuracy": right / tokens,
        "exact_match": exact / len(chunks.tokens),
        "nats_per_token": nats / tokens,
        "bits_per_byte": nats / math.log(2) / num_bytes.sum(),
        "unconditional_nats_per_token": baseline / tokens,
        "retained_bits_per_token": retained / tokens,
        "retained_fraction": retained / (baseline / math.log(2)),
        "entropy_ratio": 1 - nats / tokens / random_logits_nats(VOCAB),
        "bits_per_dim": retained / len(chunks.tokens) / 8,
        "num_chunks": len(chunks.tokens),
        "num_tokens": tokens,
        "num_documents": len(num_bytes),
        "resampled": "documents",
        "bytes_per_token": num_bytes.sum() / tokens,
    }


@pytest.mark.parametrize("seed", range(3))
def test_measures_are_their_naive_twins(seed: int) -> None:
    chunks = random_chunks(seed)
    scores, unconditional = random_scores(chunks, seed + 1)
    num_bytes = np.array([9, 20, 31, 4, 5, 16])
    found, intervals = regeneration_measures(scores, unconditional, num_bytes, vocab_size=VOCAB, memory_dims=8)
    by_position = found.pop("accuracy_by_position")
    assert found == pytest.approx(naive(scores, unconditional, num_bytes))
    assert quick_measures(scores) == pytest.approx({name: found[name] for name in quick_measures(scores)})
    for position, accuracy in enumerate(by_position):
        rows = chunks.mask[:, position]
        assert accuracy == pytest.approx((scores.predicted == chunks.tokens)[rows, position].mean())
    about = {"num_chunks", "num_tokens", "num_documents", "bytes_per_token", "resampled"}
    assert set(intervals) == set(found) - about
    for name, (low, high) in intervals.items():
        assert low < found[name] < high


def test_what_stands_at_the_padding_is_not_counted() -> None:
    chunks = random_chunks()
    scores, unconditional = random_scores(chunks)
    garbage = Scores(
        scores.predicted,
        np.where(chunks.mask, scores.nats, 1e6),
        chunks._replace(tokens=np.where(chunks.mask, chunks.tokens, 3)),
    )
    without = np.where(chunks.mask, unconditional, np.nan_to_num(np.inf))
    ask = {"document_bytes": np.ones(6), "vocab_size": VOCAB, "memory_dims": 8}
    assert regeneration_measures(garbage, without, **ask) == regeneration_measures(scores, unconditional, **ask)
    assert quick_measures(garbage) == quick_measures(scores)


def test_a_token_too_many_is_an_error_of_the_chunk_but_no_token_is_wrong() -> None:
    chunks = random_chunks()
    perfect = Scores(np.where(chunks.mask, chunks.tokens, -1), np.zeros(chunks.mask.shape), chunks)
    short = int(np.flatnonzero(~chunks.mask[:, -1])[0])
    perfect.predicted[short, -1] = 7
    found = quick_measures(perfect)
    assert found["token_accuracy"] == 1
    assert found["exact_match"] == pytest.approx(1 - 1 / len(chunks.mask))


def test_a_lone_documents_chunks_are_resampled_and_a_lone_chunk_has_no_intervals() -> None:
    chunks = random_chunks(num_documents=1)
    scores, unconditional = random_scores(chunks)
    found, intervals = regeneration_measures(scores, unconditional, np.array([100]), vocab_size=VOCAB, memory_dims=8)
    expected = naive(scores, unconditional, np.array([100])) | {"resampled": "chunks"}
    found.pop("accuracy_by_position")
    assert found == pytest.approx(expected)
    low, high = intervals["token_accuracy"]
    # The spread of a mean of 30 chunks, each its own, of about three tokens.
    assert 0.05 < high - low < 0.4
    assert low < found["token_accuracy"] < high
    one = Scores(scores.predicted[:1], scores.nats[:1], Chunks(*(part[:1] for part in chunks)))
    _, intervals = regeneration_measures(one, unconditional[:1], np.array([9]), vocab_size=VOCAB, memory_dims=8)
    assert intervals == {}


def test_a_position_no_token_stands_at_has_no_accuracy() -> None:
    chunks = random_chunks()
    chunks.mask[:, -1] = False
    found, _ = regeneration_measures(*random_scores(chunks), np.ones(6), vocab_size=VOCAB, memory_dims=8)
    assert found["accuracy_by_position"][-1] is None
    assert None not in found["accuracy_by_position"][:-1]


class Echo(nn.Module):
    """Says each chunk's tokens, all but the first position's, with `sureness` as their logit."""

    def __init__(self, sureness: float) -> None:
        super().__init__()
        self.sureness = sureness
        self.modes: list[bool] = []

    def forward(self, tokens: Tensor, mask: Tensor, memory: Tensor | None = None) -> Regeneration:
        self.modes.append(self.training)
        said = torch.cat([(tokens[:, :1] + 1) % VOCAB, tokens[:, 1:]], dim=1)
        return Regeneration(nn.functional.one_hot(said, VOCAB) * self.sureness, mask)


def test_scoring_takes_every_token_in_order_and_leaves_the_models_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "memlm.evaluation.metrics.batch_chunks", lambda *_: 7
    )  # 30 chunks are no whole number of batches
    chunks, model, heard = random_chunks(), Echo(3.0).train(), []
    scores = score(model, chunks, VOCAB, advance=heard.append)
    assert model.training
    assert not any(model.modes)
    assert (len(heard), sum(heard)) == (5, chunks.mask.sum())
    assert np.array_equal(scores.predicted[:, 1:], np.where(chunks.mask, chunks.tokens, -1)[:, 1:])
    sure = math.log(math.exp(3) + VOCAB - 1) - 3
    np.testing.assert_allclose(scores.nats[:, 1:], sure * chunks.mask[:, 1:], rtol=1e-5)
    np.testing.assert_allclose(scores.nats[:, 0], sure + 3, rtol=1e-5)
    quick = quick_measures(scores)
    assert quick["exact_match"] == 0
    assert quick["token_accuracy"] == pytest.approx(1 - len(chunks.tokens) / chunks.mask.sum())


def test_a_misled_baseline_earns_no_more_than_uniform_guessing() -> None:
    chunks = random_chunks()
    scores, _ = random_scores(chunks)
    perfect = scores._replace(predicted=np.where(chunks.mask, chunks.tokens, -1), nats=np.zeros_like(scores.nats))
    hopeless = np.full(chunks.tokens.shape, 50.0)
    num_bytes = np.full(chunks.document.max() + 1, 10)
    found, intervals = regeneration_measures(perfect, hopeless, num_bytes, vocab_size=VOCAB, memory_dims=8)
    assert found["retained_bits_per_token"] == pytest.approx(math.log2(VOCAB))
    assert intervals["retained_bits_per_token"] == pytest.approx((math.log2(VOCAB),) * 2)

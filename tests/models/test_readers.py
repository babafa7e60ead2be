import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from memlm.config import AutoregressiveReader, LinearReader, MemoryShape, ParallelReader, Reader, ReadingConfig
from memlm.data.chunks import Chunks
from memlm.models.readers import ReaderModule, build_reader
from memlm.nn.pooling import AlignedUnpooling, PositionalUnpooling
from memlm.probing.controls import constant, shuffled
from memlm.probing.texts import ProbeData, Splits
from memlm.probing.trained_reader import TrainedReader, train_reader
from tiny import randomized

VOCAB, LENGTH, DIMS, CODE = 20, 6, 12, 10
PARALLEL = ParallelReader(dim=32, num_layers=1, token_dim=8)
LINEAR = LinearReader(token_dim=8)
AUTOREGRESSIVE = AutoregressiveReader(dim=32, num_layers=2, num_prefix=3)
READERS = [PARALLEL, LINEAR, AUTOREGRESSIVE]

every_reader = pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.kind)
one_slot_or_many = pytest.mark.parametrize("num_slots", [1, 2, LENGTH])


def log_probs() -> Tensor:
    return torch.randn(VOCAB, generator=torch.Generator().manual_seed(3)).log_softmax(dim=0)


def fresh(reader: Reader, num_slots: int = 1) -> ReaderModule:
    torch.manual_seed(0)
    shape = MemoryShape(vocab_size=VOCAB, chunk_len=LENGTH, memory_dim=DIMS, num_slots=num_slots)
    return build_reader(reader, shape, torch.randn(VOCAB, CODE), log_probs())


def trained_somehow(reader: Reader, num_slots: int = 1) -> ReaderModule:
    return randomized(fresh(reader, num_slots)).eval()


def draw(num_chunks: int = 7, num_slots: int = 1, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, a whole mask, and memories."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(VOCAB, (num_chunks, LENGTH), generator=generator)
    memory = torch.randn(num_chunks, num_slots, DIMS, generator=generator)
    return tokens, torch.ones_like(tokens, dtype=torch.bool), memory


@every_reader
@one_slot_or_many
def test_a_fresh_reader_is_the_unconditional_one(reader: Reader, num_slots: int) -> None:
    logits, memory, _ = fresh(reader, num_slots)(*draw(num_slots=num_slots))
    assert torch.equal(logits, log_probs().expand_as(logits))
    assert torch.equal(memory, draw(num_slots=num_slots)[2])


@pytest.mark.parametrize("reader", [PARALLEL, LINEAR], ids=lambda reader: reader.kind)
@one_slot_or_many
def test_parallel_and_linear_readers_see_the_memory_and_no_token(reader: Reader, num_slots: int) -> None:
    module = trained_somehow(reader, num_slots)
    tokens, mask, memory = draw(num_slots=num_slots)
    logits = module(tokens, mask, memory).logits
    assert torch.equal(module(draw(seed=1)[0], mask, memory).logits, logits)
    other = module(tokens, mask, draw(num_slots=num_slots, seed=1)[2]).logits
    assert (other - logits).abs().amax(dim=-1).min() > 1e-3


@every_reader
def test_a_chunk_is_read_from_its_own_memory(reader: Reader) -> None:
    module = trained_somehow(reader)
    tokens, mask, memory = draw()
    memory.requires_grad_()
    (gradient,) = torch.autograd.grad(module(tokens, mask, memory).logits[2].square().sum(), memory)
    assert gradient[2].abs().max() > 0
    assert torch.all(gradient[torch.arange(len(memory)) != 2] == 0)


def test_an_autoregressive_reader_knows_what_stands_before_a_token_and_nothing_after() -> None:
    module = trained_somehow(AUTOREGRESSIVE)
    tokens, mask, memory = draw()
    logits = module(tokens, mask, memory).logits
    assert logits.shape == (7, LENGTH, VOCAB)
    for place in range(LENGTH):
        changed = tokens.clone()
        changed[:, place] = (changed[:, place] + 1) % VOCAB
        other = module(changed, mask, memory).logits
        torch.testing.assert_close(other[:, : place + 1], logits[:, : place + 1], rtol=0, atol=1e-5)
        difference = (other - logits)[:, place + 1 :].abs().amax(dim=-1)
        assert torch.all(difference > 1e-4)


def test_greedy_is_what_the_reader_says_of_what_it_has_written_so_far() -> None:
    module = trained_somehow(AUTOREGRESSIVE)
    _, mask, memory = draw(20)
    written = draw(20, seed=9)[0]  # what is not yet written is anything
    for place in range(LENGTH):
        written[:, place] = module(written, mask, memory).logits[:, place].argmax(dim=-1)
    greedy = module.greedy(memory)
    assert torch.equal(greedy, written)
    assert len(greedy.unique(dim=0)) > 10  # not the same for every memory


def test_a_memory_of_as_many_slots_as_tokens_is_read_slot_by_slot() -> None:
    for reader in (PARALLEL, LINEAR):
        assert isinstance(fresh(reader, LENGTH).unpooling, AlignedUnpooling)
        assert isinstance(fresh(reader, LENGTH - 1).unpooling, PositionalUnpooling)
    module = trained_somehow(LINEAR, LENGTH)
    tokens, mask, memory = draw(1, LENGTH)
    logits = module(tokens, mask, memory.requires_grad_()).logits
    for place in range(LENGTH):
        (gradient,) = torch.autograd.grad(logits[0, place].square().sum(), memory, retain_graph=True)
        assert gradient[0, place].abs().max() > 0
        assert torch.all(gradient[0, torch.arange(LENGTH) != place] == 0)


# --- memories that hold everything ---


def codes() -> Tensor:
    return torch.randn(VOCAB, CODE, generator=torch.Generator().manual_seed(4))


@cache
def data() -> ProbeData:
    """Uniformly random tokens: nothing is known of them but from a memory."""
    random = np.random.default_rng(0)

    def chunks(number: int) -> Chunks:
        tokens = random.integers(VOCAB, size=(number, LENGTH))
        return Chunks(tokens, np.ones_like(tokens, dtype=np.bool_), np.arange(number) % 20)

    made = Splits(chunks(2000), chunks(100), chunks(200))
    return ProbeData(chunks=made, test_bytes=np.full(20, 60.0))


def mixed_codes(chunks: Chunks) -> np.ndarray:
    """All tokens' codes, through one random rotation: one vector, from which a linear map gives every code back."""
    flat = codes()[torch.from_numpy(chunks.tokens)].flatten(1)
    rotation = torch.linalg.qr(torch.randn(flat.shape[1], flat.shape[1], generator=torch.Generator().manual_seed(5))).Q
    return (flat @ rotation)[:, None].numpy()


def one_hot(chunks: Chunks) -> np.ndarray:
    """A slot for each token."""
    return np.eye(VOCAB, dtype=np.float32)[chunks.tokens]


def embedded(memory_of: Callable[[Chunks], np.ndarray]) -> Splits[np.ndarray]:
    return data().chunks.map(memory_of)


def calibrated(
    reader: Reader, vectors: Splits[np.ndarray], num_steps: int, of: ProbeData | None = None
) -> TrainedReader:
    of = of or data()
    learned = train_reader(of, vectors, codes(), reader, ReadingConfig(num_steps=num_steps), quiet=True)
    return learned.calibrated(of, vectors.validation, codes())


def read(reader: Reader, vectors: Splits[np.ndarray], num_steps: int) -> tuple[TrainedReader, dict[str, object]]:
    trained = calibrated(reader, vectors, num_steps)
    values, intervals = trained.measure(data().chunks.test, vectors.test, data().test_bytes)
    assert set(intervals) >= {"token_accuracy", "retained_bits_per_token"}
    return trained, values


@pytest.mark.parametrize(
    ("reader", "num_steps"),
    [
        (ParallelReader(dim=64, num_layers=1), 150),
        (LinearReader(), 300),
        (AutoregressiveReader(dim=64, num_layers=1, num_prefix=6), 220),
    ],
    ids=["parallel", "linear", "autoregressive"],
)
def test_what_a_memory_plainly_holds_is_read(reader: Reader, num_steps: int) -> None:
    trained, values = read(reader, embedded(mixed_codes), num_steps)
    assert values["token_accuracy"] > 0.95
    assert values["retained_fraction"] > 0.85
    # Uniform tokens: no memory holds more than log2 V bits of each.
    assert 0.85 * math.log2(VOCAB) < values["retained_bits_per_token"] <= math.log2(VOCAB)
    assert values["unconditional_nats_per_token"] == pytest.approx(math.log(VOCAB), rel=0.01)
    assert trained.trust > 0.9


def test_slots_of_one_hot_tokens_are_read_at_once() -> None:
    _, values = read(LinearReader(), embedded(one_hot), 100)
    assert values["token_accuracy"] > 0.99
    assert (values["num_slots"], values["memory_dim"]) == (LENGTH, VOCAB)


@every_reader
def test_nothing_is_read_of_another_texts_memory(reader: Reader) -> None:
    trained, values = read(reader, shuffled(embedded(mixed_codes)), 60)
    assert values["token_accuracy"] < 0.1
    assert trained.trust == 0
    # Not exactly 0, for uniform tokens cost the reader without a memory a little more than ln V, which is its cap.
    assert -0.01 < values["retained_bits_per_token"] <= 0


def test_of_a_reader_that_learns_by_heart_the_best_point_is_kept() -> None:
    vectors = shuffled(embedded(mixed_codes))
    trained, _ = read(PARALLEL, vectors, 160)
    nats = [point["nats_per_token"] for point in trained.curve]
    assert min(nats) < nats[-1] - 0.05
    kept = trained.nats(data().numbered.validation, vectors.validation).mean()
    assert kept == pytest.approx(min(nats), rel=0.003)  # watched in bf16, measured in fp32


def test_the_same_seed_trains_the_same_reader() -> None:
    vectors = embedded(mixed_codes)
    cfg = ReadingConfig(num_steps=20)
    nats = [
        train_reader(data(), vectors, codes(), LINEAR, cfg, seed=seed, quiet=True).curve[-1]["nats_per_token"]
        for seed in (0, 0, 1)
    ]
    assert nats[0] == nats[1] != nats[2]


def test_what_stands_in_the_same_place_of_every_text_is_no_memory() -> None:
    opening = np.arange(LENGTH // 2)
    parts = data().chunks.map(lambda part: part._replace(tokens=part.tokens.copy()))
    for part in parts:
        part.tokens[:, : LENGTH // 2] = opening
    letters = replace(data(), chunks=parts)
    nothing = constant(embedded(mixed_codes))
    trained = calibrated(PARALLEL, nothing, 100, letters)
    values, _ = trained.measure(letters.numbered.test, nothing.test, letters.test_bytes)
    assert values["retained_bits_per_token"] == pytest.approx(0, abs=0.05)

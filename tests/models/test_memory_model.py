"""What must hold of a memory model, whatever its weights."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from memlm.config import (
    CrossAttention,
    DecoderConfig,
    Insertion,
    MaskedMixer,
    MemoryModelConfig,
    MemoryShape,
    Positional,
    Prefix,
    RecurrentConfig,
    StackConfig,
    Unpooled,
    Weights,
)
from memlm.models.autoencoder import Encoder
from memlm.models.batch import Batch
from memlm.models.generation import generate
from memlm.models.memory_model import MemoryModel, Regenerator, Term
from memlm.models.recurrent import RecurrentModel
from memlm.nn.insertion import INSERTIONS as KINDS
from memlm.training.objectives import combined
from tiny import randomized

VOCAB, LENGTH, CHUNKS = 50, 6, 4
INSERTIONS: list[Insertion] = [
    Prefix(num_positions=1),
    Prefix(num_positions=3),
    Unpooled(num_positions=2, token_dim=8),
    CrossAttention(num_parts=2),
]
every_insertion = pytest.mark.parametrize("insertion", INSERTIONS, ids=lambda each: each.kind)
pointing_or_not = pytest.mark.parametrize("pointer_span", [0, 2], ids=["", "pointing"])


def model(
    insertion: Insertion,
    *,
    num_slots: int = 1,
    max_memories: int = CHUNKS - 1,
    overlap: int = 3,
    pointer_span: int = 0,
) -> MemoryModel:
    stack = StackConfig(dim=32, num_layers=1, mlp_ratio=2.0, mixer=MaskedMixer(num_heads=2))
    cfg = MemoryModelConfig(
        shape=MemoryShape(vocab_size=VOCAB, chunk_len=LENGTH, memory_dim=24, num_slots=num_slots),
        encoder=stack,
        pooling=Positional(token_dim=8),
        insertion=insertion,
        decoder=DecoderConfig(dim=32, num_layers=2, num_heads=2),
        max_memories=max_memories,
        overlap=overlap,
        pointer_span=pointer_span,
    )
    return randomized(MemoryModel(cfg)).eval()


def windows(seed: int, num_windows: int = 2, num_chunks: int = CHUNKS) -> tuple[Tensor, Tensor]:
    tokens = torch.randint(VOCAB, (num_windows, num_chunks, LENGTH), generator=torch.Generator().manual_seed(seed))
    return tokens, torch.ones_like(tokens, dtype=torch.bool)


def causal(model: torch.nn.Module, tokens: Tensor, mask: Tensor) -> Tensor:
    with torch.no_grad():
        return model(tokens, mask, terms=("causal",)).causal


def chunks_that_differ(reads: torch.nn.Module, tokens: Tensor, mask: Tensor, other: Tensor) -> list[bool]:
    difference = (causal(reads, tokens, mask) - causal(reads, other, mask)).abs()
    return (difference.amax(dim=(0, 2, 3)) > 1e-5).tolist()


def changed(tokens: Tensor, chunk: int, position: int) -> Tensor:
    other = tokens.clone()
    other[:, chunk, position] = (other[:, chunk, position] + 1) % VOCAB
    return other


@every_insertion
@pointing_or_not
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 99), chunk=st.integers(0, CHUNKS - 1), position=st.integers(0, LENGTH - 1))
def test_a_token_changes_what_comes_after_it_and_nothing_else(
    insertion: Insertion, pointer_span: int, seed: int, chunk: int, position: int
) -> None:
    reads = model(insertion, pointer_span=pointer_span)
    tokens, mask = windows(seed)
    before = causal(reads, tokens, mask).flatten(1, 2)
    after = causal(reads, changed(tokens, chunk, position), mask).flatten(1, 2)
    differs = (before - after).abs().amax(dim=(0, 2)) > 1e-5
    at = chunk * LENGTH + position
    assert not differs[: at + 1].any()
    assert differs[at + 1 : (chunk + 1) * LENGTH].all()  # the chunk's later tokens read it
    assert differs[(chunk + 1) * LENGTH :].all()  # and every later chunk its memory, from the first token on


@every_insertion
@pointing_or_not
def test_only_the_last_memories_are_read(insertion: Insertion, pointer_span: int) -> None:
    reads = model(insertion, max_memories=2, pointer_span=pointer_span)
    tokens, mask = windows(1, num_chunks=5)
    differs = chunks_that_differ(reads, tokens, mask, changed(tokens, 1, 2))
    assert differs == [False, True, True, True, False]


@every_insertion
@pointing_or_not
def test_of_more_memories_the_decoder_reads_the_last_and_a_pointer_looks_at_all(
    insertion: Insertion, pointer_span: int
) -> None:
    reads = model(insertion, max_memories=2, pointer_span=pointer_span)
    tokens, mask = windows(1, num_chunks=5)
    with torch.no_grad():
        memory, present = reads.encode(tokens[:, :4], mask[:, :4]), torch.ones(len(tokens), 4, dtype=torch.bool)
        past, other = reads.past_tokens(memory), memory.clone()
        other[:, 0] = memory[:, 0].flip(-1)
        found = reads.predict(tokens[:, 4], memory, present, past)
        same = reads.predict(tokens[:, 4], other, present, past)
        torch.testing.assert_close(same, found, rtol=0, atol=0)
        forgotten = past._replace(tokens=past.tokens.clone())
        forgotten.tokens[:, 0] = (past.tokens[:, 0] + 1) % VOCAB
        told = reads.predict(tokens[:, 4], memory, present, forgotten)
        assert torch.equal(told, found) == (not pointer_span)
        last = reads.predict(tokens[:, 4], memory[:, -2:], present[:, -2:])
        assert torch.equal(last, found) == (not pointer_span)


@every_insertion
@pytest.mark.parametrize(
    ("num_slots", "overlap", "pointer_span"),
    [(1, 3, 0), (2, 3, 0), (1, 0, 0), (1, 1, 0), (1, LENGTH, 0), (1, 3, 2), (2, 0, 1), (1, 0, LENGTH)],
)
@pytest.mark.parametrize("terms", [("causal",), ("causal", "retention")])
def test_all_chunks_at_once_are_one_at_a_time(
    insertion: Insertion, num_slots: int, overlap: int, pointer_span: int, terms: tuple[Term, ...]
) -> None:
    reads = model(insertion, num_slots=num_slots, overlap=overlap, pointer_span=pointer_span)
    tokens, mask = windows(2)
    with torch.no_grad():
        together = reads(tokens, mask, terms=terms).causal
        memory = reads.encode(tokens, mask)
        for chunk in range(CHUNKS):
            present = torch.ones(len(tokens), chunk, dtype=torch.bool)
            alone = reads.predict(tokens[:, chunk], memory[:, :chunk], present)
            torch.testing.assert_close(together[:, chunk], alone, rtol=1e-4, atol=1e-4)


@every_insertion
@pointing_or_not
def test_padding_changes_nothing(insertion: Insertion, pointer_span: int) -> None:
    reads = model(insertion, pointer_span=pointer_span)
    tokens, mask = windows(3)
    short = mask.clone()
    short[:, -1, 3:] = False
    padded = tokens.masked_fill(~short, 7)
    torch.testing.assert_close(causal(reads, tokens, mask)[short], causal(reads, padded, short)[short])
    absent = mask.clone()
    absent[:, -1] = False  # a document that ends a chunk earlier
    expected = causal(reads, tokens[:, :-1], mask[:, :-1])
    torch.testing.assert_close(causal(reads, tokens, absent)[:, :-1], expected, rtol=1e-4, atol=1e-4)


@every_insertion
def test_the_end_of_the_latest_chunk_is_read_as_the_tokens_that_its_memory_gives_back(insertion: Insertion) -> None:
    reads = model(insertion, overlap=2)
    tokens, mask = windows(5)
    with torch.no_grad():
        memory = reads.encode(tokens, mask)[:, :1]
        written = reads.regenerate(memory[:, 0]).argmax(-1)
        embedded = reads.decoder.embed(written[:, -2:])
        past, present = reads.past_tokens(memory), torch.ones(len(tokens), 1, dtype=torch.bool)
        assert past.tokens[:, 0].equal(written)
        inputs, context = reads.read(tokens[:, 1], memory, present, past)
        torch.testing.assert_close(context.prefix[:, -1], embedded[:, 0])
        torch.testing.assert_close(inputs[:, 0], embedded[:, 1])
        inputs, context = reads.read(tokens[:, 1], memory, ~present, past)
        assert not context.prefix_mask.any()
        torch.testing.assert_close(inputs[:, 0], reads.start.expand_as(inputs[:, 0]))


@every_insertion
def test_a_chunk_is_regenerated_from_its_own_memory_alone(insertion: Insertion) -> None:
    reads = model(insertion)
    tokens, mask = windows(4)
    with torch.no_grad():
        before = reads(tokens, mask, terms=("retention",)).retention
        after = reads(changed(tokens, 1, 2), mask, terms=("retention",)).retention
        alone = Regenerator(reads)(tokens.flatten(0, 1), mask.flatten(0, 1)).logits
    differs = (before - after).abs().amax(dim=(0, 3)) > 1e-5
    assert differs[1].all()
    assert not differs[[0, 2, 3]].any()
    torch.testing.assert_close(before.flatten(0, 1), alone, rtol=1e-4, atol=1e-4)


@every_insertion
@pointing_or_not
def test_terms_are_the_same_alone_and_together(insertion: Insertion, pointer_span: int) -> None:
    reads = model(insertion, pointer_span=pointer_span)
    batch = Batch(*windows(5))
    every = combined(Weights(causal=1.0, retention=0.5, copy=0.1))
    assert every.terms == {"causal": 1.0, "retention": 0.5, "copy": 0.1}
    together = every.nats(reads, batch)
    alone = [combined(Weights(**{"causal": 0.0, name: 1.0})).nats(reads, batch) for name in every.terms]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-3)


def test_frozen_memories_are_those_that_would_be_made() -> None:
    reads = model(Prefix(num_positions=2))
    tokens, mask = windows(6)
    with torch.no_grad():
        memory = reads.encode(tokens, mask)
        terms = ("causal", "retention")
        made, given_ = reads(tokens, mask, terms=terms), reads(tokens, mask, memory, terms=terms)
    torch.testing.assert_close(made.causal, given_.causal)
    torch.testing.assert_close(made.retention, given_.retention)


@every_insertion
def test_a_seed_gives_the_weights_of_recorded_runs(insertion: Insertion) -> None:
    cfg = model(insertion).config
    assert cfg.encoder
    torch.manual_seed(0)
    made = MemoryModel(cfg).insertion.state_dict()
    torch.manual_seed(0)
    Encoder(cfg.shape, cfg.encoder, cfg.pooling)
    drawn_next = KINDS[type(cfg.insertion)](cfg.insertion, cfg.shape, 32, cfg.max_memories).state_dict()
    assert all(torch.equal(made[name], drawn_next[name]) for name in made)


def test_without_an_encoder_chunks_are_blind_to_each_other() -> None:
    cfg = MemoryModelConfig(
        shape=MemoryShape(vocab_size=VOCAB, chunk_len=LENGTH, memory_dim=24),
        encoder=None,
        insertion=Prefix(),
        decoder=DecoderConfig(dim=32, num_layers=2, num_heads=2),
    )
    blind = randomized(MemoryModel(cfg)).eval()
    tokens, mask = windows(7)
    differs = (causal(blind, tokens, mask) - causal(blind, changed(tokens, 1, 0), mask)).abs().amax(
        dim=(0, 2, 3)
    ) > 1e-6
    assert differs.tolist() == [False, True, False, False]


@every_insertion
@pointing_or_not
@pytest.mark.parametrize("num_tokens", [0, 4, LENGTH, 2 * LENGTH + 3])
def test_cached_generation_is_uncached(insertion: Insertion, pointer_span: int, num_tokens: int) -> None:
    reads = model(insertion, max_memories=2, pointer_span=pointer_span)
    tokens = windows(8, 1)[0].flatten()[:num_tokens]
    written = generate(reads, tokens, max_new_tokens=LENGTH + 4, do_sample=False)
    assert written.tolist() == written_in_whole_passes(reads, tokens, LENGTH + 4)


def written_in_whole_passes(reads: MemoryModel, tokens: Tensor, number: int) -> list[int]:
    """The likeliest tokens after these, with a pass over everything for each."""
    text = tokens
    for _ in range(number):
        length = len(text) + 1
        padded = torch.zeros(-(-length // LENGTH) * LENGTH, dtype=torch.long)
        padded[: len(text)] = text
        mask = torch.arange(len(padded)) < length
        logits = causal(reads, padded.view(1, -1, LENGTH), mask.view(1, -1, LENGTH))
        text = torch.cat([text, logits.flatten(0, 2)[len(text)].argmax()[None]])
    return text[len(tokens) :].tolist()


def test_pointed_memories_are_of_a_pointer_and_no_fewer_than_the_decoder_reads() -> None:
    tokens = windows(8, 1)[0].flatten()
    with pytest.raises(ValueError, match="this one has none: leave it out"):
        generate(model(Prefix()), tokens, max_new_tokens=2, pointed_memories=4)
    with pytest.raises(ValueError, match="the decoder reads 2 memories, and a pointer at least as many: not 1"):
        generate(model(Prefix(), max_memories=2, pointer_span=3), tokens, max_new_tokens=2, pointed_memories=1)


def test_streamed_tokens_are_those_returned_and_end_once() -> None:
    class Streamer:
        def __init__(self) -> None:
            self.tokens: list[int] = []
            self.ends = 0

        def put(self, value: Tensor) -> None:
            self.tokens += value.flatten().tolist()

        def end(self) -> None:
            self.ends += 1

    streamer = Streamer()
    written = generate(model(Prefix(num_positions=1)), windows(9)[0][0, 0], max_new_tokens=15, streamer=streamer)
    assert streamer.tokens == written.tolist()
    assert (len(written), streamer.ends) == (15, 1)


@pytest.mark.parametrize("place", [8, 5, 11], ids=["within a chunk", "at a chunk's end", "at another's"])
@pytest.mark.parametrize("seed", range(5))
def test_generation_stops_where_it_is_told(place: int, seed: int) -> None:
    reads = randomized(model(Prefix(num_positions=1)), seed)
    tokens = windows(10)[0][0, 0]
    written = generate(reads, tokens, max_new_tokens=40, do_sample=False)
    stop = int(written[place])
    stopped = generate(reads, tokens, max_new_tokens=40, do_sample=False, eos_token_id=stop, pad_token_id=0)
    first = written.tolist().index(stop)
    assert stopped.tolist() == written[: first + 1].tolist()


def test_beams_are_searched_with_a_pointer_too() -> None:
    reads = model(Prefix(num_positions=1), pointer_span=2)
    tokens = windows(10)[0][0].flatten()[:-2]
    written = generate(reads, tokens, max_new_tokens=2, do_sample=False, num_beams=VOCAB)

    def nats(new: Tensor) -> float:
        whole = torch.cat([tokens, new]).view(1, CHUNKS, LENGTH)
        batch = Batch(whole, torch.ones_like(whole, dtype=torch.bool))
        return float(combined(Weights(causal=1.0)).nats(reads, batch).detach())

    greedy = generate(reads, tokens, max_new_tokens=2, do_sample=False)
    assert nats(written) <= nats(greedy) + 1e-4


def test_no_tokens_cannot_be_asked_for() -> None:
    with pytest.raises(ValueError, match="max_new_tokens must be positive, not 0"):
        generate(model(Prefix(num_positions=1)), torch.zeros(0, dtype=torch.long), max_new_tokens=0)


def test_the_recurrent_baseline_reads_the_past_and_not_the_future() -> None:
    cfg = RecurrentConfig(vocab_size=VOCAB, decoder=DecoderConfig(dim=32, num_layers=2, num_heads=2))
    carries = randomized(RecurrentModel(cfg)).eval()
    tokens, mask = windows(11)
    before = causal(carries, tokens, mask).flatten(1, 2)
    after = causal(carries, changed(tokens, 1, 3), mask).flatten(1, 2)
    differs = (before - after).abs().amax(dim=(0, 2)) > 1e-6
    assert not differs[: LENGTH + 4].any()
    assert differs[LENGTH + 4 :].all()


@pointing_or_not
def test_a_short_chunk_is_given_back_as_it_ends(pointer_span: int) -> None:
    reads = model(Unpooled(num_positions=2, token_dim=8), pointer_span=pointer_span)
    tokens, mask = windows(4)
    with torch.no_grad():
        memory = reads.encode(tokens, mask)
        full = reads.past_tokens(memory)
        lengths = torch.full(memory.shape[:2], LENGTH)
        for one, other in zip(full, reads.past_tokens(memory, lengths), strict=True):
            assert torch.equal(one, other)
        lengths[:, 1] = 2
        short = reads.past_tokens(memory, lengths)
    assert torch.equal(short.tokens[:, 1, -2:], full.tokens[:, 1, :2])
    assert torch.equal(short.keys[:, 1, -2:], full.keys[:, 1, :2]), "found by what stands before them in their chunk"
    assert short.real[:, 1].tolist() == [[False] * (LENGTH - 2) + [True] * 2] * len(tokens)
    assert short.real[:, [0, 2, 3]].all()
    assert torch.equal(short.tokens[:, [0, 2, 3]], full.tokens[:, [0, 2, 3]])


@pointing_or_not
def test_what_lies_beyond_a_short_chunks_end_is_not_read(pointer_span: int) -> None:
    reads = model(Unpooled(num_positions=2, token_dim=8), pointer_span=pointer_span)
    tokens, mask = windows(5, num_windows=1)
    present = torch.ones(1, CHUNKS, dtype=torch.bool)
    lengths = torch.tensor([[LENGTH, LENGTH, 4, 1]])
    with torch.no_grad():
        memory = reads.encode(tokens, mask)
        past = reads.past_tokens(memory, lengths)
        junk = past._replace(tokens=torch.where(past.real, past.tokens, 7))
        one, other = (reads.predict(tokens[:, 0], memory, present, each) for each in (past, junk))
    torch.testing.assert_close(one, other)
    assert (past.tokens != junk.tokens).any()

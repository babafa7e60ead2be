"""Structured recurrent language models under transformers' `generate`, and as a memory model's decoder."""

import copy
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from test_memory_model import CHUNKS, LENGTH, VOCAB, causal, changed, windows, written_in_whole_passes
from torch import Tensor

from memlm.config import (
    Attention,
    CrossAttention,
    DecoderConfig,
    Insertion,
    LanguageModelConfig,
    MemoryModelConfig,
    MemoryShape,
    Positional,
    Prefix,
    RecurrentDecoder,
    RecurrentMixer,
    StackConfig,
    Unpooled,
    Weights,
)
from memlm.models.batch import Batch
from memlm.models.causal_decoder import RecurrentCausalDecoder
from memlm.models.generation import generate
from memlm.models.language_model import LanguageModel
from memlm.models.load_pretrained import load_causal
from memlm.models.memory_model import MemoryModel
from memlm.models.pretrained import max_positions, plain_head, reads_embeddings
from memlm.models.srm import SrmConfig, SrmForCausalLM, StateCache
from memlm.nn.insertion import Context
from memlm.training.footprint import flops_per_token, work
from memlm.training.objectives import combined
from tiny import randomized

WINDOW, TYPES = 24, 5
STACK = StackConfig(dim=16, num_layers=2, mlp_ratio=2.0, mixer=RecurrentMixer(num_heads=4), causal=True)
MIXERS = [
    RecurrentMixer(num_heads=4, kernel=2),
    RecurrentMixer(num_heads=2, structure="row", diagonal=False),
    RecurrentMixer(num_heads=2, structure="column", decay=False),
]
every_mixer = pytest.mark.parametrize("mixer", MIXERS, ids=lambda mixer: mixer.structure)
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def language_model(mixer: RecurrentMixer = MIXERS[0], vocab_size: int = TYPES, seed: int = 0) -> SrmForCausalLM:
    transformers.utils.logging.set_verbosity_error()
    return randomized(SrmForCausalLM(SrmConfig(vocab_size, WINDOW, asdict(replace(STACK, mixer=mixer)))), seed).eval()


def texts(lengths: list[int], seed: int = 0, vocab_size: int = TYPES) -> tuple[Tensor, Tensor]:
    """Random tokens with garbage at the padding, which comes first, and their mask."""
    tokens = torch.randint(vocab_size, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(seed))
    return tokens, (torch.arange(max(lengths)) >= max(lengths) - torch.tensor(lengths)[:, None]).long()


def greedy(model: SrmForCausalLM, tokens: Tensor, number: int, **options: Any) -> Tensor:
    chosen = {"do_sample": False, "pad_token_id": 0, **options}
    return model.generate(tokens, max_new_tokens=number, **chosen)[:, tokens.shape[1] :]


@every_mixer
@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(1, 5), st.integers(0, 999))
def test_a_batch_of_different_lengths_is_each_text_alone(
    mixer: RecurrentMixer, lengths: list[int], split: int, seed: int
) -> None:
    model, (tokens, mask) = language_model(mixer, vocab_size=50), texts(lengths, seed, 50)
    with torch.no_grad():
        whole = model(tokens, attention_mask=mask, use_cache=False).logits
        kept = model(tokens[:, :-split], attention_mask=mask[:, :-split]) if split < tokens.shape[1] else None
    with_masks = greedy(model, tokens, 4, attention_mask=mask)
    for row, length in enumerate(lengths):
        alone = tokens[row : row + 1, -length:]
        with torch.no_grad():
            torch.testing.assert_close(whole[row, -length:], model(alone).logits[0], **CLOSE)
        assert with_masks[row].tolist() == greedy(model, alone, 4)[0].tolist()
    if kept is not None and bool((mask[:, -split - 1] == 1).all()):
        with torch.no_grad():
            rest = model(tokens[:, -split:], attention_mask=mask, past_key_values=kept.past_key_values).logits
        torch.testing.assert_close(rest, whole[:, -split:], **CLOSE)


@every_mixer
@settings(max_examples=10, deadline=None)
@given(st.integers(1, 2**12 - 1), st.integers(1, 2**12 - 1), st.booleans())
def test_padding_anywhere_in_a_row_is_as_if_it_were_not_there(
    mixer: RecurrentMixer, one: int, other: int, use_cache: bool
) -> None:
    model, (tokens, _) = language_model(mixer), texts([12, 12])
    there = torch.tensor([[row >> place & 1 for place in range(12)] for row in (one, other)])
    with torch.no_grad():
        found = model(tokens, attention_mask=there, use_cache=use_cache).logits
        for row in range(2):
            real = there[row].bool()
            torch.testing.assert_close(found[row, real], model(tokens[row : row + 1, real]).logits[0], **CLOSE)


@every_mixer
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"do_sample": True}, {"prefill_chunk_size": 2}], ids=str)
def test_cached_generation_is_uncached(mixer: RecurrentMixer, options: dict[str, Any]) -> None:
    model, (tokens, mask) = language_model(mixer, vocab_size=50), texts([7, 2, 6], 1, 50)
    written = []
    for use_cache in (True, False):
        torch.manual_seed(0)
        chunked = {} if use_cache else {"prefill_chunk_size": None}
        written.append(
            greedy(model, tokens, 9, attention_mask=mask, use_cache=use_cache, **{**options, **chunked}).tolist()
        )
    assert written[0] == written[1]


@every_mixer
def test_enough_beams_find_the_likeliest_continuation_of_all(mixer: RecurrentMixer) -> None:
    model, (tokens, mask) = language_model(mixer), texts([6, 3])
    found = greedy(model, tokens, 3, attention_mask=mask, num_beams=TYPES**2)
    every = torch.tensor(list(product(range(TYPES), repeat=3)))
    for row, length in enumerate([6, 3]):
        whole = torch.cat([tokens[row, -length:].expand(len(every), length), every], dim=1)
        with torch.no_grad():
            nats = model(whole).logits.log_softmax(-1)[:, length - 1 : -1]
        likelihood = nats.gather(2, every[..., None]).sum(dim=(1, 2))
        assert found[row].tolist() == every[likelihood.argmax()].tolist()
    assert not torch.equal(found, greedy(model, tokens, 3, attention_mask=mask)), "greedy would have done"


@pytest.mark.parametrize("num_beams", [1, 3])
def test_rows_that_end_at_different_times_are_what_they_are_alone(num_beams: int) -> None:
    model, lengths = language_model(vocab_size=50), [6, 3, 5]
    tokens, mask = texts(lengths, 2, 50)
    end = int(greedy(model, tokens, 8, attention_mask=mask)[1, 2])
    options = {"eos_token_id": end, "pad_token_id": end, "num_beams": num_beams}
    together = greedy(model, tokens, 8, attention_mask=mask, **options)
    for row, length in enumerate(lengths):
        alone = greedy(model, tokens[row : row + 1, -length:], 8, **options)[0]
        assert together[row, : len(alone)].tolist() == alone.tolist()
        assert set(together[row, len(alone) :].tolist()) <= {end}


def test_tokens_are_streamed() -> None:
    class Streamer:
        def __init__(self) -> None:
            self.seen: list[int] = []

        def put(self, value: Tensor) -> None:
            self.seen += value.flatten().tolist()

        def end(self) -> None:
            self.seen.append(-1)

    model, (tokens, _), streamer = language_model(), texts([4]), Streamer()
    written = greedy(model, tokens, 6, streamer=streamer)
    assert streamer.seen == [*tokens[0].tolist(), *written[0].tolist(), -1]


def test_the_state_is_as_large_after_many_tokens_as_after_one() -> None:
    model, (tokens, mask) = language_model(), texts([WINDOW, WINDOW - 3])
    one = model(tokens[:, :1]).past_key_values
    many = model(tokens, attention_mask=mask).past_key_values
    assert many.nbytes == 2 * STACK.num_layers * STACK.dim * 4
    for cache in (one, many, model(tokens[:1]).past_key_values):
        assert all(state.sums.untyped_storage().nbytes() == state.sums.nbytes for state in cache.states)
    assert (one.get_seq_length(), many.get_seq_length()) == (1, WINDOW)


def test_rows_of_a_state_are_chosen_repeated_and_forgotten() -> None:
    model, (tokens, mask) = language_model(), texts([4, 2])
    following = torch.tensor([[1], [1], [1], [1]])
    with torch.no_grad():
        expected = model(
            torch.cat([tokens[[1, 1, 0, 0]], following], 1),
            attention_mask=torch.cat([mask[[1, 1, 0, 0]], following], 1),
        )
        cache = model(tokens, attention_mask=mask).past_key_values
        cache.reorder_cache(torch.tensor([1, 0]))
        cache.batch_repeat_interleave(2)
        torch.testing.assert_close(model(following, past_key_values=cache).logits, expected.logits[:, -1:], **CLOSE)
        cache.reset()
        torch.testing.assert_close(model(tokens, past_key_values=cache).logits, model(tokens).logits)
        one = model(tokens[:1]).past_key_values
        for _ in range(2):
            rows = model(following, past_key_values=one.fork()).logits
            expected = model(torch.cat([tokens[:1].expand(4, -1), following], 1)).logits[:, -1:]
            torch.testing.assert_close(rows, expected, **CLOSE)
        assert one.states[0].sums.shape[0] == 1, "a fork leaves it as it is"
    with pytest.raises(ValueError, match="keep a copy of the one before"):
        cache.crop(-1)


def test_padding_that_all_rows_share_takes_no_room() -> None:
    model, (tokens, _) = language_model(), texts([WINDOW, WINDOW])
    padded = torch.cat([tokens[:, :5], tokens], dim=1)
    mask = (torch.arange(WINDOW + 5) >= 5).long().expand(2, -1)
    with torch.no_grad():
        for use_cache in (True, False):
            found = model(padded, attention_mask=mask, use_cache=use_cache).logits[:, 5:]
            torch.testing.assert_close(found, model(tokens).logits, **CLOSE)


@pytest.mark.parametrize("use_cache", [True, False])
def test_what_would_go_past_the_window_is_refused_before_it_is_written(use_cache: bool) -> None:
    model, (tokens, _) = language_model(), texts([9, 9])
    mask, most = (torch.arange(9) >= 3).long().expand(2, -1), WINDOW - 6 + 1
    options = {"attention_mask": mask, "use_cache": use_cache}
    assert greedy(model, tokens, most, **options).shape[1] == most, "the last token is not read"
    reads, model.model.forward = model.model.forward, None
    with pytest.raises(ValueError, match=rf"=20 after 6 tokens .* window of {WINDOW} .* be {most} at most.*chunk_len"):
        greedy(model, tokens, most + 1, **options)
    with pytest.raises(ValueError, match=rf"max_length=40 goes past .* be {WINDOW + 4} at most"):
        model.generate(tokens, max_length=40, **options)
    model.model.forward = reads
    kept = model(tokens, attention_mask=mask).past_key_values
    with pytest.raises(ValueError, match=rf"after 7 tokens .* be {most - 1} at most"):
        greedy(model, tokens[:, :1], most, past_key_values=kept.fork())
    assert greedy(model, tokens[:, :1], most - 1, past_key_values=kept.fork()).shape[1] == most - 1


def test_a_copy_of_a_state_is_gone_on_from_as_often_as_one_likes() -> None:
    model, (tokens, mask) = language_model(), texts([6, 3])
    with torch.no_grad():
        kept = model(tokens, attention_mask=mask).past_key_values
        for again in (copy.deepcopy, StateCache.fork, StateCache.fork, copy.deepcopy):
            read = model(tokens[:, :2], past_key_values=again(kept)).logits
            whole = model(torch.cat([tokens, tokens[:, :2]], 1), attention_mask=torch.cat([mask, mask[:, -2:]], 1))
            torch.testing.assert_close(read, whole.logits[:, -2:], **CLOSE)
    assert kept.get_seq_length() == 6


def test_what_cannot_be_right_is_refused() -> None:
    model, (tokens, mask) = language_model(), texts([6, 3])
    cache = model(tokens, attention_mask=mask).past_key_values
    with pytest.raises(ValueError, match=f"for the {WINDOW} positions .* position {WINDOW + 1}: .*chunk_len, or"):
        model(tokens[:, :1].expand(-1, WINDOW + 1))
    for asked in ({"output_hidden_states": True}, {"output_attentions": True}):
        with pytest.raises(ValueError, match="has last_hidden_state alone"):
            model(tokens, **asked)
    with pytest.raises(ValueError, match="prefill_chunk_size must be positive, not 0"):
        greedy(model, tokens, 1, prefill_chunk_size=0)
    with pytest.raises(ValueError, match="pad on the left"):
        greedy(model, tokens, 1, attention_mask=mask.flip(1))
    with pytest.raises(ValueError, match="a state belongs to the model and the rows"):
        model(tokens[:1], past_key_values=cache)
    with pytest.raises(ValueError, match=r"shape \(2, 4, 4\) in 2 layers, .* \(2, 2, 8\) in 2"):
        language_model(MIXERS[1])(tokens, past_key_values=cache)
    with pytest.raises(ValueError, match="must be a StateCache, not DynamicCache"):
        model(tokens, past_key_values=transformers.DynamicCache())
    with pytest.raises(ValueError, match="padding between what was read before"):
        model(tokens, attention_mask=torch.cat([mask, mask], dim=1), past_key_values=cache)
    for given_ in ({}, {"input_ids": tokens, "inputs_embeds": torch.zeros(2, 6, 16)}):
        with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
            model(**given_)
    with torch.no_grad():
        model.model.stack.blocks[1].mixer.places[2] = torch.nan
    with pytest.raises(ValueError, match="not numbers: look for NaN"):
        greedy(model, tokens, 1)


def test_a_saved_model_is_loaded_by_transformers_and_by_us(tmp_path: Path) -> None:
    model, (tokens, mask) = language_model(), texts([6, 3])
    model.save_pretrained(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    for loaded in (
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval(),
        load_causal(str(tmp_path)).eval(),
    ):
        assert isinstance(loaded, SrmForCausalLM)
        assert torch.equal(loaded(tokens, attention_mask=mask).logits, model(tokens, attention_mask=mask).logits)
    body = transformers.AutoModel.from_pretrained(tmp_path).eval()
    assert torch.equal(body(tokens).last_hidden_state, model.model(tokens).last_hidden_state)
    assert max_positions(model) == WINDOW
    assert plain_head(model) is model.lm_head
    assert reads_embeddings(model)


def test_labels_are_those_of_the_next_token() -> None:
    model, (tokens, _) = language_model(), texts([9, 9])
    output = model(tokens, labels=tokens)
    nats = torch.nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    torch.testing.assert_close(output.loss, nats)


def test_a_language_model_of_ours_is_served_by_transformers() -> None:
    cfg = LanguageModelConfig(vocab_size=TYPES, chunk_len=WINDOW, stack=STACK)
    model, (tokens, _) = randomized(LanguageModel(cfg)), texts([7, 7])
    served = SrmForCausalLM.of(model)
    torch.testing.assert_close(served(tokens).logits, model(tokens, torch.ones_like(tokens, dtype=torch.bool)))
    other = LanguageModel(replace(cfg, stack=replace(STACK, mixer=Attention())))
    with pytest.raises(ValueError, match="recurrent_mixer has a state of one size, not attention"):
        SrmForCausalLM.of(other)


# --- as a memory model's decoder ---

INSERTIONS = [Prefix(num_positions=2), Unpooled(num_positions=2, token_dim=8)]
every_insertion = pytest.mark.parametrize("insertion", INSERTIONS, ids=lambda each: each.kind)


def configuration(insertion: Insertion = INSERTIONS[0], **changes: Any) -> MemoryModelConfig:
    """A memory model that is recurrent throughout."""
    cfg = MemoryModelConfig(
        shape=MemoryShape(vocab_size=VOCAB, chunk_len=LENGTH, memory_dim=24),
        encoder=replace(STACK, dim=32),
        pooling=Positional(token_dim=8),
        insertion=insertion,
        decoder=RecurrentDecoder(window=WINDOW, stack=replace(STACK, dim=32)),
        max_memories=3,
        overlap=3,
    )
    return replace(cfg, **changes)


def memory_model(insertion: Insertion, pointer_span: int = 0) -> MemoryModel:
    return randomized(MemoryModel(configuration(insertion, pointer_span=pointer_span))).eval()


@every_insertion
def test_a_token_changes_what_comes_after_it_and_nothing_else(insertion: Insertion) -> None:
    reads, (tokens, mask) = memory_model(insertion), windows(0)
    moved = (causal(reads, tokens, mask) - causal(reads, changed(tokens, 1, 2), mask)).abs().amax(dim=(0, 3))
    assert torch.all(moved[0] < 1e-5)
    assert torch.all(moved[1, :3] < 1e-5)
    assert torch.all(moved[1, 3:] > 1e-5)
    assert torch.all(moved[2:] > 1e-5)


@every_insertion
def test_all_chunks_at_once_are_one_at_a_time(insertion: Insertion) -> None:
    reads, (tokens, mask) = memory_model(insertion), windows(1)
    together = causal(reads, tokens, mask)
    for chunk in range(tokens.shape[1]):
        alone = causal(reads, tokens[:, : chunk + 1], mask[:, : chunk + 1])[:, -1]
        torch.testing.assert_close(together[:, chunk], alone, **CLOSE)


@every_insertion
@pytest.mark.parametrize("pointer_span", [0, 2])
@pytest.mark.parametrize("num_tokens", [0, 3, 2 * LENGTH + 4])
def test_memory_models_write_what_whole_passes_would(insertion: Insertion, pointer_span: int, num_tokens: int) -> None:
    reads, tokens = memory_model(insertion, pointer_span), windows(8, 1)[0].flatten()[:num_tokens]
    written = generate(reads, tokens, max_new_tokens=LENGTH + 4, do_sample=False)
    assert written.tolist() == written_in_whole_passes(reads, tokens, LENGTH + 4)


@every_mixer
def test_a_state_stands_for_all_that_it_was_made_of(mixer: RecurrentMixer) -> None:
    cfg = RecurrentDecoder(window=WINDOW, stack=replace(STACK, mixer=mixer))
    decoder = randomized(RecurrentCausalDecoder(cfg, VOCAB)).double().eval()
    prefix, text = torch.randn(2, WINDOW, STACK.dim, dtype=torch.float64).split([WINDOW - 5, 5], dim=1)
    there, state = torch.ones(prefix.shape[:2], dtype=torch.bool), None
    with torch.no_grad():
        for end in range(1, WINDOW - 5, 3):
            state = decoder.remember(prefix[:, 0 if state is None else end - 3 : end], state)
            assert state.nbytes == 2 * STACK.num_layers * STACK.dim * 8, "of one size"
            anew = decoder.states(text, Context(prefix[:, :end], there[:, :end]))
            following = Context(prefix[:, :0], there[:, :0], state=state)
            for _ in range(2):
                torch.testing.assert_close(decoder.states(text, following), anew, rtol=0, atol=1e-10)


@every_insertion
@pytest.mark.parametrize("pointer_span", [0, 2])
@pytest.mark.parametrize("num_tokens", [LENGTH, 1], ids=["", "the latest chunk is short"])
def test_memories_that_were_read_are_not_read_again(insertion: Insertion, pointer_span: int, num_tokens: int) -> None:
    reads, (tokens, mask) = memory_model(insertion, pointer_span), windows(3, 1)
    beams = {"max_new_tokens": 3, "num_beams": 3, "num_return_sequences": 2, "do_sample": False}
    with torch.no_grad():
        memory, state = reads.encode(tokens, mask), None
        for seen in range(1, 4):
            now, present = memory[:, :seen], torch.ones(1, seen, dtype=torch.bool)
            lengths = torch.tensor([[LENGTH] * (seen - 1) + [num_tokens]])
            past, state = reads.past_tokens(now, lengths), reads.remember(now[:, -1:], state)
            anew = reads.read(tokens[:, seen, :-1], now, present, past)
            inputs, context = reads.read(tokens[:, seen, :-1], now, present, past, state)
            after = (inputs, context.without_padding())
            assert after[1].prefix.shape[1] == min(num_tokens, 3) - 1, "the end of the latest chunk alone"
            with reads.pointing(past, present):
                logits, again = (reads.decoder.head(reads.decoder.states(*each)) for each in (anew, after))
                torch.testing.assert_close(again, logits, **CLOSE)
                assert torch.equal(reads.decoder.generate(*after, **beams), reads.decoder.generate(*anew, **beams))


def test_the_next_chunk_costs_its_memory_and_its_text_whatever_came_before() -> None:
    decoder = RecurrentDecoder(window=2 * 64 + 2 + LENGTH, stack=replace(STACK, dim=32))
    reads = randomized(MemoryModel(configuration(decoder=decoder, max_memories=64))).eval()
    memories = torch.randn(62, 1, 24), torch.full((62,), LENGTH)
    calls: list[list[int]] = []
    step = reads.decoder.hf.model.stack.step
    reads.decoder.hf.model.stack.step = lambda hidden, state: calls[-1].append(hidden.shape[1]) or step(hidden, state)
    for number in (1, 62):
        calls.append([])
        earlier = tuple(part[:number] for part in memories)
        generate(reads, torch.zeros(0, dtype=torch.long), earlier, max_new_tokens=2 * LENGTH + 1, do_sample=False)
    few, many = calls
    assert (few[:2], many[:2]) == ([2 + LENGTH, 2], [2 + LENGTH, 124]), "memories are regenerated, and read once"
    assert few[2:] == many[2:], "then each chunk as if it were the first"


def test_a_decoder_is_chosen_by_its_configuration() -> None:
    cfg = configuration()
    assert MemoryModelConfig.from_json(cfg.to_json()) == cfg
    chosen = replace(cfg, decoder=DecoderConfig()).with_values(["decoder=recurrent"])
    assert chosen.decoder == RecurrentDecoder()
    rows = chosen.with_values(["decoder.stack.mixer.structure=row"])
    assert isinstance(rows.decoder, RecurrentDecoder)
    assert rows.decoder.stack == replace(chosen.decoder.stack, mixer=RecurrentMixer(structure="row"))
    with pytest.raises(ValueError, match="a recurrent decoder has a recurrent_mixer, not attention"):
        RecurrentDecoder(stack=StackConfig(mixer=Attention(), causal=True))
    with pytest.raises(ValueError, match="a recurrent decoder has no cross-attention"):
        configuration(CrossAttention())
    with pytest.raises(ValueError, match=r"has 13 positions, .* take 14: .* larger window"):
        MemoryModel(replace(cfg, decoder=RecurrentDecoder(window=13)))


def test_what_training_takes_is_told_from_shapes() -> None:
    objective, model = combined(Weights(causal=1.0, retention=0.5)), MemoryModel(configuration()).train()
    told, (tokens, mask) = work(configuration(), objective, (CHUNKS, LENGTH)), windows(0)
    assert told.flops_per_token == flops_per_token(model, objective, Batch(tokens, mask))

"""What a language model reads of memories: the layout of positions, the merger, and the model as a whole."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from memlm.config import LoraConfig, MemoryReaderConfig, MemoryShape, PretrainedDecoder, ReadingWindow
from memlm.models import causal_decoder
from memlm.models.layout import laid_out, share_positions
from memlm.models.memory_reader import NUM_SLOTS, Groups, MemoryReader, Merger, ReaderBatch, Reading, pad
from memlm.training.objectives import taught
from tiny import LANGUAGE_MODELS, write_language_model

nats = st.lists(st.floats(0.1, 20), min_size=1, max_size=200).map(np.array)


@given(nats, st.integers(1, 64), st.floats(0, 0.99))
def test_positions_are_shared_in_order_by_at_most_so_many_groups(surprisal, num_positions, recent_share) -> None:
    group, slot = share_positions(surprisal, num_positions, recent_share)
    recent = min(int(recent_share * num_positions), len(group) - 1)
    assert (np.diff(group)[len(group) - 1 - recent :] == 1).all()
    assert group[0] == 0
    assert set(np.diff(group)) <= {0, 1}
    assert group[-1] < num_positions
    assert slot[-1] == 0
    assert all((slot[:-1] == np.minimum(slot[1:] + 1, NUM_SLOTS - 1))[group[:-1] == group[1:]])


@given(nats)
def test_a_position_for_each_token_is_the_text_itself(surprisal) -> None:
    assert share_positions(surprisal, len(surprisal)).group.tolist() == list(range(len(surprisal)))


def test_a_rare_token_has_a_position_of_its_own() -> None:
    surprisal = np.array([1.0, 1, 1, 12, 1, 1, 1, 1])
    group = share_positions(surprisal, 4).group
    assert (group == group[3]).sum() == 1


def groups(*rows: list[int]) -> Groups:
    """Rows whose tokens are 0, 1, 2, ..., in these groups."""
    layouts = [laid_out(np.array(row)) for row in rows]
    return Groups(
        pad([list(range(len(row))) for row in rows]),
        pad([layout.group.tolist() for layout in layouts], -1),
        pad([layout.slot.tolist() for layout in layouts]),
    )


def test_a_group_of_one_is_its_token_and_a_row_does_not_depend_on_others() -> None:
    torch.manual_seed(0)
    merger = Merger(8, 8, 16)
    torch.nn.init.normal_(merger.out.weight)
    vectors, weights = torch.randn(2, 6, 8), torch.rand(2, 6)
    past = groups([0, 1, 1, 2, 3, 3], [0, 0, 1])
    merged, there = merger(vectors, vectors, weights, past)
    assert there.tolist() == [[True] * 4, [True, True, False, False]]
    torch.testing.assert_close(merged[0, [0, 2]], vectors[0, [0, 3]])
    torch.testing.assert_close(merged[1, 1], vectors[1, 2])
    alone, _ = merger(vectors[1:, :3], vectors[1:, :3], weights[1:, :3], groups([0, 0, 1]))
    torch.testing.assert_close(merged[1, :2], alone[0])


@pytest.fixture(scope="module", params=LANGUAGE_MODELS)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_language_model(tmp_path_factory.mktemp(request.param), request.param)


def configuration(base: Path, *, hidden_dim: int = 16, **changes) -> MemoryReaderConfig:
    decoder = PretrainedDecoder(name=str(base), lora=LoraConfig(rank=2))
    shape = MemoryShape(vocab_size=300, chunk_len=16, memory_dim=32, end_token=True)
    window = ReadingWindow(regenerated_tokens=8)
    return MemoryReaderConfig(
        encoder="tiny", shape=shape, decoder=decoder, hidden_dim=hidden_dim, window=window, **changes
    )


def adapted(base: Path, **changes) -> MemoryReader:
    """A reader whose adapters do something."""
    torch.manual_seed(1)
    model = MemoryReader(configuration(base, **changes)).eval()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
        assert parameter.requires_grad == ("decoder.hf" not in name or "lora_" in name)
    return model


def reading(past: Groups, tokens: torch.Tensor, *, regenerates: bool = False) -> Reading:
    scored = torch.ones_like(tokens, dtype=torch.bool)
    scored[:, 0] = regenerates
    return Reading(past, tokens, scored, regenerates)


PAST = groups([0, 1, 1, 2, 3, 3], [0, 0, 1])
TOKENS = torch.randint(256, (2, 7), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("regenerates", [False, True])
@pytest.mark.parametrize("positions", ["consecutive", "text"])
def test_losses_are_causal_and_rows_independent(base: Path, regenerates: bool, positions: str) -> None:
    model = adapted(base, positions=positions)
    whole = model.nats(reading(PAST, TOKENS, regenerates=regenerates))
    changed = TOKENS.clone()
    changed[:, 5] = (changed[:, 5] + 1) % 256
    other = model.nats(reading(PAST, changed, regenerates=regenerates))
    torch.testing.assert_close(whole[:, :5], other[:, :5])
    assert not torch.allclose(whole[:, 5], other[:, 5])
    alone = model.nats(reading(groups([0, 0, 1]), TOKENS[1:], regenerates=regenerates))
    torch.testing.assert_close(whole[1:], alone, rtol=1e-4, atol=1e-4)


def test_losses_depend_on_the_past(base: Path) -> None:
    model = adapted(base)
    one, other = (model.nats(reading(past, TOKENS)) for past in (PAST, groups([0, 1, 2, 3, 4, 4], [0, 1, 1])))
    assert not torch.allclose(one[0], other[0])


@pytest.mark.parametrize(("source", "hidden_dim"), [("states", 16), ("states", 0), ("vector", 16), ("vector", 0)])
def test_parts_of_memories_and_tokens_are_read_side_by_side(base: Path, source: str, hidden_dim: int) -> None:
    model = adapted(base, source=source, state_dim=24, hidden_dim=hidden_dim)
    vectors = torch.randn(2, 2, 16, 24) if source == "states" else torch.randn(2, 2, 1, 32)
    parts = torch.tensor([[0, 1, 1, 0, -1, 1], [0, 0, 1, -1, -1, -1]])
    both = groups([0, 1, 1, 2, 3, 4], [0, 0, 1])._replace(part=parts, vectors=vectors)
    whole = model.nats(reading(both, TOKENS))
    alone = Groups(*(part[1:, :3] for part in both[:3]), parts[1:, :3], vectors[1:])
    torch.testing.assert_close(whole[1:], model.nats(reading(alone, TOKENS[1:])), rtol=1e-4, atol=1e-4)
    fresh = MemoryReader(model.config).soft_prompt(both)
    assert fresh.prefix[fresh.prefix_mask].square().mean(-1).min() > 0, "a language model cannot learn from zeros"
    merged = model.soft_prompt(both).prefix
    torch.testing.assert_close(merged[0, 3], model.decoder.embed(both.tokens[0, 4]))
    assert not torch.allclose(merged[0, 0], merged[1, 1])
    torch.testing.assert_close(merged[0, 2], model.soft_prompt(both._replace(tokens=both.tokens * 0)).prefix[0, 2])


def test_without_a_past_it_begins_as_the_language_model(base: Path) -> None:
    model = MemoryReader(configuration(base)).eval()
    logits = transformers.AutoModelForCausalLM.from_pretrained(base)(input_ids=TOKENS).logits
    theirs = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), TOKENS[:, 1:].flatten(), reduction="none")
    torch.testing.assert_close(
        model.nats(reading(Groups.none(2), TOKENS))[:, 1:].flatten(), theirs, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("positions", ["consecutive", "text"])
def test_a_position_for_each_token_is_the_text_in_context(base: Path, positions: str) -> None:
    model = adapted(base, positions=positions)
    past = groups(list(range(6)), list(range(6)))
    text = torch.cat([past.tokens, TOKENS], dim=1)
    both = reading(Groups.none(2), text)
    torch.testing.assert_close(model.nats(reading(past, TOKENS))[:, 1:], model.nats(both)[:, 7:], rtol=1e-4, atol=1e-4)


def test_positions_are_where_the_text_would_be(base: Path) -> None:
    model = adapted(base, positions="text", begin=(7, 8))
    _, context = model.inputs(PAST, TOKENS, regenerates=False)
    assert context.ids is not None
    assert context.ids[0].tolist() == [0, 1, 2, 4, 5, 7]
    assert context.ids[1, context.prefix_mask[1]].tolist() == [0, 1, 3, 4]
    assert context.next_id is not None
    assert context.next_id.tolist() == [8, 5]


def test_a_position_sees_itself_at_least(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = []
    attend = causal_decoder.attend_in_fp32

    def spied(call, query, key, value):
        masks.append(call.keywords["attention_mask"])
        return attend(call, query, key, value)

    monkeypatch.setattr(causal_decoder, "attend_in_fp32", spied)
    past = groups([0, 1, 1], [])
    adapted(base).nats(reading(past, TOKENS))
    assert all(mask.any(-1).all() and mask.shape[-1] == 2 + TOKENS.shape[1] for mask in masks)


def test_a_teacher_that_reads_the_same_has_nothing_to_teach(base: Path) -> None:
    model = adapted(base)
    text = groups([0, 1, 2, 3, 4, 5], [0, 1, 2])
    read = reading(text, TOKENS)._replace(whole=text)
    batch = taught(ReaderBatch({"causal": read}), model)
    torch.testing.assert_close(model(batch, ["divergence"]), torch.zeros(1), atol=1e-4, rtol=0)
    merged = taught(ReaderBatch({"causal": read._replace(past=PAST)}), model)
    causal, divergence = model(merged, ["causal", "divergence"])
    assert divergence > 0.01
    torch.testing.assert_close(causal, model.nats(read._replace(past=PAST)).sum())


def test_only_adapters_are_saved(base: Path) -> None:
    names = adapted(base).state_dict().keys()
    assert all("lora_" in name for name in names if name.startswith("decoder."))


def test_configurations_that_cannot_be_are_refused(base: Path) -> None:
    cfg = configuration(base)
    with pytest.raises(ValueError, match=r"ratios must lie from 0 .* to 16, not \[17\]"):
        replace(cfg, ratios=(2, 17))
    with pytest.raises(ValueError, match="regenerated_tokens 17 are more than a chunk's 16"):
        replace(cfg, window=ReadingWindow(regenerated_tokens=17))
    with pytest.raises(ValueError, match=r"recent_share must lie in \[0, 1\), not 1.0"):
        replace(cfg, recent_share=1.0)
    with pytest.raises(ValueError, match="hidden_dim must not be negative, not -1"):
        replace(cfg, hidden_dim=-1)

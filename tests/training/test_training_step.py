import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from memlm.config import AdamW, Attention, LastToken, LearnedQuery, ModelConfig, Muon, SlidingWindow
from memlm.data.chunks import Chunks
from memlm.models.autoencoder import Autoencoder
from memlm.models.batch import Batch
from memlm.recipes import RECIPES
from memlm.runtime.cpu import precision_on
from memlm.text.model import build_model
from memlm.training.accelerator import build_accelerator
from memlm.training.loop import fit
from memlm.training.objectives import RETENTION
from memlm.training.optimizers import build_optimizers, hidden_matrices, learning_rate_scale, set_learning_rate
from memlm.training.step import Stepper, TrainingDivergedError
from tiny import tiny_model, tiny_recipe

RECIPE = tiny_recipe("*.txt")
CFG = replace(RECIPE.stages[-1].training, num_tokens=2000)


def batch(step: int) -> Batch:
    rng = np.random.default_rng(step)
    mask = np.arange(16) < rng.integers(1, 17, size=13)[:, None]
    return Batch.of(Chunks(np.where(mask, rng.integers(300, size=mask.shape), 0), mask, np.zeros(13, dtype=np.int64)))


def weights_after(*, seed: int = 0, noise: float = 0.0, **training: Any) -> dict[str, torch.Tensor]:
    cfg = replace(CFG, seed=seed, **training)
    torch.manual_seed(seed)
    model = Autoencoder(tiny_model(memory_noise=noise))
    fit(model, batch, RETENTION, cfg, quiet=True)
    return model.state_dict()


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], **tolerance: float) -> None:
    for name in one:
        torch.testing.assert_close(one[name], other[name], **tolerance)


@pytest.mark.parametrize(
    ("optimizer", "rounding"),
    [(AdamW(learning_rate=1e-3), 0.005), (Muon(learning_rate=0.01), 0.03)],  # PyTorch's Muon rounds to bf16
)
def test_micro_batches_change_nothing_but_rounding(optimizer: AdamW | Muon, rounding: float) -> None:
    # 13 chunks in 3 portions: unequal in chunks and, being padded, in tokens.
    # A gradient of nearly nothing may have its sign rounded either way, which Adam makes a step of; hence norms.
    torch.manual_seed(0)
    start = Autoencoder(tiny_model()).state_dict()
    whole, portions = (weights_after(optimizer=optimizer, num_micro_batches=number) for number in (1, 3))
    for name, weight in whole.items():
        moved = (weight - start[name]).norm()
        assert moved > 0.01
        assert (weight - portions[name]).norm() < rounding * moved


def test_the_gradient_is_the_whole_batchs_mean() -> None:
    cfg, whole = replace(CFG, num_micro_batches=3, max_grad_norm=1e9), batch(0)
    accelerator = build_accelerator(cfg)
    model = Autoencoder(tiny_model())
    stepper = Stepper(model, RETENTION, cfg, accelerator)
    stepper.optimizers = []  # leave the gradient where it is
    values = stepper.step(whole)
    tokens, mask, _ = whole
    loss = nn.functional.cross_entropy(model(tokens, mask).logits[mask], tokens[mask])
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    assert values["retention_nats"] == pytest.approx(loss.item(), rel=1e-5)
    assert values["grad_norm"] == pytest.approx(math.sqrt(sum(g.square().sum().item() for g in gradients)), rel=1e-4)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others() -> None:
    first = weights_after(noise=0.1)
    assert_same(first, weights_after(noise=0.1), rtol=0, atol=0)
    other = weights_after(noise=0.1, seed=1)
    assert all(not torch.equal(first[name], other[name]) for name in first)


def test_both_precisions_train_in_one_process() -> None:
    full, half = weights_after(precision="fp32"), weights_after(precision="bf16")
    assert all(weight.dtype == torch.float32 for weight in half.values())
    assert any(not torch.equal(full[name], half[name]) for name in full)
    assert_same(full, weights_after(precision="fp32"), rtol=0, atol=0)


@pytest.mark.parametrize("can", [{"amx_bf16": True}, {"avx512_bf16": False, "avx2": True}, None])
def test_products_are_bf16_where_the_processor_has_them(
    can: dict[str, bool] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if can is None:  # a torch that does not tell
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    else:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: can, raising=False)
    expected = "bf16" if can and can.get("amx_bf16") else "fp32"
    cpu = torch.device("cpu")
    assert precision_on(cpu) == expected
    assert (precision_on(cpu, "fp32"), precision_on(cpu, "bf16")) == ("fp32", "bf16")
    products = weights_after(precision="auto")
    assert_same(products, weights_after(precision=expected), rtol=0, atol=0)


@pytest.mark.parametrize("part", ["encoder.embed.weight", "decoder.head.weight"])
def test_a_nan_stops_training_and_leaves_the_weights(part: str) -> None:
    model = Autoencoder(tiny_model())
    model.get_parameter(part).data[0, 0] = math.nan
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    everything = batch(0)._replace(tokens=torch.zeros(13, 16, dtype=torch.int64))
    with pytest.raises(TrainingDivergedError, match=r"the retention loss is nan nats.*learning rate"):
        fit(model, lambda _: everything, RETENTION, CFG, quiet=True)
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(weight, before[name], rtol=0, atol=0, equal_nan=True)


def test_more_portions_than_chunks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"13 chunks .* 1 processes in 14 micro-batches"):
        weights_after(num_micro_batches=14)


def test_more_processes_than_run_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"2 processes were asked for, but 1 are .*torchrun --nproc_per_node 2"):
        build_accelerator(replace(CFG, num_processes=2))
    monkeypatch.setenv("WORLD_SIZE", "2")  # a launcher that accelerate did not heed
    with pytest.raises(ValueError, match="2 processes were asked for, but 1"):
        build_accelerator(CFG)


def test_training_ends_at_its_budget_or_when_told() -> None:
    model = Autoencoder(tiny_model())
    sizes = np.cumsum([batch(step).mask.sum() for step in range(100)])
    progress = fit(model, batch, RETENTION, CFG, quiet=True)
    assert progress.tokens == sizes[sizes >= CFG.num_tokens][0]
    assert progress.tokens == sizes[progress.step - 1]
    cfg = replace(CFG, eval_tokens=500)
    progress = fit(model, batch, RETENTION, cfg, evaluate=lambda _: {"token_accuracy": 1.0}, stop=bool, quiet=True)
    assert progress.tokens == sizes[sizes >= 500][0]


# --- schedule and optimizers ---


@given(
    st.integers(1, 10**7),
    st.integers(16, 10**5),
    st.integers(0, 10**6),
    st.floats(0, 1),
    st.lists(st.floats(0, 1), min_size=2, max_size=5),
)
def test_the_schedule_stays_in_its_bounds_and_never_rises_after_the_warm_up(
    num_tokens: int, batch_tokens: int, warmup_tokens: int, decay: float, places: list[float]
) -> None:
    cfg = replace(
        CFG, num_tokens=num_tokens, batch_tokens=batch_tokens, warmup_tokens=warmup_tokens, decay_fraction=decay
    )
    scales = [learning_rate_scale(cfg, tokens) for tokens in sorted(int(p * num_tokens) for p in places)]
    assert all(0 <= scale <= 1 for scale in scales)
    warm = [learning_rate_scale(cfg, warmup_tokens + int(p * num_tokens)) for p in sorted(places)]
    assert all(one >= other for one, other in itertools.pairwise(warm))


def test_the_schedule_warms_up_stays_and_falls_to_nothing() -> None:
    cfg = replace(CFG, num_tokens=100_000, batch_tokens=1000, warmup_tokens=10_000, decay_fraction=0.5)
    expected = {0: 0.1, 4000: 0.5, 9000: 1.0, 50_000: 1.0, 75_000: 0.5, 99_000: 0.02, 100_000: 0.0}
    assert {tokens: learning_rate_scale(cfg, tokens) for tokens in expected} == pytest.approx(expected)


def test_every_group_keeps_its_own_peak() -> None:
    optimizers = build_optimizers(Autoencoder(tiny_model()), Muon(learning_rate=0.5, adamw=AdamW(learning_rate=0.1)))
    for scale in (0.25, 1.0, 0.5):
        set_learning_rate(optimizers, scale)
        assert [group["lr"] for each in optimizers for group in each.param_groups] == [0.5 * scale, 0.1 * scale]


ATTENTION = replace(tiny_model().encoder, mixer=Attention(num_heads=2))
PAPERS = tiny_model(encoder=ATTENTION, decoder=ATTENTION, pooling=LastToken(), unpooling=SlidingWindow())
QUERIES = tiny_model(pooling=LearnedQuery(num_heads=2), unpooling=LearnedQuery(num_heads=2))
OUTSIDE = {
    "embed.weight",
    "positions",
    "head.weight",
    "blanks",
    "decoder.hf.model.embed_tokens.weight",
    "decoder.hf.lm_head.weight",
    "encoder.embed.weight",
    "encoder.positions",
    "search.embed.weight",
    "search.positions",
    "search.words.weight",
    "encoder.pooling.queries",
    "decoder.positions",
    "decoder.head.weight",
    "decoder.unpooling.queries",
    "decoder.unpooling.part_positions",
}


@pytest.mark.parametrize(
    "cfg",
    [
        tiny_model(),
        PAPERS,
        QUERIES,
        *(RECIPES[name]().model for name in sorted({*RECIPES} - {"reader"}) if "paper" not in name),
    ],
)
def test_muon_gets_the_maps_between_hidden_states_and_adamw_the_rest(cfg: ModelConfig) -> None:
    with torch.device("meta"):
        model = build_model(cfg)
    names = {parameter: name for name, parameter in model.named_parameters()}
    matrices = {names[parameter] for parameter in hidden_matrices(model)}
    assert matrices == {name for parameter, name in names.items() if parameter.ndim == 2} - OUTSIDE
    muon, adamw = build_optimizers(model, Muon())
    covered = [[names[p] for group in each.param_groups for p in group["params"]] for each in (muon, adamw)]
    assert set(covered[0]) == matrices
    assert sorted(covered[0] + covered[1]) == sorted(names.values())
    (alone,) = build_optimizers(model, AdamW())
    assert [p for group in alone.param_groups for p in group["params"]] == list(model.parameters())


class Adapted(nn.Module):
    """A frozen map with a low-rank adapter, as peft names them, between a frozen embedding and the head tied to it."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.out = nn.Embedding(9, 8), nn.Linear(8, 9, bias=False)
        self.out.weight = self.tokens.weight
        self.base = nn.Linear(8, 8)
        self.lora_A = nn.ModuleDict({"default": nn.Linear(8, 2, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, 8, bias=False)})
        self.mine = nn.Linear(8, 8, bias=False)
        for frozen in (self.tokens, self.base):
            frozen.requires_grad_(False)


def test_muon_takes_no_adapter_and_nothing_frozen_or_tied_to_an_embedding() -> None:
    model = Adapted()
    assert [id(matrix) for matrix in hidden_matrices(model)] == [id(model.mine.weight)]
    _, adamw = build_optimizers(model, Muon())
    assert [p.shape for group in adamw.param_groups for p in group["params"]] == [(2, 8), (8, 2)]
    model.tokens.requires_grad_(True)
    assert [id(matrix) for matrix in hidden_matrices(model)] == [id(model.mine.weight)]


def test_frozen_parameters_are_no_optimizers() -> None:
    model = Autoencoder(tiny_model())
    model.encoder.requires_grad_(False)
    for cfg in (Muon(), AdamW()):
        trained = [p for each in build_optimizers(model, cfg) for group in each.param_groups for p in group["params"]]
        assert len(trained) == len(list(model.decoder.parameters()))
        assert all(p.requires_grad for p in trained)


# --- a known answer ---

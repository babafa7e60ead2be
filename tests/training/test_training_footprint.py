"""What training holds, told from shapes, is what it holds; and what cannot fit is refused before it begins."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from memlm.config import AdamW, Muon, Optimizer, TrainingConfig
from memlm.models.autoencoder import Autoencoder
from memlm.models.batch import Batch
from memlm.recipes import RECIPES
from memlm.recipes.paper import BATCH_TOKENS, paper_autoencoder, paper_causal, paper_memory_model
from memlm.text.model import build_model
from memlm.training import checkpoint
from memlm.training import footprint as module
from memlm.training.footprint import flops_per_token, footprint, require_fits, work
from memlm.training.loop import fit
from memlm.training.objectives import RETENTION
from memlm.training.optimizers import build_optimizers
from memlm_evidence.benchmarks.paper import Paper, shortened_step, training_of
from tiny import tiny_model, tiny_recipe

CFG = replace(tiny_recipe("*.txt").stages[-1].training, num_tokens=200)
LITTLE = {"encoder_dim": 32} | (SMALL := {"dim": 32, "num_layers": 1})
PAPER = (*(make(mixer) for make in (paper_autoencoder, paper_causal) for mixer in ("masked_mixer", "attention")),)


def whole_batch(step: int) -> Batch:
    tokens = torch.from_numpy(np.random.default_rng(step).integers(300, size=(13, 16)))
    return Batch(tokens, torch.ones_like(tokens, dtype=torch.bool))


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("optimizer", [AdamW(), Muon()])
def test_the_footprint_is_what_training_holds(optimizer: Optimizer, frozen: bool) -> None:
    model = Autoencoder(tiny_model())
    model.encoder.requires_grad_(not frozen)
    told = footprint(model, optimizer)
    optimizers = build_optimizers(model, optimizer)
    RETENTION.nats(model, whole_batch(0)).backward()
    for each in optimizers:
        each.step()
    state = [value for each in optimizers for of in each.state.values() for value in of.values()]
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    held = [*model.parameters(), *model.buffers()], gradients, state
    assert (told.weights, told.gradients, told.optimizer) == tuple(sum(t.nbytes for t in part) for part in held)
    assert told.copied == sum(
        tensor.nbytes for tensor in {**checkpoint._weights(model), **checkpoint._moments(optimizers)}.values()
    )
    divided = footprint(model, optimizer, 3)
    assert told.total / 3 <= divided.total < told.total / 3 * 1.2  # rows do not always divide


def test_what_is_kept_for_the_backward_pass_is_told_without_keeping_it() -> None:
    cfg = tiny_model()
    told = work(cfg, RETENTION, (16,))
    kept: dict[int, Tensor] = {}
    model = Autoencoder(cfg)
    own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        nats = RETENTION.nats(model, whole_batch(0)).sum()
    really = sum(tensor.untyped_storage().nbytes() for pointer, tensor in kept.items() if pointer not in own)
    assert told.fixed_bytes + told.bytes_per_token * 13 * 16 == pytest.approx(really, rel=0.02)
    nats.backward()
    assert told.flops_per_token == flops_per_token(model, RETENTION, whole_batch(0))


# --- refused before it begins ---


@pytest.fixture
def small_machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def make(gigabytes: float, processes: int = 1, *, on_gpu: bool = True) -> None:
        monkeypatch.setattr(module, "memory_per_process", lambda: int(gigabytes * 1e9))
        monkeypatch.setattr(module, "on_gpu", lambda: on_gpu)
        monkeypatch.setattr(module, "world_size", lambda: processes)

    return make


def test_a_recipe_that_cannot_fit_is_refused(small_machine: Callable[..., None]) -> None:
    recipe = paper_autoencoder("masked_mixer")  # 388 M parameters, of 16 bytes
    small_machine(5)
    with pytest.raises(ValueError, match=r"at least 6\.2 GB .* each of 1 has 5\.0 GB.* at least 2 processes.*sharded"):
        require_fits(recipe)
    small_machine(5, processes=2)
    require_fits(recipe)
    with pytest.raises(ValueError, match=r"6\.2 GB"):  # a whole one each
        require_fits(recipe.with_training(sharded=False))
    small_machine(6.5)
    require_fits(recipe)


def test_a_checkpoint_on_its_way_to_the_disk_takes_memory_too(small_machine: Callable[..., None]) -> None:
    recipe = paper_autoencoder("masked_mixer")
    small_machine(6.5, on_gpu=False)  # else the copy is not where the model is
    with pytest.raises(ValueError, match=r"at least 10\.9 GB .*a copy of all but gradients.* at least 2 processes"):
        require_fits(recipe)
    small_machine(11, on_gpu=False)
    require_fits(recipe)


def test_a_frozen_encoder_takes_less(small_machine: Callable[..., None]) -> None:
    small_machine(4.2)
    with pytest.raises(ValueError, match="GB"):
        require_fits(paper_memory_model())
    require_fits(paper_memory_model(encoder_from="somewhere"))


def test_training_itself_refuses_too(small_machine: Callable[..., None]) -> None:
    small_machine(1e-6)
    model = Autoencoder(tiny_model())
    before = [weight.clone() for weight in model.parameters()]
    with pytest.raises(ValueError, match="make the model smaller"):
        fit(model, whole_batch, RETENTION, CFG, quiet=True)
    assert all(map(torch.equal, before, model.parameters()))


# --- the paper's sizes ---


def parameters(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


def test_the_papers_models_have_its_sizes() -> None:
    width, layers, vocab, context = 1024, 16, 8000, 512
    mixer_block = 10 * width**2 + 4 * context**2  # two maps, an MLP of four times the width, four heads
    outside = vocab * width + context * width
    with torch.device("meta"):
        autoencoder, causal = (
            parameters(build_model(make("masked_mixer").model)) for make in (paper_autoencoder, paper_causal)
        )
        llama = parameters(build_model(paper_causal("attention").model))
        memory_model = parameters(build_model(paper_memory_model().model))
    assert causal == layers * mixer_block + outside + vocab * width
    assert autoencoder == 2 * (layers * mixer_block + outside) + width**2 + width // 2 * width
    assert llama == layers * (4 * width**2 + 3 * width * round(8 / 3 * width)) + outside + vocab * width
    assert 265e6 < memory_model < 275e6


@pytest.mark.parametrize("recipe", [*PAPER, paper_memory_model()], ids=lambda recipe: recipe.name)
def test_the_papers_recipes_are_complete(recipe: Any) -> None:
    assert type(recipe).from_json(recipe.to_json()) == recipe
    cfg, _, shape = training_of(recipe)
    assert isinstance(cfg, TrainingConfig)
    assert cfg.num_tokens == pytest.approx(13e9, rel=0.01)
    assert (cfg.batch_tokens, cfg.precision, cfg.sharded, cfg.optimizer.kind) == (BATCH_TOKENS, "bf16", True, "adamw")
    assert shape in ((512,), (4, 256))
    assert recipe.data.tokenizer.vocab_size == recipe.model.vocab_size == 8000
    assert recipe.data.corpus.name == "HuggingFaceFW/fineweb-edu"
    # More text than is trained on, were a token three bytes.
    assert recipe.data.corpus.max_bytes > 3 * cfg.num_tokens


def test_the_papers_curriculum_halves_its_tokens() -> None:
    recipe = paper_memory_model(corpus="finemath", encoder_from="somewhere", reading_fraction=0.5)
    assert [stage.training.num_tokens * 2 for stage in recipe.stages] == [paper_memory_model().num_tokens] * 2
    assert all(stage.frozen == ("encoder",) for stage in recipe.stages)
    assert recipe.data.corpus.name == "HuggingFaceTB/finemath"
    names = {"paper-autoencoder", "paper-causal", "paper-memory-model"}
    assert names <= {*RECIPES}


def test_the_benchmark_computes_what_it_cannot_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    small = paper_autoencoder(**SMALL), paper_memory_model(**LITTLE)
    monkeypatch.setattr("memlm_evidence.benchmarks.paper.RECIPES", small)
    answer = Paper(num_gpus=4).run()
    rate = answer["assumed"]["flops_per_second"] * answer["assumed"]["utilization"]
    for row, recipe in zip(answer["rows"], small, strict=True):
        step, held = row["step"], row["bytes_per_gpu"]
        assert step["measured"] is False
        assert step["gpu_hours"] * 3600 == pytest.approx(row["num_tokens"] * row["flops_per_token"] / rate)
        assert step["days"] * 24 * 4 == pytest.approx(step["gpu_hours"])
        assert held["total"] == pytest.approx(sum(held.values()) - held["total"])
        assert row["parameters"] <= held["gradients"] < 1.1 * row["parameters"]  # a quarter of four bytes each
        assert row["parameters"] == parameters(build_model(recipe.model))
        assert row["shortened_step"]["grad_norm"] > 0


@pytest.mark.slow
def test_every_one_of_the_papers_configurations_takes_a_step_at_its_width() -> None:
    for recipe in (*PAPER, paper_memory_model()):
        values = shortened_step(recipe)
        nats = [value for name, value in values.items() if name.endswith("nats")]
        assert all(8 < value < 11 for value in nats)  # ln 8000 = 8.99

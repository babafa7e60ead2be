"""A model divided over processes trains as a whole one does, and is saved, resumed and evaluated like one."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.tensor import DTensor

from memlm import cli
from memlm.config import (
    AdamW,
    Attention,
    AutoencoderRecipe,
    CrossAttention,
    DecoderConfig,
    LanguageModelConfig,
    LastToken,
    MemoryModelConfig,
    ModelConfig,
    Muon,
    Optimizer,
    Recipe,
    SlidingWindow,
    Stage,
    TrainingConfig,
    Unpooled,
    Weights,
)
from memlm.data.chunks import Chunks
from memlm.evaluation.metrics import quick_measures, score
from memlm.models.batch import Batch
from memlm.models.memory_model import MemoryModel, Regenerator
from memlm.runtime.results import read_json_lines
from memlm.text.model import build_model
from memlm.training.accelerator import build_accelerator
from memlm.training.checkpoint import RunFolder
from memlm.training.loop import fit
from memlm.training.objectives import CAUSAL, RETENTION, Objective, combined
from memlm.training.train import train
from tiny import launch, tiny_model

SPREAD = replace(tiny_model().encoder, num_layers=2)
CAUSALLY = replace(SPREAD, mixer=Attention(num_heads=2), causal=True)
MEMORY_MODEL = MemoryModelConfig(
    shape=replace(tiny_model().shape, end_token=False),  # the other cases' memories hold their length
    encoder=SPREAD,
    pooling=tiny_model().pooling,
    insertion=Unpooled(num_positions=2, token_dim=8),
    decoder=DecoderConfig(dim=32, num_layers=2, num_heads=2),
    max_memories=2,
    pointer_span=2,
)
ADAMW = AdamW(learning_rate=5e-3)
BOTH = combined(Weights(causal=1.0, retention=1.0))


@dataclass(frozen=True)
class Case:
    """A model, and how it is trained."""

    model: ModelConfig
    objective: Objective
    optimizer: Optimizer = ADAMW
    frozen: bool = False
    rounding: float = 1e-4


PAPER = tiny_model(encoder=CAUSALLY, pooling=LastToken(), unpooling=SlidingWindow())
CROSSING = replace(MEMORY_MODEL, insertion=CrossAttention(num_parts=2), pointer_span=0)
CASES = {
    "autoencoder": Case(tiny_model(encoder=SPREAD), RETENTION),
    "muon": Case(PAPER, RETENTION, Muon(learning_rate=0.01, adamw=ADAMW), rounding=3e-3),  # which rounds to bf16
    "language model": Case(LanguageModelConfig(vocab_size=300, chunk_len=16, stack=CAUSALLY), CAUSAL),
    "memory model": Case(MEMORY_MODEL, BOTH),
    "frozen encoder": Case(CROSSING, BOTH, frozen=True),
}


def batch(windows: bool, step: int) -> Batch:
    """Thirteen chunks or windows, which two processes cannot share evenly."""
    rng = np.random.default_rng(step)
    shape = (13, 3, 16) if windows else (13, 16)
    mask = np.arange(16) < rng.integers(2, 17, size=shape[:-1])[..., None]
    tokens = np.where(mask, rng.integers(20, size=shape), 0)  # few of the 300, so that there is something to learn
    return Batch.of(Chunks(tokens, mask, np.zeros(13, dtype=np.int64)))


def watched(model: nn.Module) -> dict[str, float]:
    """What share of the weights this process holds, and what the model has learned, which takes them all."""
    held = sum((w.to_local() if isinstance(w, DTensor) else w).numel() for w in model.parameters())
    tokens, mask, _ = batch(False, 1000)
    chunks = Chunks(tokens.numpy(), mask.numpy(), np.arange(13))
    share = {"share": held / sum(w.numel() for w in model.parameters())}
    if not hasattr(model, "decoder"):
        return share | {"nats_per_token": float(CAUSAL.nats(model, Batch(tokens, mask)).detach())}
    return share | quick_measures(score(Regenerator(model) if isinstance(model, MemoryModel) else model, chunks, 300))


def trained(name: str, cfg: TrainingConfig, folder: Path, *, stop: Callable[[dict[str, float]], bool]) -> nn.Module:
    """Train a case, or go on with it; its weights and metrics go to the folder."""
    case = CASES[name]
    cfg = replace(cfg, optimizer=case.optimizer)
    torch.manual_seed(0)
    model = build_model(case.model)
    if case.frozen:
        model.get_submodule("encoder").requires_grad_(False)
    windows = isinstance(case.model, MemoryModelConfig)
    accelerator = build_accelerator(cfg, all_used=False)
    fit(
        model,
        lambda step: batch(windows, step),
        case.objective,
        cfg,
        accelerator=accelerator,
        evaluate=watched,
        stop=stop,
        folder=RunFolder(folder, "run"),
        quiet=True,
    )
    if accelerator.is_main_process:
        save_file(model.state_dict(), folder / "weights.safetensors")
    return model


def train_in_two_parts(recipe: AutoencoderRecipe, folder: Path, *, quiet: bool) -> None:
    """Every case, broken off after its first measures, and gone on with; what was there then is kept beside it."""
    for name in CASES:
        trained(name, recipe.stages[-1].training, folder / name, stop=lambda _: True)
        if os.environ["RANK"] == "0":
            shutil.copytree(folder / name, folder / f"{name}, half")
        trained(name, recipe.stages[-1].training, folder / name, stop=lambda _: False)


@pytest.fixture(scope="module")
def training(recipe: AutoencoderRecipe) -> TrainingConfig:
    return replace(recipe.stages[-1].training, num_tokens=2000, eval_tokens=900, checkpoint_tokens=10_000)


@pytest.fixture(scope="module")
def sharded_runs(recipe: AutoencoderRecipe, training: TrainingConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    cfg = replace(training, sharded=True, num_processes=2, num_micro_batches=2)
    folder = tmp_path_factory.mktemp("sharded") / "runs"
    return launch(train_in_two_parts, recipe.with_stages(training=cfg), folder, 2)


def losses(folder: Path) -> list[list[float]]:
    names = ("retention_nats", "causal_nats", "nats_per_token")
    rows = read_json_lines(folder / "metrics.jsonl")
    return [[row["step"], *(row[name] for name in names if name in row)] for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_divided_or_whole_it_ends_the_same(
    name: str, training: TrainingConfig, sharded_runs: Path, tmp_path: Path
) -> None:
    trained(name, training, tmp_path / "one", stop=lambda _: False)
    # And begun by two processes, ended by one.
    shutil.copytree(sharded_runs / f"{name}, half", tmp_path / "half")
    assert len(losses(tmp_path / "half")) < len(losses(tmp_path / "one"))
    trained(name, training, tmp_path / "half", stop=lambda _: False)
    rounding = CASES[name].rounding
    expected = load_file(tmp_path / "one" / "weights.safetensors")
    for folder in (sharded_runs / name, tmp_path / "half"):
        np.testing.assert_allclose(np.concatenate(losses(folder)), np.concatenate(losses(tmp_path / "one")), rounding)
        found = load_file(folder / "weights.safetensors")
        for key, weight in expected.items():
            torch.testing.assert_close(found[key], weight, rtol=0, atol=10 * rounding)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_process_holds_its_share(name: str, sharded_runs: Path) -> None:
    shares = [row["share"] for row in read_json_lines(sharded_runs / name / "metrics.jsonl") if "share" in row]
    assert len(shares) >= 2
    assert all(0.5 <= share < 0.51 for share in shares)  # of odd numbers of rows one more


def test_the_launched_command_line_gives_the_single_process_loss(
    recipe: AutoencoderRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (path,) = recipe.data.corpus.paths  # type: ignore[union-attr]
    size = {"chunk-len": 16, "memory-dim": 32, "dim": 32, "vocab-size": 300, "num-tokens": 12_000, "grown-from": 0}
    options = [f"--{name}={value}" for name, value in size.items()]
    values = [
        "stages.*.training.precision=fp32",
        'stages.*.training.optimizer={"kind": "adamw", "learning_rate": 0.005}',
    ]
    command = ["memlm", "train", "autoencoder", *options, "--text", path, "--json", "--set", *values]
    monkeypatch.setattr(sys, "argv", [*command, "--out", str(tmp_path / "one")])
    cli.main()
    one = json.loads(capsys.readouterr().out)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]
    arguments = [*command, "stages.*.training.sharded=true", "--out", str(tmp_path / "two")]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*launcher, *arguments], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    two = json.loads(done.stdout)  # of one process alone
    np.testing.assert_allclose(np.concatenate(losses(tmp_path / "two")), np.concatenate(losses(tmp_path / "one")), 1e-3)
    accuracy = [answer["results"][0]["token_accuracy"] for answer in (one, two)]
    assert accuracy[0] == pytest.approx(accuracy[1], abs=0.01)


def test_over_one_process_there_is_nothing_to_divide(training: TrainingConfig, tmp_path: Path) -> None:
    whole, alone = (
        trained("autoencoder", replace(training, sharded=sharded), tmp_path / str(sharded), stop=lambda _: False)
        for sharded in (False, True)
    )
    for one, other in zip(whole.parameters(), alone.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(ValueError, match="2 processes were asked for, but 1 are"):
        build_accelerator(replace(training, sharded=True, num_processes=2))


def test_retrieval_on_several_processes_is_refused(
    recipe: AutoencoderRecipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cfg = replace(recipe.stages[-1].training, num_tokens=256)
    model = LanguageModelConfig(vocab_size=300, chunk_len=16, stack=CAUSALLY)
    stages = (Stage(weights=Weights(retrieval=1.0), training=cfg),)
    retrieval = Recipe(name="two", data=recipe.data, model=model, stages=stages)
    accelerator = build_accelerator(cfg)
    monkeypatch.setattr(type(accelerator), "num_processes", 2)
    monkeypatch.setattr("memlm.training.train.build_accelerator", lambda *_, **__: accelerator)
    with pytest.raises(ValueError, match="train it in one process"):
        train(retrieval, tmp_path / "run", quiet=True)

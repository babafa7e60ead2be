"""A run killed at any moment and run again ends in the same bits as one that was left alone."""

import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from memlm.config import AdamW, AutoencoderRecipe
from memlm.models.autoencoder import Autoencoder
from memlm.runtime import files
from memlm.runtime.results import read_json_lines
from memlm.training import checkpoint
from memlm.training.accelerator import build_accelerator
from memlm.training.checkpoint import Progress, RunFolder, Saver
from memlm.training.loop import MetricsLog
from memlm.training.optimizers import build_optimizers
from memlm.training.train import train
from tiny import launch

WEIGHTS = Path("model", "model.safetensors")


@pytest.fixture(scope="module")
def cautious(recipe: AutoencoderRecipe) -> AutoencoderRecipe:
    """The tiny recipe in two stages, saving after every step, with noise so that the generator's state matters too."""
    (stage,) = recipe.with_training(num_tokens=3000, checkpoint_tokens=256).stages
    model = replace(recipe.model, memory_noise=0.05)
    return replace(recipe, model=model, stages=(replace(stage, chunk_len=8), stage))


@pytest.fixture(scope="module")
def left_alone(cautious: AutoencoderRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("left_alone") / "run"
    train(cautious, folder, quiet=True)
    return folder


def steps(folder: Path) -> list[str]:
    """Checkpoints, relative to the run's folder."""
    # Not rglob, which goes into a checkpoint while the run removes it.
    return sorted(str(path.relative_to(folder)) for path in folder.glob("checkpoints/*/step-*"))


def start(recipe: AutoencoderRecipe, folder: Path) -> multiprocessing.Process:
    """Train in a process of its own, forked from one that has everything imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["memlm.training.train"])
    process = context.Process(target=train, args=(recipe, folder), kwargs={"quiet": True})
    process.start()
    return process  # type: ignore[return-value]


def kill_after_progress(recipe: AutoencoderRecipe, folder: Path, pause: float) -> int | None:
    """Start, wait for a new checkpoint and then `pause` seconds, kill; returns the exit code."""
    before, process = steps(folder), start(recipe, folder)
    while process.is_alive() and steps(folder) == before:
        time.sleep(0.001)
    process.join(pause)
    process.kill()
    process.join()
    return process.exitcode


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_any_moment_it_ends_in_the_same_bits(
    seed: int, cautious: AutoencoderRecipe, left_alone: Path, tmp_path: Path
) -> None:
    folder, moments = tmp_path / "run", random.Random(seed)
    codes = [kill_after_progress(cautious, folder, moments.uniform(0, 0.1)) for _ in range(3)]
    assert codes.count(-9) >= 2
    process = start(cautious, folder)
    process.join()
    assert process.exitcode == 0
    assert (folder / WEIGHTS).read_bytes() == (left_alone / WEIGHTS).read_bytes()
    assert losses(folder) == losses(left_alone)
    assert len(steps(folder)) == 4  # the last two of each stage
    assert not list((folder / "checkpoints").rglob(".*"))


def losses(folder: Path) -> list[tuple[str, int, float]]:
    rows = read_json_lines(folder / "metrics.jsonl")
    return [(row["split"], row["step"], row.get("retention_nats", row.get("nats_per_token"))) for row in rows]


def test_how_often_it_saves_changes_nothing(recipe: AutoencoderRecipe, finished_run: Path, tmp_path: Path) -> None:
    often = recipe.with_training(checkpoint_tokens=1)
    train(often, tmp_path / "run", quiet=True)
    assert (tmp_path / "run" / WEIGHTS).read_bytes() == (finished_run / WEIGHTS).read_bytes()


def test_batches_that_workers_make_are_the_same(recipe: AutoencoderRecipe, finished_run: Path, tmp_path: Path) -> None:
    train(recipe.with_training(workers=2), tmp_path / "run", quiet=True)
    assert (tmp_path / "run" / WEIGHTS).read_bytes() == (finished_run / WEIGHTS).read_bytes()


def test_a_finished_run_is_loaded_and_another_recipe_refused(recipe: AutoencoderRecipe, finished_run: Path) -> None:
    before = (finished_run / WEIGHTS).stat().st_mtime_ns
    again = train(recipe, finished_run, quiet=True)
    saved = load_file(finished_run / WEIGHTS)
    for name, weight in again.model.state_dict().items():
        assert torch.equal(weight, saved[name])
    assert (finished_run / WEIGHTS).stat().st_mtime_ns == before
    refused = f"{finished_run} holds a model of another recipe or data; .* "
    with pytest.raises(ValueError, match=refused + r"\(name is 'tiny' there and 'other' here\)"):
        train(replace(recipe, name="other"), finished_run, quiet=True)
    told = r"\(stages\.0\.training\.num_tokens is 12000 there and 9000 here; .*; .* here; and \d+ more\)"
    with pytest.raises(ValueError, match=refused + told):
        train(
            recipe.with_training(num_tokens=9000, batch_tokens=128, seed=7, warmup_tokens=1, eval_tokens=5),
            finished_run,
            quiet=True,
        )


def test_rows_later_than_the_checkpoint_are_written_anew(recipe: AutoencoderRecipe, tmp_path: Path) -> None:
    accelerator, first = build_accelerator(recipe.stages[-1].training), RunFolder(tmp_path, "run")
    second, progress = replace(first, stage=1, before=Progress(step=10)), Progress(step=1)
    log = MetricsLog(second, accelerator, progress)
    for progress.step in (1, 2, 3):
        log.write("train", {"loss": 0.0})
    MetricsLog(first, accelerator, Progress(step=10))  # the earlier stage, which is done, leaves them alone
    MetricsLog(second, accelerator, Progress(step=2)).write("train", {"loss": 1.0})
    assert [(row["step"], row["loss"]) for row in read_json_lines(first.metrics)] == [(11, 0.0), (12, 0.0), (12, 1.0)]


@pytest.fixture
def unfinished(finished_run: Path, tmp_path: Path) -> Path:
    """A run that stopped just before its model was saved."""
    folder = tmp_path / "run"
    shutil.copytree(finished_run, folder)
    shutil.rmtree(folder / "model")
    return folder


def test_a_stage_that_is_done_leaves_the_later_ones_rows(
    cautious: AutoencoderRecipe, left_alone: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(left_alone, tmp_path / "run")
    shutil.rmtree(folder / "model")
    train(cautious, folder, quiet=True)
    assert losses(folder) == losses(left_alone)
    assert (folder / WEIGHTS).read_bytes() == (left_alone / WEIGHTS).read_bytes()


def test_another_recipes_checkpoint_is_refused_and_left_as_it_is(recipe: AutoencoderRecipe, unfinished: Path) -> None:
    before = {path: path.read_bytes() for path in unfinished.rglob("*") if path.is_file()}
    with pytest.raises(
        ValueError, match=r"another configuration or data; give another folder, .* \(name is 'tiny' there"
    ):
        train(replace(recipe, name="other"), unfinished, quiet=True)
    assert {path: path.read_bytes() for path in unfinished.rglob("*") if path.is_file()} == before


PART = "shard-00001-model-00001-of-00001.safetensors"
FILES = [PART, "state.json"]
SHARES = [None, 0, 0.1, 0.9]


def damage(path: Path, share: float | None) -> None:
    """Cut a file short, or remove it."""
    if share is None:
        path.unlink()
    else:
        os.truncate(path, int(share * path.stat().st_size))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", SHARES)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    name: str, share: float | None, cautious: AutoencoderRecipe, left_alone: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(left_alone, tmp_path / "run")
    shutil.rmtree(folder / "model")
    older, newest = steps(folder)[-2:]
    damage(folder / newest / name, share)
    with pytest.warns(UserWarning, match=rf"{newest} is damaged .*going on from .* step {int(older[-8:])}$"):
        train(cautious, folder, quiet=True)
    assert (folder / WEIGHTS).read_bytes() == (left_alone / WEIGHTS).read_bytes()
    assert losses(folder) == losses(left_alone)
    assert steps(folder) == steps(left_alone)


def test_only_whole_checkpoints_count_as_kept(recipe: AutoencoderRecipe, tmp_path: Path) -> None:
    model = Autoencoder(recipe.model)
    optimizers = build_optimizers(model, recipe.stages[-1].training.optimizer)
    with Saver(tmp_path, "f") as saver:
        for step in (1, 2, 3):
            saver.save(Progress(step=step), model, optimizers)
    assert [path.name[-1] for path in sorted(tmp_path.iterdir())] == ["2", "3"]
    damage(tmp_path / "step-00000003" / "state.json", 0.5)
    with pytest.warns(UserWarning, match="step-00000003 is damaged"):
        assert checkpoint.restore(tmp_path, "f", model, optimizers).step == 2
    with Saver(tmp_path, "f") as saver:
        saver.save(Progress(step=4), model, optimizers)
    assert [path.name[-1] for path in sorted(tmp_path.iterdir())] == ["2", "4"]


def test_where_all_checkpoints_are_damaged_the_newest_is_named_and_none_removed(
    cautious: AutoencoderRecipe, left_alone: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(left_alone, tmp_path / "run")
    shutil.rmtree(folder / "model")
    for step in steps(folder):
        damage(folder / step / PART, 0.5)
    with pytest.raises(ValueError, match=f"{steps(folder)[1]} is damaged .*delete it to start again"):
        train(cautious, folder, quiet=True)
    assert steps(folder) == steps(left_alone)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", SHARES)
def test_a_single_checkpoint_that_is_damaged_is_refused_by_name(
    name: str, share: float | None, recipe: AutoencoderRecipe, unfinished: Path
) -> None:
    *others, step = steps(unfinished)
    for other in others:
        shutil.rmtree(unfinished / other)
    damage(unfinished / step / name, share)
    with pytest.raises(ValueError, match=f"{step} is damaged .*delete it to start again"):
        train(recipe, unfinished, quiet=True)


def test_leftovers_of_a_killed_save_and_a_cut_log_line_are_no_trouble(
    recipe: AutoencoderRecipe, finished_run: Path, unfinished: Path
) -> None:
    *_, step = steps(unfinished)
    leftover = (unfinished / step).with_name(".step-00000099-abc")
    leftover.mkdir()
    (leftover / "model.safetensors").write_bytes(b"half")
    with (unfinished / "metrics.jsonl").open("a") as log:
        log.write('{"split": "train", "st')
    train(recipe, unfinished, quiet=True)
    assert not leftover.exists()
    assert losses(unfinished) == losses(finished_run)
    assert (unfinished / WEIGHTS).read_bytes() == (finished_run / WEIGHTS).read_bytes()


# --- a full disk ---


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_the_older_checkpoint(recipe: AutoencoderRecipe, tmp_path: Path) -> None:
    model = Autoencoder(recipe.model)
    optimizers = build_optimizers(model, recipe.stages[-1].training.optimizer)
    size = sum(weight.nbytes for weight in model.state_dict().values())
    with small_disk(tmp_path / "disk", str(int(1.5 * size))) as disk:
        folder = disk / "checkpoints"
        saver = Saver(folder, "f")
        saver.save(Progress(step=1), model, optimizers)
        saver.wait()
        saved = {name: weight.clone() for name, weight in model.state_dict().items()}
        for weight in model.parameters():
            weight.data.zero_()
        saver.save(Progress(step=2), model, optimizers)
        with pytest.raises(OSError, match=f"could not write {folder}/step-00000002: .*nothing was changed"):
            saver.wait()
        assert [path.name for path in folder.iterdir()] == ["step-00000001"]
        assert checkpoint.restore(folder, "f", model, optimizers).step == 1
        for name, weight in model.state_dict().items():
            assert torch.equal(weight, saved[name])


def test_a_run_that_fills_the_disk_says_so(recipe: AutoencoderRecipe, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "256k") as disk, pytest.raises(OSError, match=f"could not write {disk}/run/"):
        train(recipe, disk / "run", quiet=True)


def test_one_at_a_time_trains_in_a_folder(
    recipe: AutoencoderRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_PATIENCE", 0)
    (tmp_path / "run").mkdir()
    with (
        files.only_one_in(tmp_path / "run"),
        pytest.raises(ValueError, match=f"somebody else is at work in {tmp_path / 'run'}"),
    ):
        train(recipe, tmp_path / "run", quiet=True)
    assert list((tmp_path / "run").iterdir()) == []


# --- processes ---


def test_two_processes_log_the_same_losses_as_one(recipe: AutoencoderRecipe, tmp_path: Path) -> None:
    # AdamW, for PyTorch's Muon rounds to bf16; a strong rate, so that a wrong gradient would show.
    alone = recipe.with_training(optimizer=AdamW(learning_rate=5e-3), short_fraction=0.5)
    train(alone, tmp_path / "one", quiet=True)
    # Unequal portions on purpose: 16 chunks for two processes in three micro-batches.
    folder = launch(train, alone.with_training(num_processes=2, num_micro_batches=3), tmp_path / "two", 2)
    both = [losses(folder), losses(tmp_path / "one")]
    assert [row[:2] for row in both[0]] == [row[:2] for row in both[1]]
    assert len(both[0]) > 4
    np.testing.assert_allclose(*([nats for *_, nats in rows] for rows in both), rtol=1e-4)
    assert json.loads((folder / "model" / "provenance.json").read_text())["step"] > 40
    assert not list((folder / "checkpoints").rglob(".*"))

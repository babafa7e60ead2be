"""Sweeps: every run once, whatever happens to the processes that measure them."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from command_line import Memlm
from memlm.config import (
    Attention,
    AutoencoderRecipe,
    LanguageModelConfig,
    MaskedMixer,
    MemoryModelRecipe,
    Recipe,
    StackConfig,
    Stage,
    Weights,
)
from memlm.recipes import RECIPES
from memlm.runtime.cluster import LOCAL
from memlm.runtime.executor import Workers
from memlm.runtime.results import Interval, Result
from memlm_evidence.cli.sweep import Sweep
from memlm_evidence.sweep import measure
from memlm_evidence.sweep.config import Axis, SweepConfig
from memlm_evidence.sweep.rows import SweepResult, read_sweep
from memlm_evidence.sweep.run import Shard, run_sweep
from tiny import break_down_after, tiny_memory_recipe, tiny_recipe

TINY = tiny_recipe("*.txt")
NOISE, DIM = "model.memory_noise=0,0.5", "model.encoder.dim=16,32"


def swept(recipe: Recipe, *over: str, seeds: tuple[int, ...] = ()) -> SweepConfig:
    return SweepConfig(name="tiny", recipe=recipe, axes=tuple(map(Axis.parse, over)), seeds=seeds)


@pytest.fixture(scope="module")
def four(recipe: AutoencoderRecipe) -> SweepConfig:
    """Four runs of a second each."""
    return swept(recipe.with_training(num_tokens=3000, checkpoint_tokens=1000, eval_tokens=3000), NOISE, DIM)


@pytest.fixture(scope="module")
def whole(four: SweepConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep in one go; not to be changed."""
    folder = tmp_path_factory.mktemp("whole") / "sweep"
    run_sweep(four, folder, quiet=True)
    return folder


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    """What was found, but for the time it took."""
    found = read_sweep(folder)
    assert not found.failed
    timed = ("seconds", "provenance")
    return {row["key"]: {name: value for name, value in row.items() if name not in timed} for row in found.rows}


def kept(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "cells").glob("*.json")}


def found(recipe: Recipe, _: Path) -> Result:
    """A measurement that takes no time."""
    accuracy = recipe.model.encoder.dim / 100 if recipe.model.kind == "autoencoder" else 0.5
    measures = {"token_accuracy": accuracy, "parameters": 10, "tokens_trained": 20, "seconds": 1.0}
    return Result(name="held_out", measures=measures, intervals={"token_accuracy": Interval(0.0, 1.0)})


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Recipe]]:
    """What was measured; nothing is trained."""
    calls: list[Recipe] = []

    def noted(recipe: Recipe, folder: Path) -> Result:
        calls.append(recipe)
        return found(recipe, folder)

    monkeypatch.setattr(measure, "measure", noted)
    yield calls
    assert len(set(map(repr, calls))) == len(calls)  # no test has a run measured twice


# --- what the runs are ---


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.sets(st.integers(1, 99), min_size=1, max_size=3), min_size=1, max_size=3),
    st.sets(st.integers(0, 9), max_size=3),
)
def test_cells_are_the_whole_cross_product_each_once(values: list[set[int]], seeds: set[int]) -> None:
    paths = ("stages.*.training.warmup_tokens", "model.encoder.num_layers", "model.decoder.num_layers")[: len(values)]
    over = [f"{path}={','.join(map(str, each))}" for path, each in zip(paths, values, strict=True)]
    sweep = swept(TINY, *over, seeds=tuple(seeds))
    runs = sweep.runs()
    expected = max(1, len(seeds))
    for each in values:
        expected *= len(each)
    assert len(runs) == len({run.key for run in runs}) == len({tuple(run.values.items()) for run in runs})
    assert len(runs) == expected
    for run in runs:
        assert run.recipe
        known = dict(zip(paths, (run.recipe.stages[-1].training.warmup_tokens, run.recipe.model.encoder.num_layers,
                                 run.recipe.model.decoder.num_layers), strict=False))  # fmt: skip
        known |= {"seed": run.recipe.stages[-1].training.seed} if seeds else {}
        assert dict(run.values) == {name: str(value) for name, value in known.items()}
    assert SweepConfig.from_json(sweep.to_json()) == sweep


def test_a_cell_is_its_recipe_alone() -> None:
    few, more = swept(TINY, NOISE).runs(), swept(replace(TINY, name="other"), "model.memory_noise=0.25,0.50,0.0", DIM)
    same = {run.key for run in few} & {run.key for run in more.runs()}
    assert len(same) == 2  # that there is a second axis, how a number is written and what it is called do not matter


def test_values_are_json_or_words_and_fields_may_move_together() -> None:
    axis = Axis.parse('model.encoder.mixer,model.decoder.mixer=attention,{"kind":"masked_mixer","num_heads":4}')
    runs = SweepConfig(name="", recipe=RECIPES["autoencoder"](grown_from=0), axes=(axis,)).runs()
    models = [run.recipe.model for run in runs]
    assert [(model.encoder.mixer, model.decoder.mixer) for model in models] == [
        (Attention(), Attention()),
        (MaskedMixer(num_heads=4), MaskedMixer(num_heads=4)),
    ]


@pytest.mark.parametrize(
    ("recipe", "tokens"),
    [
        (RECIPES["autoencoder"](), 2_000_000),
        (RECIPES["retrieval"](), 2_000_000),
        (RECIPES["memory-model"](), 2_000_000),
    ],
)
def test_seeds_go_to_every_stage_and_tokens_are_all_of_them(recipe: Recipe, tokens: int) -> None:
    (one, two) = swept(recipe, seeds=(5, 7)).runs()
    for run, seed in ((one, 5), (two, 7)):
        assert run.recipe
        seeds = [path for path in run.recipe.field_paths() if path.endswith(".seed")]
        assert seeds
        assert run.recipe.with_values([f"{path}={seed}" for path in seeds]) == run.recipe
        assert run.num_tokens == tokens


@pytest.mark.parametrize(
    ("over", "message"),
    [
        (["learning_rate=1,2"], r"no field 'learning_rate'.*did you mean stages.\*.training.optimizer.learning_rate\?"),
        (["stages.0.training.optimizer.momentun=0.9"], r"did you mean stages.0.training.optimizer.momentum\?"),
        ([NOISE, "model.encoder.colour=1,2"], "no field 'model.encoder.colour': at 'colour' there are only dim"),
        (["model.encoder.dim=32,wide"], r"model.encoder.dim: .*integer.*found 'wide'"),
        (
            ["model.encoder.mixer=attention,convolution"],
            "there is no kind 'convolution'; there are 'attention', 'masked_mixer'",
        ),
        ([DIM, "model.memory_noise=-1,0"], "memory_noise must not be negative, not -1"),
        (["model.encoder.dim"], "expected path.to.field=value,value, not 'model.encoder.dim'"),
        (["model.encoder.dim=16,,32"], "expected path.to.field=value,value"),
        (["model.encoder.dim=16,16"], "model.encoder.dim has the value 16 twice"),
        (["model.memory_noise=0.5,5e-1"], "two runs are the same: model.memory_noise=0.5; model.memory_noise=5e-1"),
        ([DIM, DIM], "model.encoder.dim is swept twice"),
        (["seed=1,2"], "give seeds"),
        ([], "nothing is varied: give --over"),
    ],
)
def test_what_cannot_be_swept_is_named_before_anything_is_written(
    over: list[str], message: str, recipe: AutoencoderRecipe, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        Sweep(recipe=recipe, over=tuple(over), out=tmp_path / "sweep").run()
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard": "4/4"}, "there is no shard 4/4: 4 shards are 0/4 to 3/4"),
        ({"shard": "1"}, "0/4 is the first of four, not '1'"),
        ({"shard": "0/0"}, "not '0/0'"),
        ({"workers": -1}, "cannot be -1 workers"),
        ({"text": ("-",)}, "not standard input"),
        ({"text": ("nowhere/*.txt",)}, "matches no file"),
    ],
)
def test_options_that_cannot_work_are_named(
    options: dict[str, Any], message: str, recipe: AutoencoderRecipe, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        Sweep(recipe=recipe, over=(NOISE,), out=tmp_path / "sweep", **options).run()
    assert not (tmp_path / "sweep").exists()


def test_a_folder_that_holds_something_else_is_refused(four: SweepConfig, finished_run: Path, tmp_path: Path) -> None:
    before = sorted(finished_run.iterdir())
    with pytest.raises(ValueError, match=r"holds something else than a sweep \(checkpoints\): give another folder"):
        run_sweep(four, finished_run)
    assert sorted(finished_run.iterdir()) == before
    (tmp_path / "sweep.json").write_text("{}")
    (tmp_path / "report.html").write_text("old")
    with pytest.raises(ValueError, match=r"sweep.json: not a valid SweepConfig"):
        read_sweep(tmp_path)


# --- each once ---


def test_a_finished_cell_is_never_repeated_and_more_values_keep_it(
    recipe: AutoencoderRecipe, measured: list[Recipe], tmp_path: Path
) -> None:
    run_sweep(swept(recipe, DIM), tmp_path, quiet=True)
    assert len(measured) == 2
    before = kept(tmp_path)
    run_sweep(swept(recipe, DIM), tmp_path, quiet=True)
    assert len(measured) == 2
    run_sweep(
        swept(recipe, "model.encoder.dim=64,16,32", "model.memory_noise=0,0.5", seeds=(0, 1)), tmp_path, quiet=True
    )
    assert len(measured) == 12
    assert kept(tmp_path).items() >= before.items()
    assert len(read_sweep(tmp_path).rows) == 12


@pytest.mark.parametrize("of", [2, 3, 7])
def test_shards_together_are_the_whole_sweep(
    of: int, recipe: AutoencoderRecipe, measured: list[Recipe], tmp_path: Path
) -> None:
    sweep = swept(recipe, NOISE, "model.encoder.dim=16,32,64")
    for number in range(of):
        left = read_sweep(tmp_path).num_left if number else 6
        run_sweep(sweep, tmp_path, shard=Shard(number, of), quiet=True)
        assert read_sweep(tmp_path).num_left == left - len(range(number, 6, of))
    assert len(measured) == 6
    assert [row["values"] for row in read_sweep(tmp_path).rows] == [dict(run.values) for run in sweep.runs()]


def test_broken_off_and_run_again_it_ends_in_the_same_rows(
    four: SweepConfig, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        break_down_after(4, patch)  # a run saves three times
        with pytest.raises(KeyboardInterrupt):
            run_sweep(four, tmp_path, quiet=True)
    before = kept(tmp_path)
    assert len(before) == 1
    assert list(tmp_path.glob("cells/*/checkpoints/stage-0/step-*"))
    run_sweep(four, tmp_path, quiet=True)
    assert kept(tmp_path).items() >= before.items()
    assert rows(tmp_path) == rows(whole)
    assert not list(tmp_path.glob("cells/*/checkpoints"))


def processes_at_work(ray_address: str | None) -> list[int]:
    """The workers, by their numbers."""
    if ray_address is None:
        return [each.pid for each in multiprocessing.active_children() if each.pid]
    below = psutil.Process().children(recursive=True)
    return [each.pid for each in below if each.name().startswith("ray::_call")]


@pytest.mark.slow
@pytest.mark.parametrize("ray_address", [None, LOCAL])
def test_a_worker_that_is_killed_leaves_its_run_to_another(
    ray_address: str | None, four: SweepConfig, whole: Path, tmp_path: Path
) -> None:
    who = Workers(num_workers=2, ray_address=ray_address)
    thread = Thread(target=partial(run_sweep, four, tmp_path, **who, quiet=True))
    thread.start()
    while thread.is_alive() and not list(tmp_path.glob("cells/*/checkpoints/*/step-*")):
        time.sleep(0.002)
    workers = processes_at_work(ray_address)
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    thread.join()
    assert rows(tmp_path) == rows(whole)


# --- every kind, and failures ---


def memory_recipe(recipe: AutoencoderRecipe) -> MemoryModelRecipe:
    quick = recipe.with_training(num_tokens=1000, eval_tokens=1000)
    return tiny_memory_recipe(quick, Weights(causal=1.0, retention=1.0))


def test_memory_models_are_swept_by_what_they_predict_and_give_back(recipe: AutoencoderRecipe, tmp_path: Path) -> None:
    sweep = swept(memory_recipe(recipe), "stages.0.weights.retention=0.5,1")
    run_sweep(sweep, tmp_path, quiet=True)
    known = read_sweep(tmp_path)
    assert known.headlines == ["causal_nats_per_token", "token_accuracy"]
    best, other = known.combinations
    assert best.mean("causal_nats_per_token") <= other.mean("causal_nats_per_token")
    for row in known.rows:
        for name in known.headlines:
            low, high = row["intervals"][name]
            assert low <= row[name] <= high


def test_language_models_are_swept_by_what_they_predict(recipe: AutoencoderRecipe, tmp_path: Path) -> None:
    stack = StackConfig(dim=32, num_layers=1, mlp_ratio=2.0, mixer=Attention(num_heads=2), causal=True)
    model = LanguageModelConfig(vocab_size=300, chunk_len=8, stack=stack)
    training = replace(recipe.stages[-1].training, num_tokens=4000, eval_tokens=4000)
    stages = (Stage(weights=Weights(causal=1.0), training=training),)
    causal = Recipe(name="tiny causal", data=recipe.data, model=model, stages=stages)
    run_sweep(swept(causal, "stages.0.training.num_tokens=500,4000"), tmp_path, quiet=True)
    known = read_sweep(tmp_path)
    assert known.headlines == ["causal_nats_per_token"]
    assert known.combinations[0].values == {"stages.0.training.num_tokens": "4000"}
    assert all(low < row["causal_nats_per_token"] < high for row in known.rows
               for low, high in [row["intervals"]["causal_nats_per_token"]])  # fmt: skip


def test_cells_that_cannot_be_are_failed_and_the_rest_go_on(
    four: SweepConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    over = (
        "model.encoder.dim=24,32",
        "model.encoder.mixer.num_heads=2,16",
        "stages.0.training.optimizer.adamw.learning_rate=0.01,1e38",
    )
    command = Sweep(recipe=four.recipe, over=over, out=tmp_path, json=True)
    answer = command.run()
    assert (len(answer["cells"]), len(answer["failed"]), answer["num_left"]) == (3, 5, 0)
    reasons = [row["failed"] for row in answer["failed"]]
    assert sum("dim 24 is not a multiple of the mixer's num_heads 16" in reason for reason in reasons) == 2
    assert sum("loss is nan" in reason for reason in reasons) == 3
    assert "3 of 8 runs measured" in capsys.readouterr().err
    assert "num heads 16" in (tmp_path / "report.html").read_text()

    # Failed is finished too, unless it is asked for.
    calls: list[Recipe] = []
    monkeypatch.setattr(measure, "measure", lambda recipe, folder: calls.append(recipe) or found(recipe, folder))
    command.run()
    assert not calls
    assert len(replace(command, retry=True).run()["cells"]) == 6
    assert len(calls) == 3


def test_a_sweep_of_which_nothing_can_be_trained_is_an_error(four: SweepConfig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing could be trained; .*report\.html says why"):
        Sweep(
            recipe=four.recipe, over=("stages.0.training.optimizer.adamw.learning_rate=1e37,1e38",), out=tmp_path
        ).run()


def test_a_broken_row_is_named(recipe: AutoencoderRecipe, measured: list[Recipe], tmp_path: Path) -> None:
    run_sweep(swept(recipe, DIM), tmp_path, quiet=True)
    broken = next((tmp_path / "cells").glob("*.json"))
    broken.write_text("{")
    with pytest.raises(
        ValueError, match=f"{broken} was measured by another plan, or is damaged.*remove it to measure again"
    ):
        run_sweep(swept(recipe, DIM), tmp_path, quiet=True)


# --- the command ---


def test_a_finished_sweep_is_reported_without_torch(whole: Path) -> None:
    (whole / "report.html").unlink()
    code = (
        "import sys, pathlib; from memlm_evidence.cli.sweep import Sweep;"
        "from memlm_evidence.sweep.config import SweepConfig;"
        "folder = pathlib.Path(sys.argv[1]); sweep = SweepConfig.read(folder / 'sweep.json');"
        "answer = Sweep(recipe=sweep, out=folder).run();"
        "assert len(answer['cells']) == 4; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(whole)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert (whole / "report.html").exists()


def test_the_command_prints_one_object(memlm: Memlm, corpus: str, tmp_path: Path) -> None:
    scale = {"grown-from": 0, "chunk-len": 16, "memory-dim": 32, "dim": 32, "vocab-size": 300, "num-tokens": 1000}
    knobs = [word for name, value in scale.items() for word in (f"--{name}", str(value))]
    asked = [
        *("autoencoder", *knobs, "--text", corpus, "--out", str(tmp_path), "--json"),
        *("--set", "data.validation_fraction=0.2", "data.test_fraction=0.2"),
        *("--over", "model.encoder.mixer,model.decoder.mixer=masked_mixer,attention", "--seeds", "0", "1"),
    ]
    done = memlm("sweep", *asked)
    answer = done.json()
    assert len(answer["cells"]) == 4
    assert answer["best"] in [
        {"model.encoder.mixer,model.decoder.mixer": name} for name in ("attention", "masked_mixer")
    ]
    assert "4 of 4 runs" in done.err
    assert Path(answer["report"]).exists()
    known: SweepResult = read_sweep(tmp_path)
    assert [len(each.rows) for each in known.combinations] == [2, 2]

"""Checkpoints are written in parts while training goes on, and any number of processes goes on with them."""

import itertools
import json
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from memlm.config import AdamW, AutoencoderRecipe, HubCorpus
from memlm.data.corpus import read_documents
from memlm.models.batch import Batch
from memlm.training import checkpoint, loop
from memlm.training.checkpoint import Progress, Saver, restore
from memlm.training.step import Stepper
from memlm.training.train import train

FIXTURES = Path(__file__).parents[1] / "fixtures"
WEIGHTS = Path("model", "model.safetensors")
Ending = Literal["finish", "interrupt", "kill"]


@pytest.fixture(scope="module")
def shards(recipe: AutoencoderRecipe, tmp_path_factory: pytest.TempPathFactory) -> AutoencoderRecipe:
    """The tiny recipe on Parquet shards of its corpus, saving after every other step."""
    folder = tmp_path_factory.mktemp("shards")
    texts = [document.text for document in read_documents(recipe.data.corpus)]
    for number in range(4):
        pq.write_table(pa.table({"text": texts[number::4]}), folder / f"{number}.parquet")
    data = replace(recipe.data, corpus=HubCorpus(name=str(folder / "*.parquet")))
    optimizer = AdamW(learning_rate=5e-3)  # PyTorch's Muon rounds to bf16
    model = replace(recipe.model, memory_noise=0.05)  # so that the generator's state matters too
    tiny = {"num_tokens": 3000, "checkpoint_tokens": 512, "optimizer": optimizer, "short_fraction": 0.5}
    return replace(recipe.with_training(**tiny), data=data, model=model)


def work(
    rank: int, number: int, port: int, recipe: AutoencoderRecipe, folder: Path, attempt: int, ending: Ending
) -> None:
    """One of several processes that train together, as torchrun starts them; notes what it is given at each step."""
    if number > 1:
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": number, "LOCAL_WORLD_SIZE": number}
        names |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": 1}
        os.environ.update({name: str(value) for name, value in names.items()})
    steps, path = [-1], folder.with_name(f"{folder.name}-{attempt}-{number}-{rank}.jsonl")
    batches, portions = loop._batches, Stepper._portions
    write_data, save = checkpoint._Writer.write_data, Saver.save
    saves = itertools.count(1)

    def numbered(sample: Any, workers: int, start: int) -> Iterator[Any]:
        for step, batch in enumerate(batches(sample, workers, start), start):
            steps.append(step)
            yield batch

    def noted(self: Stepper, batch: Batch) -> Iterator[Batch]:
        for portion in portions(self, batch):
            with path.open("a") as file:
                file.write(json.dumps([steps[-1], portion.tokens.tolist()]) + "\n")
            yield portion

    def interrupted(self: Saver, *arguments: Any) -> None:
        if next(saves) == 3:
            raise KeyboardInterrupt
        save(self, *arguments)

    def killed(self: Any, plan: Any, planner: Any) -> Any:
        """In the second save, once half a file is written and training is ahead by a step, the last process is."""
        written = write_data(self, plan, planner)
        if next(saves) == 2 and rank == number - 1:
            part = max(Path(self.path).iterdir())
            os.truncate(part, part.stat().st_size // 2)
            while steps[-1] < self._state["step"]:
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGKILL)
        return written

    loop._batches, Stepper._portions = numbered, noted  # type: ignore[method-assign,assignment]
    if ending == "interrupt":
        Saver.save = interrupted  # type: ignore[method-assign]
    if ending == "kill":
        checkpoint._Writer.write_data = killed  # type: ignore[method-assign]
    try:
        train(recipe, folder, quiet=True)
    except KeyboardInterrupt:
        assert ending == "interrupt"


def run(
    number: int, recipe: AutoencoderRecipe, folder: Path, *, attempt: int = 0, ending: Ending = "finish"
) -> list[int | None]:
    """Train in so many processes that begin with everything imported; returns their exit codes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["memlm.training.train"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        context.Process(target=work, args=(rank, number, port, recipe, folder, attempt, ending), daemon=True)
        for rank in range(number)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode is not None
    return [process.exitcode for process in processes]


def order(folder: Path) -> dict[int, list[list[int]]]:
    """Each step's whole batch, put together from what each process had; in every attempt, the same."""
    found: dict[int, list[list[int]]] = {}
    for first in folder.parent.glob(f"{folder.name}-*-0.jsonl"):
        number = int(first.stem.split("-")[-2])
        shares = [
            dict(json.loads(line) for line in first.with_stem(f"{first.stem[:-1]}{rank}").read_text().splitlines())
            for rank in range(number)
        ]
        for step in set.intersection(*map(set, shares)):
            batch = [row for row in itertools.chain(*itertools.zip_longest(*(share[step] for share in shares))) if row]
            assert found.setdefault(step, batch) == batch
    return found


def test_the_order_of_data_is_the_same_for_any_number_of_processes_and_after_a_resume(
    shards: AutoencoderRecipe, tmp_path: Path
) -> None:
    alone, changing = tmp_path / "alone", tmp_path / "changing"
    shards = replace(shards, model=replace(shards.model, memory_noise=0.0))  # which each process draws for itself
    halves = shards.with_training(sharded=True)
    assert run(1, shards, alone) == [0]
    assert run(2, halves, changing, attempt=0, ending="interrupt") == [0, 0]
    assert parts(changing) == [2, 2]
    assert run(1, shards, changing, attempt=1, ending="interrupt") == [0]
    assert parts(changing) == [1, 1]
    assert run(2, shards, changing, attempt=2) == [0, 0]
    assert order(changing) == order(alone)
    assert sorted(order(alone)) == list(range(len(order(alone))))
    assert len(order(alone)) > 10
    assert not list(changing.rglob(".*"))
    found, expected = (load_file(folder / WEIGHTS) for folder in (changing, alone))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def parts(folder: Path) -> list[int]:
    """Files of weights in each checkpoint."""
    return [len(list(path.glob("*.safetensors"))) for path in folder.glob("checkpoints/*/step-*")]


@pytest.mark.parametrize("number", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_killed_while_it_saves_it_goes_on_from_the_last_whole_checkpoint_to_the_same_bits(
    number: int, shards: AutoencoderRecipe, tmp_path: Path
) -> None:
    recipe, alone, killed = shards.with_training(sharded=True), tmp_path / "alone", tmp_path / "killed"
    assert run(number, recipe, alone) == [0] * number
    *others, last = run(number, recipe, killed, ending="kill")
    assert last == -signal.SIGKILL
    assert 0 not in others
    (left,) = killed.glob("checkpoints/*/step-*")
    (unfinished,) = killed.glob("checkpoints/*/.step-*")
    assert left.name < unfinished.name[1:]
    assert run(number, recipe, killed, attempt=1) == [0] * number
    assert (killed / WEIGHTS).read_bytes() == (alone / WEIGHTS).read_bytes()
    assert order(killed) == order(alone)
    assert not list(killed.rglob(".*"))


def test_training_goes_on_while_a_checkpoint_is_written(
    recipe: AutoencoderRecipe, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written is as it was when the save began; one that takes long holds up only the next."""
    write_data, batches, steps, late = checkpoint._Writer.write_data, loop._batches, [0], list[int]()

    def counted(*arguments: Any) -> Iterator[Any]:
        for batch in batches(*arguments):
            steps[0] += 1
            yield batch

    def slow(self: Any, plan: Any, planner: Any) -> Any:
        saved, deadline = self._state["step"], time.monotonic() + 60
        while steps[0] < min(saved + 5, 47) and time.monotonic() < deadline:
            time.sleep(0.001)
        late.append(steps[0] - saved)
        return write_data(self, plan, planner)

    monkeypatch.setattr(loop, "_batches", counted)
    monkeypatch.setattr(checkpoint._Writer, "write_data", slow)
    train(recipe, tmp_path / "run", quiet=True)
    assert late[0] >= 5
    assert (tmp_path / "run" / WEIGHTS).read_bytes() == (finished_run / WEIGHTS).read_bytes()
    for one, other in zip(
        *(sorted(run.glob("checkpoints/*/*")) for run in (tmp_path / "run", finished_run)), strict=True
    ):
        assert one.name == other.name
        tensors = [load_file(next(path.glob("*.safetensors"))) for path in (one, other)]
        assert all(torch.equal(tensor, tensors[1][name]) for name, tensor in tensors[0].items())


@pytest.mark.parametrize("name", ["checkpoint-0.2", "checkpoint-two-processes"])
def test_older_checkpoints_and_those_in_parts_are_read(name: str) -> None:
    """Version 0.2 wrote whole weights and whole moments; the other is the same, written by two processes."""
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    optimizers = optimizers_of(model)
    assert restore(FIXTURES / name, "f", model, optimizers) == Progress(step=3, tokens=60, seconds=1.5)
    expected = FIXTURES / "checkpoint-0.2" / "step-00000003"
    same(model.state_dict(), load_file(expected / "model.safetensors"))
    same(checkpoint._moments(optimizers), load_file(expected / "optimizer.safetensors"))


def optimizers_of(model: nn.Module) -> list[torch.optim.Optimizer]:
    matrices, others = ([p for p in model.parameters() if (p.ndim == 2) is wanted] for wanted in (True, False))
    return [torch.optim.Muon(matrices, lr=0.1), torch.optim.AdamW(others, lr=0.1)]


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def test_a_folder_that_not_every_machine_sees_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_data = checkpoint._Writer.write_data

    def elsewhere(self: Any, plan: Any, planner: Any) -> Any:
        written = write_data(self, plan, planner)
        next(Path(self.path).iterdir()).unlink()
        return written

    monkeypatch.setattr(checkpoint._Writer, "write_data", elsewhere)
    model = nn.Linear(2, 2)
    saver = Saver(tmp_path, "f")
    saver.save(Progress(step=1), model, [])
    with pytest.raises(
        OSError, match=r"could not write .*step-00000001: shard-00001-.* a folder that all machines share"
    ):
        saver.wait()
    assert not list(tmp_path.iterdir())


def test_nothing_of_a_checkpoint_is_a_pickle(finished_run: Path) -> None:
    names = {path.suffix for path in finished_run.glob("checkpoints/*/*/*")}
    assert names == {".safetensors", ".json"}

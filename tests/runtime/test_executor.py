"""Jobs are done once and in order, whatever happens to the processes that do them."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
import torch

from memlm.runtime import cluster
from memlm.runtime.executor import Job, Row, claim, num_processes, run_jobs

NAMES = ("a", "b", "c", "d")
Done = Callable[..., list[Row]]


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    """Ray, begun once: it takes ten seconds."""
    cluster.require_ray(cluster.LOCAL, "this test")
    with cluster.ray_at(cluster.LOCAL, 2):
        yield


@pytest.fixture(params=["one", "two", "ray"])
def done(request: pytest.FixtureRequest) -> Done:
    """`run_jobs` in this process, in two of this machine, or in two of Ray."""
    if request.param == "ray":
        request.getfixturevalue("ray")
        return partial(run_jobs, num_workers=2, ray_address=cluster.LOCAL)
    return partial(run_jobs, num_workers=1 if request.param == "one" else 2)


def note(log: Path, name: str, seconds: float = 0.0) -> Row:
    """Say that it has begun, and what it was done by."""
    with log.open("a") as file:
        file.write(f"{name} {os.getpid()}\n")
    time.sleep(seconds)
    return {"name": name, "process": os.getpid(), "threads": torch.get_num_threads()}


def jobs(folder: Path, names: Sequence[str] = NAMES, seconds: float = 0.0, **settings: object) -> list[Job]:
    run = partial(note, folder / "log", seconds=seconds)
    return [Job(name=name, run=partial(run, name), num_tokens=10, **settings) for name in names]  # type: ignore[arg-type]


def begun(folder: Path) -> list[str]:
    log = folder / "log"
    return [line.split()[0] for line in log.read_text().splitlines()] if log.exists() else []


def wait_until(condition: Callable[[], object]) -> None:
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("waited for a minute")


def test_rows_come_in_order_and_nothing_is_done_twice(done: Done, tmp_path: Path) -> None:
    before = done(jobs(tmp_path, NAMES[:2]), tmp_path / "rows")
    rows = done(jobs(tmp_path), tmp_path / "rows")
    assert [row["name"] for row in rows] == list(NAMES)
    assert rows[:2] == before
    assert sorted(begun(tmp_path)) == list(NAMES)
    here = isinstance(done, partial) and done.keywords["num_workers"] == 1
    assert (os.getpid() in {row["process"] for row in rows}) == here


@pytest.mark.parametrize("done", ["two", "ray"], indirect=True)
def test_groups_stay_together_and_what_is_timed_runs_alone_and_last(done: Done, tmp_path: Path) -> None:
    timed = jobs(tmp_path, ["timed"], exclusive=True)
    grouped = [*jobs(tmp_path, ["x1", "x2"], 0.3, group="x"), *jobs(tmp_path, ["y1", "y2"], 0.3, group="y")]
    rows = {row["name"]: row for row in done([*timed, *grouped], tmp_path / "rows")}
    process = {name: row["process"] for name, row in rows.items()}
    assert process["x1"] == process["x2"] != os.getpid() != process["y1"] == process["y2"]
    assert process["timed"] == os.getpid()
    order = begun(tmp_path)
    assert order[-1] == "timed"
    assert order.index("x1") < order.index("x2")
    assert order.index("y1") < order.index("y2")
    assert {rows[name]["threads"] for name in ("x1", "y1")} == {max(1, (os.cpu_count() or 1) // 2)}


def fail() -> Row:
    raise ValueError("the disk of c is full")


def test_what_fails_is_said_here_and_what_was_done_stays(done: Done, tmp_path: Path) -> None:
    first = jobs(tmp_path, ["a"])
    run_jobs(first, tmp_path / "rows")
    with pytest.raises(ValueError, match="the disk of c is full"):
        done([*first, Job(name="c", run=fail), *jobs(tmp_path, ["d"])], tmp_path / "rows")
    run_jobs(jobs(tmp_path), tmp_path / "rows")
    assert begun(tmp_path).count("a") == 1


def kill_itself() -> Row:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


@pytest.mark.parametrize("done", ["two", pytest.param("ray", marks=pytest.mark.slow)], indirect=True)
def test_a_job_that_kills_its_worker_is_named_and_the_others_are_done(done: Done, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"not done: deadly; all workers were killed.*run it again"):
        done([Job(name="deadly", run=kill_itself), *jobs(tmp_path)], tmp_path / "rows")
    assert sorted(path.stem for path in (tmp_path / "rows").glob("*.json")) == list(NAMES)


def kill_itself_once(folder: Path) -> Row:
    try:
        (folder / "killed").touch(exist_ok=False)
    except FileExistsError:
        return {"name": "deadly"}
    return kill_itself()


@pytest.mark.parametrize("done", ["two", "ray"], indirect=True)
def test_what_a_killed_worker_was_at_is_done_by_another(done: Done, tmp_path: Path) -> None:
    deadly = Job(name="deadly", run=partial(kill_itself_once, tmp_path))
    rows = done([deadly, *jobs(tmp_path)], tmp_path / "rows")
    assert [row["name"] for row in rows] == ["deadly", *NAMES]


def in_a_process(folder: Path, names: Sequence[str]) -> None:
    run_jobs(jobs(folder, names, seconds=0.05), folder / "rows", quiet=True)


def test_processes_that_share_a_folder_do_no_job_twice(tmp_path: Path) -> None:
    names = [f"job{number}" for number in range(16)]
    context = multiprocessing.get_context("forkserver")
    processes = [context.Process(target=in_a_process, args=(tmp_path, each)) for each in (names, names, names[1::2])]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert sorted(begun(tmp_path)) == sorted(names)


def test_whoever_is_at_work_is_waited_for(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=in_a_process, args=(tmp_path, ["a"]))
    process.start()
    wait_until(lambda: begun(tmp_path))
    assert not claim(jobs(tmp_path, ["a"]), tmp_path / "rows") or (tmp_path / "rows" / "a.json").exists()
    (row,) = run_jobs(jobs(tmp_path, ["a"]), tmp_path / "rows")
    process.join()
    assert row["process"] == process.pid


ABANDONED = """
import sys
from functools import partial
from pathlib import Path
from memlm.runtime.executor import Job, run_jobs
from test_executor import write_on
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    run_jobs([Job(name=name, run=partial(write_on, folder / name)) for name in "ab"], folder / "rows", num_workers=2)
"""


def write_on(path: Path) -> Row:
    for number in range(1200):
        path.write_text(str(number))
        time.sleep(0.05)
    return {}


def test_workers_end_with_whoever_started_them(tmp_path: Path) -> None:
    (tmp_path / "abandoned.py").write_text(ABANDONED)
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, tmp_path / "abandoned.py", tmp_path]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}) as parent:
        wait_until(lambda: (tmp_path / "a").exists() and (tmp_path / "b").exists())
        parent.kill()

    def at_rest() -> bool:
        before = [(tmp_path / name).read_text() for name in "ab"]
        time.sleep(1)
        return before == [(tmp_path / name).read_text() for name in "ab"]

    wait_until(at_rest)


def test_a_damaged_row_and_one_of_another_plan_are_named(tmp_path: Path) -> None:
    run_jobs(jobs(tmp_path, plan="one"), tmp_path)
    with pytest.raises(ValueError, match=r"a\.json was measured by another plan.*remove it to measure again"):
        run_jobs(jobs(tmp_path, plan="other"), tmp_path)
    (tmp_path / "b.json").write_text("[")
    with pytest.raises(ValueError, match=r"b\.json was measured by another plan, or is damaged"):
        run_jobs(jobs(tmp_path, plan="one"), tmp_path)
    assert len(begun(tmp_path)) == len(NAMES)


def test_no_number_of_workers_is_negative(tmp_path: Path) -> None:
    assert num_processes(0) == os.cpu_count()
    with pytest.raises(ValueError, match="cannot be -1 workers"):
        run_jobs([], tmp_path / "rows", num_workers=-1)
    assert not (tmp_path / "rows").exists()


def test_progress_is_told_in_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_jobs(jobs(tmp_path), tmp_path / "rows", title="Working")
    assert "Working: 40 tokens of 40 tokens" in capsys.readouterr().err
    run_jobs(jobs(tmp_path), tmp_path / "rows", title="Working")
    assert not capsys.readouterr().err

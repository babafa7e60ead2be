"""Ray's workers: what each has of the machines, and what they must have as this process has it."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memlm.runtime import cluster
from memlm.runtime.executor import require_workers
from memlm.runtime.wording import installed_version

machines = st.lists(
    st.fixed_dictionaries({"CPU": st.integers(1, 64).map(float)}, optional={"GPU": st.integers(1, 8).map(float)}),
    min_size=1,
    max_size=5,
)


def places(there: list[dict[str, float]], cores: int, gpus: float) -> int:
    """How many workers find a place, each on one machine."""
    found = 0
    for machine in there:
        each, cpu, gpu = 0, machine["CPU"], machine.get("GPU", 0.0)
        while cpu >= cores and gpu + 1e-9 >= gpus:
            each, cpu, gpu = each + 1, cpu - cores, gpu - gpus
        found += each
    return found


@given(machines, st.integers(1, 200))
def test_workers_have_as_many_cores_as_all_can_have(there: list[dict[str, float]], num_workers: int) -> None:
    cores, gpus = cluster.shares(there, num_workers)
    num_gpus = sum(machine.get("GPU", 0) for machine in there)
    assert (gpus > 0) == (num_gpus > 0)
    assert gpus <= 1
    if not num_gpus:
        assert cores == 1 or places(there, cores, 0) >= num_workers
        assert places(there, cores + 1, 0) < num_workers


@pytest.mark.parametrize(
    ("there", "num_workers", "each"),
    [
        ([{"CPU": 2}], 2, (1, 0)),
        ([{"CPU": 16}], 3, (5, 0)),
        ([{"CPU": 16}, {"CPU": 4}], 2, (8, 0)),
        ([{"CPU": 2}], 9, (1, 0)),
        ([{"CPU": 64, "GPU": 8}], 8, (8, 1)),
        ([{"CPU": 64, "GPU": 8}, {"CPU": 64}], 16, (4, 0.5)),
    ],
)
def test_known_shares(there: list[dict[str, float]], num_workers: int, each: tuple[int, float]) -> None:
    assert cluster.shares(there, num_workers) == each


def test_a_worker_that_lacks_something_says_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_SECONDS", 0)
    monkeypatch.chdir(tmp_path)
    version = installed_version("memlm")
    here = cluster._Here(variables={}, paths=[], folder=tmp_path, mark=tmp_path / "mark", memlm=version)
    with pytest.raises(ValueError, match=r"does not see .* give a folder that all machines share"):
        here.take()
    here.mark.touch()
    here.take()
    with pytest.raises(ValueError, match=f"has memlm {version}, not 9.0: install the same on all machines"):
        replace(here, memlm="9.0").take()


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"--ray-address needs ray: pip install 'memlm\[ray\]'"):
        require_workers(2, "auto")


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "memlm", "probe", "minilm", "--ray-address", "auto"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ended.returncode == 2
    assert "no Ray cluster at 'auto'" in ended.stderr

"""A value is made once for each key, by whoever asks first."""

import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memlm.runtime.cache import Arrays, Cache, digest


def test_a_value_is_made_once_for_each_key(tmp_path: Path) -> None:
    made: list[int] = []

    def get(**key: Any) -> Any:
        return Cache(tmp_path).get(key, lambda: made.append(1) or {"n": len(made), "list": [0.1, None]})

    assert get(a=1, b="x") == get(b="x", a=1) == {"n": 1, "list": [0.1, None]}
    assert get(a=2, b="x")["n"] == 2
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})


def make_slowly(folder: Path) -> None:
    def make() -> int:
        (folder / f"made by {os.getpid()}").touch()
        time.sleep(0.2)
        return 1

    assert Cache(folder / "cache").get({"a": 1}, make) == 1


def test_two_processes_make_it_once(tmp_path: Path) -> None:
    processes = [multiprocessing.get_context("spawn").Process(target=make_slowly, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(list(tmp_path.glob("made by *"))) == 1


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        Cache(tmp_path).get({"a": 1}, lambda: 1 / 0)
    assert Cache(tmp_path).get({"a": 1}, lambda: 2) == 2


@pytest.mark.parametrize("damage", ["{", "[]", '{"key": {"a": 2}, "value": 1}'])
def test_a_damaged_entry_is_named(damage: str, tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.get({"a": 1}, lambda: 1)
    cache.path({"a": 1}).write_text(damage)
    with pytest.raises(ValueError, match=rf"{cache.path({'a': 1})} is damaged.*remove it"):
        cache.get({"a": 1}, lambda: 1)


def numbers(value: float) -> Arrays:
    return Arrays({"a": np.full((2, 3), value, np.float32), "b": np.arange(4)}, {"curve": [value, None]})


def test_arrays_are_made_once_for_each_key(tmp_path: Path) -> None:
    def refuse() -> Arrays:
        raise AssertionError("this has been made before")

    Cache(tmp_path).arrays({"seed": 1}, lambda: numbers(0.1))
    again = Cache(tmp_path).arrays({"seed": 1}, refuse)
    assert again.about == {"curve": [0.1, None]}
    for name, array in numbers(0.1).arrays.items():
        np.testing.assert_array_equal(again.arrays[name], array)
    assert Cache(tmp_path).arrays({"seed": 2}, lambda: numbers(2)).about["curve"][0] == 2


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.99])
def test_damaged_arrays_are_made_again_with_a_word(keep: float, tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.arrays({"seed": 1}, lambda: numbers(1))
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.warns(UserWarning, match=rf"{path} is damaged .*made again"):
        assert cache.arrays({"seed": 1}, lambda: numbers(2)).about["curve"][0] == 2
    assert cache.arrays({"seed": 1}, lambda: numbers(3)).about["curve"][0] == 2  # whole again


def test_arrays_of_another_key_are_not_taken(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.arrays({"seed": 1}, lambda: numbers(1))
    (path,) = tmp_path.glob("*.safetensors")
    path.rename(tmp_path / f"{digest({'seed': 2})}.safetensors")
    with pytest.warns(UserWarning, match="another key"):
        assert cache.arrays({"seed": 2}, lambda: numbers(2)).about["curve"][0] == 2

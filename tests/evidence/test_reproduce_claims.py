"""A reproduction measures what decides the claims asked for, each experiment once, whatever stops it on the way."""

import json
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from memlm.config import ReadingConfig
from memlm.runtime.results import Result
from memlm.training import autoencoder as training_autoencoder
from memlm.training import language_model
from memlm_evidence.claims import CLAIMS
from memlm_evidence.experiments import reproduce as run
from memlm_evidence.experiments.experiments import PRESETS, Experiment
from memlm_evidence.experiments.foreign_text.run import ForeignTextPlan, reproduce_foreign_text
from memlm_evidence.experiments.reproduce import RESULTS, named, reproduce_claims
from memlm_evidence.experiments.settle_causal.run import SettlingPlan, reproduce_settling

EXPERIMENTS = list(dict.fromkeys(claim.experiment for claim in CLAIMS))


class Counted:
    """Experiments that only count how often they are measured, and of which one may break down."""

    def __init__(self) -> None:
        self.measured: list[str] = []
        self.breaks = ""
        self.size = 1

    def preset(self, seed: int) -> list[Experiment]:
        return [
            Experiment(name, name, (name, seed, self.size), self.measure, seeded=name != "substitution")
            for name in EXPERIMENTS
        ]

    def measure(self, out: Path, plan: tuple[str, int, int]) -> Result:
        name, seed, _ = plan
        if name == self.breaks:
            raise KeyboardInterrupt
        self.measured.append(f"{name} {seed}")
        return Result(name=name, measures={"value": seed})


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    counted = Counted()
    monkeypatch.setattr(run, "PRESETS", {"quick": counted.preset, "standard": counted.preset})
    return counted


@pytest.fixture
def reproduce(tmp_path: Path) -> Callable[..., Any]:
    return partial(reproduce_claims, tmp_path / "out", say=lambda _: None)


def rows(folder: Path) -> dict[str, Any]:
    found = {path.stem: json.loads(path.read_text()) for path in sorted((folder / "out" / RESULTS).glob("*.json"))}
    return {name: {**row, "seconds": None} for name, row in found.items()}


def test_each_experiment_is_measured_once(counted: Counted, reproduce: Callable[..., Any], tmp_path: Path) -> None:
    assert reproduce(seeds=(0, 1)) == list(CLAIMS)
    expected = [f"{name} {seed}" for seed in (0, 1) for name in EXPERIMENTS if (name, seed) != ("substitution", 1)]
    assert counted.measured == expected
    before = rows(tmp_path)
    reproduce(seeds=(0, 1))
    assert counted.measured == expected
    assert rows(tmp_path) == before
    assert before["embeddings-seed-1"]["value"] == 1
    assert "substitution" in before


@pytest.mark.parametrize("breaks", EXPERIMENTS)
def test_stopped_and_started_again_it_ends_as_if_never_stopped(
    breaks: str, counted: Counted, reproduce: Callable[..., Any], tmp_path: Path
) -> None:
    counted.breaks = breaks
    with pytest.raises(KeyboardInterrupt):
        reproduce()
    assert len(counted.measured) == EXPERIMENTS.index(breaks)
    counted.breaks = ""
    reproduce()
    assert counted.measured == [f"{name} 0" for name in EXPERIMENTS]
    assert len(rows(tmp_path)) == len(EXPERIMENTS)


def measure_beside(out: Path, plan: tuple[str, Path]) -> Result:
    """Begin, and end when another group has begun; what is timed does not wait."""
    name, marks = plan
    (marks / f"{name} began").touch()
    other = {"embeddings": "memory-model", "memory-model": "embeddings"}.get(name, name)
    wait_until(lambda: (marks / f"{other} began").exists())
    if name == "recall" and (marks.parent / "broken").exists():
        raise ValueError("the disk of recall is full")
    (marks / f"{name} ended").touch()
    began, ended = ({path.name.split()[0] for path in marks.glob(f"* {what}")} for what in ("began", "ended"))
    values = {"process": os.getpid(), "threads": torch.get_num_threads(), "beside": sorted(began - ended)}
    return Result(name=name, measures=values)


TIMED = {"substitution", "memory-training"}
FOLDERS = {"foreign-text": "embeddings", "recall": "memory-model"}


@pytest.fixture
def side_by_side(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    (tmp_path / "marks").mkdir()

    def preset(seed: int) -> list[Experiment]:
        return [
            Experiment(name, FOLDERS.get(name, name), (name, tmp_path / "marks"), measure_beside, timed=name in TIMED)
            for name in EXPERIMENTS
        ]

    monkeypatch.setattr(run, "PRESETS", {"quick": preset})
    return partial(reproduce_claims, tmp_path / "out", num_workers=2)


def test_what_shares_nothing_is_measured_side_by_side(side_by_side: Callable[..., Any], tmp_path: Path) -> None:
    side_by_side()
    found = rows(tmp_path)
    assert len(found) == len(EXPERIMENTS)
    process = {row["name"]: row["process"] for row in found.values()}
    assert process["embeddings"] == process["foreign-text"] != process["memory-model"] == process["recall"]
    here = {name for name, number in process.items() if number == os.getpid()}
    assert here == TIMED, "what is timed is measured alone, with all cores"
    assert {row["threads"] for row in found.values() if row["name"] not in TIMED} == {max(1, os.cpu_count() // 2)}
    assert not any(row["beside"] for row in found.values() if row["name"] in TIMED)


def test_what_fails_in_a_worker_is_said_here(side_by_side: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    with pytest.raises(ValueError, match="the disk of recall is full"):
        side_by_side()
    assert not {row["name"] for row in rows(tmp_path).values()} & TIMED
    (tmp_path / "broken").unlink()
    side_by_side()
    assert len(rows(tmp_path)) == len(EXPERIMENTS)


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("waited for a minute")


def test_only_what_decides_the_claims_asked_for_is_measured(counted: Counted, reproduce: Callable[..., Any]) -> None:
    (found,) = reproduce("quick", ["memories-save-time"])
    assert (found.name, counted.measured) == ("memories-save-time", ["substitution 0"])


def test_an_unknown_claim_is_answered_with_the_nearest(reproduce: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no claim 'memorys-help'; did you mean memories-help\?"):
        reproduce("quick", ["memorys-help"])
    assert not (tmp_path / "out").exists()
    assert named(["memories-help", "causal-embeddings-hold-little"]) == [
        claim for claim in CLAIMS if claim.name in ("memories-help", "causal-embeddings-hold-little")
    ]


def test_a_folder_is_one_presets_and_one_versions(
    counted: Counted, reproduce: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reproduce("quick")
    before = rows(tmp_path)
    with pytest.raises(ValueError, match=r"preset\.json says .*quick.*give another folder"):
        reproduce("standard")
    with monkeypatch.context() as patch:
        patch.setattr(run, "version", lambda _: "9.9")
        with pytest.raises(ValueError, match=r"this is .*9\.9"):
            reproduce("quick")
    counted.size = 2  # the preset has changed
    with pytest.raises(ValueError, match=r"embeddings-seed-0\.json was measured by another plan"):
        reproduce("quick")
    assert rows(tmp_path) == before
    with pytest.raises(ValueError, match="no preset 'huge'; there are quick, standard"):
        reproduce("huge")


def test_a_damaged_result_is_named(counted: Counted, reproduce: Callable[..., Any], tmp_path: Path) -> None:
    reproduce()
    (tmp_path / "out" / RESULTS / "substitution.json").write_text("[")
    with pytest.raises(ValueError, match=r"substitution\.json was measured by another plan, or is damaged"):
        reproduce()


def test_two_runs_do_not_share_a_folder(counted: Counted, reproduce: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"), pytest.raises(ValueError, match="another run is at work in"):
        reproduce()
    assert counted.measured == []
    reproduce()


@pytest.mark.parametrize("preset", ["quick", "standard"])
def test_every_claim_has_an_experiment_in_every_preset(preset: str) -> None:
    of_seed = [PRESETS[preset](seed) for seed in (0, 1)]
    assert {experiment.name for experiment in of_seed[0]} == set(EXPERIMENTS)
    for one, other in zip(*of_seed, strict=True):
        assert (one.name, one.folder) == (other.name, other.folder)
        assert (repr(one.plan) != repr(other.plan)) == one.seeded
        assert " at 0x" not in repr(one.plan)  # it says what it depends on, and no address


@pytest.fixture
def nothing_is_trained(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    def forbid() -> None:
        monkeypatch.setattr(training_autoencoder, "fit", None)
        monkeypatch.setattr(language_model, "fit", None)

    return forbid


@pytest.mark.slow
def test_autoencoders_meet_foreign_text(tmp_path: Path, nothing_is_trained: Callable[[], None]) -> None:
    plan = ForeignTextPlan(chunk_len=16, memory_dim=64, num_tokens=30_000)
    result = reproduce_foreign_text(tmp_path, plan, quiet=True)
    json.dumps(result.to_dict())
    texts = ["held_out", "temporal", "novel", "verse", "code", "random_tokens"]
    assert [(row["mixer"], row["text"]) for row in result.rows] == [
        (mixer, text) for mixer in ("masked_mixer", "attention") for text in texts
    ]
    assert {mixer: len(samples) for mixer, samples in result.samples.items()} == {"masked_mixer": 5, "attention": 5}
    for claim in CLAIMS:
        if claim.experiment == "foreign-text":
            low, value, high = (claim.measure(result.to_dict())[index] for index in (1, 0, 2))
            assert low <= value <= high
    nothing_is_trained()
    assert reproduce_foreign_text(tmp_path, plan, quiet=True).measures == result.measures


@pytest.mark.slow
def test_a_causal_model_is_settled(tmp_path: Path, nothing_is_trained: Callable[[], None]) -> None:
    reading = ReadingConfig(num_steps=5, max_chunks=100, test_chunks=20)
    plan = SettlingPlan(chunk_len=8, num_tokens=20_000, reading=reading, num_texts=2, search_steps=1)
    result = reproduce_settling(tmp_path, plan, quiet=True)
    assert result.chunk_len == 8
    (claim,) = [claim for claim in CLAIMS if claim.experiment == "settle-causal"]
    assert claim.measure(result.to_dict()).value <= 1
    nothing_is_trained()
    assert reproduce_settling(tmp_path, plan, quiet=True).verdict == result.verdict

"""A reproduction measures what decides the claims asked for, each experiment once, whatever stops it on the way."""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from filelock import FileLock

from memlm.config import ReadingConfig
from memlm.runtime.results import Provenance
from memlm_evidence.claims import ExperimentResult
from memlm_evidence.experiments import reproduce as run
from memlm_evidence.experiments.experiment import Experiment
from memlm_evidence.experiments.foreign_text import FOREIGN_TEXT, ForeignTextPlan
from memlm_evidence.experiments.reproduce import RESULTS, reproduce_claims
from memlm_evidence.experiments.settle_causal import SETTLE_CAUSAL, SettlingPlan
from memlm_evidence.experiments.table import CLAIMS, EXPERIMENTS, named

NAMES = [experiment.name for experiment in EXPERIMENTS]


@dataclass(frozen=True, kw_only=True)
class Noted(ExperimentResult):
    """What a made-up experiment notes."""

    name: ClassVar[str] = "noted"
    value: int = 0
    process: int = 0
    threads: int = 0
    beside: Sequence[str] = ()


class Counted:
    """Experiments that only count how often they are measured, and of which one may break down."""

    def __init__(self) -> None:
        self.measured: list[str] = []
        self.breaks = ""
        self.size = 1
        self.experiments = [self.experiment(name) for name in NAMES]

    def experiment(self, name: str) -> Experiment[Any, Noted]:
        return Experiment(
            name=name,
            folder=name,
            presets=dict.fromkeys(("quick", "standard"), lambda seed: (name, seed, self.size)),
            run=self.measure,
            page=lambda _: None,
            result=Noted,
            claims=(),
            seeded=name != "substitution",
        )

    def measure(self, out: Path, plan: tuple[str, int, int]) -> Noted:
        name, seed, _ = plan
        if name == self.breaks:
            raise KeyboardInterrupt
        self.measured.append(f"{name} {seed}")
        return Noted(value=seed, provenance=Provenance.here())


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    counted = Counted()
    monkeypatch.setattr(run, "EXPERIMENTS", counted.experiments)
    return counted


@pytest.fixture
def reproduce(tmp_path: Path) -> Callable[..., Any]:
    return partial(reproduce_claims, tmp_path / "out", say=lambda _: None)


def rows(folder: Path) -> dict[str, Any]:
    found = {path.stem: json.loads(path.read_text()) for path in sorted((folder / "out" / RESULTS).glob("*.json"))}
    return {name: {**row, "seconds": None} for name, row in found.items()}


def test_each_experiment_is_measured_once(counted: Counted, reproduce: Callable[..., Any], tmp_path: Path) -> None:
    assert reproduce(seeds=(0, 1)) == list(CLAIMS)
    expected = [f"{name} {seed}" for seed in (0, 1) for name in NAMES if (name, seed) != ("substitution", 1)]
    assert counted.measured == expected
    before = rows(tmp_path)
    reproduce(seeds=(0, 1))
    assert counted.measured == expected
    assert rows(tmp_path) == before
    assert before["embeddings-seed-1"]["value"] == 1
    assert "substitution" in before


@pytest.mark.parametrize("breaks", NAMES)
def test_stopped_and_started_again_it_ends_as_if_never_stopped(
    breaks: str, counted: Counted, reproduce: Callable[..., Any], tmp_path: Path
) -> None:
    counted.breaks = breaks
    with pytest.raises(KeyboardInterrupt):
        reproduce()
    assert len(counted.measured) == NAMES.index(breaks)
    counted.breaks = ""
    reproduce()
    assert counted.measured == [f"{name} 0" for name in NAMES]
    assert len(rows(tmp_path)) == len(NAMES)


def measure_beside(out: Path, plan: tuple[str, Path]) -> Noted:
    """Begin, and end when another group has begun; what is timed does not wait."""
    name, marks = plan
    (marks / f"{name} began").touch()
    other = {"embeddings": "memory-model", "memory-model": "embeddings"}.get(name, name)
    wait_until(lambda: (marks / f"{other} began").exists())
    if name == "recall" and (marks.parent / "broken").exists():
        raise ValueError("the disk of recall is full")
    (marks / f"{name} ended").touch()
    began, ended = ({path.name.split()[0] for path in marks.glob(f"* {what}")} for what in ("began", "ended"))
    beside, threads = sorted(began - ended), torch.get_num_threads()
    return Noted(process=os.getpid(), threads=threads, beside=beside, provenance=Provenance.here())


TIMED = {experiment.name for experiment in EXPERIMENTS if experiment.timed}


@pytest.fixture
def side_by_side(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    (tmp_path / "marks").mkdir()

    def beside(experiment: Experiment[Any, Any]) -> Experiment[Any, Any]:
        presets = {"quick": lambda _: (experiment.name, tmp_path / "marks")}
        return replace(experiment, presets=presets, run=measure_beside, seeded=False)

    monkeypatch.setattr(run, "EXPERIMENTS", list(map(beside, EXPERIMENTS)))
    return partial(reproduce_claims, tmp_path / "out", num_workers=2)


def test_what_shares_nothing_is_measured_side_by_side(side_by_side: Callable[..., Any], tmp_path: Path) -> None:
    side_by_side()
    found = rows(tmp_path)
    assert len(found) == len(NAMES)
    process = {name: row["process"] for name, row in found.items()}
    assert process["embeddings"] == process["foreign-text"] != process["memory-model"] == process["recall"]
    here = {name for name, number in process.items() if number == os.getpid()}
    assert here == TIMED, "what is timed is measured alone, with all cores"
    assert {row["threads"] for name, row in found.items() if name not in TIMED} == {max(1, os.cpu_count() // 2)}
    assert not any(row["beside"] for name, row in found.items() if name in TIMED)


def test_what_fails_in_a_worker_is_said_here(side_by_side: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    with pytest.raises(ValueError, match="the disk of recall is full"):
        side_by_side()
    assert not rows(tmp_path).keys() & TIMED
    (tmp_path / "broken").unlink()
    side_by_side()
    assert len(rows(tmp_path)) == len(NAMES)


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
        patch.setattr(run, "installed_version", lambda _: "9.9")
        with pytest.raises(ValueError, match=r"this is .*9\.9"):
            reproduce("quick")
    counted.size = 2  # the preset has changed
    with pytest.raises(ValueError, match=r"embeddings-seed-0\.json was measured by another plan"):
        reproduce("quick")
    assert rows(tmp_path) == before
    with pytest.raises(ValueError, match="no preset 'huge'; there are quick, standard, paper"):
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
    for experiment in EXPERIMENTS:
        one, other = map(experiment.presets[preset], (0, 1))
        assert (repr(one) != repr(other)) == experiment.seeded
        assert " at 0x" not in repr(one)  # it says what it depends on, and no address


@pytest.fixture
def nothing_is_trained(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    def forbid() -> None:
        monkeypatch.setattr("memlm.training.train.fit", None)
        monkeypatch.setattr("memlm.training.train.fit", None)

    return forbid


@pytest.mark.slow
def test_autoencoders_meet_foreign_text(tmp_path: Path, nothing_is_trained: Callable[[], None]) -> None:
    plan = ForeignTextPlan(chunk_len=16, memory_dim=64, num_tokens=30_000)
    result = FOREIGN_TEXT.run(tmp_path, plan)
    assert result is not None
    json.dumps(result.to_dict())
    texts = ["held_out", "temporal", "novel", "verse", "code", "random_tokens"]
    assert [(row.mixer, row.text) for row in result.rows] == [
        (mixer, text) for mixer in ("masked_mixer", "attention") for text in texts
    ]
    assert {mixer: len(samples) for mixer, samples in result.samples.items()} == {"masked_mixer": 5, "attention": 5}
    for claim in FOREIGN_TEXT.claims:
        measured = claim.measure(result)
        assert measured
        assert measured.low <= measured.value <= measured.high
    nothing_is_trained()
    assert FOREIGN_TEXT.run(tmp_path, plan) == result


@pytest.mark.slow
def test_a_causal_model_is_settled(tmp_path: Path, nothing_is_trained: Callable[[], None]) -> None:
    reading = ReadingConfig(num_steps=5, max_chunks=100, test_chunks=20)
    plan = SettlingPlan(chunk_len=8, num_tokens=20_000, reading=reading, num_texts=2, encodings=300)
    result = SETTLE_CAUSAL.run(tmp_path, plan)
    assert result is not None
    assert result.chunk_len == 8
    (claim,) = SETTLE_CAUSAL.claims
    measured = claim.measure(result)
    assert measured
    assert measured.value <= 1
    nothing_is_trained()
    assert SETTLE_CAUSAL.run(tmp_path, plan) == result

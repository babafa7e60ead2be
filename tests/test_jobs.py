"""The demo and the benchmarks, run small: every part real, budgets and widths tiny."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memlm.config import AutoencoderRecipe, DataConfig
from memlm.data.token_store import PreparedData, prepare
from memlm.recipes.autoencoder import autoencoder, reference
from memlm.recipes.scale import Scale
from memlm_evidence import demo as demo_job
from memlm_evidence.benchmarks import density, fidelity, speed

SCALE = Scale(chunk_len=32, memory_dim=64, dim=32, vocab_size=300, decoder_layers=1, num_tokens=20_000)

Make = Callable[..., AutoencoderRecipe]


@pytest.fixture
def small(recipe: AutoencoderRecipe) -> Callable[[Make], Make]:
    """Makes recipes small, and lets them train on the tiny corpus, whatever they are asked for."""
    return lambda make, **options: lambda *_, **__: replace(make(SCALE, **options), data=recipe.data)


def with_later_years(data: DataConfig, **options: Any) -> PreparedData:
    prepared = prepare(data, **options)
    return replace(prepared, splits={**prepared.splits, "temporal": prepared.splits["test"]})


@pytest.mark.usefixtures("short_texts")
def test_the_demo_trains_shows_and_reports(
    small: Callable[[Make], Make], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_job, "prepare", with_later_years)
    monkeypatch.setattr(demo_job, "demo", small(autoencoder))
    monkeypatch.setattr(demo_job, "demo_reference", small(reference))
    run = demo_job.run_demo(tmp_path, train_reference=True, quiet=True)
    assert [result.name for result in run.results] == [
        "held_out",
        "temporal",
        "novel",
        "verse",
        "code",
        "random_tokens",
    ]
    summary = run.summary()
    assert json.loads(json.dumps(summary)).keys() == summary.keys()
    for key in ("token_accuracy", "exact_match", "seconds", "retained_bits_per_token", "entropy_ratio"):
        assert isinstance(summary[key], float)
    assert summary["tokens_trained"] >= SCALE.num_tokens
    assert summary["intervals"]["token_accuracy"][0] <= summary["token_accuracy"]
    page = Path(summary["report"]).read_text(encoding="utf-8")
    assert "Reference" in page
    assert len(run.samples) == 6
    assert (tmp_path / "reference" / "results.jsonl").exists()


def test_the_density_table_is_filled_once(
    small: Callable[[Make], Make], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(density, "density", small(autoencoder))
    first, again = (
        density.Density(out=tmp_path, chunk_lens=(32,), tokens_per_dim=(0.5,), num_tokens=20_000).run()
        for _ in range(2)
    )
    [row] = first["rows"]
    assert (row["chunk_len"], row["memory_dim"], row["tokens_per_dim"]) == (32, 64, 0.5)
    assert again == first  # the seconds, too: nothing was trained again


@pytest.mark.parametrize(("target", "reached"), [(0.0, True), (0.15, False)])
def test_fidelity_is_a_ratio_or_a_lower_bound(
    target: float, reached: bool, small: Callable[[Make], Make], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fidelity, "TARGET", target)
    monkeypatch.setattr(fidelity, "autoencoder", small(autoencoder, grown_from=0))
    monkeypatch.setattr(fidelity, "reference", small(reference))
    answer = fidelity.Fidelity(chunk_len=32, memory_dim=64, mixer="attention", budget_ratio=1).run()
    assert answer["lower_bound"] is not answer["reference"]["reached"]
    assert answer["reference"]["reached"] is reached
    assert answer["tokens_to_90_ratio"] == answer["reference"]["tokens"] / answer["ours"]["tokens"]
    assert answer["seconds_to_90_ratio"] == answer["reference"]["seconds"] / answer["ours"]["seconds"]


def test_a_target_that_ours_misses_gives_no_ratio(
    small: Callable[[Make], Make], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fidelity, "autoencoder", small(reference))
    with pytest.raises(ValueError, match=r"not 0\.9, in"):
        fidelity.Fidelity(chunk_len=32, memory_dim=64, mixer="attention", budget_ratio=1).run()


def test_speed_measures_every_recipe(small: Callable[[Make], Make], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "autoencoder", small(autoencoder, grown_from=0))
    monkeypatch.setattr(speed, "reference", small(reference))
    monkeypatch.setattr(speed, "ROUNDS", 1)
    monkeypatch.setattr(speed, "STEPS", 1)
    answer = speed.Speed().run()
    for rates in (answer["training_tokens_per_second"], answer["encoding_tokens_per_second"]):
        assert set(rates) == {"ours", "attention", "masked_mixer"}
        assert min(rates.values()) > 0
    assert 0 < answer["step_share"]["matrix products"] < 1

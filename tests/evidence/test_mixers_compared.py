"""The comparison of mixers, at a tiny size: it is fair, finishes, and trains nothing twice."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from memlm.models.language_model import LanguageModel
from memlm.runtime.results import Interval, Provenance
from memlm_evidence.benchmarks.measuring import num_parameters
from memlm_evidence.claims import Difference
from memlm_evidence.experiments.mixers import (
    MIXERS,
    MIXERS_COMPARED,
    PUBLISHED,
    LossRow,
    MixersPlan,
    MixersResult,
    recurrent_variants_improve_as_published,
)
from memlm_evidence.experiments.mixers.run import language_model, memories


@pytest.mark.parametrize("plan", [MixersPlan(), MixersPlan.quick(0)], ids=["standard", "quick"])
def test_models_differ_in_their_mixer_alone(plan: MixersPlan) -> None:
    recipes = {mixer: language_model(plan, mixer) for mixer in MIXERS}
    with torch.device("meta"):
        sizes = {mixer: num_parameters(LanguageModel(recipe.model)) for mixer, recipe in recipes.items()}
    step = 2 * plan.dim * recipes["row"].model.stack.num_layers
    assert max(sizes.values()) - min(sizes.values()) <= step, "a dimension of an MLP in each layer, at most"
    for mixer, recipe in recipes.items():
        assert recipe.model.stack.mixer == memories(plan, mixer).model.encoder.mixer == MIXERS[mixer]
        assert recipe.stages == recipes["row"].stages
        assert recipe.data == recipes["row"].data
    assert len({memories(plan, mixer).stages for mixer in MIXERS}) == 1


@pytest.mark.parametrize(
    ("losses", "verdict"),
    [([3.3, 3.2, 3.1, 3.0, 2.9], "holds"), ([3.3, 3.2, 3.25, 3.0, 2.9], "fails"), ([3.3, 3.2, 3.19, 3.0, 2.9], None)],
)
@pytest.mark.parametrize("paired", [False, True])
def test_variants_are_in_order_where_each_saves_more_than_chance(
    losses: list[float], verdict: str | None, paired: bool
) -> None:
    saved = [
        None,
        *(Difference(value=a - b, interval=Interval(a - b - 1e-3, a - b + 1e-3)) for a, b in pairwise(losses)),
    ]
    rows = [
        LossRow(
            mixer=mixer,
            num_parameters=1,
            next_token_nats=loss,
            saved=less if paired else None,
            intervals={"next_token_nats": Interval(loss - 0.01, loss + 0.01)},
        )
        for mixer, loss, less in zip(PUBLISHED, losses, saved, strict=True)
    ]
    result = MixersResult(losses=rows, rows=[], memories=[], chunk_len=8, seed=0, provenance=Provenance.here())
    measured = recurrent_variants_improve_as_published.measure(result)
    assert measured
    assert measured.value == pytest.approx(min(a - b for a, b in pairwise(losses)))
    assert recurrent_variants_improve_as_published.verdict(measured) == (
        verdict or ("holds" if paired else "undecided")
    )


@pytest.mark.slow
def test_mixers_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = MixersPlan(chunk_len=8, dim=32, num_tokens=4_000, memory_tokens=4_000, reading_steps=5, reading_chunks=100)
    result = MIXERS_COMPARED.run(tmp_path, plan)
    assert result is not None
    written = json.loads(json.dumps(result.to_dict()))
    assert MixersResult.from_dict(written).to_dict() == written
    objectives = ("untrained", "causal")
    assert [(row.mixer, row.objective) for row in result.rows] == [(m, o) for m in MIXERS for o in objectives]
    assert [row.mixer for row in result.memories] == [*MIXERS]
    first, *others = (row.saved for row in result.losses if row.mixer in PUBLISHED)
    assert first is None
    for less, (one, other) in zip(others, pairwise(result.losses), strict=False):
        assert less
        assert less.value == pytest.approx(one.next_token_nats - other.next_token_nats)
    for claim in MIXERS_COMPARED.claims:
        measured = claim.measure(result)
        assert measured
        assert measured.low <= measured.value <= measured.high
    page = MIXERS_COMPARED.page([result])
    assert page
    assert "Next-token loss by mixer" in page.to_markdown()
    monkeypatch.setattr("memlm.training.train.train_stages", None)
    again = MIXERS_COMPARED.run(tmp_path, plan)
    assert again is not None
    assert (again.losses, again.rows, again.memories) == (result.losses, result.rows, result.memories)

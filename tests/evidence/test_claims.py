"""Claims are decided by their numbers; and what the documents say of them is what the committed results say."""

import json
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import pytest

from memlm.runtime.results import Provenance
from memlm_evidence.claims import Claim, ExperimentResult, Measured, decide
from memlm_evidence.experiments.experiment import Experiment
from memlm_evidence.experiments.table import CLAIMS, EXPERIMENTS, claims_page, claims_table, read_results
from memlm_evidence.pages.page import environment, markdown_escaped

DOCS = Path(__file__).parents[2] / "docs"


VERDICTS = {
    "results": {
        "recurrent-variants-improve-as-published": "fails",
        "curriculum-is-cheaper": "undecided",
        "retention-keeps-facts": "fails",
        "memories-outlast-text": "undecided",
        "memory-models-are-parallel": "fails",
    },
    "results/quick": {
        "recurrent-variants-improve-as-published": "undecided",
        "curriculum-is-cheaper": "fails",
        "memories-can-be-used": "fails",
        "retention-keeps-facts": "fails",
        "memories-outlast-text": "undecided",
        "memory-models-are-parallel": "fails",
    },
}
"""What the recorded results say of claims; all others hold."""


@dataclass(frozen=True, kw_only=True)
class Result(ExperimentResult):
    """Of a made-up experiment."""

    name: ClassVar[str] = "experiment"
    value: float | None = None


def result(value: float | None = None, seconds: float | None = None) -> Result:
    return Result(value=value, seconds=seconds, provenance=Provenance.here())


def measure(found: Result) -> Measured | None:
    return None if found.value is None else Measured(found.value, found.value - 0.1, found.value + 0.1)


def claim(*, at_least: bool) -> Claim[Result]:
    return Claim(
        name="made-up",
        statement="It is so.",
        experiment="experiment",
        quantity="a number",
        threshold=0.5,
        at_least=at_least,
        measure=measure,
    )


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [(0.8, "holds", "fails"), (0.2, "fails", "holds"), (0.55, "undecided", "undecided")],
)
def test_a_whole_interval_decides(value: float, least: str, most: str) -> None:
    results = {"experiment": [result(value)]}
    assert [found.verdict for found in decide(results, [claim(at_least=True)])] == [least]
    assert [found.verdict for found in decide(results, [claim(at_least=False)])] == [most]


def test_seeds_are_taken_together() -> None:
    (found,) = decide({"experiment": [result(0.9), result(0.55)]}, [claim(at_least=True)])
    assert found.measured == pytest.approx((0.725, 0.45, 1.0))
    assert (found.verdict, found.num_seeds) == ("undecided", 2)


def test_what_has_no_results_is_not_decided() -> None:
    assert decide({"other": [result(1.0)]}, [claim(at_least=True)]) == []


def test_a_result_that_says_it_has_not_the_number_does_not_decide() -> None:
    results = {"experiment": [result(0.9), result()]}
    (found,) = decide(results, [claim(at_least=True)])
    assert (found.measured.value, found.num_seeds) == (0.9, 1)
    assert decide({"experiment": [result()]}, [claim(at_least=True)]) == []


def test_what_seeds_took_is_added_up_if_all_say_it() -> None:
    timed, untimed = result(0.9, 2.0), result(0.9)
    (both,) = decide({"experiment": [timed, timed]}, [claim(at_least=True)])
    (one,) = decide({"experiment": [timed, untimed]}, [claim(at_least=True)])
    assert (both.seconds, one.seconds) == (4.0, None)
    assert both.to_dict()["interval"] == [pytest.approx(0.8), pytest.approx(1.0)]


def test_the_committed_results_decide_every_claim_and_the_documents_say_so() -> None:
    results = read_results([DOCS / "results"])
    decisions = decide(results, CLAIMS)
    assert [decision.claim for decision in decisions] == list(CLAIMS)
    table = str(environment("md").globals["m"].table(claims_table(decisions)))
    assert table.strip() in (DOCS / "results.md").read_text(encoding="utf-8")
    page = claims_page(decisions, results)
    markdown = page.to_markdown()
    assert table.strip() in markdown
    assert page.to_html().count("<svg") >= len(decisions)
    for decision in decisions:
        assert decision.claim.quantity in markdown
        assert markdown_escaped(f"{decision.measured.value:.4f}".replace("-", "−")) in markdown


@pytest.mark.parametrize("folder", VERDICTS)
def test_recorded_results_keep_their_verdicts(folder: str) -> None:
    decisions = decide(read_results([DOCS / folder]), CLAIMS)
    assert {found.claim.name: found.verdict for found in decisions} == {
        claim.name: VERDICTS[folder].get(claim.name, "holds") for claim in CLAIMS
    }


def test_every_claims_fields_exist_in_a_recorded_result() -> None:
    results = read_results([DOCS / "results"])
    for experiment in EXPERIMENTS:
        assert all(isinstance(found, experiment.result) for found in results[experiment.name])
        for each in experiment.claims:
            # Not every seed has to have everything.
            measured = [found for found in map(each.measure, results[experiment.name]) if found]
            assert measured
            assert all(found.low <= found.value <= found.high for found in measured)


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.name)
def test_an_absent_field_is_an_error_that_names_it(experiment: Experiment[Any, Any], tmp_path: Path) -> None:
    row = read_results([DOCS / "results"])[experiment.name][0].to_dict()
    assert experiment.result.from_dict(json.loads(json.dumps(row))).to_dict() == row
    path = tmp_path / f"{experiment.name}.json"
    required = [each.name for each in fields(experiment.result) if each.default is each.default_factory is MISSING]
    for name in required:
        path.write_text(json.dumps({key: value for key, value in row.items() if key != name}))
        with pytest.raises(ValueError, match=rf"{path.name} is not a result.*{name}: Field required"):
            read_results([tmp_path])


def test_the_readme_sums_them_up() -> None:
    decisions = decide(read_results([DOCS / "results"]), CLAIMS)
    names = {
        verdict: [f"`{found.claim.name}`" for found in decisions if found.verdict == verdict]
        for verdict in ("holds", "fails", "undecided")
    }
    sentence = (
        f"Of the {len(CLAIMS)} claims, {len(names['holds'])} hold, {len(names['fails'])} fail "
        f"({', '.join(names['fails'])}) and {len(names['undecided'])} are undecided ({', '.join(names['undecided'])})."
    )
    assert sentence in " ".join((DOCS.parent / "README.md").read_text(encoding="utf-8").split())


def test_what_is_no_result_is_named(tmp_path: Path) -> None:
    (tmp_path / "recall.json").write_text("{")
    with pytest.raises(ValueError, match=r"recall.json is not a result"):
        read_results([tmp_path])

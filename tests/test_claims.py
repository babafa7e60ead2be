"""Claims are decided by their numbers; and what the documents say of them is what the committed results say."""

from pathlib import Path

import pytest

from memlm.claims import CLAIMS, Claim, Measured, decide
from memlm.report.claims import claims_page, claims_table, read_results
from memlm.report.markdown import block

DOCS = Path(__file__).parents[1] / "docs"


def claim(*, at_least: bool) -> Claim:
    return Claim(
        name="made-up",
        statement="It is so.",
        experiment="experiment",
        quantity="a number",
        threshold=0.5,
        at_least=at_least,
        measure=lambda row: Measured(row["value"], row["value"] - 0.1, row["value"] + 0.1),
    )


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [(0.8, "holds", "fails"), (0.2, "fails", "holds"), (0.55, "undecided", "undecided")],
)
def test_a_whole_interval_decides(value: float, least: str, most: str) -> None:
    results = {"experiment": [{"value": value}]}
    assert [found.verdict for found in decide(results, [claim(at_least=True)])] == [least]
    assert [found.verdict for found in decide(results, [claim(at_least=False)])] == [most]


def test_seeds_are_taken_together() -> None:
    (found,) = decide({"experiment": [{"value": 0.9}, {"value": 0.55}]}, [claim(at_least=True)])
    assert found.measured == pytest.approx((0.725, 0.45, 1.0))
    assert (found.verdict, found.num_seeds) == ("undecided", 2)


def test_what_has_no_results_is_not_decided() -> None:
    assert decide({"other": [{"value": 1.0}]}, [claim(at_least=True)]) == []


def test_the_committed_results_decide_every_claim_and_the_documents_say_so() -> None:
    decisions = decide(read_results([DOCS / "results"]))
    assert [decision.claim for decision in decisions] == list(CLAIMS)
    assert block(claims_table(decisions)) in (DOCS / "results.md").read_text(encoding="utf-8")
    assert all(decision.claim.quantity in claims_page(decisions).to_markdown() for decision in decisions)


def test_what_is_no_result_is_named(tmp_path: Path) -> None:
    (tmp_path / "recall.json").write_text("{")
    with pytest.raises(ValueError, match=r"recall.json is not a result"):
        read_results([tmp_path])

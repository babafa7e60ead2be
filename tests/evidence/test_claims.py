"""Claims are decided by their numbers; and what the documents say of them is what the committed results say."""

from pathlib import Path

import pytest

from memlm_evidence.claims import CLAIMS, Claim, Measured, decide
from memlm_evidence.pages.claims import claims_page, claims_table, read_results
from memlm_evidence.pages.page import environment, markdown_escaped

DOCS = Path(__file__).parents[2] / "docs"


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


def test_a_result_without_the_number_does_not_decide() -> None:
    results = {"experiment": [{"value": 0.9}, {"another": 1.0}]}
    (found,) = decide(results, [claim(at_least=True)])
    assert (found.measured.value, found.num_seeds) == (0.9, 1)
    assert decide({"experiment": [{"another": 1.0}]}, [claim(at_least=True)]) == []


def test_what_seeds_took_is_added_up_if_all_say_it() -> None:
    timed, untimed = {"value": 0.9, "seconds": 2.0}, {"value": 0.9}
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


def test_the_readme_sums_them_up() -> None:
    decisions = decide(read_results([DOCS / "results"]), CLAIMS)
    names = {
        verdict: [f"`{found.claim.name}`" for found in decisions if found.verdict == verdict]
        for verdict in ("holds", "fails", "undecided")
    }
    sentence = (
        f"Of the {len(CLAIMS)} claims, {len(names['holds'])} hold, {len(names['fails'])} fails "
        f"({', '.join(names['fails'])}) and {len(names['undecided'])} are undecided ({', '.join(names['undecided'])})."
    )
    assert sentence in " ".join((DOCS.parent / "README.md").read_text(encoding="utf-8").split())


def test_what_is_no_result_is_named(tmp_path: Path) -> None:
    (tmp_path / "recall.json").write_text("{")
    with pytest.raises(ValueError, match=r"recall.json is not a result"):
        read_results([tmp_path])

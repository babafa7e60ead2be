import math

import pytest
from made_up_run import result

from memlm.runtime.tables import metrics_table
from memlm.runtime.wording import duration, in_words, number, percent, quantity, share
from memlm_evidence.pages.page import meanings


def test_a_cell_has_the_number_and_its_interval() -> None:
    table = metrics_table([result(token_accuracy=0.9987)], first="set")
    row = dict(zip(table.header, table.rows[0], strict=True))
    assert row["token accuracy"] == "0.9987\n[0.9982, 0.9988]"
    assert row["retained bits/token"] == "7.79"
    assert row["set"] == "Held-out text\n4,211 chunks"
    assert metrics_table([result(num_chunks=1)]).rows[0][0].endswith("\n1 chunk")


def test_measures_that_no_result_has_are_left_out() -> None:
    table = metrics_table([result(), result("code", entropy_ratio=0.5)])
    assert "bits/dim" not in table.header
    assert [row[-1] for row in table.rows] == ["—", "0.5000"]
    assert len(meanings([result()])) == 4


def test_a_measure_without_a_name_goes_by_its_own() -> None:
    assert metrics_table([result(num_hops=2)], measures=["num_hops"]).header[1] == "num hops"


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (share(1.0), "1.0000"),
        (share(0.99999), ">0.9999"),
        (share(0.0), "0.0000"),
        (share(0.00001), "<0.0001"),
        (share(None), "—"),
        (percent(0.99999), ">99.9%"),
        (percent(0.9412), "94.1%"),
        (percent(None), "—"),
        (in_words(0.99999), "over 99.9%"),
        (in_words(0.00001), "under 0.1%"),
        (in_words(0.5), "50.0%"),
        (in_words(None), "an unknown share"),
        (number(-1234.5), "−1,234.50"),
        (number(-0.001), "0.00"),
        (number(math.nan), "—"),
        (quantity(12_345), "12,345"),
        (quantity(20_000_000), "20.0 million"),
        (quantity(None), "—"),
        (duration(48.2), "48 s"),
        (duration(720), "12 min"),
        (duration(18_720), "5.2 h"),
        (duration(None), "—"),
    ],
)
def test_numbers_as_a_reader_sees_them(shown: str, expected: str) -> None:
    assert shown == expected

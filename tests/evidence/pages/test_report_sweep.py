"""The page on a sweep, of made-up rows."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from memlm_evidence.pages.figures import Figure
from memlm_evidence.sweep.config import Axis, SweepConfig
from memlm_evidence.sweep.page import best_of, sweep_page
from memlm_evidence.sweep.rows import SweepResult, read_sweep
from tiny import tiny_recipe

MIXERS = 'model.encoder.mixer=attention,{"kind":"masked_mixer","num_heads":4}'
RATES = "stages.*.training.optimizer.learning_rate=0.01,0.02,0.1"
MADE = {"memlm": "0.1.0", "commit": "abc", "torch": "2.9", "python": "3.11", "machine": "one", "num_threads": 1}


def made_up(*over: str, seeds: tuple[int, ...] = (), missing: int = 0, causal: bool = False) -> SweepResult:
    """The last runs better than the first; the first so many have failed."""
    axes = tuple(map(Axis.parse, over))
    sweep = SweepConfig(name="tried", recipe=tiny_recipe("*.txt"), axes=axes, seeds=seeds, question="Does it matter?")
    rows: list[dict[str, Any]] = []
    for number, run in enumerate(sweep.runs()):
        about = {"key": run.key, "values": dict(run.values)}
        if number < missing:
            rows.append({**about, "failed": f"<b>nan {number}</b>"})
            continue
        row = {**about, "token_accuracy": 0.5 + number / 100, "parameters": 12_345, "tokens_trained": 500_000}
        row |= {"causal_nats_per_token": 3 - number / 100} if causal else {}
        interval = {"token_accuracy": [row["token_accuracy"] - 0.1, row["token_accuracy"] + 0.1]}
        made = {**MADE, "machine": f"machine {number % 2}", "settings": {"data": "feed"}}
        rows.append({**row, "seconds": 30.0, "intervals": interval, "provenance": made})
    done, failed = ([row for row in rows if ("failed" in row) == failed] for failed in (False, True))
    return SweepResult(sweep, done, failed, 0)


def figures(swept: SweepResult) -> list[Figure]:
    return [figure for _, found in sweep_page(swept).data["effects"] for figure in found]


def test_cells_are_a_table_best_first_with_their_intervals() -> None:
    swept = made_up(MIXERS, RATES)
    page = sweep_page(swept)
    table = page.data["runs"]
    assert table.header[:3] == ["mixer", "learning rate", "token accuracy"]
    assert [row[:2] for row in table.rows][::-1] == [
        [mixer, rate] for mixer in ("attention", "masked mixer (num heads 4)") for rate in ("0.01", "0.02", "0.1")
    ]
    assert table.rows[0][2:] == ["0.5500\n[0.4500, 0.6500]", "12,345", "500,000", "30 s"]
    assert best_of(swept) == "mixer masked mixer (num heads 4), learning rate 0.1: token accuracy 0.5500"
    assert page.to_markdown().startswith("# Sweep: tried\n\nDoes it matter?\n")
    assert ("0.5500", "token accuracy, best run") in page.data["key_numbers"]
    assert ("machine, threads", "machine 0, 1; machine 1, 1") in page.data["made_by"]


def test_every_swept_field_has_a_figure_with_the_others_as_lines() -> None:
    by_mixer, by_rate = figures(made_up(MIXERS, RATES))
    for words in ("learning rate 0.01", "learning rate 0.1", "attention", "masked mixer"):
        assert words in text_of(by_mixer.svg)
    for words in ("mixer attention", "mixer masked mixer (num heads 4)", "0.02"):
        assert words in text_of(by_rate.svg)
    assert [by_mixer.alt, by_rate.alt] == ["token accuracy by mixer.", "token accuracy by learning rate."]
    assert not by_rate.caption


def text_of(svg: str) -> str:
    return " ".join(re.sub("<[^>]*>", " ", svg).split())


def test_many_others_are_their_mean_and_range() -> None:
    swept = made_up("model.memory_noise=0,0.1,0.2,0.3,0.4,0.5,0.6", RATES)
    by_noise, by_rate = figures(swept)
    assert by_rate.caption == "Mean over all other fields and seeds, and the range."
    assert "memory noise" not in text_of(by_rate.svg)
    assert "learning rate 0.02" in text_of(by_noise.svg)


def test_seeds_are_a_mean_and_a_range() -> None:
    swept = made_up(RATES, seeds=(0, 1))
    table, (figure,) = sweep_page(swept).data["runs"], figures(swept)
    assert [row[0] for row in table.rows] == ["0.1", "0.02", "0.01"]
    assert table.rows[0][1] == "0.5450\n[0.5400, 0.5500]"
    assert "2 seeds" in table.caption
    assert figure.caption == "Mean over seeds, and the range."


def test_next_tokens_come_first_and_less_is_better() -> None:
    swept = made_up(RATES, causal=True)
    table = sweep_page(swept).data["runs"]
    assert table.header[1:3] == ["next-token nats", "token accuracy"]
    assert [row[0] for row in table.rows] == ["0.1", "0.02", "0.01"]
    assert len(figures(swept)) == 2


def test_fields_called_alike_keep_their_paths() -> None:
    table = sweep_page(made_up("model.encoder.dim=16,32", "model.decoder.dim=16,32")).data["runs"]
    assert table.header[:2] == ["model.encoder.dim", "model.decoder.dim"]


@pytest.mark.parametrize("missing", [1, 5, 6])
def test_failed_cells_are_told_with_their_reasons(missing: int) -> None:
    swept = made_up(MIXERS, RATES, missing=missing)
    html = sweep_page(swept).to_html()
    assert "&lt;b&gt;nan 0&lt;/b&gt;" in html
    assert "--retry" in html
    assert len(swept.failures) == missing
    assert swept.failures[0] == ("mixer attention, learning rate 0.01", "<b>nan 0</b>")
    assert ("best run" in html) == (missing < 6)


def test_a_folder_is_read_and_shown_as_far_as_it_is(tmp_path: Path) -> None:
    swept = made_up(RATES)
    (tmp_path / "sweep.json").write_text(swept.sweep.to_json())
    (tmp_path / "cells").mkdir()
    for row in swept.rows[1:]:
        (tmp_path / "cells" / f"{row['key']}.json").write_text(json.dumps(row))
    found = read_sweep(tmp_path)
    assert (found.rows, found.num_left) == (swept.rows[1:], 1)
    page = sweep_page(read_sweep(tmp_path)).write(tmp_path).read_text()
    assert "2" in page
    assert "left" in page
    with pytest.raises(ValueError, match=r"sweep\.json"):
        sweep_page(read_sweep(tmp_path / "cells")).write(tmp_path / "cells")

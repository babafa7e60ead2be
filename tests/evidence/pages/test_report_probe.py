import io
import json
import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_up_run import result as made_up_run
from rich.console import Console
from test_report_page import Reader

from memlm.probing.results import ProbeResult, ProbeRow
from memlm_evidence.cli.probes import print_probe
from memlm_evidence.pages.figures import Figure
from memlm_evidence.pages.probe import at_least, probe_page
from memlm_evidence.pages.probe_figures import best, figure_sections, spread

Row = dict[str, Any]
SECTIONS = [
    "In short",
    "What is retained",
    "Controls",
    "Without a memory",
    "By chunk length",
    "By layer",
    "Made coarser",
    "Along the chunk",
    "How the readers learnt",
    "What this does not say",
    "What made these numbers",
]


def row(accuracy: float = 0.9, *, chunk_len: int = 16, layer: int = 6, **others: Any) -> Row:
    bits = 8.0 * accuracy
    values: Row = {
        "encoder": "minilm",
        "layer": layer,
        "pooling": "mean",
        "reader": "parallel",
        "chunk_len": chunk_len,
        "seed": 0,
        "degradation": None,
        "control": None,
        "token_accuracy": accuracy,
        "exact_match": accuracy**chunk_len,
        "nats_per_token": 5.6 * (1 - accuracy),
        "bits_per_byte": 2.0 * (1 - accuracy),
        "retained_bits_per_token": bits,
        "retained_fraction": accuracy - 0.02,
        "bits_per_dim": bits * chunk_len / 384,
        "entropy_ratio": accuracy,
        "accuracy_by_position": [min(1.0, accuracy + 0.1 * math.exp(-place)) for place in range(chunk_len)],
        "trust": 0.999,
        "converged": True,
        "lower_bound": False,
        "memory_dim": 384,
        "num_slots": 1,
        "num_chunks": 800,
        "num_tokens": 9_000,
        "num_documents": 9,
        "num_train_chunks": 5_000,
        "vocab_size": 500,
        "resampled": "documents",
        "bytes_per_token": 4.1,
        "unconditional_nats_per_token": 5.6,
        "curve": [{"tokens": 1e5 * i, "token_accuracy": accuracy * (1 - 0.5**i)} for i in range(1, 9)],
        "intervals": {
            "token_accuracy": [accuracy - 0.03, min(1.0, accuracy + 0.02)],
            "retained_bits_per_token": [bits - 0.2, bits + 0.2],
            "exact_match": [0.9 * accuracy**chunk_len, 0.1 + 0.9 * accuracy**chunk_len],
            "entropy_ratio": [accuracy - 0.01, accuracy + 0.01],
            "retained_fraction": [accuracy - 0.04, accuracy],
            "bits_per_dim": [bits * chunk_len / 400, bits * chunk_len / 370],
        },
    }
    return values | others


def control(name: str, accuracy: float, bits: float, width: float = 0.05, **others: Any) -> Row:
    intervals = {"retained_bits_per_token": [bits - width, bits + width]}
    return row(accuracy, retained_bits_per_token=bits, intervals=intervals, control=name, **others)


def controls(**others: Row) -> dict[str, Row]:
    found = {
        "untrained": control("untrained", 0.4, 2.9),
        "shuffled": control("shuffled", 0.05, 0.0, trust=0),
        "constant": control("constant", 0.05, 0.0, 0.0, trust=0),
        "random_tokens": control("random_tokens", 0.6, 6.1),
        "positive": control("positive", 0.995, 7.9),
    }
    return found | others


def rows() -> list[Row]:
    """Two layers at three lengths, one of them still learning; bits and noise at one."""
    plain = [
        row(0.97 - 0.004 * length + 0.04 * (layer == 3), chunk_len=length, layer=layer, lower_bound=length == 64)
        for length in (16, 32, 64)
        for layer in (3, 6)
    ]
    quantized = [
        row(
            0.9 * (1 - 0.7**bits),
            degradation={"kind": "quantization", "num_bits": bits},
            stored_bits=bits * 384,
            storage_efficiency=0.3 / bits,
        )
        for bits in (1, 2, 4, 8)
    ]
    noisy = [row(0.9 * math.exp(-std), degradation={"kind": "noise", "std": std}) for std in (0.1, 0.3, 1.0)]
    return [*plain, *quantized, *noisy]


def result(found: Sequence[Row] | None = None, had: dict[str, Row] | None = None, **others: Any) -> ProbeResult:
    had = controls() if had is None else had
    baseline = {
        "unconditional_nats_per_token": 5.6,
        "causal_nats_per_token": 3.9,
        "causal_model": "the autoregressive reader without a memory",
        "num_chunks": 800,
        "num_documents": 9,
        "num_train_chunks": 5_000,
        "vocab_size": 500,
    }
    values = {
        "encoder": "minilm",
        "rows": rows() if found is None else list(found),
        "controls": had,
        "control_rows": list(had.values()),
        "baselines": {"16": baseline, "32": baseline},
        "round_trips": False,
    }
    made = made_up_run().provenance
    assert made is not None
    made = replace(made, settings={"config": {"chunk_lens": [16], "reading": {"num_steps": 9}}, "encoder": "f00"})
    return ProbeResult.from_dict({**values, "provenance": made, **others})


def titles(found: ProbeResult) -> list[str]:
    return re.findall(r"^## (.*)", probe_page(found).to_markdown(), re.MULTILINE)


def said(found: ProbeResult) -> str:
    return re.sub(r"\\(.)", r"\1", probe_page(found).to_markdown())


def printed(found: ProbeResult, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_probe(console, found)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def words(text: str) -> str:
    return " ".join(text.split())


def test_every_section_is_there() -> None:
    assert titles(result()) == SECTIONS
    text = said(result())
    for each in ("0.946<br>[0.916, 0.966]", "None failed", "5.600<br>8.08 bits", "storage efficiency", "commit abc"):
        assert each in text
    for each in ("chunk lens", "reading: num steps", "Tokens, not text", "proves nothing", "not use", "16, 32 or 64"):
        assert each in text


def test_the_page_is_self_contained(tmp_path: Path) -> None:
    path = probe_page(ProbeResult.from_dict(json.loads(json.dumps(result().to_dict())))).write(tmp_path)
    assert [*tmp_path.iterdir()] == [path]
    page = path.read_text(encoding="utf-8")
    assert page == probe_page(result()).to_html()
    targets = [value or "" for name, value in Reader(page).attributes if name in {"src", "href", "xlink:href"}]
    assert all(target.startswith("#") for target in targets)
    assert page.count("<svg") == 7


@pytest.mark.parametrize("broken", [{"layer": None}, {"intervals": {"x": [1]}}, {"degradation": 3}, {"curve": 3}])
def test_a_broken_row_is_named(broken: Row) -> None:
    with pytest.raises(ValueError, match=rf"not a valid ProbeResult: rows\.0\.{next(iter(broken))}"):
        result([row() | broken])


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="no rows"):
        probe_page(result([]))


def test_lower_bounds_are_marked() -> None:
    settled, learning = result([row()]), result([row(lower_bound=True, converged=False)])
    assert "≥0.900" not in said(settled)
    assert "settled" in said(settled)
    for each in ("≥0.900", "≥7.20", "≥90.0%", "at least 90.0%", "lower bound", "learning"):
        assert each in said(learning)
    assert "≥0.900" in printed(learning)
    assert "still learning" in words(printed(learning))
    assert "still learning" not in words(printed(settled))


@pytest.mark.parametrize(
    ("text", "marked"),
    [("0.95", "≥0.95"), ("<0.01", "≥0.00"), (">0.99", ">0.99"), ("−0.20", "−0.20"), ("—", "—"), ("", "")],
)
def test_a_lower_bound_as_text(text: str, marked: str) -> None:
    assert at_least(text) == marked


@pytest.mark.parametrize(
    ("failing", "words_said"),
    [
        (control("positive", 0.7, 5.0), "the reader is too weak to say anything"),
        (control("shuffled", 0.2, 0.4), "bits are retained where there are none"),
        (control("constant", 0.2, 0.4), "bits are retained where there are none"),
        (control("shuffled", 0.2, -0.4), "misleads it on new text"),
    ],
)
def test_a_failed_control_is_said_loudly(failing: Row, words_said: str) -> None:
    found = result(had=controls(**{failing["control"]: failing}))
    in_short, _, rest = said(found).partition("## In short")[2].partition("##")
    assert "FAILED" in in_short
    assert words_said in in_short
    assert "## Controls\n\n1 of 5 FAILED." in rest
    assert words_said in said(found)
    assert "FAILED" in printed(found)
    assert words_said in words(printed(found, 200))
    assert "FAILED" not in printed(result())


def test_the_positive_control_is_that_of_the_best_readings_length() -> None:
    weak = control("positive", 0.5, 4.0, chunk_len=64)
    found = result(control_rows=[*controls().values(), weak])
    assert "99.5%" in said(found)
    assert "positive control FAILED" not in said(found)
    assert "Control “positive” (chunks of 64) FAILED" in said(found)


def test_what_training_adds_is_told_from_nothing() -> None:
    assert "training adds 4.30 bits/token" in said(result([row()]))
    same = controls(untrained=control("untrained", 0.9, 7.1))
    assert "training adds nothing significant" in said(result([row()], same))
    assert "nothing to compare with" in said(result([row(layer=2)]))


def test_controls_without_intervals_are_not_judged() -> None:
    found = controls()
    for each in found.values():
        each["intervals"] = {}
    found["other"] = control("other", 0.1, 0.1)
    assert said(result([row()], found)).count("cannot be judged: no interval") == 2
    assert "not judged" in said(result([row()], found))


def test_one_bare_row_is_enough() -> None:
    bare = row(pooling="memory", curve=[], accuracy_by_position=[])
    found = ProbeResult.from_dict({"encoder": "e", "rows": [bare]})
    assert titles(found) == ["In short", "What is retained", "What this does not say", "What made these numbers"]
    assert "No controls were measured" in said(found)
    assert "No controls were measured" in printed(found)
    assert "do not say what made them" in said(found)
    assert "<svg" not in probe_page(found).to_html()


def test_missing_and_infinite_numbers_are_dashes() -> None:
    empty = {"token_accuracy": math.nan, "exact_match": math.nan, "accuracy_by_position": [None, 0.5, 0.6], "curve": []}
    text = said(result([row(**empty), row(chunk_len=32), row(chunk_len=64, **empty)]))
    assert "nan" not in text
    assert "| —<br>[" in text


def test_what_is_ignored_is_said() -> None:
    found = result([row(trust=0)])
    assert "of no use" in said(found)
    assert "Of no use" in said(found)
    assert "of no use" in words(printed(found, 200))
    assert "Of no use" not in said(result())


def seeds(*accuracies: float) -> ProbeResult:
    found = [row(accuracy, seed=seed, chunk_len=n) for seed, accuracy in enumerate(accuracies) for n in (16, 32)]
    return result(found)


def test_several_seeds_are_averaged_and_their_range_is_the_band() -> None:
    probed = seeds(0.6, 0.8)
    found = spread(best(probed), "token_accuracy")
    assert found is not None
    assert found == pytest.approx((0.7, 0.6, 0.8))
    drawn = figures(probed)
    for figure in (drawn["By chunk length"][0], *drawn["Along the chunk"], *drawn["How the readers learnt"]):
        assert "FillBetween" in figure.svg
        assert "range over seeds" in figure.caption
    text = said(result([row(0.6), row(0.8, seed=1)]))
    assert "Means over 2 seeds" in text
    assert "70.0%" in text
    assert "seed 1" in text


def test_with_one_seed_the_band_is_the_interval() -> None:
    probed = seeds(0.6)
    assert spread(best(probed), "token_accuracy") == pytest.approx((0.6, 0.57, 0.62))
    drawn = figures(probed)
    assert "FillBetween" in drawn["By chunk length"][0].svg
    assert "FillBetween" not in drawn["How the readers learnt"][0].svg
    assert spread(best(probed), "storage_efficiency") is None


def figures(probed: ProbeResult) -> dict[str, Sequence[Figure]]:
    return {section.title: section.figures for section in figure_sections(probed)}


def text_of(figure: Figure) -> list[str]:
    return [text.strip() for text in ET.fromstring(figure.svg).itertext() if text.strip()]


def test_figures_have_their_lines_and_places() -> None:
    drawn = figures(result())
    by_bits, by_noise = drawn["Made coarser"]
    assert {"16", "32", "64", "layer 3, mean", "layer 6, mean"} <= set(text_of(drawn["By chunk length"][0]))
    assert {"3", "6", "16 tokens", "64 tokens"} <= set(text_of(drawn["By layer"][0]))
    assert {"1", "2", "4", "8", "as it is"} <= set(text_of(by_bits))
    assert {"0", "0.1", "0.3", "1"} <= set(text_of(by_noise))


def test_no_figure_of_less_than_two_points() -> None:
    assert figures(result([row(curve=[], accuracy_by_position=[0.5])])) == {}


def test_many_lines_and_places_stay_legible() -> None:
    many = [row(0.5 + 0.01 * layer, layer=layer, chunk_len=n) for layer in range(20) for n in (8, 16)]
    drawn = figures(result(many))
    assert "The 6 highest of 20 lines" in drawn["By chunk length"][0].caption
    assert "layer 19, mean" in text_of(drawn["By chunk length"][0])
    assert "1" not in text_of(drawn["By layer"][0])


def test_below_zero_is_drawn() -> None:
    below = [row(chunk_len=n, retained_fraction=-0.1, intervals={}) for n in (8, 16)]
    assert "from −0.100" in figures(result(below))["By chunk length"][1].alt


@pytest.mark.parametrize("name", ["<b>&[red]x[/red]\x1b[31m", "$x_2$\u202e", "a\n\n| b | [/]"])
def test_markup_in_names_is_shown_and_not_obeyed(name: str) -> None:
    found = result([row(pooling=name), row(pooling=name, layer=3)], encoder=name)
    page = probe_page(found).to_html()
    assert set(Reader(page).tags) <= set(Reader(probe_page(result()).to_html()).tags) | {"defs"}
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", page)
    shown = printed(found, 200)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", shown)
    assert name.split("\n")[0].replace("\x1b", "␛").replace("\u202e", "�") in shown


def test_the_terminal_shows_rows_and_controls() -> None:
    text = printed(result())
    for each in ("layer 3", "parallel, 16", "0.946", "0.916…0.966", "bits", "noise 0.3", "shuffled", "as expected"):
        assert each in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_a_row_says_what_it_is() -> None:
    assert ProbeRow.from_dict(row(pooling="memory")).view == "memory"
    assert ProbeRow.from_dict(row()).view == "layer 6, mean"
    assert str(ProbeRow.from_dict(row(degradation={"kind": "quantization", "num_bits": 1})).degradation) == "1 bit"


def test_a_probes_report_does_without_torch(tmp_path: Path) -> None:
    (tmp_path / "probe.json").write_text(json.dumps(result().to_dict()), encoding="utf-8")
    code = (
        "import json, sys, pathlib; from memlm.probing.results import ProbeResult; "
        "from memlm_evidence.pages.probe import probe_page; "
        "import memlm_evidence.cli.probes; "
        "assert 'matplotlib' not in sys.modules; folder = pathlib.Path(sys.argv[1]); "
        "probe_page(ProbeResult.from_dict(json.loads((folder / 'probe.json').read_text()))).write(folder); "
        "assert not {'torch', 'transformers', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)

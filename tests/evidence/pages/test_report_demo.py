import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from made_up_run import metrics, result

from memlm.cli.show import print_metrics
from memlm.runtime.progress import console
from memlm.runtime.results import Result, json_lines
from memlm_evidence.pages.demo import demo_page


def titles(folder: Path, reference: Path | None = None) -> list[str]:
    return re.findall(r"^## (.*)", demo_page(folder, reference).to_markdown(), re.MULTILINE)


def test_the_page_says_the_numbers_of_the_files(folder: Path) -> None:
    markdown = demo_page(folder).to_markdown()
    assert markdown.startswith("# 8 tokens, one vector, and back\n")
    assert "99.87% of the tokens came back right (95% interval 99.82% to 99.88%), and" in markdown
    for said in ("7.79", "Source code", "61.0% on source code", "1.0 million tokens", "Four score", "commit abc"):
        assert said in markdown


def trained_on(corpus: dict[str, object]) -> Result:
    found = result()
    assert found.provenance is not None
    settings = {"model": {"recipe": {"data": {"corpus": corpus}}}}
    return replace(found, provenance=replace(found.provenance, settings=settings))


@pytest.mark.parametrize(
    ("found", "name"),
    [
        (trained_on({"kind": "named", "name": "sotu"}), "Held-out addresses"),
        (trained_on({"kind": "files", "paths": ["books/*.txt"]}), "Held-out text"),
        (trained_on({"kind": "hub", "name": "user/speeches"}), "Held-out text"),
        (result(), "Held-out text"),
        (result("my_own_set"), "my own set"),
    ],
)
def test_a_set_is_called_after_what_the_model_was_trained_on(
    found: Result, name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_metrics(console(), [found])
    assert name in capsys.readouterr().out
    (folder / "results.jsonl").write_text(json_lines([found.to_dict()]))
    page = demo_page(folder).to_markdown()
    assert name in page
    assert ("addresses" in page) == (name == "Held-out addresses")


def test_numbers_read_well_in_sentences(folder: Path) -> None:
    found = [result(token_accuracy=0.99998), result("novel", 0.99997), result("code", 0.61), result("verse", 0.00001)]
    (folder / "results.jsonl").write_text(json_lines(each.to_dict() for each in found))
    text = demo_page(folder).to_markdown()
    assert "Over 99.99% of the tokens came back right (95% interval 99.95% to 100.01%)" in text
    # The novel has fallen by nothing that shows.
    assert "over 99.9% on held-out text, but 61.0% on source code, under 0.1% on verse." in text
    sentences = " ".join(line for line in text.splitlines() if line and line[0] not in "|*-#")
    assert not re.search(r"[<>]\d", sentences)


def test_the_file_is_written_whole(folder: Path) -> None:
    path = demo_page(folder).write(folder)
    assert path == folder / "report.html"
    assert path.read_text(encoding="utf-8") == demo_page(folder).to_html()
    assert not list(folder.glob("*.partial"))


def test_a_run_without_results_is_named(folder: Path) -> None:
    (folder / "results.jsonl").unlink()
    with pytest.raises(ValueError, match=rf"no results in {folder}; `memlm demo` makes them"):
        demo_page(folder)


@pytest.mark.parametrize(("row", "said"), [('{"name": ', "in line 1"), ('{"title": "no name"}', "a row is no result")])
def test_a_damaged_file_is_named(folder: Path, row: str, said: str) -> None:
    (folder / "results.jsonl").write_text(f"{row}\n")
    with pytest.raises(ValueError, match=rf"results\.jsonl is damaged.*{said}"):
        demo_page(folder)


def test_without_validation_samples_positions_or_provenance(folder: Path) -> None:
    for name in ("results.jsonl", "metrics.jsonl", "samples.jsonl"):
        (folder / name).unlink()
    bare = {"name": "held_out", "token_accuracy": 0.5, "intervals": {}, "provenance": None}
    (folder / "results.jsonl").write_text(json_lines([bare]))
    (folder / "metrics.jsonl").write_text(json_lines(metrics(validation=False)))
    (folder / "samples.jsonl").touch()
    page = demo_page(folder).to_html()
    assert "No validation was measured" in page
    assert "do not say what made them" in page
    assert "Along the chunk" not in page


def test_a_reference_may_be_a_run(folder: Path) -> None:
    assert "Beside the reference" not in titles(folder)
    reference = folder / "reference"
    reference.mkdir()
    (reference / "results.jsonl").write_text(json_lines([result(token_accuracy=0.3).to_dict()]))
    (reference / "metrics.jsonl").write_text(json_lines(metrics(0.3)))
    page = demo_page(folder, reference).to_markdown()
    assert "the same number of tokens, 1.0 million" in page
    assert "recorded" not in page


def test_a_recorded_reference_is_said_to_be_recorded(folder: Path, recorded: Path) -> None:
    page = demo_page(folder, recorded).to_markdown()
    assert "its numbers are a recorded run" in page
    assert "Reference, recorded" in page
    assert page.count("a machine") == 2


def test_a_report_does_without_torch(folder: Path) -> None:
    code = (
        "import pathlib, sys; from memlm_evidence.pages.demo import demo_page; "
        "assert not {'matplotlib', 'rich'} & set(sys.modules); "
        "folder = pathlib.Path(sys.argv[1]); demo_page(folder).write(folder); "
        "assert not {'torch', 'transformers', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)

"""A reader runs a local task of the evaluation harness."""

import json
import sys
from pathlib import Path

import pytest
import torch

from memlm.text.memory_reader import TextMemoryReader
from memlm.training.train import train
from tiny import tiny_reader_recipe

lm_eval = pytest.importorskip("memlm_evidence.lm_eval")

TASK = """
task: mine
dataset_path: json
dataset_kwargs:
  data_files: {rows}
test_split: train
output_type: multiple_choice
doc_to_text: "{{{{text}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: 0
metric_list:
  - metric: acc
"""


@pytest.fixture(scope="module")
def reader(base: Path, finished_run: Path, corpus: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reader") / "run"
    recipe = tiny_reader_recipe(base, finished_run / "model", corpus, regenerating_fraction=0.0)
    train(recipe.with_training(num_tokens=96), folder, quiet=True)
    return folder / "model"


@pytest.mark.slow
@pytest.mark.parametrize("context", ["memory+expand", "text", "memory"])
def test_a_local_task_runs_from_the_command_line(
    reader: Path, context: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"text": "the memory of a vector holds one " * 3, "choices": [" long", " x"]} for _ in range(2)]
    (tmp_path / "rows.json").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "mine.yaml").write_text(TASK.format(rows=tmp_path / "rows.json"))
    arguments = f"--model memlm --model_args reader={reader},context={context},recent=8,expand=20 --tasks mine"
    out = ["--include_path", str(tmp_path), "--output_path", str(tmp_path / "out.json")]
    monkeypatch.setattr(sys, "argv", ["lm_eval", *arguments.split(), *out])
    lm_eval.cli_evaluate()
    (written,) = tmp_path.glob("**/out*.json")
    assert 0 <= json.loads(written.read_text())["results"]["mine"]["acc,none"] <= 1


class Request:
    def __init__(self, *args: object) -> None:
        self.args = args


def test_likelihoods_are_the_readers_and_continuations_end_where_they_should(reader: Path) -> None:
    model = lm_eval.MemlmLM(str(reader), recent=8)
    context = "the memory of a vector holds one long chunk"
    own = TextMemoryReader.from_pretrained(reader, device="cpu")
    memory, recent = own.encoder.encode([context[:-8]]), context[-8:]
    ((likelihood, _),) = model.loglikelihood([Request(context, " of")])
    assert likelihood == pytest.approx(-own.score(memory, recent + " of")[-3:].sum(), rel=1e-4)
    (text,) = model.generate_until([Request(context, {"until": ["e"], "max_gen_toks": 8})])
    assert text == own.generate(memory, recent, max_new_tokens=8, do_sample=False).split("e")[0]
    (rolling,) = model.loglikelihood_rolling([Request(context)])
    assert rolling < likelihood
    with pytest.raises(ValueError, match=r"--model_args of memlm are reader, context, .*, not contxt, rato"):
        lm_eval.MemlmLM(str(reader), contxt="text", rato=8)
    with pytest.raises(ValueError, match=r"context is one of text, memory, memory\+expand, not 'all'"):
        lm_eval.MemlmLM(str(reader), context="all")


def test_texts_are_drawn_where_a_task_says_so_and_requests_are_counted(
    reader: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = lm_eval.MemlmLM(str(reader), recent=8, batch_size=1)
    greedy = {"until": [], "max_gen_toks": 16}
    drawn = {**greedy, "do_sample": True, "temperature": 5.0}
    torch.manual_seed(0)
    texts = model.generate_until([Request("the memory", options) for options in (greedy, greedy, drawn, drawn)])
    assert texts[0] == texts[1]
    assert len({*texts}) == 3
    assert "Requests: 40" in capsys.readouterr().err

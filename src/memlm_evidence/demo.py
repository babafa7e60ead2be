"""The main job, `memlm demo`: train on the default corpus, regenerate what was never seen, write the page."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from memlm.data.token_store import TokenSplit, prepare
from memlm.recipes.autoencoder import demo, demo_reference
from memlm.runtime.files import atomic_write
from memlm.runtime.results import Result, json_lines
from memlm.text.autoencoder import TextAutoencoder
from memlm.text.evaluation_sets import HELD_OUT, evaluate_standard_sets, foreign_texts
from memlm.text.samples import Sample, random_passages
from memlm.training.accelerator import is_main_process
from memlm.training.train import train
from memlm_evidence.pages.demo import REFERENCE, demo_page


class DemoRun(NamedTuple):
    """What a demo made."""

    results: list[Result]
    """By evaluation set, held-out documents first."""
    samples: list[Sample]
    report: Path
    provenance: dict[str, Any]

    def summary(self) -> dict[str, Any]:
        """The held-out documents' measures, what training took, and the page's path."""
        held_out = next(result for result in self.results if result.name == HELD_OUT)
        took = {"tokens_trained": self.provenance["tokens"], "seconds": self.provenance["seconds"]}
        return {**held_out.to_dict(), **took, "report": str(self.report)}


def run_demo(out: Path, *, train_reference: bool = False, seed: int = 0, quiet: bool = False) -> DemoRun:
    """Train, evaluate and report; an interrupted demo goes on, a finished one is only reported again.

    The reference recipe's numbers come from a recorded run, unless `train_reference` asks for one here and now.
    """
    recipe = demo(seed=seed)
    if not is_main_process():
        raise ValueError("the demo runs in one process; for several, use memlm train")
    prepared = prepare(recipe.data, quiet=quiet)
    model = train(recipe, out, prepared=prepared, quiet=quiet)
    results = evaluate_standard_sets(model, prepared, out, quiet=quiet)
    samples = list(_samples(model, prepared.splits["test"]))
    atomic_write(out / "samples.jsonl", json_lines(samples))
    reference = REFERENCE
    if train_reference:
        reference = out / "reference"
        theirs = train(demo_reference(seed=seed), reference, prepared=prepared, quiet=quiet)
        evaluate_standard_sets(theirs, prepared, reference, quiet=quiet)
        record(reference, out / "reference.json")
    return DemoRun(results, samples, demo_page(out, reference).write(out), model.provenance)


def _samples(model: TextAutoencoder, held_out: TokenSplit) -> Iterator[Sample]:
    """Passages of held-out addresses, then one of each text of another kind."""
    yield from random_passages(model, held_out)
    for _, split in foreign_texts(model.tokenizer):
        yield from random_passages(model, split, num_passages=1)


def record(run: Path, target: Path) -> None:
    """Put what pages show of a run into one file that says it is a recording: the held-out result, the validation curve
    and the last row of training.
    """
    results = [json.loads(row) for row in (run / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    metrics = [json.loads(row) for row in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    shown = ("split", "tokens", "token_accuracy", "chunk_len")
    validation = [{name: row[name] for name in shown} for row in metrics if row["split"] == "validation"]
    recorded = {
        "recorded": True,
        "results": [result for result in results if result["name"] == HELD_OUT],
        "metrics": [*validation, next(row for row in reversed(metrics) if row["split"] == "train")],
    }
    atomic_write(target, json.dumps(recorded, indent=1) + "\n")

"""Detail over long generation: what is written is what the model generates, and who keeps its past keeps the facts."""

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_recall_benchmark import LENGTH, PAST, TEXTS, TOKENIZER, Oracle, configuration, full_context

from memlm.config import RecurrentConfig
from memlm.data.facts import KINDS, FactTexts
from memlm.models.generation import generate
from memlm.models.memory_model import MemoryModel
from memlm.models.recurrent import RecurrentModel
from memlm_evidence.benchmarks.recall import judge
from memlm_evidence.experiments.long_generation import LONG_GENERATION, LongPlan, LongResult
from memlm_evidence.experiments.long_generation.writers import MemoryWriter, RecurrentWriter, drawn_from, has_written
from tiny import randomized

every_model = pytest.mark.parametrize(
    "cfg", [configuration(), configuration(pointer_span=3), full_context()], ids=["memories", "pointer", "window"]
)
FACTS = FactTexts(TOKENIZER, TOKENIZER.encode(TEXTS[0]), chunk_len=LENGTH).sample(4, 2, seed=0, step=0, distance=1)


def writer_of(model: MemoryModel) -> MemoryWriter:
    return MemoryWriter(model.eval(), torch.from_numpy(FACTS.tokens[:, 0]), PAST)


@every_model
def test_it_writes_and_answers_as_the_model_generates(cfg: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = writer_of(randomized(MemoryModel(cfg)))
    monkeypatch.setattr("torch.multinomial", lambda probabilities, **_: probabilities.argmax(-1, keepdim=True))
    for _ in range(3):
        writer.read(writer.written(temperature=1.0))
    answers, greedily = writer.answers(FACTS), {"do_sample": False, "max_new_tokens": LENGTH}
    if cfg.pointer_span:
        greedily["pointed_memories"] = 5
    for row, (tokens, answer) in enumerate(zip(FACTS.tokens, FACTS.answer, strict=True)):
        text = torch.cat([chunk[row] for chunk in writer.chunks])
        if cfg.encoder:  # a model without one has no chunks but its window, which is as long as its text
            assert text[LENGTH : 2 * LENGTH].tolist() == generate(writer.model, text[:LENGTH], **greedily).tolist()
            assert text[-LENGTH:].tolist() == generate(writer.model, text[:-LENGTH], **greedily).tolist()
        seen = text if cfg.encoder else text[-PAST * LENGTH :]
        asked = torch.cat([seen, torch.from_numpy(tokens[1, : answer[1].argmax()])])
        expected = generate(writer.model, asked, **{**greedily, "max_new_tokens": int(answer.sum())})
        assert answers[row, answer].tolist() == expected.tolist()


def test_who_keeps_its_past_keeps_the_facts_and_a_blind_model_none() -> None:
    writer = writer_of(Oracle(configuration()))
    for _ in range(2):
        exact, correct, whole = judge(TOKENIZER, FACTS, writer.answers(FACTS))
        assert exact.all()
        assert (correct == whole).all()
        assert not judge(TOKENIZER, FACTS, writer.answers(FACTS, blind=True))[0].any()
        writer.read(drawn_from(TOKENIZER.encode(TEXTS[1]), writer.chunks))


def test_a_window_forgets_what_has_left_it() -> None:
    writer = writer_of(Oracle(full_context()))
    assert judge(TOKENIZER, FACTS, writer.answers(FACTS))[0].all()
    for _ in range(PAST):
        writer.read(drawn_from(TOKENIZER.encode(TEXTS[1]), writer.chunks))
    assert not judge(TOKENIZER, FACTS, writer.answers(FACTS))[0].any()


def test_a_full_context_forgets_nothing() -> None:
    model = Oracle(full_context()).eval()
    writer = MemoryWriter(model, torch.from_numpy(FACTS.tokens[:, 0]), window=None)
    for _ in range(PAST):
        writer.read(drawn_from(TOKENIZER.encode(TEXTS[1]), writer.chunks))
    assert judge(TOKENIZER, FACTS, writer.answers(FACTS))[0].all()


def test_recurrent_memory_writes_and_answers_what_it_predicts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.multinomial", lambda probabilities, **_: probabilities.argmax(-1, keepdim=True))
    cfg = RecurrentConfig(vocab_size=TOKENIZER.vocab_size, decoder=configuration().decoder, num_memory_tokens=2)
    model = randomized(RecurrentModel(cfg)).eval()
    writer = RecurrentWriter(model, torch.from_numpy(FACTS.tokens[:, 0]))
    for _ in range(2):
        writer.read(writer.written(temperature=1.0))
    answers, places = writer.answers(FACTS)[:, -1], FACTS.answer[:, -1]
    assert (answers[~places] == FACTS.tokens[:, -1][~places]).all()
    windows = torch.stack([*writer.chunks, torch.from_numpy(answers)], dim=1)
    with torch.no_grad():
        likely = model(windows, torch.ones_like(windows, dtype=torch.bool), terms=("causal",)).causal.argmax(-1)
    assert torch.equal(likely[:, 1:3], windows[:, 1:3])
    assert (likely[:, -1].numpy()[places] == answers[places]).all()
    blind = writer.answers(FACTS, blind=True)[:, -1]
    assert not np.array_equal(blind, answers)


def test_a_wrong_answer_that_was_written_is_told_from_one_that_was_not() -> None:
    writer, wrong = writer_of(Oracle(configuration())), FACTS.tokens.copy()
    wrong[FACTS.answer] += 1
    assert not has_written(writer.chunks, TOKENIZER, FACTS, wrong).any(), "nothing is written yet"
    writer.read(torch.from_numpy(np.concatenate([wrong[:2, 1], FACTS.tokens[2:, 0]])))
    assert has_written(writer.chunks, TOKENIZER, FACTS, wrong).tolist() == [True, True, False, False]


def in_cells(runs: Sequence[Mapping[str, float]], distances: Sequence[str]) -> list[str]:
    """As the documents show shares of several seeds: how many, and the mean and range of each."""
    shares = [[run[distance] for run in runs] for distance in distances]
    ranges = [
        f"{min(each):.3f} to {max(each):.3f}" if f"{min(each):.3f}" != f"{max(each):.3f}" else "" for each in shares
    ]
    means = [f"{np.mean(each):.3f}" for each in shares]
    return [str(len(runs)), *(f"{mean} ({told})" if told else mean for mean, told in zip(means, ranges, strict=True))]


def test_the_committed_results_are_what_the_documents_say() -> None:
    docs = Path(__file__).parents[2] / "docs"
    groups = defaultdict[tuple[float, str, str], list[Mapping[str, float]]](list)
    for path in (docs / "results").glob(f"{LongResult.name}*.json"):
        for run in json.loads(path.read_text(encoding="utf-8")):
            temperature = run["provenance"]["settings"]["plan"]["temperature"]
            for between in ("own", "text"):
                for model, found in run[between].items():
                    groups[temperature, between, model].append(found["exact"])
    _, section = (docs / "results.md").read_text(encoding="utf-8").split("\n### Detail over long generation\n")
    lines = [line for line in section.partition("\n## ")[0].splitlines() if line.startswith("|")]
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    distances = [title.removeprefix("after ") for title in header[3:]]
    measured = [(*group[:2], *in_cells(runs, distances)) for group, runs in groups.items()]
    told = {
        (float(warm[1]) if (warm := re.search(r"(?:temperature|at) (\d\.\d)$", label)) else 1.0, kind, *cells)
        for label, between, *cells in rows
        for kind in {"its own": ["own"], "a novel's": ["text"], "both": ["own", "text"]}[between]
    }
    assert told <= {*measured}, "numbers that no file holds"
    assert {row for row in measured if row[1] == "own"} <= told, "files that no row shows"


@pytest.mark.slow
def test_it_runs_resumes_and_says_what_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = LongPlan(num_tokens=8_000, autoencoder_tokens=8_000, num_texts=3, chunks=(0, 2))
    result = LONG_GENERATION.run(tmp_path, plan)
    assert result is not None
    written = json.loads(json.dumps(result.to_dict()))
    assert LongResult.from_dict(written).to_dict() == written
    expected = set(product(plan.models, ("own", "text"), KINDS, (0, 2)))
    assert {(row.model, row.between, row.kind, row.chunks) for row in result.rows} == expected
    for claim in LONG_GENERATION.claims:
        measured = claim.measure(result)
        assert measured
        assert 0 <= measured.low <= measured.value <= measured.high <= 1
    page = LONG_GENERATION.page([result])
    assert page
    assert "Detail over long generation" in page.to_markdown()
    monkeypatch.setattr("memlm.training.train.train_stages", None)
    again = LONG_GENERATION.run(tmp_path, plan)
    assert again is not None
    assert np.all([getattr(again, name) == getattr(result, name) for name in ("own", "text", "chance", "rows")])

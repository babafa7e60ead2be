"""The demo's page: how much of a text comes back from its memories, ours beside the reference."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from memlm.runtime.results import Result
from memlm.runtime.wording import duration, human, in_words, percent, quantity
from memlm_evidence.pages.blocks import Block, Definitions, Figure, KeyNumbers
from memlm_evidence.pages.figures import accuracy_by_position, learning_curves
from memlm_evidence.pages.measures import measure
from memlm_evidence.pages.page import Page, Section
from memlm_evidence.pages.provenance import made_by
from memlm_evidence.pages.run import Run, read_reference, read_run
from memlm_evidence.pages.tables import fill_table, meanings, metrics_table

_SETS: Mapping[str, str] = {
    "held_out": "Held-out text",
    "temporal": "Later years",
    "novel": "A novel",
    "verse": "Verse",
    "code": "Source code",
    "random_tokens": "Random tokens",
}
"""The evaluation sets by their names in result files, as a reader is told of them."""
_OF_CORPUS: Mapping[str, Mapping[str, str]] = {"sotu": {"held_out": "Held-out addresses"}}
"""What some are called where the model was trained on this named corpus."""

_COMPARED = ("token_accuracy", "exact_match", "bits_per_byte", "retained_bits_per_token", "entropy_ratio")


def write_demo_report(folder: Path, reference: Path | None = None) -> Path:
    """Write `report.html` into a run's folder, whole or not at all, and return its path."""
    return demo_page(folder, reference).write(folder)


def demo_page(folder: Path, reference: Path | None = None) -> Page:
    """The page of a demo run; `reference` is a run's folder or a recorded run, by default `folder/reference`.

    Raises:
        ValueError: the file that is missing or broken.
    """
    run = read_run(folder)
    if reference is None and (folder / "reference").is_dir():
        reference = folder / "reference"
    other = read_reference(reference) if reference is not None else None
    sections = [_in_short(run), _samples(run), _measures(run), _lengths(run), _positions(run), _learning(run, other)]
    return Page(
        _title(run.main),
        _lead(run.main),
        [
            section
            for section in (*sections, _limits(run), made_by(run.provenance, run.reached("tokens_per_second"), other))
            if section is not None
        ],
    )


def _lead(result: Result) -> str:
    found = result.measures
    right, whole = in_words(found.get("token_accuracy"), 2), in_words(found.get("exact_match"))
    return (
        f"Text the model had never seen was cut into chunks of {found.get('chunk_len', '—')} tokens. Each chunk was "
        f"encoded into {_memory(found)}, and regenerated from that alone. "
        f"{right[0].upper()}{right[1:]} of the tokens came back right{_interval(result, 'token_accuracy', 2)}, "
        f"and {whole} of the chunks came back without a single error"
        f"{_interval(result, 'exact_match', 1)}."
    )


def _memory(found: Mapping[str, Any]) -> str:
    slots, dim = found.get("num_slots", 1), quantity(found.get("memory_dim"))
    return f"one vector of {dim} numbers" if slots == 1 else f"{slots} vectors of {dim} numbers each"


def _interval(result: Result, name: str, digits: int) -> str:
    interval = result.intervals.get(name)
    return f" (95% interval {in_words(interval.low, digits)} to {in_words(interval.high, digits)})" if interval else ""


def _title(result: Result) -> str:
    slots = result.measures.get("num_slots", 1)
    memory = "one vector" if slots == 1 else f"{slots} vectors"
    return f"{result.measures.get('chunk_len', 'Many')} tokens, {memory}, and back"


def _in_short(run: Run) -> Section:
    found = run.main.measures
    items = [
        (percent(found.get("token_accuracy"), 2), "of tokens regenerated right"),
        (percent(found.get("exact_match")), "of chunks without an error"),
        (f"{found.get('chunk_len', '—')} → {found.get('num_slots', 1)}", f"tokens to {_memory(found)}"),
        (measure("retained_bits_per_token").show(found.get("retained_bits_per_token")), "bits retained per token"),
        (duration(run.reached("seconds")), f"of training, {quantity(run.reached('tokens'))} tokens"),
    ]
    measured = f"Measured on {quantity(found.get('num_tokens'))} tokens of {quantity(found.get('num_documents'))} "
    return Section("In short", f"{measured}documents that were kept out of training.", [KeyNumbers(items)])


def _samples(run: Run) -> Section | None:
    text = (
        "Passages kept out of training, drawn at random, as the decoder wrote them from their memories alone. Where it "
        "is wrong, what it wrote is struck through, and what it should have written follows, underlined. All else is "
        "right to the letter."
    )
    return Section("Regenerated text", text, run.samples) if run.samples else None


def _measures(run: Run) -> Section:
    results = list(run.results.values())
    caption = "By evaluation set. Below a number: its 95% interval, from resampling whole documents."
    table = metrics_table(results, names=set_names(results), first="evaluation set", caption=caption)
    text = "The same model on text of its own kind, and on text ever further from it."
    return Section("What is kept, by kind of text", text, [table, meanings(results)])


def _lengths(run: Run) -> Section | None:
    results = list(run.results.values())
    table = fill_table(results, set_names(results), "Below a number: its 95% interval, from resampling documents.")
    if table is None:
        return None
    text = (
        "Share of texts that come back exactly, by length: a memory of one word must be as good as one of a full chunk."
    )
    return Section("Short texts", text, [table])


def _positions(run: Run) -> Section | None:
    curves = {
        set_name(result): result.measures["accuracy_by_position"]
        for result in run.results.values()
        if result.measures.get("accuracy_by_position")
    }
    if not curves:
        return None
    ends = "; ".join(f"{label} {_range(values)}" for label, values in curves.items())
    text = "Is some part of a chunk harder to keep than the rest? Share of tokens regenerated right, by position."
    figure = Figure(accuracy_by_position(curves), f"Token accuracy by position in the chunk: {ends}.")
    return Section("Along the chunk", text, [figure])


def _range(values: Sequence[float]) -> str:
    low, high = in_words(min(values)), in_words(max(values))
    return low if low == high else f"from {low} to {high}"


def _learning(run: Run, other: Run | None) -> Section:
    curves = {"This recipe": run.validation} | ({_name(other): other.validation} if other else {})
    curves = {label: rows for label, rows in curves.items() if rows}
    blocks: list[Block] = []
    if curves:
        ends = "; ".join(
            f"{label} ends at {in_words(rows[-1].get('token_accuracy'))}" for label, rows in curves.items()
        )
        blocks.append(Figure(learning_curves(curves), f"Token accuracy on validation text over training: {ends}."))
    text = _growth(run) if curves else "No validation was measured on the way."
    if other is None:
        return Section("Learning", f"Trained on {quantity(run.reached('tokens'))} tokens. {text}", blocks)
    caption = f"On {set_name(run.main).lower()}. Below a number: its 95% interval."
    models = [_renamed(run, "This recipe"), _renamed(other, _name(other))]
    blocks.append(metrics_table(models, measures=_COMPARED, first="model", caption=caption))
    return Section("Beside the reference", f"{_budgets(run, other)} {text}", blocks)


def _growth(run: Run) -> str:
    """Where the chunks on which training was watched became longer."""
    rows = run.validation
    steps = [(a["tokens"], b["chunk_len"]) for a, b in pairwise(rows) if a.get("chunk_len") != b.get("chunk_len")]
    if not steps:
        return ""
    told = ", ".join(f"after {quantity(tokens)} tokens it was grown to chunks of {length}" for tokens, length in steps)
    return f"This recipe starts on chunks of {rows[0]['chunk_len']} tokens, and its curve with them; {told}."


def _name(other: Run) -> str:
    return "Reference, recorded" if other.recorded else "Reference"


def _renamed(run: Run, name: str) -> Result:
    return Result(name=name, measures=run.main.measures, intervals=run.main.intervals)


def _budgets(run: Run, other: Run) -> str:
    ours, theirs = quantity(run.reached("tokens")), quantity(other.reached("tokens"))
    same = f"the same number of tokens, {ours}" if theirs == ours else f"{theirs} tokens, this recipe on {ours}"
    text = f"The reference is the paper's own autoencoder, trained on {same}."
    if not other.recorded:
        return text
    return (
        f"{text} It was not trained here: its numbers are a recorded run, and the end of this page says what made it."
    )


def _limits(run: Run) -> Section:
    items = [
        (
            "Regeneration is not use",
            "That a text can be regenerated from a memory does not say that a language model can use the memory: "
            "answer from it, or predict what follows. That takes other experiments.",
        ),
        ("One run", "The intervals say how much the numbers vary between documents, not between training runs."),
    ]
    return Section("What is not claimed", "", [Definitions([items[0], *_far(run), items[1]])])


def _far(run: Run) -> list[tuple[str, str]]:
    """How far it falls away from its training text; nothing where nothing was measured or nothing fell."""
    own = run.main.measures.get("token_accuracy") or 0.0
    found = [(each.measures.get("token_accuracy"), set_name(each).lower()) for each in run.results.values()]
    # One that is told in the same words has not fallen by anything a reader could see.
    fallen = [pair for pair in found if pair[0] is not None and pair[0] < own and in_words(pair[0]) != in_words(own)]
    if not fallen:
        return []
    told = ", ".join(f"{in_words(value)} on {name}" for value, name in sorted(fallen, reverse=True))
    text = f"Token accuracy is {in_words(own)} on {set_name(run.main).lower()}, but {told}."
    return [("Away from its training text it falls", f"{text} The memory is made for the text it was trained on.")]


def set_names(results: Sequence[Result]) -> dict[str, str]:
    """What a reader is told the results' evaluation sets are, by their names."""
    return {result.name: set_name(result) for result in results}


def set_name(result: Result) -> str:
    """What a reader is told a result's evaluation set is: it depends on what the model was trained on."""
    settings: Any = result.provenance.settings if result.provenance else {}
    try:
        corpus = settings["model"]["recipe"]["data"]["corpus"].get("name", "")
    except (KeyError, TypeError, AttributeError):  # a result of no trained model, or of another version
        corpus = ""
    names = {**_SETS, **_OF_CORPUS.get(corpus, {})}
    return names.get(result.name, human(result.name))

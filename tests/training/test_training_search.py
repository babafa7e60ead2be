"""What memories are searched by learns from a sentence encoder, and what holds the text stays as it is."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import memlm
from memlm import TextAutoencoder
from memlm.config import AutoencoderRecipe
from memlm.models.autoencoder import SearchEncoder
from memlm.recipes.autoencoder import searchable
from memlm.runtime.results import read_json_lines
from memlm.training.checkpoint import Saver
from memlm.training.search import Teacher, principal_directions
from memlm.training.train import train
from tiny import tiny_search_recipe, write_language_model, write_sentence_encoder

TEXT = "one two memory holds the whole text"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sentence_encoder(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="module")
def search_recipe(finished_run: Path, corpus: str, teacher: Path) -> AutoencoderRecipe:
    return tiny_search_recipe(finished_run / "model", teacher, corpus)


@pytest.fixture(scope="module")
def search_run(search_recipe: AutoencoderRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search") / "run"
    train(search_recipe, folder, quiet=True)
    return folder


def test_it_comes_near_the_teacher(search_run: Path, teacher: Path) -> None:
    measures = [row for row in read_json_lines(search_run / "metrics.jsonl") if row["split"] == "validation"]
    assert measures[-1]["cosine"] > 0.8
    assert measures[-1]["short_cosine"] > measures[0]["short_cosine"]
    model, taught = memlm.load(search_run / "model"), Teacher(str(teacher))
    assert model.config.search is not None
    assert model.config.search.teacher_fingerprint == taught.fingerprint
    assert model.model.search is not None
    texts = ["one two memory holds", "writes 漢字 whole"]
    target = taught.embed(texts) @ model.model.search.reduction
    made = model.search_vectors(texts)
    torch.testing.assert_close(made, model.encode(texts).search_vectors)
    assert (F.cosine_similarity(made, target) > F.cosine_similarity(made, target.flip(0))).all()


def test_the_text_is_held_as_before(search_run: Path, trained: TextAutoencoder) -> None:
    model = memlm.load(search_run / "model")
    own, base = model.encode([TEXT, ""]), trained.encode([TEXT, ""])
    assert torch.equal(own.of_text.vectors, base.vectors)
    assert own.vectors.shape[-1] == base.vectors.shape[-1] + 8
    assert own.of_text.encoder == base.encoder != own.encoder
    for memory in (own, base):  # either model reads both
        assert model.regenerate(memory) == trained.regenerate(base)
        assert trained.regenerate(memory) == trained.regenerate(base)
    assert model.regenerate(own.numpy()[:, 0]) == trained.regenerate(base.numpy()[:, 0])


def test_a_resumed_run_ends_the_same(search_recipe: AutoencoderRecipe, search_run: Path, tmp_path: Path) -> None:
    folder, saved = tmp_path / "run", Saver.save

    def once(*arguments: Any) -> None:
        saved(*arguments)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Saver, "save", once)
        with pytest.raises(KeyboardInterrupt):
            train(search_recipe, folder, quiet=True)
    train(search_recipe, folder, quiet=True)
    ends = [load_file(run / "model" / "model.safetensors") for run in (search_run, folder)]
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())


def test_training_goes_on_where_another_ended(
    search_recipe: AutoencoderRecipe, search_run: Path, tmp_path: Path
) -> None:
    begun = memlm.load(search_run / "model")
    recipe = searchable(str(search_run / "model"), batch_texts=8, num_tokens=2_000)
    assert recipe.model == begun.config
    recipe = replace(recipe, data=search_recipe.data)
    train(recipe, tmp_path / "run", quiet=True)
    measures = [row for row in read_json_lines(search_run / "metrics.jsonl") if row["split"] == "validation"]
    after = [row for row in read_json_lines(tmp_path / "run" / "metrics.jsonl") if row["split"] == "validation"]
    assert after[0]["cosine"] > measures[0]["cosine"]
    model = memlm.load(tmp_path / "run" / "model")
    assert model.config == begun.config
    assert model.model.search is not None
    assert begun.model.search is not None
    assert torch.equal(model.model.search.reduction, begun.model.search.reduction)
    assert not torch.equal(model.search_vectors(["one two"]), begun.search_vectors(["one two"]))
    assert begun.config.search is not None
    changed = replace(begun.config, search=replace(begun.config.search, teacher="minilm"))
    with pytest.raises(ValueError, match="learned from another teacher"):
        train(replace(recipe, model=changed), tmp_path / "changed", quiet=True)


def test_a_run_may_end_by_the_clock(search_recipe: AutoencoderRecipe, tmp_path: Path) -> None:
    recipe = search_recipe.with_training(num_tokens=10**9, max_seconds=0.5)
    model = train(recipe, tmp_path / "run", quiet=True)
    assert model.provenance["tokens"] < 10**7
    assert 0.5 <= model.provenance["seconds"] < 60
    assert train(recipe, tmp_path / "run", quiet=True).encoder_fingerprint == model.encoder_fingerprint


def test_a_checkpoint_names_a_base_that_ships_with_memlm(trained: TextAutoencoder, tmp_path: Path) -> None:
    from memlm.text.checkpoint_folder import based_on

    english = memlm.load("english", device="cpu")
    cfg = memlm.config.SearchConfig(
        dim=8, num_words=16, stack=replace(english.config.encoder, mixer=memlm.config.Attention(num_heads=2))
    )
    search = SearchEncoder(cfg, english.config.shape)
    english.with_search(based_on(cfg, "english"), search, {}).save_pretrained(tmp_path / "named")
    english.with_search(cfg, search, {}).save_pretrained(tmp_path / "whole")
    names = {folder: load_file(tmp_path / folder / "model.safetensors") for folder in ("named", "whole")}
    assert {name.split(".")[0] for name in names["named"]} == {"search"}
    assert {name.split(".")[0] for name in names["whole"]} == {"search", "encoder", "decoder", "unconditional"}
    loaded = [memlm.load(tmp_path / folder, device="cpu") for folder in names]
    assert len({model.encoder_fingerprint for model in loaded}) == 1
    assert all(torch.equal(part, english.model.state_dict()[name]) for name, part in _text(loaded[0]).items())
    config = tmp_path / "named" / "config.json"
    config.write_text(config.read_text().replace('"base_sha256": "', '"base_sha256": "0'))
    with pytest.raises(ValueError, match="does not ship"):
        memlm.load(tmp_path / "named")


def _text(model: TextAutoencoder) -> dict[str, torch.Tensor]:
    return {name: part for name, part in model.model.state_dict().items() if not name.startswith("search.")}


def test_principal_directions_keep_products() -> None:
    torch.manual_seed(0)
    low = torch.randn(400, 5) @ torch.randn(5, 40)
    directions = principal_directions(low, 5)
    torch.testing.assert_close(directions.T @ directions, torch.eye(5), atol=1e-4, rtol=0)
    torch.testing.assert_close((low @ directions) @ (low @ directions).T, low @ low.T, atol=0.05, rtol=1e-3)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("model.search.teacher_dim=100", "has 32 dimensions"),
        ("model.memory_noise=0.5", r"its model\.memory_noise is 0\.\d+, not 0\.5"),
    ],
)
def test_what_does_not_fit_is_refused(search_recipe: AutoencoderRecipe, tmp_path: Path, change: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        train(search_recipe.with_values((change,)), tmp_path / "run", quiet=True)


def test_a_teacher_has_a_vector_for_a_text(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sentence-transformers"):
        Teacher(str(write_language_model(tmp_path, "gpt2")))


def test_recipes_say_what_is_missing(search_recipe: AutoencoderRecipe) -> None:
    with pytest.raises(ValueError, match="encoder_from"):
        replace(search_recipe, encoder_from=None)
    with pytest.raises(ValueError, match="nothing else"):
        search_recipe.with_values(("stages.0.weights.likeness=0.0", "stages.0.weights.retention=1.0"))
    with pytest.raises(ValueError, match="nothing else"):
        replace(search_recipe, model=replace(search_recipe.model, search=None))

"""Memory models learn to remember, stages do what they say, and a run broken off ends in the same bits."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import nn

from memlm.config import (
    AdamW,
    AutoencoderRecipe,
    LoraConfig,
    MemoryModelRecipe,
    MemoryShape,
    Positional,
    Prefix,
    PretrainedDecoder,
    Recipe,
    Weights,
)
from memlm.data.chunks import LazyChunks, split_into_chunks
from memlm.data.token_store import prepare
from memlm.models.batch import encode_chunks
from memlm.probing.encoders import load_encoder
from memlm.recipes.memory_model import memory_model, without_memory
from memlm.runtime.results import read_json_lines
from memlm.text.memory_model import TextMemoryModel
from memlm.training.memory_model import PrecomputedMemories, window_sampler
from memlm.training.train import train
from tiny import break_down_after, launch, tiny_memory_recipe

WEIGHTS = Path("model", "model.safetensors")
ADAPTER = Path("model", "adapter", "adapter_model.safetensors")
COMBINED = Weights(causal=1.0, retention=1.0)
READING = Weights(retention=1.0)


@pytest.fixture(scope="module")
def combined(recipe: AutoencoderRecipe) -> MemoryModelRecipe:
    """The tiny autoencoder's encoder with a causal decoder."""
    training = {"num_tokens": 12_000, "checkpoint_tokens": 2000, "eval_tokens": 4000}
    return tiny_memory_recipe(recipe.with_training(**training), COMBINED)


@pytest.fixture(scope="module")
def curriculum(combined: MemoryModelRecipe, finished_run: Path) -> MemoryModelRecipe:
    """A frozen encoder; first memories are read, then next tokens are learned too."""
    (stage,) = combined.with_training(num_tokens=4000).stages
    frozen = replace(stage, frozen=("encoder",))
    reading = replace(frozen, weights=READING)
    return replace(combined, stages=(reading, frozen), encoder_from=str(finished_run / "model"))


@pytest.fixture(scope="module")
def combined_run(combined: MemoryModelRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("combined") / "run"
    train(combined, folder, quiet=True)
    return folder


@pytest.fixture(scope="module")
def curriculum_run(curriculum: MemoryModelRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("curriculum") / "run"
    train(curriculum, folder, quiet=True)
    return folder


def logged(folder: Path) -> list[dict[str, float]]:
    rows = read_json_lines(folder / "metrics.jsonl")
    return [{name: value for name, value in row.items() if "second" not in name} for row in rows]


def test_every_term_is_reported_and_falls(combined_run: Path) -> None:
    rows = [row for row in logged(combined_run) if "retention_nats" in row]
    assert {"causal_nats", "retention_nats", "grad_norm"} <= rows[0].keys()
    for term in ("causal_nats", "retention_nats"):
        assert rows[-1][term] < rows[0][term]


@pytest.mark.slow
def test_combined_training_remembers_what_causal_training_does_not(combined: MemoryModelRecipe, tmp_path: Path) -> None:
    found = {}
    for name, weights in (("causal", Weights(causal=1.0)), ("combined", COMBINED)):
        recipe = combined.with_stages(weights=weights).with_training(num_tokens=60_000)
        trained = train(recipe, tmp_path / name, quiet=True)
        split = prepare(recipe.data, quiet=True).splits["test"]
        found[name] = trained.evaluate_split(split, name="test")
    accuracy = {name: result.retention["token_accuracy"] for name, result in found.items()}
    assert accuracy["combined"] > 0.5 > 0.2 > accuracy["causal"]  # the likeliest token alone is right on 0.1
    assert found["combined"].causal_nats_per_token < 1.1 * found["causal"].causal_nats_per_token


def test_a_frozen_encoder_stays_as_it_was(curriculum_run: Path, finished_run: Path) -> None:
    before, after = load_file(finished_run / WEIGHTS), load_file(curriculum_run / WEIGHTS)
    encoder = {name for name in before if name.startswith("encoder.")}
    assert encoder
    assert all(torch.equal(before[name], after[name]) for name in encoder)


def test_stages_follow_each_other(curriculum_run: Path) -> None:
    rows = [row for row in logged(curriculum_run) if "grad_norm" in row]
    with_causal = ["causal_nats" in row for row in rows]
    assert with_causal == sorted(with_causal)
    assert 0 < sum(with_causal) < len(rows)


def test_frozen_memories_are_the_encoders(curriculum: MemoryModelRecipe, curriculum_run: Path) -> None:
    model = TextMemoryModel.from_pretrained(curriculum_run / "model").model
    assert model.encoder is not None
    prepared = prepare(curriculum.data, quiet=True)
    chunks = split_into_chunks(prepared.splits["train"], curriculum.model.shape.chunk_len)
    frozen = PrecomputedMemories(model.encoder, chunks)
    batch = window_sampler(curriculum, curriculum.stages[0], chunks, prepared.tokenizer, frozen)(3)
    assert batch.memory is not None
    with torch.no_grad():
        made = model.encode(batch.tokens, batch.mask)
    present = batch.mask.any(-1)
    torch.testing.assert_close(batch.memory[present], made[present], rtol=1e-4, atol=1e-5)


def test_a_frozen_encoder_encodes_once_over_all_stages(
    curriculum: MemoryModelRecipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    encoded: list[int] = []

    def counted(encoder: nn.Module, chunks: LazyChunks) -> torch.Tensor:
        encoded.append(len(chunks.document))
        return encode_chunks(encoder, chunks)

    monkeypatch.setattr("memlm.training.memory_model.encode_chunks", counted)
    first, second = curriculum.stages
    learning = replace(second, frozen=())
    recipe = replace(curriculum, stages=(first, second, learning, second)).with_training(num_tokens=500)
    train(recipe, tmp_path / "run", quiet=True)
    # Once for the first two stages; and again after the third, in which the encoder has learned.
    chunks = split_into_chunks(prepare(recipe.data, quiet=True).splits["train"], recipe.model.shape.chunk_len)
    assert encoded == [len(chunks.tokens)] * 2


@pytest.mark.parametrize("moments", [(1,), (2, 1), (3,)])
def test_broken_off_and_run_again_it_ends_in_the_same_bits(
    moments: tuple[int, ...],
    curriculum: MemoryModelRecipe,
    curriculum_run: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    for number in moments:
        with monkeypatch.context() as patch:
            break_down_after(number, patch)
            with pytest.raises(KeyboardInterrupt):
                train(curriculum, folder, quiet=True)
    train(curriculum, folder, quiet=True)
    assert (folder / WEIGHTS).read_bytes() == (curriculum_run / WEIGHTS).read_bytes()
    assert logged(folder) == logged(curriculum_run)


@pytest.mark.slow
def test_two_processes_log_the_same_losses_as_one(curriculum: MemoryModelRecipe, tmp_path: Path) -> None:
    # AdamW, for PyTorch's Muon rounds to bf16. A stage that only reads memories leaves weights of the decoder unused.
    one, two = (
        curriculum.with_training(optimizer=AdamW(learning_rate=5e-3), num_tokens=2000, num_processes=num_processes)
        for num_processes in (None, 2)
    )
    train(one, tmp_path / "one", quiet=True)
    folders = tmp_path / "one", launch(train, two, tmp_path / "two", 2)
    found = [[row for row in logged(folder) if "grad_norm" in row] for folder in folders]
    assert len(found[0]) == len(found[1]) >= 2  # one and more of each stage
    for term in ("causal_nats", "retention_nats"):
        nats = [[row[term] for row in rows if term in row] for rows in found]
        np.testing.assert_allclose(*nats, rtol=1e-3)


def test_a_finished_run_is_loaded_and_another_curriculum_refused(
    curriculum: MemoryModelRecipe, curriculum_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memlm.training.train.fit", None)  # nothing is trained
    train(curriculum, curriculum_run, quiet=True)
    other = replace(curriculum, stages=curriculum.stages[::-1])
    with pytest.raises(ValueError, match="holds a model of another recipe or data"):
        train(other, curriculum_run, quiet=True)


def test_an_encoder_can_be_had_from_a_memory_model(
    combined: MemoryModelRecipe, combined_run: Path, tmp_path: Path
) -> None:
    recipe = replace(combined.with_training(num_tokens=1000), encoder_from=str(combined_run / "model"))
    recipe = recipe.with_stages(frozen=("encoder",))
    trained = train(recipe, tmp_path / "run", quiet=True)
    assert trained.encoder_fingerprint == TextMemoryModel.from_pretrained(combined_run / "model").encoder_fingerprint


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shape": MemoryShape(vocab_size=300, chunk_len=8, memory_dim=32)}, r"model\.shape\.chunk_len is 16, not 8"),
        (
            {"shape": MemoryShape(vocab_size=300, chunk_len=16, memory_dim=16)},
            r"model\.shape\.memory_dim is 32, not 16",
        ),
        ({"pooling": Positional(token_dim=4)}, r"model\.pooling\.token_dim is 8, not 4"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused_before_training(
    change: dict, words: str, curriculum: MemoryModelRecipe, tmp_path: Path
) -> None:
    recipe = replace(curriculum, model=replace(curriculum.model, **change))
    with pytest.raises(ValueError, match=f"does not fit the recipe: its {words}"):
        train(recipe, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_recipes_that_cannot_work_are_refused(combined: MemoryModelRecipe) -> None:
    with pytest.raises(ValueError, match="give encoder_from"):
        combined.with_stages(frozen=("encoder",))
    with pytest.raises(ValueError, match="nothing to regenerate a chunk from"):
        replace(combined, model=replace(combined.model, encoder=None))
    with pytest.raises(ValueError, match="at least one stage"):
        replace(combined, stages=())
    with pytest.raises(ValueError, match="batch_tokens 20 is less than one window of 48"):
        combined.with_training(batch_tokens=20)
    with pytest.raises(ValueError, match="no term of the loss has a weight"):
        Weights()
    with pytest.raises(ValueError, match="memory model is trained for causal or retention or copy, not for retrieval"):
        combined.with_stages(weights=Weights(retrieval=1.0))
    with pytest.raises(ValueError, match="only an autoencoder is grown"):
        combined.with_stages(chunk_len=8)
    with pytest.raises(ValueError, match="only an autoencoder is trained with scrambled_fraction"):
        combined.with_training(scrambled_fraction=0.5)


def test_text_too_short_to_have_a_past_is_refused(combined_run: Path) -> None:
    model = TextMemoryModel.from_pretrained(combined_run / "model")
    with pytest.raises(ValueError, match="no text is longer than a chunk of 16 tokens; the longest has"):
        model.evaluate(["short"])


def test_a_saved_model_writes_the_same(combined_run: Path, tmp_path: Path) -> None:
    model = TextMemoryModel.from_pretrained(combined_run / "model")
    model.save_pretrained(tmp_path / "copy")
    again = TextMemoryModel.from_pretrained(tmp_path / "copy")
    past = "the memory holds one long ünd text " * 10
    written = [each.generate("the", past=past, max_new_tokens=24, do_sample=False) for each in (model, again)]
    assert written[0] == written[1]
    assert model.encoder_fingerprint == again.encoder_fingerprint


def test_its_memories_can_be_probed(combined_run: Path) -> None:
    model, encoder = TextMemoryModel.from_pretrained(combined_run / "model"), load_encoder(combined_run / "model")
    assert encoder.default_view.pooling == "memory"
    assert encoder.fingerprint == model.encoder_fingerprint
    tokens = torch.arange(32).view(2, 16)
    (memory,) = encoder.embed(tokens, torch.ones_like(tokens, dtype=torch.bool), [encoder.default_view])
    with torch.no_grad():
        expected = model.model.encode(tokens[:, None], torch.ones_like(tokens, dtype=torch.bool)[:, None])[:, 0]
    torch.testing.assert_close(memory, expected)


def test_recipes_of_one_comparison_share_tokens_and_decoder() -> None:
    ours, blind, whole = (
        memory_model(),
        without_memory(memory_model()),
        without_memory(memory_model(), full_context=True),
    )
    for other in (blind, whole):
        assert other.model.decoder == ours.model.decoder
        assert [stage.training for stage in other.stages] == [stage.training for stage in ours.stages]
        assert Recipe.from_json(other.to_json()) == other
    assert math.prod(whole.row_shape) == math.prod(ours.row_shape)
    taught = memory_model(encoder_from="somewhere", reading_fraction=0.25, num_tokens=1_000_000)
    assert [stage.training.num_tokens for stage in taught.stages] == [250_000, 750_000]
    assert all(stage.frozen == ("encoder",) for stage in taught.stages)


def test_a_pretrained_decoder_learns_through_its_adapters_alone(
    combined: MemoryModelRecipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    sizes = transformers.GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=64, vocab_size=308)  # its head is tied
    transformers.GPT2LMHeadModel(sizes).save_pretrained(tmp_path / "base")
    decoder = PretrainedDecoder(name=str(tmp_path / "base"), lora=LoraConfig(rank=2))
    recipe = replace(combined, model=replace(combined.model, decoder=decoder, insertion=Prefix(num_positions=2)))
    recipe = recipe.with_training(num_tokens=1500, checkpoint_tokens=256)
    train(recipe, tmp_path / "alone", quiet=True)
    with monkeypatch.context() as patch:
        break_down_after(2, patch)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "run", quiet=True)
    train(recipe, tmp_path / "run", quiet=True)
    for weights in (WEIGHTS, ADAPTER):
        assert (tmp_path / "run" / weights).read_bytes() == (tmp_path / "alone" / weights).read_bytes()
    learned = {name for name, weight in load_file(tmp_path / "run" / ADAPTER).items() if weight.any()}
    assert any("lora_B" in name for name in learned)
    assert not any(name.startswith("decoder.") for name in load_file(tmp_path / "run" / WEIGHTS))

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from memlm.config import (
    Attention,
    AutoencoderConfig,
    BpeTokenizer,
    DataConfig,
    FileCorpus,
    HubCorpus,
    LastToken,
    LearnedQuery,
    MaskedMixer,
    MemoryShape,
    PretrainedTokenizer,
    Recipe,
    Repeat,
    SlidingWindow,
    StackConfig,
    TrainingConfig,
)
from memlm.recipes import RECIPES
from tiny import tiny_model, tiny_recipe

TINY = tiny_recipe("*.txt")


def edited(path: str, value: Any) -> str:
    """The tiny recipe's JSON with one value set."""
    content = json.loads(TINY.to_json())
    *parents, key = path.split(".")
    place = content
    for parent in parents:
        place = place[int(parent) if isinstance(place, list) else parent]
    place[key] = value
    return json.dumps(content)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_comes_back_from_json(name: str) -> None:
    recipe = RECIPES[name]()
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_every_variant_comes_back_from_json() -> None:
    shape = MemoryShape(vocab_size=300, chunk_len=16, memory_dim=32)
    query = LearnedQuery(num_heads=2, num_parts=2)
    attention = StackConfig(dim=8, mixer=Attention(num_heads=2), activation="swiglu")
    for pooling, unpooling in ((LastToken(), Repeat()), (query, SlidingWindow()), (query, query)):
        model = AutoencoderConfig(
            shape=shape, encoder=attention, decoder=attention, pooling=pooling, unpooling=unpooling
        )
        assert AutoencoderConfig.from_json(model.to_json()) == model
    for corpus in (FileCorpus(paths=("a", "-"), errors="replace"), HubCorpus(name="user/data", subset="s")):
        for tokenizer in (BpeTokenizer(), PretrainedTokenizer(name="user/tokenizer")):
            data = DataConfig(corpus=corpus, tokenizer=tokenizer)
            assert DataConfig.from_json(data.to_json()) == data


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("nmae", "x"),
        ("model.encoder.mixer.heads", 3),
        ("stages.0.training.num_tokens", "many"),
        ("stages.0.training.num_tokens", 0.5),
        ("stages.0.training.num_tokens", -7),
        ("stages.0.training.optimizer.kind", "sgd"),
        ("stages.0.training.optimizer.learning_rate", 0.0),
        ("stages.0.training.short_fraction", 1.5),
        ("stages.0.training.precision", "fp8"),
        ("stages.0.training.batch_tokens", 15),
        ("model.shape.chunk_len", 0),
        ("model.shape.memory_dim", -32),
        ("model.shape.vocab_size", 301),
        ("model.encoder.mixer.num_heads", 5),
        ("model.memory_noise", -0.25),
        ("data.tokenizer.vocab_size", 255),
        ("data.test_fraction", 1.5),
        ("data.corpus.paths", []),
    ],
)
def test_a_wrong_key_type_or_value_is_named(path: str, value: Any, tmp_path: Path) -> None:
    file = tmp_path / "recipe.json"
    file.write_text(edited(path, value), encoding="utf-8")
    with pytest.raises(ValueError, match=r"^.*recipe\.json: not a valid Recipe: ") as caught:
        Recipe.read(file)
    message = str(caught.value)
    assert path.removesuffix(".kind").split(".")[-1] in message
    assert str(value) in message or value == []
    assert "\n" not in message


def test_broken_json_and_a_missing_file_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    with pytest.raises(ValueError, match=str(path)):
        Recipe.read(path)
    path.write_text(TINY.to_json()[:-20], encoding="utf-8")
    with pytest.raises(ValueError, match=f"{path}: .*JSON"):
        Recipe.read(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pooling": LearnedQuery(num_heads=3)}, "pooling: num_heads 3 does not divide the width 32"),
        ({"unpooling": LearnedQuery(num_parts=5)}, "unpooling: num_parts 5 does not divide memory_dim 32"),
        (
            {"unpooling": SlidingWindow(), "shape": MemoryShape(vocab_size=300, chunk_len=16, memory_dim=33)},
            "even memory_dim, not 33",
        ),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_model(**changes)


def test_rotary_positions_need_an_even_head() -> None:
    with pytest.raises(ValueError, match="not dim / num_heads = 3"):
        StackConfig(dim=6, mixer=Attention(num_heads=2))


def test_configurations_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainingConfig().num_tokens = 5  # type: ignore[misc]


HEAVY = {"torch", "transformers", "accelerate", "datasets", "tokenizers", "numpy", "matplotlib", "starlette", "gradio"}


@pytest.mark.parametrize(
    "statement",
    [
        "import memlm",
        "import memlm.config, memlm.runtime.results, memlm.recipes, memlm.cli",
        "import sys, memlm.cli; sys.argv = ['memlm', '--help']; memlm.cli.main()",
        "import sys, memlm.cli; sys.argv = ['memlm', 'train', '--help']; memlm.cli.main()",
        "import sys, memlm.cli; sys.argv = ['memlm', 'sweep', '--help']; memlm.cli.main()",
        "import sys, memlm.cli; sys.argv = ['memlm', 'serve', '--help']; memlm.cli.main()",
        "import sys, memlm.cli; sys.argv = ['memlm', 'app', '--help']; memlm.cli.main()",
    ],
)
def test_importing_and_asking_for_help_loads_nothing_heavy(statement: str) -> None:
    code = f"try:\n  {statement}\nexcept SystemExit as end:\n  assert not end.code\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert loaded.isdisjoint(HEAVY | ({"pydantic"} if "['memlm', '--help']" in statement else set()))


def test_any_field_can_be_set_by_its_path() -> None:
    recipe = RECIPES["autoencoder"]()
    changed = recipe.with_values(
        [
            "stages.0.training.optimizer.adamw.betas.0=0.8",
            "stages.*.training.precision=fp32",
            'model.encoder.mixer={"kind":"attention","num_heads":2}',
            "name=mine",
        ]
    )
    assert changed.stages[0].training.optimizer.adamw.betas == (0.8, 0.99)
    assert [stage.training.precision for stage in changed.stages] == ["fp32", "fp32"]
    assert changed.name == "mine"
    assert changed.model.encoder.mixer == Attention(num_heads=2)
    assert changed.with_values([]) == changed


def test_a_variant_may_be_chosen_by_its_kind_alone() -> None:
    recipe = RECIPES["reference"]()
    assert recipe.with_values(["model.encoder.mixer=masked_mixer"]).model.encoder.mixer == MaskedMixer()
    eight = recipe.with_values(["model.encoder.mixer=masked_mixer", "model.encoder.mixer.num_heads=2"])
    assert eight.model.encoder.mixer == MaskedMixer(num_heads=2)
    # One that is of that kind stays as it was told to be.
    two = recipe.with_values(["model.encoder.mixer.num_heads=2"])
    assert two.with_values(["model.encoder.mixer=attention"]) == two
    assert recipe.with_values(["name=attention"]).name == "attention"


def test_every_field_has_a_path() -> None:
    recipe = RECIPES["autoencoder"]()
    paths = recipe.field_paths()
    assert {"stages.0.training.seed", "stages.1.training.optimizer.adamw.betas.1", "model.encoder.mixer.kind"} < set(
        paths
    )
    assert len(set(paths)) == len(paths)
    for path in paths:
        value = json.loads(recipe.to_json())
        for key in path.split("."):
            value = value[int(key) if isinstance(value, list) else key]
        assert recipe.with_values([f"{path}={json.dumps(value)}"]) == recipe


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("optimizer.momentum=1", r"did you mean stages\.\*\.training.optimizer.momentum\?"),
        ("stages.0.training.sed=1", r"did you mean stages.0.training.seed\?"),
        ("model.encoder.mixer=convolution", "there is no kind 'convolution'; there are 'attention', 'masked_mixer'"),
        ("model.pooling=mean.x", "'mean.x'"),
        ("training", "expected path.to.field=value"),
        ("training.precision=fp32", r"did you mean stages\.\*\.training.precision\?"),
        ("growth.0.training.seed=1", r"did you mean stages\.\*\.training.seed\?"),
        ("stages.*.training.foo=1", "no field 'stages.*.training.foo'".replace("*", r"\*")),
        ("data.*.seed=1", r"at '\*' there are only corpus"),
        ("stages.2.chunk_len=3", "at '2' there are only 0, 1"),
        ("stages.0.training.batch_tokens.x=1", "at 'x' there are only none"),
        ("data.corpus.name.x=1", "at 'x' there are only none"),
        ("stages.*.training.num_tokens=-1", "num_tokens must be positive, not -1"),
        ("stages.1.training.seed=-1", "seed must not be negative"),
        (
            "stages.0.training.everyday_fraction=0.25",
            "everyday_fraction 0.25 needs .* data.everyday_bytes",
        ),
        ("stages.0.weights.causal=1", "an autoencoder is trained for retention or likeness, not for causal"),
        ("stages.1.chunk_len=8", "the last stage trains the model itself"),
        ("encoder_from=english", "begins with trained weights .* is not grown: leave out chunk_len"),
    ],
)
def test_what_cannot_be_set_is_named(assignment: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RECIPES["autoencoder"]().with_values([assignment])

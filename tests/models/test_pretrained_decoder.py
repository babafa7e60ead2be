"""A pretrained model as a memory model's decoder: frozen but for adapters, its weights not saved but named."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from safetensors import safe_open

from memlm.config import (
    AutoencoderRecipe,
    CrossAttention,
    DecoderConfig,
    LoraConfig,
    MaskedMixer,
    MemoryModelConfig,
    MemoryShape,
    Positional,
    Prefix,
    PretrainedDecoder,
    PretrainedTokenizer,
    StackConfig,
    Unpooled,
    Weights,
)
from memlm.data.tokenizer import Tokenizer
from memlm.models.batch import Batch
from memlm.models.causal_decoder import PretrainedCausalDecoder
from memlm.models.memory_model import MemoryModel
from memlm.text.memory_model import TextMemoryModel
from memlm.training.footprint import flops_per_token, work
from memlm.training.objectives import combined
from memlm.training.optimizers import hidden_matrices
from memlm.training.train import train
from tiny import tiny_memory_recipe

VOCAB, LENGTH = 256, 6
SIZES = {"hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 2}
SIZES |= {"intermediate_size": 24, "vocab_size": VOCAB + 8, "max_position_embeddings": 64, "initializer_range": 0.2}
KINDS = {
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)),
    "qwen3": lambda: transformers.Qwen3ForCausalLM(
        transformers.Qwen3Config(**SIZES, head_dim=8, tie_word_embeddings=True)
    ),
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=64, vocab_size=VOCAB + 8)
    ),
}
with_and_without_adapters = pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)], ids=["frozen", "lora"])


@pytest.fixture(scope="module", params=KINDS)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model's folder; two of the three tie their embeddings to their heads."""
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp(request.param)
    KINDS[request.param]().save_pretrained(folder)
    Tokenizer.train([], VOCAB).save(folder)
    return folder


def configuration(base: Path, lora: LoraConfig | None) -> MemoryModelConfig:
    return MemoryModelConfig(
        shape=MemoryShape(vocab_size=VOCAB, chunk_len=LENGTH, memory_dim=24),
        encoder=StackConfig(dim=16, num_layers=1, mixer=MaskedMixer(num_heads=2)),
        pooling=Positional(token_dim=4),
        insertion=Prefix(num_positions=2),
        decoder=PretrainedDecoder(name=str(base), lora=lora),
        max_memories=2,
    )


def trained_somehow(model: MemoryModel) -> MemoryModel:
    """With other weights than a fresh one where any are trained: adapters start as if there were none."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def logits(model: MemoryModel) -> torch.Tensor:
    tokens = torch.randint(VOCAB, (2, 3, LENGTH), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        predictions = model(tokens, torch.ones_like(tokens, dtype=torch.bool), terms=("causal", "retention"))
    return torch.stack([predictions.causal, predictions.retention])


@with_and_without_adapters
def test_a_saved_model_is_rebuilt_from_its_configuration_and_the_base(
    base: Path, lora: LoraConfig | None, tmp_path: Path
) -> None:
    model = trained_somehow(MemoryModel(configuration(base, lora)))
    saved = TextMemoryModel(model, Tokenizer.load(base), torch.zeros(VOCAB), {})
    saved.save_pretrained(tmp_path / "model")
    with safe_open(tmp_path / "model" / "model.safetensors", framework="pt") as file:
        assert not any(name.startswith("decoder.") for name in file.keys()), "the base's weights are not copied"  # noqa: SIM118
    assert (tmp_path / "model" / "adapter").is_dir() == bool(lora)
    loaded = TextMemoryModel.from_pretrained(tmp_path / "model", device="cpu")
    assert torch.equal(logits(loaded.model), logits(model))
    written = [each.generate("a text to go on from", max_new_tokens=9, do_sample=False) for each in (saved, loaded)]
    assert written[0] == written[1]
    if lora:
        assert not torch.equal(logits(model), logits(trained_somehow(MemoryModel(configuration(base, None)))))


@with_and_without_adapters
def test_what_training_takes_is_told_from_shapes(base: Path, lora: LoraConfig | None) -> None:
    cfg = configuration(base, lora)
    objective = combined(Weights(causal=1.0, retention=0.5))
    told, model = work(cfg, objective, (3, LENGTH)), MemoryModel(cfg).train()  # its dropout costs, too
    tokens = torch.randint(VOCAB, (2, 3, LENGTH))
    batch = Batch(tokens, torch.ones_like(tokens, dtype=torch.bool))
    assert told.flops_per_token == flops_per_token(model, objective, batch)


@with_and_without_adapters
def test_a_frozen_base_stays_frozen(base: Path, lora: LoraConfig | None) -> None:
    model = MemoryModel(configuration(base, lora))
    for asked in (True, False, True):
        model.requires_grad_(asked)
        learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        of_decoder = {name for name in learning if name.startswith("decoder.")}
        assert bool(of_decoder) == bool(asked and lora)
        assert all("lora_" in name for name in of_decoder)
        assert ("start" in learning) == ("encoder.positions" in learning) == asked
    before = {name: parameter.clone() for name, parameter in model.decoder.hf.named_parameters()}
    optimizer = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=0.1)
    tokens = torch.randint(VOCAB, (2, 3, LENGTH))
    model(tokens, torch.ones_like(tokens, dtype=torch.bool), terms=("causal",)).causal.square().mean().backward()
    optimizer.step()
    changed = {name for name, each in model.decoder.hf.named_parameters() if not torch.equal(each, before[name])}
    assert bool(changed) == bool(lora)
    assert all("lora_B" in name for name in changed), "the other factor has no gradient as long as this one is 0"


def test_adapters_are_told_from_hidden_matrices_by_their_name(base: Path) -> None:
    model = MemoryModel(configuration(base, LoraConfig(rank=2)))
    adapters = {id(each) for name, each in model.decoder.named_parameters() if "lora_" in name}
    assert {id(each) for each in model.decoder.parameters() if each.requires_grad} == adapters
    assert len(adapters) >= 2 * 2 * 2, "all linear maps of both layers have two factors each"
    assert adapters.isdisjoint(map(id, hidden_matrices(model)))


@pytest.mark.parametrize("insertion", [Prefix(num_positions=2), Unpooled(num_positions=2, token_dim=4)])
def test_memories_enter_at_the_scale_of_token_embeddings(base: Path, insertion: Prefix | Unpooled) -> None:
    model = MemoryModel(replace(configuration(base, None), insertion=insertion))
    table = model.decoder.embed(torch.arange(VOCAB))
    rms = float(table.square().mean().sqrt())
    assert model.decoder.embedding_rms == pytest.approx(rms)
    memory = torch.randn(3, 2, 1, 24)
    present = torch.ones(3, 2, dtype=torch.bool)
    past = model.past_tokens(memory)
    _, context = model.read(torch.zeros(3, 0, dtype=torch.long), memory, present, past)
    own = context.prefix[:, : 2 * 2]
    torch.testing.assert_close(own.square().mean(-1).sqrt(), torch.full(own.shape[:2], rms))
    assert 0.5 * rms < float(model.start.detach().square().mean().sqrt()) < 2 * rms


def test_a_past_that_is_absent_changes_nothing_and_the_base_predicts_as_by_itself(base: Path) -> None:
    decoder = PretrainedCausalDecoder(PretrainedDecoder(name=str(base)), VOCAB)
    tokens = torch.randint(VOCAB, (2, 5))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(base)(input_ids=tokens).logits[..., :VOCAB]
    model = MemoryModel(configuration(base, LoraConfig(rank=2)))
    none = model.insertion(torch.zeros(2, 2, 1, 24), torch.zeros(2, 2, dtype=torch.bool))
    ours = decoder.head(decoder.states(decoder.embed(tokens), none))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_recipe_trains_it_with_its_own_tokenizer(base: Path, recipe: AutoencoderRecipe, tmp_path: Path) -> None:
    (base / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    plain = tiny_memory_recipe(recipe, Weights(causal=1.0, retention=1.0))
    model = replace(configuration(base, LoraConfig(rank=2)), shape=replace(plain.model.shape, vocab_size=VOCAB))
    stages = tuple(replace(each, training=replace(each.training, num_tokens=3000)) for each in plain.stages)
    data = replace(plain.data, tokenizer=PretrainedTokenizer(name=str(base)))
    trained = train(replace(plain, data=data, model=model, stages=stages), tmp_path / "run", quiet=True)
    loaded = TextMemoryModel.from_pretrained(tmp_path / "run" / "model", device="cpu")
    assert loaded.tokenizer.fingerprint == Tokenizer.from_pretrained(str(base)).fingerprint
    for (name, one), other in zip(loaded.model.state_dict().items(), trained.model.state_dict().values(), strict=True):
        assert torch.equal(one, other)
        assert "lora_B" not in name or one.any(), "adapters were trained"


def test_only_shapes_are_computed_where_nothing_else_is_wanted(base: Path) -> None:
    whole = MemoryModel(configuration(base, LoraConfig(rank=2)))
    with torch.device("meta"):
        shapes = MemoryModel(configuration(base, LoraConfig(rank=2)))
    assert {name: each.shape for name, each in shapes.named_parameters()} == {
        name: each.shape for name, each in whole.named_parameters()
    }


def test_what_does_not_fit_is_refused(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = configuration(base, LoraConfig())
    with pytest.raises(ValueError, match="264 token types, not vocab_size 300: use its own tokenizer"):
        MemoryModel(replace(cfg, shape=replace(cfg.shape, vocab_size=300)))
    with pytest.raises(ValueError, match="a pretrained decoder has no cross-attention"):
        replace(cfg, insertion=CrossAttention())
    with pytest.raises(ValueError, match=r"has 64 positions, and max_memories 30 .* set a smaller max_memories"):
        MemoryModel(replace(cfg, max_memories=30))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"need the peft package: pip install 'memlm\[models\]'"):
        MemoryModel(cfg)


LONE = {"hidden_size": 16, "num_hidden_layers": 2, "vocab_size": VOCAB}
UNFIT = {
    "BertLMHeadModel": ("does more to its logits", LONE | {"num_attention_heads": 2, "is_decoder": True}),
    "XLNetLMHeadModel": ("does not read input embeddings", {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 16}),
    "RwkvForCausalLM": ("does not read input embeddings with a mask and positions", LONE),
    "MambaForCausalLM": (r"takes no adapters: .*; set model\.decoder\.lora\.target_modules", LONE),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_models_that_cannot_read_memories_are_refused(kind: str, tmp_path: Path) -> None:
    message, sizes = UNFIT[kind]
    transformers.utils.logging.disable_progress_bar()
    model = getattr(transformers, kind)
    model(model.config_class(**sizes)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        PretrainedCausalDecoder(PretrainedDecoder(name=str(tmp_path), lora=LoraConfig(rank=2)))


def test_configurations_without_a_kind_of_decoder_are_from_scratch(base: Path) -> None:
    scratch = replace(configuration(base, None), decoder=DecoderConfig())
    older = scratch.to_json().replace('    "kind": "scratch",\n', "")
    assert older != scratch.to_json()
    assert MemoryModelConfig.from_json(older) == scratch
    for cfg in (scratch, configuration(base, LoraConfig(target_modules=("q_proj",)))):
        assert MemoryModelConfig.from_json(cfg.to_json()) == cfg

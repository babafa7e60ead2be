"""Checkpoint folders: config.json, model.safetensors, tokenizer.json, provenance.json; of a model with LoRA also
`adapter`, which peft loads by itself. Nothing is unpickled."""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from memlm.config import AutoencoderConfig, LanguageModelConfig, MemoryModelConfig, MemoryReaderConfig, SearchConfig
from memlm.data.tokenizer import Tokenizer
from memlm.runtime import files
from memlm.runtime.files import BOXED_READER, atomic_folder, boxed_folder
from memlm.runtime.hub import hub
from memlm.runtime.untrusted import json_of

ModelConfig = AutoencoderConfig | LanguageModelConfig | MemoryModelConfig | MemoryReaderConfig
FORMATS: dict[type[ModelConfig], str] = {
    AutoencoderConfig: "memlm autoencoder",
    LanguageModelConfig: "memlm language model",
    MemoryModelConfig: "memlm memory model",
    MemoryReaderConfig: "memlm memory reader",
}
"""The `format` in provenance.json, for models of each configuration."""
_OPENED_BY = {
    "memlm autoencoder": "memlm.load, or `memlm regenerate {folder}`",
    "memlm language model": "`memlm probe {folder}`, which measures it, or, to write with a recurrent one, "
    "memlm.models.srm.SrmForCausalLM.of",
    "memlm memory model": "TextMemoryModel.from_pretrained, or `memlm generate {folder}`",
    "memlm memory reader": "memlm.load_reader, or `memlm generate {folder}`",
}
"""Of each format, what to open it with."""
FORMAT_VERSION = 1
_FILES = ("config.json", "model.safetensors", "tokenizer.json", "provenance.json")
_WEIGHTS = "model.safetensors"
_ADAPTER = ("adapter/adapter_config.json", "adapter/adapter_model.safetensors")
_DIGESTS = {"model.safetensors": "weights_sha256", _ADAPTER[1]: "adapter_sha256"}
"""Files of tensors → where provenance.json has their checksums."""

StoredDtype = Literal["fp32", "bf16"]


def save(
    folder: Path,
    config: ModelConfig,
    tensors: Mapping[str, Tensor],
    tokenizer: Tokenizer,
    provenance: Mapping[str, Any],
    *,
    adapter: Mapping[str, Any] | None = None,
    dtype: StoredDtype = "fp32",
) -> None:
    """Write a checkpoint folder, all or nothing; LoRA, where there is its PEFT configuration, as an adapter.

    Raises:
        ValueError: `folder` is a file, or holds other files than a memlm checkpoint's, which would be lost; or there is
            no such dtype.
        OSError: the disk is full or not writable.
    """
    if dtype not in ("fp32", "bf16"):
        raise ValueError(f"weights are stored as fp32 or bf16, not as {dtype!r}")
    if others := _others(folder):
        raise ValueError(f"{folder} holds {', '.join(others[:3])}, which saving there would remove; give a new folder")
    if isinstance(config, AutoencoderConfig) and config.search and config.search.base:
        tensors = {name: tensor for name, tensor in tensors.items() if name.startswith("search.")}
    header = {"format": FORMATS[type(config)], "format_version": FORMAT_VERSION, "tokenizer": tokenizer.fingerprint}
    stored = _stored(tensors, dtype)
    weights = {"model.safetensors": stored}
    with atomic_folder(folder) as temporary:
        (temporary / "config.json").write_text(config.to_json())
        tokenizer.save(temporary)
        if adapter is not None:
            weights[_ADAPTER[1]] = {_peft_name(name): stored.pop(name) for name in [*stored] if _is_adapter(name)}
            (temporary / "adapter").mkdir()
            (temporary / _ADAPTER[0]).write_text(json.dumps(adapter, indent=2, sort_keys=True) + "\n")
        for name, some in weights.items():
            save_file(some, temporary / name, metadata={"format": "pt"})
            # safetensors makes its file readable by its owner only; use the mode of the other files.
            (temporary / name).chmod((temporary / "config.json").stat().st_mode)
            header[_DIGESTS[name]] = _digest(temporary / name)
        (temporary / "provenance.json").write_text(json.dumps({**provenance, **header}, indent=2) + "\n")


def _others(folder: Path) -> list[str]:
    """Names of what is in a folder and belongs to no checkpoint."""
    if not folder.is_dir():
        return []
    inside = [path for place in (folder, folder / "adapter") if place.is_dir() for path in place.iterdir()]
    names = {path.relative_to(folder).as_posix() for path in inside}
    # Other libraries' models have a config.json and a model.safetensors too, but no provenance.json.
    return sorted(names - {*_FILES, *_ADAPTER, "adapter"} if "provenance.json" in names else names)


def _is_adapter(name: str) -> bool:
    return name.startswith("decoder.") and ".lora_" in name


def _peft_name(name: str) -> str:
    """What peft calls a tensor of a decoder's LoRA in a file."""
    return re.sub(r"\.(lora_\w+)\.default\b", r".\1", name.replace("decoder.", "base_model.model.", 1))


def _name_of(peft_name: str) -> str:
    """The tensor that peft calls so in a file."""
    return re.sub(r"\.(lora_\w+)", r".\1.default", peft_name.replace("base_model.model.", "decoder.", 1))


def locate(name_or_path: str | Path, revision: str | None = None, cls: type[ModelConfig] | None = None) -> Path:
    """The folder of a checkpoint: a path, a model in the package, or a hub name (downloaded).

    What an error says there is are models of configuration `cls`, or all.

    Raises:
        ValueError: there is no such model, or what is there is not a checkpoint folder.
        TypeError: it is neither a name nor a path.
    """
    if not isinstance(name_or_path, str | os.PathLike):
        raise TypeError(f"a model goes by a name or a path, not by {name_or_path!r}")
    if not str(name_or_path).strip():
        raise _no_model(str(name_or_path), cls)
    path = Path(name_or_path)
    if path.is_dir():
        if _is_checkpoint(path / "model") and not _is_checkpoint(path):
            raise ValueError(f"{path} is the folder of a training run; the model is in {path / 'model'}")
        return path
    if path.exists():
        raise ValueError(f"{path} is a file; a checkpoint is a folder with {', '.join(_FILES)}")
    return boxed_folder(str(name_or_path)) or _download(str(name_or_path), revision, cls)


def boxed_models(cls: type[ModelConfig] | None = None) -> list[str]:
    """Names of the models that ship with memlm: those of one configuration, or all."""
    folders = [folder for folder in files.BOX.iterdir() if _is_checkpoint(folder)] if files.BOX.is_dir() else []
    return sorted(folder.name for folder in folders if cls is None or _format_of(folder) == FORMATS[cls])


def earlier_models(name: str) -> list[str]:
    """Names of the autoencoders that came with earlier versions of memlm under this name, the latest first."""
    versions = re.compile(re.escape(name) + r"-\d+")
    return sorted((boxed for boxed in boxed_models(AutoencoderConfig) if versions.fullmatch(boxed)), reverse=True)


def _no_model(name: str, cls: type[ModelConfig] | None, why: str = "") -> ValueError:
    if name == BOXED_READER:
        return ValueError(
            f"this memlm comes without the reader {name!r}: adapt one (memlm adapt smollm2 --out runs/smollm2) and "
            "give its folder (runs/smollm2/model), or a hub name (user/model)"
        )
    return ValueError(f"no model {name!r}: {why}give {_ways_out(cls, 'a hub name (user/model)')}")


def _ways_out(cls: type[ModelConfig] | None, *others: str) -> str:
    """What to give instead, where there is no model of this name."""
    shipped = ", ".join(boxed_models(cls))
    reader = cls is MemoryReaderConfig
    folder = "the folder model of what memlm adapt has made of a language model" if reader else "a checkpoint folder"
    ways = [folder, *others, *[f"a model that ships with memlm ({shipped})"] * bool(shipped)]
    return ", or ".join([*filter(None, [", ".join(ways[:-1])]), ways[-1]])


def _is_checkpoint(folder: Path) -> bool:
    return (folder / "provenance.json").is_file()


def _download(name: str, revision: str | None, cls: type[ModelConfig] | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if name.count("/") != 1:
        raise _no_model(name, cls)
    with hub("model", name, instead=f"give {_ways_out(cls)}"):
        try:
            return Path(snapshot_download(name, revision=revision, allow_patterns=[*_FILES, *_ADAPTER]))
        except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            raise _no_model(name, cls, f"no such folder, and the hub said: {error}; ") from error


def config_class(name_or_path: str | Path) -> type[ModelConfig] | None:
    """The class of the configuration of the memlm checkpoint of this name or folder; None where it is none.

    A name that is neither a folder nor a model in the package is not looked for on the hub.
    """
    here = Path(name_or_path).is_dir() or str(name_or_path) in boxed_models()
    if not here or not _is_checkpoint(folder := locate(name_or_path)):
        return None
    found = _format_of(folder)
    return next((cls for cls, name in FORMATS.items() if name == found), None)


def _format_of(folder: Path) -> Any:
    return _read_json(folder / "provenance.json").get("format")


def load(folder: Path, cls: type[ModelConfig]) -> tuple[ModelConfig, dict[str, Tensor], Tokenizer, dict[str, Any]]:
    """Configuration, tensors, tokenizer and provenance of a checkpoint of a model of this class.

    Raises:
        ValueError: a file is missing, truncated, of another format, or of a newer version; says which and why.
    """
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        way_out = f"; memlm adapt {folder} makes a reader of a language model" * (cls is MemoryReaderConfig)
        if "config.json" not in missing and (kind := _read_json(folder / "config.json").get("model_type")):
            way_out = (
                f"; it holds a {kind} model of transformers: open it with AutoModelForCausalLM or AutoModel{way_out}"
            )
        raise ValueError(f"{folder} is not a memlm checkpoint: it has no {' and no '.join(missing)}{way_out}")
    provenance = _read_json(folder / "provenance.json")
    if provenance.get("format") != FORMATS[cls]:
        found = provenance.get("format")
        way_out = f"; open it with {_OPENED_BY[found].format(folder=folder)}" if found in _OPENED_BY else ""
        raise ValueError(f"{folder} holds {found!r}, not {FORMATS[cls]!r}{way_out}")
    version = provenance.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(f"{folder} has format version {version}; this memlm reads {FORMAT_VERSION}; upgrade memlm")
    config, tokenizer = cls.read(folder / "config.json"), Tokenizer.load(folder)
    if tokenizer.fingerprint != provenance.get("tokenizer"):
        raise ValueError(f"{folder}: tokenizer.json is not the tokenizer that this model was trained with")
    tensors = _load_tensors(folder, "model.safetensors", provenance)
    if _DIGESTS[_ADAPTER[1]] in provenance:  # folders of older versions have no adapter of their own
        adapter = _load_tensors(folder, _ADAPTER[1], provenance)
        tensors |= {_name_of(name): tensor for name, tensor in adapter.items()}
    if isinstance(config, AutoencoderConfig) and config.search and config.search.base:
        tensors = base_tensors(config.search) | tensors
    return config, tensors, tokenizer, provenance


def based_on(search: SearchConfig, name: str) -> SearchConfig:
    """The same, with the name and the checksum of an autoencoder that ships with memlm; of another one, without."""
    folder = boxed_folder(name)
    return replace(search, base=name, base_sha256=_digest(folder / _WEIGHTS)) if folder else search


def base_tensors(search: SearchConfig) -> dict[str, Tensor]:
    """The tensors of the autoencoder that a checkpoint names instead of holding them.

    Raises:
        ValueError: this memlm ships another by that name.
    """
    for name in (search.base, *earlier_models(search.base)):
        folder = locate(name)
        if _digest(folder / _WEIGHTS) == search.base_sha256:
            return load(folder, AutoencoderConfig)[1]
    raise ValueError(f"its text is in memories of an {search.base!r} that this memlm does not ship: upgrade memlm")


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Put a checkpoint's tensors into a model, checking every name and shape.

    Raises:
        ValueError: a tensor is missing, unknown, or of another shape.
    """
    owner = _owners(model.state_dict())
    found = {name: tensor.float() for name, tensor in tensors.items()}
    found |= {name: found[first] for name, first in owner.items() if name not in found and first in found}
    try:
        model.load_state_dict(found)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{folder}: the weights do not fit config.json: {reason}") from None


def _stored(tensors: Mapping[str, Tensor], dtype: StoredDtype) -> dict[str, Tensor]:
    """Each tensor once, on the CPU: of those that share their memory, which safetensors refuses, the first; matrices in
    this dtype, the few other numbers as they are."""
    names = set(_owners(tensors).values())
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items() if name in names}
    return {name: t.bfloat16() if dtype == "bf16" and t.ndim > 1 else t for name, t in kept.items()}


def _owners(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Each tensor's name → that of the first tensor which is the same part of memory."""
    first: dict[Any, str] = {}
    parts = {name: (each.device, each.data_ptr(), each.shape, each.stride()) for name, each in tensors.items()}
    return {name: first.setdefault(part, name) if tensors[name].numel() else name for name, part in parts.items()}


def push(save_pretrained: Callable[[Path], None], repo_id: str, **options: Any) -> str:
    """Save to a temporary folder and upload it; returns the commit's address."""
    from huggingface_hub import HfApi

    api = HfApi()
    repository = api.create_repo(repo_id, exist_ok=True, **options)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "checkpoint"
        save_pretrained(folder)
        return str(api.upload_folder(repo_id=repository.repo_id, folder_path=folder))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json_of(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: not a JSON object")
    return content


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _load_tensors(folder: Path, name: str, provenance: Mapping[str, Any]) -> dict[str, Tensor]:
    """A file's tensors, which are all finite and as they were saved."""
    path = folder / name
    if not path.is_file():
        raise ValueError(f"{folder} is not whole: it has no {name}")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged or cut short: {error}") from None
    for each, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{path} is damaged: tensor {each!r} holds NaN or infinity")
    digest = _digest(path)
    if provenance.get(_DIGESTS[name], digest) != digest:  # folders of older versions do not say
        raise ValueError(f"{path} is damaged: its checksum is another than when it was saved")
    return tensors

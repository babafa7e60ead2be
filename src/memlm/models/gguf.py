"""GGUF files, dequantized once into a folder that loads like any other model."""

import hashlib
import importlib.util
import io
from contextlib import redirect_stderr
from pathlib import Path

from memlm.data.cache import default_cache
from memlm.models.hidden_states import explained
from memlm.runtime.files import atomic_folder
from memlm.runtime.progress import console


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
        tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
        model = AutoModelForCausalLM.from_pretrained(str(file.parent), gguf_file=file.name)
    # It is no longer quantized, and is not to be saved as if it were.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))

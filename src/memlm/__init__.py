"""memlm: memory models for language. Measure, make and use vectors that hold a whole chunk of text.

```python
import memlm

model = memlm.load("english")                      # or a checkpoint folder, or a hub name
memory = model.encode(["Call me Ishmael. ..."])    # one vector per chunk
model.regenerate(memory)                           # → the text, from the vectors alone
model.evaluate(["Call me Ishmael. ..."])           # → token accuracy, retained bits, ...

memlm.probe("minilm", texts, chunk_lens=(16, 32))  # how much of a text do any encoder's embeddings hold?
memlm.invert(vectors, "minilm", chunk_len=16)      # → the texts, by search
memlm.leak("minilm", texts).conclusion             # what a store of them gives away, and what would hide it

reader = memlm.adapt("smollm2", folder="runs/smollm2")  # a language model learns to read memories
reader.generate(memory, "It begins with", max_new_tokens=40)
```
"""

import importlib
from typing import TYPE_CHECKING, Any

from memlm.runtime.files import BOXED_READER

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from memlm.probing.cells import probe
    from memlm.probing.inversion.invert import invert
    from memlm.probing.leak.leak import leak
    from memlm.store.file import MemoryFile, MemorySession
    from memlm.text.autoencoder import TextAutoencoder
    from memlm.text.memory import Memory
    from memlm.text.memory_model import TextMemoryModel
    from memlm.text.memory_reader import TextMemoryReader
    from memlm.text.sentence_encoder import SentenceEncoder
    from memlm.training.adapt import adapt

    __version__: str
    """The version that is installed; `pyproject.toml` says it."""

__all__ = [
    "Memory",
    "MemoryFile",
    "MemorySession",
    "SentenceEncoder",
    "TextAutoencoder",
    "TextMemoryModel",
    "TextMemoryReader",
    "adapt",
    "invert",
    "leak",
    "load",
    "load_reader",
    "probe",
]


def load(
    name_or_path: "str | Path", *, revision: str | None = None, device: "torch.device | str | None" = None
) -> "TextAutoencoder":
    """Load a model: one that ships with memlm (`english`), a checkpoint folder, or a Hugging Face hub name.

    Args:
        name_or_path: which.
        revision: of a model on the hub.
        device: where to put it; by default on a GPU, where there is one.

    Raises:
        ValueError: there is no such model, or it is damaged; says what is wrong. There is no such device.
    """
    from memlm.text.autoencoder import TextAutoencoder

    return TextAutoencoder.from_pretrained(name_or_path, revision=revision, device=device)


def load_reader(
    name_or_path: "str | Path" = BOXED_READER,
    *,
    revision: str | None = None,
    device: "torch.device | str | None" = None,
) -> "TextMemoryReader":
    """Load a reader, a language model that has learned to read memories: the one that ships with memlm, or another.

    Arguments are those of `load`.

    Raises:
        ValueError: there is no such reader, language model, encoder or device; or one is damaged, or another than the
            reader was trained with; says what is wrong.
    """
    from memlm.text.memory_reader import TextMemoryReader

    return TextMemoryReader.from_pretrained(name_or_path, revision=revision, device=device)


_HOMES = {
    "TextMemoryReader": "text.memory_reader",
    "adapt": "training.adapt",
    "Memory": "text.memory",
    "MemoryFile": "store.file",
    "MemorySession": "store.file",
    "SentenceEncoder": "text.sentence_encoder",
    "TextAutoencoder": "text.autoencoder",
    "TextMemoryModel": "text.memory_model",
    "probe": "probing.cells",
    "invert": "probing.inversion.invert",
    "leak": "probing.leak.leak",
}

_MOVED = {"settle": "memlm_evidence.settle"}
"""Names of earlier versions → where they are now."""


def __getattr__(name: str) -> Any:
    # Loaded on first use: `import memlm` does not import torch.
    if name == "__version__":
        from memlm.runtime.wording import installed_version

        return installed_version("memlm")
    if name in _HOMES:
        return getattr(importlib.import_module(f"memlm.{_HOMES[name]}"), name)
    if name in _MOVED:
        # Of an AttributeError, `from memlm import ...` would not show the message.
        raise ImportError(f"memlm.{name} has moved: it is {_MOVED[name]} now")
    raise AttributeError(f"module 'memlm' has no attribute {name!r}")

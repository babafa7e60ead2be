"""`memlm context`."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from memlm.cli.command import Answer, ReadsText, UsesModel
from memlm.config import ContextConfig, DataConfig, NamedCorpus

if TYPE_CHECKING:
    from memlm.data.documents import Document

_EVERYDAY_BYTES = 4_000_000


@dataclass(frozen=True, kw_only=True)
class Context(UsesModel, ReadsText):
    """Teach an autoencoder without a context which tokens follow which, so that its memory files are smaller.

    memlm context runs/mine/model --text 'docs/**/*.md' --out runs/mine-in-context

    Encoder and decoder do not change: memories stay the same, and the new model reads files that the old one wrote.
    """

    model: tyro.conf.Positional[str]
    """An autoencoder: a checkpoint folder, one that ships with memlm, or a Hugging Face hub name."""
    out: Path
    """Folder for the new model."""
    text: tuple[str, ...] = ()
    """Text to learn from: files, globs, or - for standard input. By default the presidential addresses, made-up
    everyday text, and code."""
    context: ContextConfig = field(default_factory=lambda: ContextConfig(memory_alone=False))
    num_tokens: int = 4_000_000
    """Tokens to learn from. A million take one core two to four minutes."""
    seed: int = 0
    """Random seed."""

    def run(self) -> Answer:
        """Learn, measure on held-out text, and save."""
        from memlm.data.corpus import read_documents
        from memlm.text.autoencoder import TextAutoencoder
        from memlm.training.context import learn_context

        model = TextAutoencoder.from_pretrained(self.model, device=self.device)
        documents = read_documents(self.corpus(self.text)) if self.text else standard_documents()
        taught, found = learn_context(
            model, documents, context=self.context, num_tokens=self.num_tokens, seed=self.seed
        )
        taught.save_pretrained(self.out)
        self.say(
            f"a held-out token costs {found.from_memory:.2f} bits given the memory alone, "
            f"{found.in_context:.2f} given also the tokens before it; the model: {self.out}"
        )
        return {"model": str(self.out), **{f"held_out_bits_{name}": bits for name, bits in found._asdict().items()}}


def standard_documents() -> "Iterator[Document]":
    """What `english` learns from, and whole modules of code with their docstrings; nothing that is evaluated."""
    from memlm.data.corpus import read_documents
    from memlm.data.documents import Document, split_of
    from memlm.data.everyday import TRAINING_MODULES, everyday_documents
    from memlm.data.texts import everyday_lines, module_source

    kept = ("train", "validation")
    addresses = (one for one in read_documents(NamedCorpus()) if split_of(one, DataConfig()) in kept)
    code = (Document(module, module_source(module)) for module in TRAINING_MODULES)
    return itertools.chain(addresses, everyday_documents(everyday_lines("words"), _EVERYDAY_BYTES), code)

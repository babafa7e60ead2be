"""Texts of several kinds, each with other text of its kind, from which a compressor may learn its dictionary."""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from memlm.config import DataConfig, NamedCorpus
from memlm.data.corpus import read_documents
from memlm.data.documents import place_of, split_of
from memlm.data.everyday import TRAINING_MODULES, everyday_documents
from memlm.data.texts import EVALUATION_MODULES, evaluation_documents, everyday_lines, module_source

_MEASURED = 100_000
"""Characters of each text, at most."""
_OTHERS = 2_000_000
"""Of other text of the kind, at most."""


@dataclass(frozen=True)
class Sample:
    """A text, and other text of its kind; where there is none, half of the text is the other half's."""

    name: str
    text: str
    other: str = ""
    other_name: str = "the other half of the text"


def novel() -> Sample:
    """There is no other one: what is learned is learned from the same book."""
    return Sample("novel", "".join(document.text for document in evaluation_documents("novel"))[:_MEASURED])


def addresses() -> Sample:
    """Presidential addresses: those that `english` and other models are not trained on, against those that they are."""
    texts: dict[str, list[str]] = {"test": [], "train": []}
    for document in sorted(read_documents(NamedCorpus()), key=place_of):  # so that years are mixed
        texts.get(split_of(document, DataConfig()), []).append(document.text)
    held_out, trained_on = ("\n".join(texts[split]) for split in texts)
    return Sample("addresses", held_out[:_MEASURED], trained_on[:_OTHERS], "addresses that models are trained on")


def letters() -> Sample:
    """E-mail as `data.everyday` makes it up: headers, names, dates, words at random. `english` learned from others."""
    words = everyday_lines("words")
    text, other = (
        "\n\n".join(document.text for document in everyday_documents(words, size, seed, "letter"))[:size]
        for seed, size in ((1, _MEASURED), (2, _OTHERS))
    )
    return Sample("e-mail", text, other, "e-mail made up with another seed")


def code() -> Sample:
    """Source of the standard library: modules that `english` is not trained on, against those that it is."""
    text, other = ("\n".join(map(module_source, modules)) for modules in (EVALUATION_MODULES, TRAINING_MODULES))
    return Sample("source code", text[:_MEASURED], other[:_OTHERS], "modules that english is trained on")


def documentation() -> Sample:
    """The docstrings of the same modules."""
    text, other = ("\n\n".join(_docstrings(modules)) for modules in (EVALUATION_MODULES, TRAINING_MODULES))
    return Sample("docstrings", text[:_MEASURED], other[:_OTHERS], "docstrings of modules that english is trained on")


def _docstrings(modules: tuple[str, ...]) -> Iterator[str]:
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for module in modules:
        for node in ast.walk(ast.parse(module_source(module))):
            if isinstance(node, documented) and (text := ast.get_docstring(node)):
                yield text


SAMPLES: tuple[Callable[[], Sample], ...] = (novel, addresses, letters, code, documentation)
"""What is measured where no text is named."""

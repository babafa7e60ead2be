"""Which words of a text came back; names and numbers apart."""

import re
from collections.abc import Collection, Iterable, Mapping

import numpy as np

from memlm.data.tokenizer import Tokenizer
from memlm.probing.leak.results import KINDS

_WORD = re.compile(r"\w+")
_TITLES = frozenset(_WORD.findall("mr mrs ms miss dr sir lady lord captain admiral colonel general madam"))
_SPELT = frozenset(
    _WORD.findall(
        "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
        "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion"
    )
)

Shares = dict[str, list[int]]
"""How many came back of how many, by kind."""


def words_in(text: str) -> set[str]:
    """The different words of a text, in lower case."""
    return {word.lower() for word in _WORD.findall(text)}


def names_in(texts: Iterable[str]) -> frozenset[str]:
    """Words, in lower case, that have a capital in the middle of a sentence, and nowhere are without one."""
    names, small = set[str](), set[str]()
    for text in texts:
        for found in _WORD.finditer(text):
            word = found[0]
            before = text[max(0, found.start() - 3) : found.start()].rstrip()[-1:]
            if word.islower():
                small.add(word)
            elif word.istitle() and len(word) > 2 and (before.isalnum() or before == ","):
                names.add(word.lower())
    return frozenset(names - small - _TITLES)


def came_back(original: Collection[str], found: Collection[str], names: Collection[str]) -> Shares:
    """How many of a text's words, by kind, are among those found."""
    kinds = {
        "words": original,
        "names": [word for word in original if word in names],
        "numbers": [word for word in original if word in _SPELT or any(map(str.isdigit, word))],
    }
    return {kind: [sum(word in found for word in kinds[kind]), len(kinds[kind])] for kind in KINDS}


def tokens_of_words(tokenizer: Tokenizer, text: str) -> dict[str, list[set[int]]]:
    """The tokens that each different word of a text is made of, wherever it stands."""
    ids, begins = tokenizer.encode_placed(text)
    made: dict[str, list[set[int]]] = {}
    for found in _WORD.finditer(text):
        # A token may begin with the space before its word.
        low = found.start() - text[: found.start()].endswith(" ")
        within = (begins >= low) & (begins < found.end())
        made.setdefault(found[0].lower(), []).append(set(np.asarray(ids)[within].tolist()))
    return made


def words_of_tokens(made: Mapping[str, list[set[int]]], listed: Collection[int]) -> set[str]:
    """Words all of whose tokens are listed."""
    tokens = set(listed)
    return {word for word, places in made.items() if any(place <= tokens for place in places)}

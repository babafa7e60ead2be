"""How like two texts are, as work on inverting embeddings measures it."""

import math
import re
from collections import Counter

_WORD = re.compile(r"\w+|[^\w\s]")
_LONGEST = 4


def words(text: str) -> list[str]:
    """Words and signs, in lower case."""
    return _WORD.findall(text.lower())


def f1(found: str, original: str) -> float:
    """Words and signs in common, whatever their order: the harmonic mean of both shares."""
    one, two = Counter(words(found)), Counter(words(original))
    return 2 * (one & two).total() / max(1, one.total() + two.total())


def bleu(found: str, original: str) -> float:
    """BLEU of runs of one to four words (Papineni et al. 2002), smoothed as in sacrebleu: where no run of a length is
    right, half as many as of the next shorter length without one, from a half on."""
    said, meant = words(found), words(original)
    if not said or not meant:
        return float(said == meant)
    logs, doubt = 0.0, 1.0
    longest = min(_LONGEST, len(said), len(meant))
    for length in range(1, longest + 1):
        one, two = (Counter(zip(*(text[at:] for at in range(length)), strict=False)) for text in (said, meant))
        right = (one & two).total()
        doubt /= 1 if right else 2
        logs += math.log((right or doubt) / one.total())
    return math.exp(min(0.0, 1 - len(meant) / len(said)) + logs / longest)

"""The first guesses of a search: beams of a language model, kept by how close they come after encoding."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from memlm.probing.inversion.embedder import Embedder, Ids
from memlm.probing.inversion.language import Language

_LONGEST = 48
"""Tokens of the language model, where nobody says how long the text is."""
_CHOICES = 20
"""Next tokens tried of each beam at most."""


@dataclass(frozen=True, kw_only=True)
class Beam:
    """Texts that begin as a language model would go on, each kept if it comes closer to the target than others."""

    embedder: Embedder
    language: Language
    words: Float[Tensor, " vocab"]
    """What speaks for each of the embedder's tokens being in the text, in nats."""
    width: int = 12
    budget: int
    """Encodings, about."""
    likelihood: float = 0.02
    """Cosine that a nat a token is worth."""

    def texts(self, target: Float[Tensor, " dim"], length: int | None) -> list[Ids]:
        """Texts, closest first; of `length` tokens of the embedder's where that is known."""
        steps = 2 * length if length else _LONGEST
        choices = min(_CHOICES, max(2, 2 * self.budget // (steps * self.width)))
        language, bonus = self.language.of(target), self.language.begins(self.words)
        rows, costs, found = torch.tensor([[language.start]]), torch.zeros(1), dict[Ids, float]()
        used = torch.zeros(1, len(bonus), dtype=torch.bool)
        past: Any = None
        for step in range(steps):
            following, past = language.following(rows[:, -1:], past)
            logits = following[:, -1]
            favoured = logits + bonus.masked_fill(used, 0)
            number = min(choices if step else choices * self.width, favoured.shape[1])
            values = favoured.topk(number).indices
            parents = torch.arange(len(rows)).repeat_interleave(number)
            tokens = values.flatten()
            made = torch.cat([rows[parents], tokens[:, None]], dim=1)
            cost = costs[parents] + logits[parents, tokens]
            kept = self._kept(made[:, 1:].tolist(), target, cost / made.shape[1], length, found)
            if not kept:
                break
            chosen = torch.tensor(kept)
            rows, costs, used = made[chosen], cost[chosen], used[parents[chosen]]
            used[torch.arange(len(chosen)), tokens[chosen]] = True
            past.reorder_cache(parents[chosen].to(self.language.device))
        return sorted(found, key=lambda text: -found[text])

    def _kept(
        self, made: list[list[int]], target: Tensor, means: Tensor, length: int | None, found: dict[Ids, float]
    ) -> list[int]:
        """Which of these go on, closest first; those that are long enough are put into `found`."""
        texts = [self.language.tokenizer.decode(row).strip() for row in made]
        encoded = [tuple(ids.tolist()) for ids in self.embedder.tokenizer.encode_batch(texts)]
        first = {ids: row for row, ids in reversed([*enumerate(encoded)]) if 0 < len(ids) <= (length or 10**9)}
        if not first:
            return []
        cosines = self.embedder.embed([*first], exact=False) @ target
        scores = cosines + self.likelihood * means[[*first.values()]]
        going: list[int] = []
        for place in scores.argsort(descending=True).tolist():
            ids, row = [*first.items()][place]
            if length is None or len(ids) == length:
                found[ids] = float(cosines[place])
            if len(going) < self.width and len(ids) < (length or 10**9):
                going.append(row)
        return going

"""White-box search for the text behind one embedding: change tokens, encode again, keep what comes nearer."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from memlm.nn.mixers import Hidden

Embed = Callable[[Hidden], Float[Tensor, "batch memory_dim"]]
"""Input embeddings [batch token dim] → embedding [batch memory_dim], differentiable."""

Texts = Int[Tensor, "text token"]
Choices = Int[Tensor, "token choice"]


class Found(NamedTuple):
    """The nearest text there was: `tokens` [token], its distance in units of the target's length."""

    tokens: Int[Tensor, " token"]
    distance: float
    exact: bool
    """Whether the text, encoded anew, is the target within the tolerance."""
    num_encodings: int


class _Beam(NamedTuple):
    """Distinct texts, nearest first, and their distances."""

    texts: Texts
    distances: Float[Tensor, " text"]

    def merged(self, other: "_Beam", number: int) -> "_Beam":
        """The nearest distinct texts of both."""
        texts, distances = (torch.cat(both) for both in zip(self, other, strict=True))
        order = distances.argsort(stable=True)
        keys, nearest = [tuple(text) for text in texts.tolist()], dict[tuple[int, ...], int]()
        for row in order.tolist():
            nearest.setdefault(keys[row], row)
        rows = torch.tensor([*nearest.values()][:number], device=texts.device)
        return _Beam(texts[rows], distances[rows])


@dataclass(kw_only=True)
class Search:
    """A search for the text whose embedding is `target`.

    A coordinate search led by the gradient (GCG, Zou et al. 2023), with two differences. The gradient at a position
    is taken with the mean embedding in the token's place: a wrong token's own gradient says little about the right
    one. And half of the replacements come from `proposals`, where given: a reader's guesses, likeliest first.
    """

    embed: Embed
    token_table: Float[Tensor, "vocab dim"]
    target: Float[Tensor, " memory_dim"]
    allowed: Int[Tensor, " allowed"] | None = None
    """Tokens the gradient may propose; all by default."""
    proposals: Choices | None = None
    num_steps: int = 100
    """Rounds of candidates, over all restarts together."""
    num_candidates: int = 128
    """Texts encoded in each step, in one batch."""
    beam_size: int = 8
    """Nearest distinct texts that each step sets out from."""
    top_k: int = 64
    """Replacements the gradient proposes at each position."""
    patience: int = 20
    """Steps without a nearer text before going back to another start."""
    tolerance: float = 1e-4
    """Distance, in units of the target's length, within which a text counts as the target's own: must be above
    what rounding does, which is more in bf16."""
    seed: int = 0
    num_encodings: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.token_table, self.target = self.token_table.detach(), self.target.detach()
        self.tokens = torch.arange(len(self.token_table)) if self.allowed is None else self.allowed
        self.tokens = self.tokens.to(self.token_table.device)
        self.blank = self.token_table[self.tokens].mean(dim=0)
        self.unit = self.target.norm().item()
        # On the CPU whatever the model's device: the same draws everywhere.
        self.generator = torch.Generator().manual_seed(self.seed)

    def find(self, start: Int[Tensor, "start token"]) -> Found:
        """Search on from each row of `start` in turn, nearest first."""
        starts = self.measure(start)
        best, steps = _Beam(starts.texts[:1], starts.distances[:1]), 0
        for row in itertools.cycle(range(len(starts.texts))):
            origin = _Beam(starts.texts[row : row + 1], starts.distances[row : row + 1])
            nearest, taken = self.climb(origin, self.num_steps - steps)
            best, steps = best.merged(nearest, 1), steps + taken
            if best.distances[0] <= self.tolerance or steps >= self.num_steps:
                break
        distance = self.measure(best.texts).distances.item()  # in a batch of one, as anyone else would check it
        return Found(best.texts[0], distance, distance <= self.tolerance, self.num_encodings)

    def measure(self, texts: Texts) -> _Beam:
        """These texts with their distances, nearest first."""
        with torch.no_grad():
            distances = self._distance(self.token_table[texts])
        order = distances.argsort(stable=True)
        return _Beam(texts[order], distances[order])

    def climb(self, beam: _Beam, num_steps: int) -> tuple[_Beam, int]:
        """Step until the target is met, patience ends or the steps do; the last beam, and the steps taken."""
        idle = 0
        for step in range(num_steps):
            if beam.distances[0] <= self.tolerance or idle >= self.patience:
                return beam, step
            lead = beam.texts[step % len(beam.texts)]
            candidates = self._candidates(beam.texts, self._by_gradient(lead))
            better = beam.merged(self.measure(candidates), self.beam_size)
            idle = 0 if better.distances[0] < beam.distances[0] else idle + 1
            beam = better
        return beam, num_steps

    def _by_gradient(self, text: Int[Tensor, " token"]) -> Choices:
        """Each position's `top_k` tokens in the direction that lessens the distance, from the blank in its place."""
        place = torch.arange(len(text), device=text.device)
        embedded = self.token_table[text].repeat(len(text), 1, 1)
        embedded[place, place] = self.blank
        with torch.enable_grad():
            squared = self._distance(embedded.requires_grad_()).square().sum()
            (gradient,) = torch.autograd.grad(squared, embedded)
        scores = gradient[place, place] @ self.token_table[self.tokens].T
        top = scores.topk(min(self.top_k, len(self.tokens)), largest=False).indices
        return self.tokens[top]

    def _candidates(self, texts: Texts, choices: Choices) -> Texts:
        """Copies of these texts, each with one to three tokens replaced, and every eighth with neighbours swapped."""
        made = texts[self._draw(len(texts))]
        every = torch.arange(len(made), device=made.device)
        # The first change always happens, the others to those the coin picks: most texts change by one or two.
        for rows in (every, every[self._draw(2).bool()], every[self._draw(4) == 0]):
            where = self._draw(texts.shape[1])
            made[rows, where[rows]] = self._replacement(where, choices)[rows]
        if texts.shape[1] > 1:
            rows = every[::8]
            left = self._draw(texts.shape[1] - 1)[rows]
            made[rows, left], made[rows, left + 1] = made[rows, left + 1], made[rows, left]
        return made

    def _replacement(self, where: Tensor, choices: Choices) -> Tensor:
        """A token for each of these positions: the gradient's or, half of the time, the reader's."""
        ours = choices[where, self._leading(choices.shape[1])]
        if self.proposals is None:
            return ours
        return torch.where(self._draw(2).bool(), ours, self.proposals[where, self._leading(self.proposals.shape[1])])

    def _leading(self, number: int) -> Tensor:
        """Ranks below `number`, early ones more often."""
        drawn = torch.rand(self.num_candidates, generator=self.generator)
        return (drawn.square() * number).long().to(self.token_table.device)

    def _draw(self, number: int) -> Tensor:
        """For each candidate a number below `number`."""
        return torch.randint(number, (self.num_candidates,), generator=self.generator).to(self.token_table.device)

    def _distance(self, embedded: Hidden) -> Float[Tensor, " text"]:
        self.num_encodings += len(embedded)
        return (self.embed(embedded) - self.target).norm(dim=-1) / self.unit

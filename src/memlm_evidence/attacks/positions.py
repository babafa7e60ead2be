"""White-box recovery of a text from a causal model's states at all of its positions, left to right."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from memlm.models.layered import LayeredModel

STEP = 0.1
"""Adam's learning rate, in units of the token table's standard deviation."""


class Recovered(NamedTuple):
    """What was read off the states."""

    tokens: Int[Tensor, " token"]
    """The nearest token there was at each position, verified or not."""
    verified: Bool[Tensor, " token"]
    """Whether the token, encoded after those before it, gives the state within the tolerance, and no other tried
    comes half as near. After an unverified token the later ones stand on a doubtful prefix."""
    num_encodings: int


@dataclass(kw_only=True)
class Inversion:
    """Recovers the text whose states at `layer` are these: position by position, each candidate encoded to verify it.

    A causal state depends on the tokens before it, known by then, and its own, so that a matching candidate is the
    token but for coincidence (SipIt, Nikolaou et al. 2025). Up to `batch` tokens are simply all tried; of more,
    those nearest to where gradient descent on the position's input embedding leads: `num_steps` steps, then
    `batch` candidates, for `num_rounds` rounds at most. Rounds enough to try every token make the recovery certain,
    however deep the layer.

    Raises:
        ValueError: the model is not causal.
    """

    model: LayeredModel
    states: Float[Tensor, "token dim"]
    """Of the text's own tokens, without special tokens."""
    layer: int
    tolerance: float = 1e-3
    """Distance, in units of the state's length, within which a candidate matches: must be above what rounding does,
    which is more in bf16."""
    batch: int = 64
    num_rounds: int = 8
    num_steps: int = 15
    num_encodings: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if not self.model.causal:
            raise ValueError("this model is not causal: its states depend on later tokens too; use search instead")
        self.embedded = self.model.token_table.detach()
        self.blank = self.embedded.mean(dim=0)

    def recover(self) -> Recovered:
        """The text, from left to right."""
        prefix, verified = torch.zeros(0, dtype=torch.long, device=self.states.device), []
        for _ in range(len(self.states)):
            token, matches = self.next_token(prefix)
            prefix = torch.cat((prefix, token[None]))
            verified.append(matches)
        return Recovered(prefix, torch.tensor(verified, device=self.states.device), self.num_encodings)

    def next_token(self, prefix: Int[Tensor, " token"]) -> tuple[Tensor, bool]:
        """The nearest token after this prefix, and whether it matches."""
        known = self.model.embed_tokens(prefix[None])[0].detach()
        distances = self.embedded.new_full((len(self.embedded),), torch.inf, dtype=torch.float32)
        for rows in self._rounds(known, distances):
            with torch.no_grad():
                distances[rows] = self._distance(known, self.embedded[rows])
            if self._matches(distances):
                break
        return distances.argmin(), self._matches(distances)

    def _matches(self, distances: Float[Tensor, " vocab"]) -> bool:
        """Whether the nearest is within the tolerance, and the next more than twice as far."""
        nearest = distances.topk(min(2, len(distances)), largest=False).values.tolist()
        return nearest[0] <= self.tolerance and (len(nearest) == 1 or 2 * nearest[0] < nearest[1])

    def _rounds(self, known: Tensor, distances: Tensor) -> Iterator[Tensor]:
        """Tokens to try together; `distances` is infinite at those not tried yet."""
        if len(self.embedded) <= self.batch:
            yield torch.arange(len(self.embedded), device=distances.device)
            return
        path = self.blank
        for number in range(self.num_rounds):
            # Descent can get stuck: every other round sets out from the nearest token tried instead.
            aside = number % 2 == 1
            led = self._descend(known, self.embedded[distances.argmin()] if aside else path)
            path = path if aside else led
            likeness = F.cosine_similarity(self.embedded - self.blank, (led - self.blank)[None], dim=-1)
            rows = likeness.masked_fill(distances.isfinite(), -torch.inf).topk(self.batch).indices
            yield rows[distances[rows].isinf()]
            if distances.isfinite().all():
                return

    def _descend(self, known: Tensor, start: Tensor) -> Tensor:
        """An input embedding, from `start` on, that comes nearer to giving the state."""
        guess = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([guess], lr=STEP * self.embedded.std().item())
        for _ in range(self.num_steps):
            with torch.enable_grad():
                distance = self._distance(known, guess[None]).sum()
                (guess.grad,) = torch.autograd.grad(distance, guess)
            optimizer.step()
        return guess.detach()

    def _distance(self, known: Float[Tensor, "token dim"], last: Float[Tensor, "batch dim"]) -> Tensor:
        """Distance [batch] of the state that each last embedding gives after the known ones, in the state's length."""
        self.num_encodings += len(last)
        embedded = torch.cat((known.expand(len(last), -1, -1), last[:, None]), dim=1)
        mask = torch.ones(embedded.shape[:2], dtype=torch.bool, device=embedded.device)
        (states,) = self.model.states(embedded, mask, [self.layer])
        observed = self.states[len(known)].detach().float()
        return (states[:, self.model.num_prefix + len(known)].float() - observed).norm(dim=-1) / observed.norm()

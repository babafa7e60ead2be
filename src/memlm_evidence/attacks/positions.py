"""White-box recovery of a text from a causal model's states at all of its positions, left to right."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from memlm.models.layered import LayeredModel
from memlm_evidence.attacks.search import check_positive, check_tokens

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


def invert_positions(
    model: LayeredModel,
    states: Float[Tensor, "token dim"],
    layer: int,
    *,
    tolerance: float = 1e-3,
    allowed: Int[Tensor, " allowed"] | None = None,
    batch: int = 64,
    num_rounds: int = 8,
    num_steps: int = 15,
) -> Recovered:
    """The text whose states at `layer` are these: one position after the other, each candidate encoded to verify it.

    A causal state depends on the tokens before it, known by then, and its own, so that a matching candidate is the
    token but for coincidence (SipIt, Nikolaou et al. 2025). Up to `batch` allowed tokens are simply all tried. Of
    more, those nearest to where gradient descent on the position's input embedding leads: `num_steps` steps, then
    `batch` candidates, for `num_rounds` rounds at most. Rounds enough to try every token make the recovery certain,
    however deep the layer.

    Args:
        states: the states of the text's own tokens, without special tokens.
        tolerance: distance, in units of the state's length, within which a candidate matches: must be above what
            rounding does, which is more in bf16.
        allowed: tokens to try; all by default.

    Raises:
        ValueError: the model is not causal; there is no such layer; states, allowed tokens or options do not fit.
    """
    if not model.causal:
        raise ValueError("this model is not causal: its states depend on later tokens too; use search instead")
    if not 0 <= layer <= model.num_layers:
        raise ValueError(f"layer must lie between 0 and the model's {model.num_layers}, not {layer}")
    if states.ndim != 2 or states.shape[1] != model.dim or not 0 < len(states) <= model.max_len:
        raise ValueError(
            f"states must be [token, {model.dim}], of 1 to {model.max_len} tokens, not {tuple(states.shape)}"
        )
    check_tokens(len(model.token_table), allowed=allowed)
    check_positive(tolerance=tolerance, batch=batch, num_rounds=num_rounds, num_steps=num_steps)
    allowed = torch.arange(len(model.token_table), device=states.device) if allowed is None else torch.unique(allowed)
    inversion = _Inversion(model, states.detach(), layer, allowed, tolerance, batch, num_rounds, num_steps)
    prefix, verified = allowed[:0], []
    for _ in range(len(states)):
        token, matches = inversion.next_token(prefix)
        prefix = torch.cat((prefix, token[None]))
        verified.append(matches)
    return Recovered(prefix, torch.tensor(verified, device=states.device), inversion.num_encodings)


@dataclass
class _Inversion:
    """One recovery: what is read, how, and how much has been encoded."""

    model: LayeredModel
    states: Tensor
    layer: int
    allowed: Tensor
    tolerance: float
    batch: int
    num_rounds: int
    num_steps: int
    num_encodings: int = 0

    def __post_init__(self) -> None:
        self.embedded = self.model.embed_tokens(self.allowed[None])[0].detach()
        self.blank = self.embedded.mean(dim=0)

    def next_token(self, prefix: Int[Tensor, " token"]) -> tuple[Tensor, bool]:
        """The nearest token after this prefix, and whether it matches."""
        known = self.model.embed_tokens(prefix[None])[0].detach()
        distances = self.embedded.new_full((len(self.allowed),), torch.inf, dtype=torch.float32)
        for rows in self._rounds(known, distances):
            with torch.no_grad():
                distances[rows] = self._distance(known, self.embedded[rows])
            if self._matches(distances):
                break
        return self.allowed[distances.argmin()], self._matches(distances)

    def _matches(self, distances: Float[Tensor, " allowed"]) -> bool:
        """Whether the nearest is within the tolerance, and the next more than twice as far."""
        nearest = distances.topk(min(2, len(distances)), largest=False).values.tolist()
        return nearest[0] <= self.tolerance and (len(nearest) == 1 or 2 * nearest[0] < nearest[1])

    def _rounds(self, known: Tensor, distances: Tensor) -> Iterator[Tensor]:
        """Rows of `allowed` to try together; `distances` is infinite at those not tried yet."""
        if len(self.allowed) <= self.batch:
            yield torch.arange(len(self.allowed), device=distances.device)
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
        observed = self.states[len(known)].float()
        return (states[:, self.model.num_prefix + len(known)].float() - observed).norm(dim=-1) / observed.norm()

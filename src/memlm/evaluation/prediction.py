"""Prediction measured: what next tokens cost a memory model, by how many chunks it has behind it."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from memlm.data.chunks import Windows
from memlm.evaluation.bootstrap import bootstrap_interval, ratio_intervals, sums_by_unit
from memlm.models.batch import Batch, batch_chunks, compute_in_batches, token_nats
from memlm.runtime.results import Interval


class Prediction(NamedTuple):
    """What each token of windows costs, in nats; 0 at the padding."""

    nats: Float[np.ndarray, "window chunk token"]
    windows: Windows

    def chunked(self, chunk_len: int) -> "Prediction":
        """The same, of windows in shorter chunks: a model that reads a window whole is measured by its parts."""
        windows, shape = self.windows, (len(self.nats), -1, chunk_len)
        shorter = windows._replace(tokens=windows.tokens.reshape(shape), mask=windows.mask.reshape(shape))
        return Prediction(self.nats.reshape(shape), shorter)

    def later_sums(self) -> Float[np.ndarray, "document 2"]:
        """Nats and tokens of each document's chunks, but for the first of each window: those with a past to read."""
        mask = self.windows.mask[:, 1:]
        per_window = (self.nats[:, 1:] * mask).sum((1, 2), dtype=np.float64), mask.sum((1, 2))
        return sums_by_unit(per_window, self.windows.document)


def predict(
    model: nn.Module,
    windows: Windows,
    vocab_size: int,
    *,
    term: Literal["causal", "copy"] = "causal",
    advance: Callable[[int], None] | None = None,
) -> Prediction:
    """Score every token of windows under a memory model's next-token probabilities: after the memories of earlier
    chunks, or, for `copy`, after that of the chunk itself."""

    def compute(batch: Batch) -> tuple[Tensor]:
        return (token_nats(getattr(model(batch.tokens, batch.mask, terms=(term,)), term), batch),)

    num_rows = batch_chunks(windows.tokens[0].size, vocab_size)
    (nats,) = compute_in_batches(model, windows, num_rows, compute, advance=advance)
    return Prediction(nats, windows)


def prediction_measures(prediction: Prediction) -> tuple[dict[str, Any], dict[str, Interval]]:
    """`causal_nats_per_token` of chunks that have a past to read, and of each place in the window; 95% intervals."""
    nats, mask = prediction.nats, prediction.windows.mask
    sums = prediction.later_sums()
    total = sums.sum(axis=0)
    values: dict[str, Any] = {
        "causal_nats_per_token": float(total[0] / total[1]),
        "first_token_nats": float(nats[:, 1:, 0][mask[:, 1:, 0]].mean()),
        "causal_nats_by_chunk": [float(nats[:, i][mask[:, i]].mean()) for i in range(nats.shape[1])],
        "num_windows": len(nats),
        "num_scored_tokens": int(total[1]),
    }
    return values, ratio_intervals("causal_nats_per_token", sums)


def excess(
    one: Float[np.ndarray, "document 2"], other: Float[np.ndarray, "document 2"], *, relative: bool = False
) -> dict[str, Any]:
    """How much more the one's tokens cost than the other's in the same documents, of which each has nats and tokens; in
    nats a token or as a share of the other's: the `value`, and its paired 95% `interval` over documents."""
    both = np.column_stack((one, other))
    both = both[both[:, 1] > 0]

    def difference(rows: Float[np.ndarray, "resample sum"]) -> Float[np.ndarray, " resample"]:
        mine, yours = rows[:, 0] / rows[:, 1], rows[:, 2] / rows[:, 3]
        return (mine - yours) / yours if relative else mine - yours

    interval = list(bootstrap_interval(both, difference))
    return {"value": float(difference(both.sum(axis=0)[None])[0]), "interval": interval}

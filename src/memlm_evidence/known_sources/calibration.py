"""Whether readers find what there is: retained bits, where mutual information is known exactly.

A text passes a memoryless channel, and the memory is what arrives, turned in space: I(text; memory) is that of the
channel. The estimate is memlm's own, what the same reader pays without a memory less what it pays with one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int

from memlm.config import MemoryShape
from memlm.evaluation.bootstrap import mean_interval
from memlm.evaluation.information import retained_bits
from memlm.models.batch import Batch
from memlm.nn.linear import orthogonal
from memlm_evidence.known_sources.known import BITS, text_nats, trained_reader, whole
from memlm_evidence.known_sources.measured import CalibrationPlan, CalibrationRow
from memlm_evidence.known_sources.unifilar import Channel, Unifilar, erasure, symmetric, through

CHANNELS: dict[str, Callable[[int], Channel]] = {
    "everything": lambda vocab_size: symmetric(vocab_size, 0.0),
    "a tenth wrong": lambda vocab_size: symmetric(vocab_size, 0.1),
    "half erased": lambda vocab_size: erasure(vocab_size, 0.5),
}
Symbols = Int[np.ndarray, "chunk token"]
Nats = Float[np.ndarray, " chunk"]
_READING, _MEASURED = range(2)


def calibration_runs(plan: CalibrationPlan) -> list["CalibrationRun"]:
    """Every source at every length."""
    return [CalibrationRun(source, length, plan) for length in plan.chunk_lens for source in plan.sources()]


@dataclass(frozen=True)
class CalibrationRun:
    """Chunks of one length of a source."""

    source: Unifilar
    chunk_len: int
    plan: CalibrationPlan

    @property
    def num_tokens(self) -> int:
        """Read."""
        return self.chunk_len * (len(CHANNELS) + 1) * (self.plan.steps * 64 + self.plan.num_sets * self.plan.set_chunks)

    def rows(self) -> Iterator[CalibrationRow]:
        """Read what every channel lets through."""
        without, _, _ = self.read(None)
        for name, channel in CHANNELS.items():
            paid, exact, least = self.read(channel(self.source.vocab_size))
            found, missed = retained_bits(paid, without), (paid - least) / BITS
            intervals = np.array([mean_interval(each) for each in found.reshape(self.plan.num_sets, -1)])
            truth, estimate = float(exact.mean()) / BITS, float(found.mean())
            covers = [np.mean((intervals[:, 0] <= value) & (value <= intervals[:, 1])) for value in (truth, estimate)]
            yield CalibrationRow(
                source=self.source.name,
                channel=name,
                num_tokens=self.chunk_len,
                exact_bits=truth,
                exact_bits_error=float(exact.std() / len(exact) ** 0.5) / BITS,
                estimated_bits=estimate,
                bias=estimate / truth - 1,
                missed_bits=float(missed.mean()),
                coverage_of_truth=float(covers[0]),
                coverage_of_estimate=float(covers[1]),
                interval_width=float(np.mean(intervals[:, 1] - intervals[:, 0])),
                intervals={"estimated_bits": mean_interval(found), "missed_bits": mean_interval(missed)},
                violations=int(mean_interval(missed)[1] < 0),
            )

    def read(self, channel: Channel | None) -> tuple[Nats, Nats, Nats]:
        """What a reader pays for test chunks, of which it sees what the channel lets through; what that tells of them;
        and the least that anybody pays, in the mean, who has it: ln 1 / P(text | memory).

        Without a channel the memory is always the same.
        """
        num_symbols = 1 if channel is None else channel.shape[1]
        shape = MemoryShape(
            vocab_size=self.source.vocab_size, chunk_len=self.chunk_len, memory_dim=num_symbols * self.chunk_len
        )
        torch.manual_seed(self.plan.seed)
        turn = orthogonal(shape.memory_dim, shape.memory_dim) * num_symbols**0.5

        def sample(num_chunks: int, stream: int, step: int) -> tuple[Batch, Symbols]:
            random = np.random.default_rng([self.plan.seed, stream, step])
            tokens = self.source.draw(num_chunks, self.chunk_len, random).tokens[:, 0]
            symbols = np.zeros_like(tokens) if channel is None else through(channel, tokens, random)
            memory = F.one_hot(torch.from_numpy(symbols), num_symbols).flatten(1).float() @ turn
            return whole(torch.from_numpy(tokens), memory[:, None]), symbols

        reader = trained_reader(shape, lambda step: sample(64, _READING, step)[0], self.plan.steps, self.plan.seed)
        batch, symbols = sample(self.plan.num_sets * self.plan.set_chunks, _MEASURED, 0)
        with torch.no_grad():
            paid = text_nats(reader(*batch).logits, batch.tokens)
        tokens, told = batch.tokens.numpy(), np.zeros_like(paid)
        if channel is not None:
            told = self.source.information(tokens, symbols, channel)
        return paid, told, -self.source.log_probs(tokens).sum(1) - told

"""How near memories come to the rate-distortion limit: autoencoders of uniform tokens, with so many bits to store.

Nothing can be guessed of uniform, independent tokens, and the least share of wrong ones that B stored bits allow is
known exactly (`evaluation.information.hamming_distortion`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from memlm.config import AdamW, AutoencoderConfig, MemoryShape, Muon, Positional, StackConfig
from memlm.evaluation.bootstrap import mean_interval
from memlm.evaluation.information import hamming_distortion, hamming_rate, quantized_capacity
from memlm.models.autoencoder import Autoencoder
from memlm.training.objectives import RETENTION
from memlm_evidence.known_sources.known import BITS, fit_steps, text_nats, whole
from memlm_evidence.known_sources.measured import DistortionPlan, DistortionRow, LimitRow
from memlm_evidence.known_sources.sources import uniform

AFTERWARDS, NOISY_AFTERWARDS = "rounded afterwards", "trained with noise, rounded afterwards"
ROUNDED, NOISY_ROUNDED = "rounded in training", "rounded in training, with noise"
METHODS = (AFTERWARDS, NOISY_AFTERWARDS, ROUNDED, NOISY_ROUNDED)
"""How memories come to be stored in few bits."""
_TRAINING, _MEASURED = range(2)
_ERROR = 0.01


def distortion_runs(plan: DistortionPlan) -> list["DistortionRun"]:
    """An autoencoder for each method and size."""
    later = [DistortionRun(method, 3 * plan.chunk_len, plan.afterwards, plan) for method in METHODS[:2]]
    return [*later, *(DistortionRun(method, dims, (1,), plan) for method in METHODS[2:] for dims in plan.dims)]


@dataclass(frozen=True)
class DistortionRun:
    """An autoencoder, and the numbers of bits a dimension that its memories are read at."""

    method: str
    memory_dim: int
    bits: tuple[int, ...]
    plan: DistortionPlan

    @property
    def num_tokens(self) -> int:
        """Trained on."""
        return self.plan.chunk_len * self.plan.steps * 128

    def rows(self) -> Iterator[DistortionRow]:
        """Train, round, count errors and compare with the limit."""
        plan, model = self.plan, self.train()
        tokens = self.drawn(plan.num_chunks, _MEASURED, 0)
        for bits in self.bits:
            model.encoder.shape = replace(model.encoder.shape, num_bits=bits)
            with torch.no_grad():
                logits = model(*whole(tokens)[:2]).logits
            wrong = (logits.argmax(-1) != tokens).double().mean(1).numpy()
            retained = plan.chunk_len * np.log2(plan.vocab_size) - text_nats(logits, tokens) / BITS
            error, stored = float(wrong.mean()), self.memory_dim * bits
            least = hamming_distortion(quantized_capacity(self.memory_dim, bits) / plan.chunk_len, plan.vocab_size)
            intervals = {"token_error": mean_interval(wrong), "retained_bits": mean_interval(retained)}
            ideal = plan.chunk_len * hamming_rate(error, plan.vocab_size) / BITS
            yield DistortionRow(
                method=self.method,
                num_dims=self.memory_dim,
                bits_per_dim=bits,
                stored_bits=stored,
                num_tokens=plan.chunk_len,
                token_error=error,
                least_error=least,
                ideal_bits=ideal,
                ideal_over_stored=ideal / stored,
                retained_bits=float(retained.mean()),
                intervals=intervals,
                violations=int(intervals["token_error"][1] < least) + int(intervals["retained_bits"][0] > stored),
            )

    def train(self) -> Autoencoder:
        """An autoencoder, rounding or not, with noise or without."""
        plan = self.plan
        torch.manual_seed(plan.seed)
        bits = 1 if self.method in (ROUNDED, NOISY_ROUNDED) else None
        noise = plan.noise_std if self.method in (NOISY_AFTERWARDS, NOISY_ROUNDED) else 0.0
        shape = MemoryShape(
            vocab_size=plan.vocab_size, chunk_len=plan.chunk_len, memory_dim=self.memory_dim, num_bits=bits
        )
        stack, pool = StackConfig(dim=64, num_layers=1), Positional(token_dim=16)
        cfg = AutoencoderConfig(
            shape=shape, encoder=stack, pooling=pool, unpooling=pool, decoder=stack, memory_noise=noise
        )
        model, optimizer = Autoencoder(cfg), Muon(learning_rate=0.1, adamw=AdamW(learning_rate=0.02))
        fit_steps(
            model, lambda step: whole(self.drawn(128, _TRAINING, step)), RETENTION, plan.steps, optimizer, plan.seed
        )
        return model.eval()

    def drawn(self, num_chunks: int, stream: int, step: int) -> Tensor:
        """Chunks [chunk token]."""
        random = np.random.default_rng([self.plan.seed, stream, step])
        drawn = uniform(self.plan.vocab_size).draw(num_chunks, self.plan.chunk_len, random)
        return torch.from_numpy(drawn.tokens[:, 0])


def limit(plan: DistortionPlan) -> list[LimitRow]:
    """The rate-distortion curve, as far as there is something to be wrong about."""
    rates = map(float, np.linspace(0, np.log2(plan.vocab_size), 61))
    return [LimitRow(bits_per_token=rate, error=hamming_distortion(rate * BITS, plan.vocab_size)) for rate in rates]


def ideal_over_stored(rows: Sequence[DistortionRow], vocab_size: int) -> dict[str, float | None]:
    """By method: the bits that 1% of wrong tokens need at least, over the fewest stored that had no more.

    None where no number of bits was enough.
    """
    found: dict[str, float | None] = {}
    ideal = hamming_rate(_ERROR, vocab_size) / BITS
    for method in METHODS:
        enough = [row for row in rows if row.method == method and row.token_error <= _ERROR]
        fewest = min(enough, key=lambda row: row.stored_bits, default=None)
        found[method] = None if fewest is None else fewest.num_tokens * ideal / fewest.stored_bits
    return found

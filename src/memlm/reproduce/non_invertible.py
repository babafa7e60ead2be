"""Claim: next-token prediction asks a memory for the past's predictive state alone, regeneration for the whole text.

Shown on sources of which everything is known (`data.sources`, docs/theory.md). Memories are read through a noisy
channel of known capacity, and weights decay: what no objective holds on to can be lost.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from memlm.config import (
    AdamW,
    AutoregressiveReader,
    DecoderConfig,
    MaskedMixer,
    MemoryModelConfig,
    MemoryShape,
    Muon,
    Positional,
    StackConfig,
    TrainingConfig,
    Unpooled,
    Weights,
)
from memlm.data.sources import Lookup, Source, even_process, random_markov, uniform
from memlm.evaluation.bootstrap import bootstrap_interval
from memlm.evaluation.information import noisy_capacity
from memlm.models.memory_model import MemoryModel
from memlm.models.readers import build_reader
from memlm.nn.linear import linear
from memlm.objectives import RETENTION, Batch, Objective, window_nats
from memlm.progress import track
from memlm.results import Provenance, Result
from memlm.training.accelerator import build_accelerator
from memlm.training.loop import Task, fit

OBJECTIVES = {
    "causal": Weights(causal=1.0),
    "autoencoder": Weights(causal=0.0, retention=1.0),
    "combined": Weights(causal=1.0, retention=1.0),
}
Row = dict[str, Any]
_BITS = math.log(2)


class ImpossibleError(RuntimeError):
    """A measured point lies where none can: a bug, never a discovery."""


@dataclass(frozen=True, kw_only=True)
class NonInvertiblePlan:
    """What to train on what, and how it is read."""

    chunk_lens: tuple[int, ...] = (16, 32, 64)
    """Of the Markov source; the other sources have the last."""
    dims_per_token: int = 6
    """Memory dimensions for each token of a chunk."""
    noise_std: float = 0.6
    """Of the channel that memories of root mean square 1 are read through."""
    weight_decay: float = 0.13
    """Of the matrices of every model."""
    steps: int = 600
    """Of training, of 32 windows of two chunks."""
    reading_steps: int = 200
    """Of each reader, of 64 chunks."""
    num_windows: int = 1024
    """That everything is measured on; units of the bootstrap."""
    seed: int = 0

    def sources(self) -> list[tuple[Source, int]]:
        """Every source with a chunk length."""
        chain, longest = random_markov(8, concentration=0.2), self.chunk_lens[-1]
        others: list[Source] = [uniform(8), even_process(), Lookup(8, 8), Lookup(8, longest // 2)]
        return [*((chain, length) for length in self.chunk_lens), *((source, longest) for source in others)]


def reproduce_non_invertible(plan: NonInvertiblePlan | None = None, *, quiet: bool = False) -> Result:
    """Train a memory model by each objective on each source, and read its memories.

    Returns:
        `rows`, one for each source, length and objective: `entropy_bits` of a chunk, `state_bits` of the predictive
        state after it, `retained_bits` and `retained_state_bits` of them that readers find in its memory, with
        `intervals`; `state_share` and `rest_share`, what is retained of the state and of everything else;
        `next_token_excess_bits`, a token of the chunk that follows, above what one pays who knows all;
        `capacity_bits` of the channel; and `violations`, how many of these lie on the impossible side of a bound.

    Raises:
        ImpossibleError: one does.
    """
    plan = plan or NonInvertiblePlan()
    cells = [(source, length, name) for source, length in plan.sources() for name in OBJECTIVES]
    rows = []
    total = sum(length for _, length, _ in cells)
    with track("Training on sources, chunks of", total=total, unit="tokens", quiet=quiet) as advance:
        for source, length, name in cells:
            rows.append(_Cell(source, length, plan).row(name))
            advance(length)
    impossible = [row for row in rows if row["violations"]]
    if impossible:
        raise ImpossibleError(f"on the impossible side of a bound: {impossible}")
    made_by = Provenance.here(plan=vars(plan), seed=plan.seed)
    return Result(name="non-invertible", measures={"rows": rows}, provenance=made_by)


class _Cell:
    """A source, and chunks of one length of it."""

    def __init__(self, source: Source, chunk_len: int, plan: NonInvertiblePlan) -> None:
        self.source, self.chunk_len, self.plan = source, chunk_len, plan
        width = chunk_len * plan.dims_per_token
        self.shape = MemoryShape(vocab_size=source.vocab_size, chunk_len=chunk_len, memory_dim=width)

    def row(self, objective: str) -> Row:
        """Train, read and compare with what is known."""
        model = self.train(OBJECTIVES[objective])
        source, length = self.source, self.chunk_len
        entropy, needed = source.past_entropy(length), source.needed_entropy(length)
        capacity = noisy_capacity(self.shape.memory_dim, self.plan.noise_std)
        found = {
            "retained_bits": (entropy - self.text_nats(model)) / _BITS,
            "retained_state_bits": (needed - self.state_nats(model)) / _BITS,
            "next_token_excess_bits": self.excess_nats(model) / _BITS,
        }
        values = {name: float(each.mean()) for name, each in found.items()}
        intervals = {name: list(_interval(each)) for name, each in found.items()}
        rest = values["retained_bits"] - values["retained_state_bits"]
        impossible = [
            intervals["retained_bits"][0] > min(entropy, capacity) / _BITS + 1e-6,
            intervals["retained_state_bits"][0] > needed / _BITS + 1e-6,
            intervals["next_token_excess_bits"][1] < 0,
        ]
        return {
            "source": source.name,
            "objective": objective,
            "num_tokens": length,
            "entropy_bits": entropy / _BITS,
            "state_bits": needed / _BITS,
            "capacity_bits": capacity / _BITS,
            **values,
            "state_share": values["retained_state_bits"] / (needed / _BITS) if needed else None,
            "rest_share": rest / ((entropy - needed) / _BITS) if entropy > needed else None,
            "intervals": intervals,
            "violations": sum(impossible),
        }

    def train(self, weights: Weights) -> MemoryModel:
        """A memory model of two chunks' windows, whose memories pass the channel."""
        plan, terms = self.plan, {name: weight for name, weight in vars(weights).items() if weight}
        torch.manual_seed(plan.seed)
        model = MemoryModel(
            MemoryModelConfig(
                shape=self.shape,
                encoder=StackConfig(dim=64, num_layers=1, mixer=MaskedMixer(num_heads=8)),
                pooling=Positional(token_dim=8),
                insertion=Unpooled(num_positions=4, token_dim=16),
                decoder=DecoderConfig(dim=64, num_layers=2),
                max_memories=1,
                overlap=0,
            )
        )

        def nats(model: nn.Module, batch: Batch) -> Tensor:
            assert isinstance(model, MemoryModel)
            predictions = model(batch.tokens, batch.mask, self.through_channel(model, batch), terms=terms)
            return torch.stack([window_nats(getattr(predictions, term), batch).sum() for term in terms])

        optimizer = Muon(learning_rate=0.05, weight_decay=plan.weight_decay, adamw=AdamW(learning_rate=1e-2))
        objective = Objective("combined", nats, weights=terms)
        self.fit(model, lambda step: self.windows(32, 0, step), objective, plan.steps, optimizer)
        return model.eval()

    def text_nats(self, model: MemoryModel) -> Float[np.ndarray, " window"]:
        """What each chunk costs a reader of its memory, token after token: at least what is open about it."""
        vocab_size = self.source.vocab_size
        codes, log_probs = torch.eye(vocab_size), torch.full((vocab_size,), -math.log(vocab_size))
        reader = build_reader(AutoregressiveReader(dim=64, num_layers=2), self.shape, codes, log_probs)

        def sample(step: int) -> Batch:
            batch = self.windows(64, 1, step)
            with torch.no_grad():
                memory = self.through_channel(model, batch)[:, 0]
            return Batch(batch.tokens[:, 0], batch.mask[:, 0], memory)

        optimizer = Muon(learning_rate=0.05, adamw=AdamW(learning_rate=1e-2))
        self.fit(reader, sample, RETENTION, self.plan.reading_steps, optimizer)
        batch, memory = self.measured(model)
        with torch.no_grad():
            logits = reader.eval()(batch.tokens[:, 0], batch.mask[:, 0], memory[:, 0]).logits
        return _nats(logits, batch.tokens[:, 0])

    def state_nats(self, model: MemoryModel) -> Float[np.ndarray, " window"]:
        """What each predictive state costs a reader of the memory."""
        sizes = self.source.state_sizes(self.chunk_len)
        reader = _StateReader(self.shape.memory_dim, len(sizes), max(sizes))

        def sample(step: int) -> Batch:
            batch, state = self.drawn(256, 2, step)
            with torch.no_grad():
                memory = self.through_channel(model, batch)[:, 0]
            return Batch(state, torch.ones_like(state, dtype=torch.bool), memory)

        def nats(reader: nn.Module, batch: Batch) -> Tensor:
            return F.cross_entropy(reader(batch.memory).flatten(0, 1), batch.tokens.flatten(), reduction="sum")

        self.fit(reader, sample, Objective("state", nats), self.plan.reading_steps, AdamW(learning_rate=3e-3))
        _, memory = self.measured(model)
        state = self.drawn(self.plan.num_windows, 3, 0)[1]
        with torch.no_grad():
            return _nats(reader(memory[:, 0]), state)

    def excess_nats(self, model: MemoryModel) -> Float[np.ndarray, " window"]:
        """What the second chunk costs the model, a token, above what it costs one who knows all that went before."""
        batch, memory = self.measured(model)
        with torch.no_grad():
            logits = model(batch.tokens, batch.mask, memory, terms=("causal",)).causal
        paid = window_nats(logits, batch)[:, 1].double().numpy()
        return (paid + self.source.log_probs(batch.tokens.numpy())[:, 1]).mean(1)

    def through_channel(self, model: MemoryModel, batch: Batch) -> Tensor:
        """Memories as they are read."""
        memory = model.encode(batch.tokens, batch.mask)
        return memory + self.plan.noise_std * torch.randn_like(memory)

    def measured(self, model: MemoryModel) -> tuple[Batch, Tensor]:
        """The windows that everything is measured on, and their memories as they are read."""
        batch = self.windows(self.plan.num_windows, 3, 0)
        torch.manual_seed(self.plan.seed)
        with torch.no_grad():
            return batch, self.through_channel(model, batch)

    def windows(self, num_windows: int, stream: int, step: int) -> Batch:
        """Windows of the source; a function of seed, stream and step."""
        return self.drawn(num_windows, stream, step)[0]

    def drawn(self, num_windows: int, stream: int, step: int) -> tuple[Batch, Tensor]:
        """The same, and the predictive states [window part] between their chunks."""
        random = np.random.default_rng([self.plan.seed, stream, step])
        drawn = self.source.draw(num_windows, self.chunk_len, random)
        tokens = torch.from_numpy(drawn.tokens)
        return Batch(tokens, torch.ones_like(tokens, dtype=torch.bool)), torch.from_numpy(drawn.state)

    def fit(
        self,
        model: nn.Module,
        sample: Callable[[int], Batch],
        objective: Objective,
        steps: int,
        optimizer: AdamW | Muon,
    ) -> None:
        """Train for so many steps."""
        size = objective.count(sample(0))
        cfg = TrainingConfig(
            num_tokens=steps * size,
            batch_tokens=size,
            optimizer=optimizer,
            warmup_tokens=min(10, steps // 10) * size,
            eval_tokens=steps * size,
            checkpoint_tokens=steps * size,
            short_fraction=0.0,
            seed=self.plan.seed,
        )
        fit(model, Task(sample=sample, objective=objective), cfg, build_accelerator(cfg), quiet=True)


class _StateReader(nn.Module):
    """A memory → logits [window part value] of the state's parts."""

    def __init__(self, memory_dim: int, num_parts: int, num_values: int) -> None:
        super().__init__()
        self.num_parts = num_parts
        self.up, self.down = linear(memory_dim, 256), linear(256, num_parts * num_values)
        self.head = linear(memory_dim, num_parts * num_values, gain=0.0)

    def forward(self, memory: Tensor) -> Tensor:
        """A linear reader, and a hidden layer beside it."""
        memory = memory.flatten(1)
        return (self.head(memory) + self.down(F.relu(self.up(memory)))).unflatten(-1, (self.num_parts, -1))


def _nats(logits: Tensor, tokens: Tensor) -> Float[np.ndarray, " window"]:
    """Summed over each row."""
    nats = F.cross_entropy(logits.flatten(0, 1).double(), tokens.flatten(), reduction="none")
    return nats.view(tokens.shape).sum(1).numpy()


def _interval(values: Float[np.ndarray, " window"]) -> tuple[float, float]:
    """Of the mean, over windows."""
    sums = np.column_stack([values, np.ones(len(values))])
    return bootstrap_interval(sums, lambda rows: rows[:, 0] / rows[:, 1])

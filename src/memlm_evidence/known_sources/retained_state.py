"""What memories retain of the past by each objective: of the predictive state, and of everything else.

Memories are read through a noisy channel of known capacity, and weights decay: what no objective holds on to can be
lost.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from memlm import config
from memlm.evaluation.bootstrap import mean_interval
from memlm.evaluation.information import noisy_capacity
from memlm.models.batch import Batch, token_nats
from memlm.models.memory_model import MemoryModel
from memlm.nn.linear import linear
from memlm.training.objectives import Objective, combined
from memlm_evidence.known_sources.known import BITS, fit_steps, text_nats, trained_reader, whole
from memlm_evidence.known_sources.measured import StatePlan, StateRow
from memlm_evidence.known_sources.sources import Source

OBJECTIVES = {
    "causal": config.Weights(causal=1.0),
    "autoencoder": config.Weights(causal=0.0, retention=1.0),
    "combined": config.Weights(causal=1.0, retention=1.0),
}
Nats = Float[np.ndarray, " window"]
_TRAINING, _READING, _STATE_READING, _MEASURED = range(4)
"""Streams of random windows."""


def state_runs(plan: StatePlan) -> list["StateRun"]:
    """A model for each source, length and objective."""
    return [StateRun(*source, objective, plan) for source in plan.sources() for objective in OBJECTIVES]


@dataclass(frozen=True)
class StateRun:
    """A memory model trained by one objective on chunks of one length of a source."""

    source: Source
    chunk_len: int
    objective: str
    plan: StatePlan

    @property
    def num_tokens(self) -> int:
        """Trained on, and read."""
        return self.chunk_len * (self.plan.steps * 32 * 2 + self.plan.reading_steps * (64 + 256))

    @property
    def shape(self) -> config.MemoryShape:
        """Of the memories."""
        width = self.chunk_len * self.plan.dims_per_token
        return config.MemoryShape(vocab_size=self.source.vocab_size, chunk_len=self.chunk_len, memory_dim=width)

    def rows(self) -> list[StateRow]:
        """Train, read and compare with what is known."""
        model = self.train()
        text_reader, state_reader = self.text_reader(model), self.state_reader(model)
        tokens, state = self.drawn(self.plan.num_windows, _MEASURED, 0)
        batch = whole(tokens)
        torch.manual_seed(self.plan.seed)
        with torch.no_grad():
            memory = self.read(model, tokens)
            logits = model(batch.tokens, batch.mask, memory, terms=("causal",)).causal
            text = text_nats(text_reader(tokens[:, 0], batch.mask[:, 0], memory[:, 0]).logits, tokens[:, 0])
            asked = text_nats(state_reader(memory[:, 0]), state)
        paid = token_nats(logits, batch)[:, 1].double().numpy() + self.source.log_probs(tokens.numpy())[:, 1]
        return [self.row(text, asked, paid.mean(1))]

    def row(self, text_nats: Nats, state_nats: Nats, excess_nats: Nats) -> StateRow:
        """What readers pay for each window's text and state, and the model for a token of what follows beyond what one
        pays who knows all that went before."""
        source, length = self.source, self.chunk_len
        entropy, needed = source.block_entropy(length), source.state_entropy
        capacity = noisy_capacity(self.shape.memory_dim, self.plan.noise_std)
        found = {
            "retained_bits": (entropy - text_nats) / BITS,
            "retained_state_bits": (needed - state_nats) / BITS,
            "retained_rest_bits": (entropy - needed - text_nats + state_nats) / BITS,
            "next_token_excess_bits": excess_nats / BITS,
        }
        values = {name: float(each.mean()) for name, each in found.items()}
        intervals = {name: mean_interval(each) for name, each in found.items()}
        impossible = [
            intervals["retained_bits"][0] > min(entropy, capacity) / BITS + 1e-6,
            intervals["retained_state_bits"][0] > needed / BITS + 1e-6,
            intervals["next_token_excess_bits"][1] < 0,
        ]
        return StateRow(
            source=source.name,
            objective=self.objective,
            num_tokens=length,
            entropy_bits=entropy / BITS,
            state_bits=needed / BITS,
            capacity_bits=capacity / BITS,
            **values,
            share=values["retained_bits"] / (entropy / BITS),
            state_share=values["retained_state_bits"] / (needed / BITS) if needed else None,
            rest_share=values["retained_rest_bits"] / ((entropy - needed) / BITS) if entropy > needed else None,
            intervals=intervals,
            violations=sum(impossible),
        )

    def train(self) -> MemoryModel:
        """A memory model of two chunks' windows, whose memories pass the channel."""
        plan, weights = self.plan, OBJECTIVES[self.objective]
        torch.manual_seed(plan.seed)
        cfg = config.MemoryModelConfig(
            shape=self.shape,
            encoder=config.StackConfig(dim=64, num_layers=1, mixer=config.MaskedMixer(num_heads=8)),
            pooling=config.Positional(token_dim=8),
            insertion=config.Unpooled(num_positions=4, token_dim=16),
            decoder=config.DecoderConfig(dim=64, num_layers=1),
            max_memories=1,
            overlap=0,
        )
        model, objective = MemoryModel(cfg), combined(weights)

        def nats(model: nn.Module, batch: Batch) -> Tensor:
            assert isinstance(model, MemoryModel)
            return objective.nats(model, Batch(batch.tokens, batch.mask, self.read(model, batch.tokens)))

        def sample(step: int) -> Batch:
            return whole(self.drawn(32, _TRAINING, step)[0])

        optimizer = config.Muon(
            learning_rate=0.05, weight_decay=plan.weight_decay, adamw=config.AdamW(learning_rate=1e-2)
        )
        through_channel = Objective("combined", nats, weights=objective.weights)
        fit_steps(model, sample, through_channel, plan.steps, optimizer, plan.seed)
        return model.eval()

    def text_reader(self, model: MemoryModel) -> nn.Module:
        """Of the chunk, given its memory."""

        def sample(step: int) -> Batch:
            tokens = self.drawn(64, _READING, step)[0][:, :1]
            with torch.no_grad():
                return whole(tokens[:, 0], self.read(model, tokens)[:, 0])

        return trained_reader(self.shape, sample, self.plan.reading_steps, self.plan.seed)

    def state_reader(self, model: MemoryModel) -> nn.Module:
        """Of the predictive state, given the memory."""
        sizes = self.source.state_sizes
        torch.manual_seed(self.plan.seed)
        reader = _StateReader(self.shape.memory_dim, len(sizes), max(sizes))

        def sample(step: int) -> Batch:
            tokens, state = self.drawn(256, _STATE_READING, step)
            with torch.no_grad():
                return whole(state, self.read(model, tokens[:, :1])[:, 0])

        def nats(reader: nn.Module, batch: Batch) -> Tensor:
            return F.cross_entropy(reader(batch.memory).flatten(0, 1), batch.tokens.flatten(), reduction="sum")

        optimizer = config.AdamW(learning_rate=3e-3)
        fit_steps(reader, sample, Objective("state", nats), self.plan.reading_steps, optimizer, self.plan.seed)
        return reader.eval()

    def read(self, model: MemoryModel, tokens: Tensor) -> Tensor:
        """The memories [window chunk slot dim] of chunks as they are read, through the channel."""
        memory = model.encode(tokens, torch.ones_like(tokens, dtype=torch.bool))
        return memory + self.plan.noise_std * torch.randn_like(memory)

    def drawn(self, num_windows: int, stream: int, step: int) -> tuple[Tensor, Tensor]:
        """Windows of two chunks, and the predictive states [window part] between them."""
        drawn = self.source.draw(num_windows, self.chunk_len, np.random.default_rng([self.plan.seed, stream, step]))
        return torch.from_numpy(drawn.tokens), torch.from_numpy(drawn.state)


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

"""The commands that reproduce the paper's claims."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from memlm.cli.command import Answer, Command, Group, keep


@dataclass(frozen=True, kw_only=True)
class Embeddings(Command):
    """Embeddings of untrained, causal, retrieval and autoencoder models, trained on equal tokens and probed alike.

    Claim: autoencoders' hold nearly all of 64 tokens (≥ 0.98), the others little, whatever the data and compute.
    Cost: under 15 minutes on two cores for one seed; what was trained before is not trained again.
    """

    out: Path = Path("runs/embeddings")
    """Folder of the trained encoders."""
    chunk_len: int = 64
    num_tokens: int = 750_000
    """Tokens every encoder is trained on."""
    mixers: tuple[Literal["attention", "masked_mixer"], ...] = ("masked_mixer",)
    """Of the language models."""
    full: bool = False
    """Also every size with every budget, and objectives crossed with poolings; takes three times as long."""
    seed: int = 0

    def run(self) -> Answer:
        """Train, probe, compare."""
        from memlm.runtime.wording import share
        from memlm_evidence.experiments.embeddings.run import Plan, reproduce_embeddings

        budgets = (self.num_tokens // 4, self.num_tokens // 2, self.num_tokens)
        plan = Plan(
            chunk_len=self.chunk_len,
            num_tokens=self.num_tokens,
            budgets=budgets,
            mixers=self.mixers,
            grid=self.full,
            cross=self.full,
            seed=self.seed,
        )
        result = reproduce_embeddings(self.out, plan)
        keep(result, self.out / f"embeddings-seed-{self.seed}.json")
        for name, accuracy in result.token_accuracy.items():
            fraction = share(result.retained_fraction[name])
            self.say(f"{name}: token accuracy {share(accuracy)}, retained fraction {fraction}")
        for name in ("slope_compute", "slope_data"):
            low, high = result.intervals[name]
            self.say(f"{name}: {result.measures[name]:+.4f} retained fraction a decade [{low:+.4f}, {high:+.4f}]")
        return result.to_dict()


@dataclass(frozen=True, kw_only=True)
class MemoryModels(Command):
    """Memory models by causal, combined and curriculum training, beside no memory, full context and recurrent memory.

    Claim: causal training leaves memories poor; combined training makes them rich (≥ 0.995 of tokens) at the same
    next-token loss; a frozen autoencoder's encoder with a curriculum makes that cheap.
    Cost: 17 minutes on two cores; what was trained before is not trained again.
    """

    out: Path = Path("runs/memory-model")
    """Folder of the trained arms."""
    chunk_len: int = 32
    memory_dim: int = 256
    num_positions: int = 4
    """Decoder positions that a memory takes."""
    dim: int = 128
    """Width of the decoder."""
    num_tokens: int = 1_000_000
    """Causal tokens that every arm is trained on."""
    full: bool = False
    """Also an encoder-decoder and an oracle, and, at half the tokens, sweeps over the weight of retention, the size of
    the decoder and the ways in which a memory may enter it; takes twice as long."""
    seed: int = 0

    def run(self) -> Answer:
        """Train, measure, compare."""
        from memlm.runtime.wording import share
        from memlm_evidence.experiments.memory_model.conditions import Plan
        from memlm_evidence.experiments.memory_model.run import reproduce_memory_model
        from memlm_evidence.pages.memory_model import write_memory_report

        plan = Plan(
            chunk_len=self.chunk_len,
            memory_dim=self.memory_dim,
            num_positions=self.num_positions,
            dim=self.dim,
            num_tokens=self.num_tokens,
            full=self.full,
            sweep_tokens=self.num_tokens // 2,
            seed=self.seed,
        )
        result = reproduce_memory_model(self.out, plan)
        keep(result, self.out / f"memory-model-seed-{self.seed}.json")
        for name, nats in result.causal_nats.items():
            retained = result.retention_accuracy.get(name)
            self.say(f"{name}: {nats:.4f} nats/token" + (f", retention {share(retained)}" if retained else ""))
        self.say(f"The whole report: {write_memory_report(self.out)}")
        return result.to_dict()


@dataclass(frozen=True, kw_only=True)
class RecallOfFacts(Command):
    """Exact strings from anywhere in the past: memories by combined and by causal training, and the tokens themselves.

    Claim: combined memories give back facts that are asked for by their keys (≥ 0.95 of the strings, at every
    distance); causal training's do not.
    Cost: some 12 minutes a model on two cores; what was trained before is not trained again.
    """

    out: Path = Path("runs/memory-model")
    """Folder of the trained models."""
    pointer_span: int = 12
    """Tokens by which a decoder finds what it copies; 0 lets it read memories alone, as positions."""
    reading_fraction: float = 0.25
    """Share of the tokens that the combined model first learns to read memories from."""
    num_tokens: int = 8_000_000
    """Tokens that every model is trained on."""
    num_texts: int = 100
    """Texts for each kind of fact, number of past chunks and distance."""
    models: tuple[Literal["combined", "causal", "full_context"], ...] = ("combined", "causal", "full_context")
    seed: int = 0

    def run(self) -> Answer:
        """Train and ask."""
        from memlm_evidence.experiments.exact_recall.run import RecallPlan, reproduce_recall
        from memlm_evidence.pages.memory_model import write_memory_report

        plan = RecallPlan(
            pointer_span=self.pointer_span,
            reading_fraction=self.reading_fraction,
            num_tokens=self.num_tokens,
            num_texts=self.num_texts,
            models=self.models,
            seed=self.seed,
        )
        result = reproduce_recall(self.out, plan)
        keep(result, self.out / f"recall-seed-{self.seed}.json")
        for name, by_distance in result.recall.items():
            shown = ", ".join(f"{rate:.3f} at {far}" for far, rate in by_distance.items())
            self.say(f"{name}: {shown} chunks; blind {result.chance[name]:.3f}")
        self.say(f"The whole report: {write_memory_report(self.out)}")
        return result.to_dict()


@dataclass(frozen=True, kw_only=True)
class NonInvertible(Command):
    """Next-token prediction asks a memory for the past's predictive state alone, on sources whose entropies are known.

    Claim: of 64 tokens of a Markov chain, causal training keeps the state (≥ 0.9 of its bits) and little else (< 0.2
    of the rest); regeneration and combined training keep all (≥ 0.95). What later questions ask for is kept by all.
    Beside it: memories of few bits against the rate-distortion limit, and retained bits against exact mutual
    information. The argument, with proofs: docs/theory.md.
    Cost: under 15 minutes on two cores. If it is interrupted, run it again: it resumes.
    """

    out: Path = Path("runs/non-invertible")
    """Folder of the measurements."""
    chunk_lens: tuple[int, ...] = (64, 32, 16)
    """Tokens of a chunk of the Markov chain."""
    chunk_len: int = 32
    """Tokens of a chunk of the other sources."""
    steps: int = 600
    """Training steps of each model."""
    reading_steps: int = 200
    """Training steps of each reader."""
    num_windows: int = 1024
    """Windows that a model is measured on."""
    workers: int = 0
    """Processes that measure side by side; 0 is one for each core."""
    seed: int = 0

    def run(self) -> Answer:
        """Train and read."""
        from memlm_evidence.experiments.non_invertible.run import NonInvertiblePlan, reproduce_non_invertible
        from memlm_evidence.known_sources.calibration import CalibrationPlan
        from memlm_evidence.known_sources.rate_distortion import DistortionPlan
        from memlm_evidence.known_sources.retained_state import StatePlan
        from memlm_evidence.pages.known_sources import write_known_sources_report

        state = StatePlan(
            chunk_lens=self.chunk_lens,
            chunk_len=self.chunk_len,
            steps=self.steps,
            reading_steps=self.reading_steps,
            num_windows=self.num_windows,
            seed=self.seed,
        )
        plan = NonInvertiblePlan(
            state=state, distortion=DistortionPlan(seed=self.seed), calibration=CalibrationPlan(seed=self.seed)
        )
        result = reproduce_non_invertible(self.out, plan, num_workers=self.workers)
        keep(result, self.out / f"non-invertible-seed-{self.seed}.json")
        for row in result.rows:
            self.say(
                f"{row['source']}, {row['num_tokens']} tokens, {row['objective']}: "
                f"{row['retained_bits']:.1f} of {row['entropy_bits']:.1f} bits, "
                f"of the state {row['retained_state_bits']:.2f} of {row['state_bits']:.2f}"
            )
        self.say(f"The whole report: {write_known_sources_report(self.out)}")
        return result.to_dict()


class Reproduce(Group):
    """The paper's claims, decided one by one; or one of the experiments behind them, with its main settings."""

    commands: ClassVar[Mapping[str, str]] = {
        "claims": "memlm_evidence.cli.claims:Claims",
        "embeddings": "memlm_evidence.cli.reproduce:Embeddings",
        "memory-model": "memlm_evidence.cli.reproduce:MemoryModels",
        "recall": "memlm_evidence.cli.reproduce:RecallOfFacts",
        "non-invertible": "memlm_evidence.cli.reproduce:NonInvertible",
    }
    default = "claims"

"""Arms of the comparison of memory models: what each is trained on, and how each is measured."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from memlm.config import MemoryModelRecipe, Phase, ProbeConfig, ReadingConfig, RecipeConfig, RecurrentConfig, Weights
from memlm.data.chunks import split_into_chunks
from memlm.data.token_store import prepare
from memlm.data.windows import all_windows
from memlm.evaluation.prediction import Prediction, predict
from memlm.models.memory_model import MemoryModel
from memlm.models.recurrent import RecurrentModel
from memlm.probing.encoder_probe import EncoderProbe
from memlm.probing.encoders import MemoryEncoder
from memlm.probing.texts import ProbeTexts
from memlm.recipes.autoencoder import autoencoder
from memlm.recipes.memory_model import encoder_decoder, memory_model, oracle, without_memory
from memlm.recipes.scale import Scale
from memlm.runtime.results import read_json_lines
from memlm.text.memory_model import TextMemoryModel
from memlm.training.accelerator import build_accelerator
from memlm.training.autoencoder import retention_task, seeded_autoencoder, stages, train_autoencoder
from memlm.training.flops import flops_per_token
from memlm.training.loop import Home, Task, fit
from memlm.training.memory_model import train_memory_model, window_sampler
from memlm.training.objectives import combined
from memlm.training.run import fingerprint

RICH = 0.995
"""Token accuracy at which a memory counts as rich."""

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to train and how large."""

    chunk_len: int = 32
    memory_dim: int = 256
    window_chunks: int = 4
    num_positions: int = 4
    """Decoder positions that a memory takes."""
    dim: int = 128
    """Width of the decoder."""
    num_tokens: int = 1_000_000
    """Causal tokens that every arm is trained on; the curriculum reads memories for some of them first."""
    autoencoder_tokens: int = 1_000_000
    """Tokens of the autoencoder whose encoder the curriculum freezes."""
    reading_fraction: float = 0.25
    """Share of `num_tokens` that the curriculum spends on reading memories, on top of them."""
    reading_steps: int = 1000
    """Steps of the readers that memories are probed with."""
    reading_chunks: int = 40_000
    arms: tuple[str, ...] = ("no_memory", "causal", "combined", "curriculum", "full_context", "recurrent")
    """What is trained; the first four are always compared."""
    full: bool = False
    """Also train bounds and sweeps."""
    sweep_tokens: int = 500_000
    """Tokens of each arm of a sweep."""
    weights: tuple[float, ...] = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0)
    """Of the retention term beside the causal one."""
    dims: tuple[int, ...] = (64, 128, 256)
    """Decoder widths."""
    insertions: tuple[tuple[str, int], ...] = (("prefix", 1), ("prefix", 4), ("cross_attention", 4), ("unpooled", 4))
    """How a memory enters the decoder, and as how many positions or keys."""
    seed: int = 0


class Stretch(NamedTuple):
    """A phase of training, and what it takes."""

    num_tokens: int
    flops_per_token: float


class Arm(NamedTuple):
    """A trained arm, measured on held-out text."""

    prediction: Prediction
    stretches: Sequence[Stretch]
    num_tokens: int
    trained: TextMemoryModel | None

    def flops_until(self, num_tokens: int) -> float:
        """Operations of training on so many tokens; without those of what it began with."""
        total, left = 0.0, num_tokens
        for stretch in self.stretches:
            total += min(left, stretch.num_tokens) * stretch.flops_per_token
            left = max(0, left - stretch.num_tokens)
        return total + left * self.stretches[-1].flops_per_token  # a last batch may go beyond the budget


class Swept(NamedTuple):
    """One arm of a sweep."""

    values: Row
    """What it differs in."""
    arm: Arm
    against: Arm | None = None
    """What its next tokens are compared with."""


def trained_encoder(recipe: RecipeConfig, out: Path, *, quiet: bool) -> str:
    """Where the autoencoder is, to take its encoder from; trained if it is not there yet."""
    folder = out / f"autoencoder-seed-{recipe.training.seed}"
    train_autoencoder(recipe, folder, quiet=quiet)
    return str(folder / "model")


class Arms:
    """Arms trained into a folder, and their measures."""

    def __init__(self, out: Path, plan: Plan, cache: Path, quiet: bool) -> None:
        self.out, self.plan, self.cache, self.quiet = out, plan, cache, quiet
        self.recipe = self._recipe()
        self.prepared = prepare(self.recipe.data, quiet=quiet)
        self.reading = ReadingConfig(num_steps=plan.reading_steps, max_chunks=plan.reading_chunks)
        self.texts = ProbeTexts.of_splits(self.recipe.data, self.prepared.tokenizer, self.reading.test_fraction)

    def arm(self, name: str) -> Arm:
        """Train an arm, or load it, and predict the held-out text."""
        if name == "recurrent":
            return self._recurrent()
        return self._train(self._recipe_of(name), name)

    def by_weight(self) -> Iterator[Swept]:
        """Combined training with more or less weight on retention."""
        for weight in self.plan.weights:
            yield Swept({"retention_weight": weight}, self._sweep(retention=weight))

    def by_size(self) -> Iterator[Swept]:
        """Decoders of several widths, by combined and by causal training."""
        for dim in self.plan.dims:
            causal = self._sweep(dim=dim, retention=0.0)
            yield Swept({"dim": dim, "objective": "causal"}, causal)
            yield Swept({"dim": dim, "objective": "combined"}, self._sweep(dim=dim), causal)

    def by_insertion(self) -> Iterator[Swept]:
        """Every way in which a memory may enter the decoder."""
        for kind, number in self.plan.insertions:
            arm = self._sweep(insertion=kind, num_positions=number)
            yield Swept({"insertion": kind, "number": number}, arm)

    def _sweep(self, **changes: Any) -> Arm:
        """An arm of fewer tokens; where sweeps meet, it is trained once."""
        usual = {
            "retention": 1.0,
            "dim": self.plan.dim,
            "insertion": "unpooled",
            "num_positions": self.plan.num_positions,
        }
        changes = {name: value for name, value in changes.items() if value != usual[name]}
        name = "-".join(["sweep", *(f"{name}-{value}" for name, value in changes.items())])
        return self._train(self._recipe(num_tokens=self.plan.sweep_tokens, **changes), name)

    def _train(self, recipe: MemoryModelRecipe, name: str) -> Arm:
        trained = train_memory_model(recipe, self._folder(name), prepared=self.prepared, quiet=self.quiet)
        shape = recipe.model.shape
        windows = all_windows(split_into_chunks(self.prepared.splits["test"], shape.chunk_len), recipe.window_chunks)
        term: Literal["causal", "copy"] = "copy" if name == "oracle" else "causal"
        prediction = predict(trained.model, windows, shape.vocab_size, term=term).chunked(self.plan.chunk_len)
        stretches = [self._stretch(recipe, phase, trained.model) for phase in recipe.phases]
        return Arm(prediction, stretches, trained.provenance["tokens"], trained)

    def _stretch(self, recipe: MemoryModelRecipe, phase: Phase, model: MemoryModel) -> Stretch:
        """What a phase takes. A frozen encoder is counted as if it encoded every window when its turn comes: it is run
        forwards, and once for each chunk, unless there are more turns than text."""
        chunks = split_into_chunks(self.prepared.splits["validation"], recipe.model.shape.chunk_len)
        batch = window_sampler(recipe, phase, chunks, self.prepared.tokenizer, None)(0)
        if model.encoder is not None:
            model.encoder.requires_grad_(not phase.encoder_frozen)
        spent = flops_per_token(model, combined(phase.weights), batch)
        model.requires_grad_(True)
        return Stretch(phase.training.num_tokens, spent)

    def probed(self, arm: Arm) -> Row:
        """A reader trained on the arm's frozen memories: the same budget for every arm."""
        assert arm.trained is not None
        assert arm.trained.model.encoder is not None
        encoder = MemoryEncoder(arm.trained.model.encoder, arm.trained.tokenizer, name="memory model")
        cfg = ProbeConfig(chunk_lens=(self.plan.chunk_len,), seeds=(self.plan.seed,), reading=self.reading)
        probing = EncoderProbe(encoder, self.texts, cfg, self.plan.chunk_len, cache=self.cache, quiet=self.quiet)
        (row,) = probing.rows()
        return row.to_dict()

    def own_retention(self, arm: Arm) -> Row:
        """What the arm's own decoder gives back of its memories."""
        assert arm.trained is not None
        split = self.prepared.splits["test"]
        return arm.trained.evaluate_retention(split, name="held-out", quiet=self.quiet).to_dict()

    def autoencoder_flops(self) -> float:
        """What it took to train the autoencoder that the curriculum begins with, over all its stages."""
        recipe = self._autoencoder()
        total = 0.0
        for stage in stages(recipe):
            task = retention_task(stage, self.prepared)
            each = flops_per_token(seeded_autoencoder(stage), task.objective, task.sample(0))
            total += each * stage.training.num_tokens
        return total

    def flops_to_rich(self, name: str, arm: Arm) -> float | None:
        """Training operations until held-out retention first reached `RICH`; None if it never did."""
        for row in read_json_lines(self._folder(name) / "metrics.jsonl"):
            if row.get("token_accuracy", 0.0) >= RICH:
                return arm.flops_until(int(row["tokens"]))
        return None

    # --- recipes -----------------------------------------------------------------------------------------------

    def _recipe(self, **changes: Any) -> MemoryModelRecipe:
        plan = self.plan
        knobs: Mapping[str, Any] = {
            "chunk_len": plan.chunk_len,
            "memory_dim": plan.memory_dim,
            "window_chunks": plan.window_chunks,
            "num_positions": plan.num_positions,
            "dim": plan.dim,
            "num_tokens": plan.num_tokens,
            "seed": plan.seed,
        }
        return memory_model(**{**knobs, **changes})

    def _recipe_of(self, name: str) -> MemoryModelRecipe:
        match name:
            case "no_memory" | "full_context":
                return without_memory(self.recipe, full_context=name == "full_context")
            case "causal":
                return self._recipe(retention=0.0)
            case "oracle":
                return oracle(self.recipe)
            case "encoder_decoder":
                return encoder_decoder(self.recipe)
            case "curriculum":
                tokens = round(self.plan.num_tokens * (1 + self.plan.reading_fraction))
                fraction = self.plan.reading_fraction / (1 + self.plan.reading_fraction)
                return self._recipe(
                    num_tokens=tokens,
                    reading_fraction=fraction,
                    encoder_from=trained_encoder(self._autoencoder(), self.out, quiet=self.quiet),
                )
            case _:
                return self.recipe

    def _autoencoder(self) -> RecipeConfig:
        plan = self.plan
        return autoencoder(
            Scale(
                chunk_len=plan.chunk_len, memory_dim=plan.memory_dim, num_tokens=plan.autoencoder_tokens, seed=plan.seed
            )
        )

    def _folder(self, name: str) -> Path:
        return self.out / f"{name}-seed-{self.plan.seed}"

    def _recurrent(self) -> Arm:
        (phase,) = self.recipe.phases
        cfg = RecurrentConfig(
            vocab_size=self.recipe.model.shape.vocab_size,
            decoder=self.recipe.model.decoder,
            num_memory_tokens=self.plan.num_positions,
        )
        torch.manual_seed(self.plan.seed)
        model = RecurrentModel(cfg)
        objective = combined(Weights(causal=1.0))
        train = split_into_chunks(self.prepared.splits["train"], self.plan.chunk_len)
        sample = window_sampler(self.recipe, phase, train, self.prepared.tokenizer, None)
        folder = self._folder("recurrent")
        run = fingerprint([cfg, self.recipe], self.prepared)
        home = Home(folder / "checkpoints", folder / "metrics.jsonl", run)
        task = Task(sample=sample, objective=objective, title="Training recurrent memory")
        progress = fit(model, task, phase.training, build_accelerator(phase.training), home=home, quiet=self.quiet)
        windows = all_windows(
            split_into_chunks(self.prepared.splits["test"], self.plan.chunk_len), self.plan.window_chunks
        )
        prediction = predict(model.cpu(), windows, cfg.vocab_size)
        stretch = Stretch(progress.tokens, flops_per_token(model, objective, sample(0)))
        return Arm(prediction, [stretch], progress.tokens, None)

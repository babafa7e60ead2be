"""Claim: no attack gives a text back from one state of a causal model. What does would refute the paper."""

from dataclasses import dataclass, field
from pathlib import Path

from memlm.config import ReadingConfig
from memlm.recipes.causal import causal
from memlm.runtime.results import Result
from memlm.training.language_model import train_language_model
from memlm_evidence.attacks.settle import settle


@dataclass(frozen=True, kw_only=True)
class SettlingPlan:
    """What to train, and how hard to attack it."""

    chunk_len: int = 16
    num_tokens: int = 1_000_000
    reading: ReadingConfig = field(
        default_factory=lambda: ReadingConfig(num_steps=300, max_chunks=15_000, test_chunks=300)
    )
    num_texts: int = 8
    """Texts that are searched for."""
    search_steps: int = 60
    seed: int = 0


def reproduce_settling(out: Path, plan: SettlingPlan | None = None, *, quiet: bool = False) -> Result:
    """Train a causal model and settle it (`probes.settle`). What was trained or read before is not made again."""
    plan = plan or SettlingPlan()
    recipe = causal(plan.chunk_len, mixer="masked_mixer", num_tokens=plan.num_tokens, seed=plan.seed)
    folder = out / f"causal-seed-{plan.seed}"
    train_language_model(recipe, folder, quiet=quiet)
    asked = {name: value for name, value in vars(plan).items() if name != "num_tokens"}
    return Result.from_dict(settle(str(folder / "model"), quiet=quiet, **asked).to_dict())

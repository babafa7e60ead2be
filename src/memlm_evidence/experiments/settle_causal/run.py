"""Claim: no attack gives a text back from one state of a causal model. What does would refute the paper."""

from pathlib import Path

from memlm.recipes.causal import causal
from memlm.training.train import train
from memlm_evidence.attacks.settle import settle
from memlm_evidence.experiments.settle_causal import SettlingPlan, SettlingResult


def run(out: Path, plan: SettlingPlan) -> SettlingResult:
    """Train a causal model and settle it. What was trained or read before is not made again."""
    recipe = causal(plan.chunk_len, mixer="masked_mixer", num_tokens=plan.num_tokens, seed=plan.seed)
    folder = out / f"causal-seed-{plan.seed}"
    train(recipe, folder)
    asked = {name: value for name, value in vars(plan).items() if name not in ("num_tokens", "chunk_len")}
    result = settle(str(folder / "model"), quiet=False, chunk_lens=(plan.chunk_len,), **asked)
    return SettlingResult.from_dict({**result.to_dict(), "chunk_len": plan.chunk_len})

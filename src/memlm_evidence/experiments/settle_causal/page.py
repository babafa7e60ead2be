"""What each attack recovers from a causal model's states."""

from collections.abc import Sequence

from memlm.runtime.wording import share
from memlm_evidence.experiments.settle_causal import SettlingResult
from memlm_evidence.pages.page import Page
from memlm_evidence.pages.seeds import of, seeds_table


def page(results: Sequence[SettlingResult]) -> Page:
    """Attack by attack."""
    columns = {
        "attack": lambda same: f"{same[0].attack}\n{same[0].num_texts} texts",
        "given": lambda same: str(same[0].given),
        "token accuracy": of("token_accuracy", share),
        "exact texts": of("exact_match", share),
    }
    table = seeds_table([result.attacks for result in results], columns)
    return Page("experiments/settle_causal/page", {"of": results[0], "attacks": table})

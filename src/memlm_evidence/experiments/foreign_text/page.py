"""What memories hold of foreign text, and passages given back."""

from collections.abc import Sequence

from memlm.runtime.wording import human, number, share
from memlm_evidence.experiments.foreign_text import ForeignTextResult
from memlm_evidence.pages.page import Page
from memlm_evidence.pages.seeds import of, seeds_table


def page(results: Sequence[ForeignTextResult]) -> Page:
    """By kind of text and mixer."""
    columns = {
        "text": lambda same: human(same[0].text),
        "mixer": lambda same: human(same[0].mixer),
        "token accuracy": of("token_accuracy", share),
        "exact chunks": of("exact_match", share),
        "retained bits/token": of("retained_bits_per_token", number),
    }
    by_kind = seeds_table([result.rows for result in results], columns)
    return Page("experiments/foreign_text/page", {"by_kind": by_kind, "samples": results[0].samples})

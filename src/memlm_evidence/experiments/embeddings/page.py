"""What embeddings hold: by objective, by size and budget of causal models, and of controls."""

from collections.abc import Sequence

from memlm.runtime.tables import Table
from memlm.runtime.wording import human, number, quantity, share
from memlm_evidence.experiments.embeddings import EmbeddingsResult
from memlm_evidence.pages.page import Page
from memlm_evidence.pages.seeds import CAPTION, named_over_seeds, of, seeds_table


def page(results: Sequence[EmbeddingsResult]) -> Page:
    """The paper's sizes are measured without causal models by budget and controls; then these are not shown."""
    objectives = {
        "embedding": lambda same: f"{human(same[0].objective)}\n{quantity(same[0].num_tokens)} tokens",
        "token accuracy": of("token_accuracy", share),
        "exact chunks": of("exact_match", share),
        "retained bits/token": of("retained_bits_per_token", number),
        "retained fraction": of("retained_fraction", share),
    }
    budgets = {
        "causal model, parameters": lambda same: quantity(same[0].num_parameters),
        "tokens": lambda same: quantity(same[0].num_tokens),
        "retained fraction": of("retained_fraction", share),
    }
    controls = {"token accuracy": "token_accuracy", "retained fraction": "retained_fraction"}
    cells = [
        [
            human(name),
            *(
                named_over_seeds([(result.controls or {})[name] for result in results], each, share)
                for each in controls.values()
            ),
        ]
        for name in results[0].controls or ()
    ]
    budgeted = [result.causal_models for result in results if result.causal_models]
    data = {
        "chunk_len": results[0].chunk_len,
        "objectives": seeds_table([result.rows for result in results], objectives),
        "budgets": seeds_table(budgeted, budgets) if budgeted else None,
        "controls": Table(["control", *controls], cells, CAPTION) if cells else None,
    }
    return Page("experiments/embeddings/page", data)

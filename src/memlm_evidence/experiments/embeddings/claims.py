"""The claims that embeddings of language models and autoencoders decide."""

from collections.abc import Callable
from typing import Literal

from memlm_evidence.claims import Claim, Measured
from memlm_evidence.experiments.embeddings.result import EmbeddingsResult


def _accuracy(objective: str) -> Callable[[EmbeddingsResult], Measured]:
    """Token accuracy of a reader of the embeddings of one objective."""
    return lambda result: Measured.of(next(row for row in result.rows if row.objective == objective), "token_accuracy")


def _slope(name: Literal["slope_compute", "slope_data"]) -> Callable[[EmbeddingsResult], Measured | None]:
    """A slope over causal models."""
    return lambda result: None if getattr(result, name) is None else Measured.of(result, name)


CLAIMS: tuple[Claim[EmbeddingsResult], ...] = (
    Claim(
        name="causal-embeddings-hold-little",
        statement="The last state of a model trained on next tokens gives back few tokens of its text.",
        experiment=EmbeddingsResult.name,
        quantity="token accuracy of a trained reader",
        threshold=0.15,
        at_least=False,
        measure=_accuracy("causal"),
    ),
    Claim(
        name="regardless-of-compute",
        statement="Larger causal models do not hold more.",
        experiment=EmbeddingsResult.name,
        quantity="retained fraction gained with ten times the parameters",
        threshold=0.05,
        at_least=False,
        measure=_slope("slope_compute"),
    ),
    Claim(
        name="regardless-of-data",
        statement="Causal models trained on more text do not hold more.",
        experiment=EmbeddingsResult.name,
        quantity="retained fraction gained with ten times the tokens",
        threshold=0.05,
        at_least=False,
        measure=_slope("slope_data"),
    ),
    Claim(
        name="autoencoders-hold-nearly-all",
        statement="An autoencoder's one vector gives back nearly all of them, at equal tokens of training.",
        experiment=EmbeddingsResult.name,
        quantity="token accuracy of a trained reader",
        threshold=0.98,
        at_least=True,
        measure=_accuracy("autoencoder"),
    ),
)

"""The claims that a comparison of memory models decides."""

from memlm_evidence.claims import Claim, Measured
from memlm_evidence.experiments.memory_model.result import MemoryModelResult


def _curriculum_cost(result: MemoryModelResult) -> Measured | None:
    """Operations to rich memories by the curriculum, its autoencoder's included, over those of combined training."""
    spent, whole = result.flops_to_rich, result.train_flops
    if spent is None or whole is None:
        return None
    curriculum, combined = spent["curriculum"], spent["combined"]
    if curriculum is None:
        return Measured.exactly(float("inf"))  # it never got there
    curriculum += whole["autoencoder"]
    if combined is None:  # the other never did: more than all it was given
        most = curriculum / whole["combined"]
        return Measured(most, 0.0, most)
    return Measured.exactly(curriculum / combined)


def _gain(result: MemoryModelResult) -> Measured | None:
    return None if result.gain is None else result.gain["combined"].measured


CLAIMS: tuple[Claim[MemoryModelResult], ...] = (
    Claim(
        name="causal-memories-are-poor",
        statement="A memory model trained on next tokens alone forms poor memories.",
        experiment=MemoryModelResult.name,
        quantity="token accuracy of a trained reader",
        threshold=0.4,
        at_least=False,
        measure=lambda result: Measured.of(result.probes["causal"], "token_accuracy"),
    ),
    Claim(
        name="combined-memories-are-rich",
        statement="Trained to regenerate as well, it forms nearly perfect ones.",
        experiment=MemoryModelResult.name,
        quantity="token accuracy of a trained reader",
        threshold=0.995,
        at_least=True,
        measure=lambda result: Measured.of(result.probes["combined"], "token_accuracy"),
    ),
    Claim(
        name="memories-help",
        statement="Memories of the past make next tokens cheaper.",
        experiment=MemoryModelResult.name,
        quantity="nats a token gained over no memory",
        threshold=0.0,
        at_least=True,
        measure=_gain,
    ),
    Claim(
        name="rich-memories-cost-no-prediction",
        statement="Regeneration does not cost next-token loss.",
        experiment=MemoryModelResult.name,
        quantity="next-token loss of combined above causal training, relative",
        threshold=0.02,
        at_least=False,
        measure=lambda result: result.gap["combined"].measured,
    ),
    Claim(
        name="curriculum-is-cheaper",
        statement="A frozen autoencoder's encoder with a curriculum makes rich memories for half the operations.",
        experiment=MemoryModelResult.name,
        quantity="operations to 99.5%, with the autoencoder's own, over combined training's",
        threshold=0.5,
        at_least=False,
        measure=_curriculum_cost,
    ),
)

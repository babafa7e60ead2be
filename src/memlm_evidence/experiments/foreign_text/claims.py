"""The claims that regenerating foreign text decides."""

from memlm_evidence.claims import Claim, Measured
from memlm_evidence.experiments.foreign_text.result import ForeignTextResult


def _random_tokens(result: ForeignTextResult) -> Measured:
    """Token accuracy on random tokens over that on held-out text."""
    text, noise = (result.row("masked_mixer", name) for name in ("held_out", "random_tokens"))
    return Measured(*(end / text.token_accuracy for end in Measured.of(noise, "token_accuracy")))


CLAIMS: tuple[Claim[ForeignTextResult], ...] = (
    Claim(
        name="attention-autoencoders-hold-more",
        statement="So does one of attention, though it is slower to learn: more than any language model's last state.",
        experiment=ForeignTextResult.name,
        quantity="token accuracy of its own decoder",
        threshold=0.15,
        at_least=True,
        measure=lambda result: Measured.of(result.row("attention", "held_out"), "token_accuracy"),
    ),
    Claim(
        name="memories-hold-foreign-text",
        statement="Memories hold text of a kind that was never trained on: a novel, after addresses.",
        experiment=ForeignTextResult.name,
        quantity="token accuracy of its own decoder",
        threshold=0.95,
        at_least=True,
        measure=lambda result: Measured.of(result.row("masked_mixer", "novel"), "token_accuracy"),
    ),
    Claim(
        name="memories-are-no-trivial-codes",
        statement="Memories lean on what text is like: uniformly random tokens, which a mere code would keep as well, "
        "they keep worse.",
        experiment=ForeignTextResult.name,
        quantity="share of random tokens given back, over the share of held-out text's",
        threshold=0.9,
        at_least=False,
        measure=_random_tokens,
    ),
)

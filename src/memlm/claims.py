"""The paper's claims, what decides each, and what results say of them. Made from result files alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal, NamedTuple

Verdict = Literal["holds", "fails", "undecided"]
Row = Mapping[str, Any]
"""A result, as `Result.to_dict` gives it."""


class Measured(NamedTuple):
    """A number, and the interval it lies in; of several seeds their mean, and an interval that holds all theirs."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement, and the number that decides it."""

    name: str
    statement: str
    experiment: str
    """The file of results that decides it, without its seed and ending."""
    quantity: str
    """What is measured."""
    threshold: float
    at_least: bool
    """Whether the claim asks for at least the threshold, or for at most."""
    measure: Callable[[Row], Measured]

    def is_measured(self, result: Row) -> bool:
        """Whether a result has the number."""
        try:
            self.measure(result)
        except (KeyError, StopIteration, ValueError):
            return False
        return True

    def measured(self, results: Sequence[Row]) -> Measured:
        """Over the results of all seeds."""
        found = [self.measure(result) for result in results]
        return Measured(
            fmean(each.value for each in found), min(each.low for each in found), max(each.high for each in found)
        )

    def verdict(self, measured: Measured) -> Verdict:
        """Holds or fails if the whole interval does, and is otherwise undecided."""
        low, high = measured.low, measured.high
        holds, fails = (low >= self.threshold, high < self.threshold)
        if not self.at_least:
            holds, fails = (high <= self.threshold, low > self.threshold)
        return "holds" if holds else "fails" if fails else "undecided"


class Decision(NamedTuple):
    """A claim, and what came of it."""

    claim: Claim
    measured: Measured
    verdict: Verdict
    num_seeds: int
    seconds: float | None
    """That the experiment took, over all seeds; None if nobody wrote it down."""

    def to_dict(self) -> dict[str, Any]:
        """As one JSON object."""
        return {
            "name": self.claim.name,
            "verdict": self.verdict,
            "value": self.measured.value,
            "interval": [self.measured.low, self.measured.high],
            "threshold": self.claim.threshold,
            "at_least": self.claim.at_least,
            "seconds": self.seconds,
            "num_seeds": self.num_seeds,
        }


def decide(results: Mapping[str, Sequence[Row]], claims: Sequence[Claim] | None = None) -> list[Decision]:
    """What results, by experiment and seed, say of every claim that they can decide.

    A result of an older or a smaller experiment, which has not measured what a claim asks for, does not decide it.
    """
    decisions = []
    for claim in CLAIMS if claims is None else claims:
        of_claim = [row for row in results.get(claim.experiment, ()) if claim.is_measured(row)]
        if of_claim:
            measured = claim.measured(of_claim)
            seconds = [row["seconds"] for row in of_claim if isinstance(row.get("seconds"), float | int)]
            took = sum(seconds) if len(seconds) == len(of_claim) else None
            decisions.append(Decision(claim, measured, claim.verdict(measured), len(of_claim), took))
    return decisions


# --- what is read of results -------------------------------------------------------------------------------------


def _point(value: float) -> Measured:
    return Measured(value, value, value)


def _given(row: Row, name: str) -> Measured:
    return Measured(row[name], *row["intervals"][name])


def _embedding(objective: str) -> Callable[[Row], Measured]:
    return lambda result: _given(next(row for row in result["rows"] if row["objective"] == objective), "token_accuracy")


def _slope(name: str) -> Callable[[Row], Measured]:
    return lambda result: _given(result, name)


def _probed(arm: str) -> Callable[[Row], Measured]:
    return lambda result: _given(result["probes"][arm], "token_accuracy")


def _paired(name: str, arm: str) -> Callable[[Row], Measured]:
    return lambda result: Measured(result[name][arm]["value"], *result[name][arm]["interval"])


def _curriculum_cost(result: Row) -> Measured:
    spent, whole = result["flops_to_rich"], result["train_flops"]
    if spent["curriculum"] is None:
        return _point(float("inf"))  # it never got there
    curriculum = spent["curriculum"] + whole["autoencoder"]
    if spent["combined"] is None:  # the other never did: more than all it was given
        most = curriculum / whole["combined"]
        return Measured(most, 0.0, most)
    return _point(curriculum / spent["combined"])


def _recall(result: Row) -> Measured:
    distances = [
        Measured(rate, *result["recall_intervals"]["combined"][far])
        for far, rate in result["recall"]["combined"].items()
    ]
    return min(distances)


def _longest_past(name: str) -> Callable[[Row], Measured]:
    return lambda result: _point(max(result["rows"], key=lambda row: row["context_tokens"])[name])


def _most_chunks(name: str) -> Callable[[Row], Measured]:
    return lambda result: _point(max(result["rows"], key=lambda row: row["window_chunks"])[name])


def _regenerated(mixer: str, text: str) -> Callable[[Row], Measured]:
    return lambda result: _given(_of_text(result, mixer, text), "token_accuracy")


def _random_tokens(result: Row) -> Measured:
    text, noise = (_of_text(result, "masked_mixer", name) for name in ("held_out", "random_tokens"))
    return Measured(*(found / text["token_accuracy"] for found in _given(noise, "token_accuracy")))


def _of_text(result: Row, mixer: str, text: str) -> Row:
    return next(row for row in result["rows"] if (row["mixer"], row["text"]) == (mixer, text))


def _chain(objective: str, name: str, part: str) -> Callable[[Row], Measured]:
    """A share of bits, of the longest texts of the first source."""

    def measure(result: Row) -> Measured:
        first = result["rows"][0]["source"]
        rows = [row for row in result["rows"] if (row["source"], row["objective"]) == (first, objective)]
        row = max(rows, key=lambda row: row["num_tokens"])
        parts = {
            "state": row["state_bits"],
            "rest": row["entropy_bits"] - row["state_bits"],
            "all": row["entropy_bits"],
        }
        return Measured(*(bits / parts[part] for bits in _given(row, name)))

    return measure


def _best_attack(result: Row) -> Measured:
    attacks = [attack for attack in result["attacks"] if attack["given"].startswith("one vector")]
    return _given(max(attacks, key=lambda attack: attack["token_accuracy"]), "token_accuracy")


CLAIMS = (
    Claim(
        name="causal-embeddings-hold-little",
        statement="The last state of a model trained on next tokens gives back few tokens of its text.",
        experiment="embeddings",
        quantity="token accuracy of a trained reader",
        threshold=0.15,
        at_least=False,
        measure=_embedding("causal"),
    ),
    Claim(
        name="regardless-of-compute",
        statement="Larger causal models do not hold more.",
        experiment="embeddings",
        quantity="retained fraction gained with ten times the parameters",
        threshold=0.05,
        at_least=False,
        measure=_slope("slope_compute"),
    ),
    Claim(
        name="regardless-of-data",
        statement="Causal models trained on more text do not hold more.",
        experiment="embeddings",
        quantity="retained fraction gained with ten times the tokens",
        threshold=0.05,
        at_least=False,
        measure=_slope("slope_data"),
    ),
    Claim(
        name="autoencoders-hold-nearly-all",
        statement="An autoencoder's one vector gives back nearly all of them, at equal tokens of training.",
        experiment="embeddings",
        quantity="token accuracy of a trained reader",
        threshold=0.98,
        at_least=True,
        measure=_embedding("autoencoder"),
    ),
    Claim(
        name="attention-autoencoders-hold-more",
        statement="So does one of attention, though it is slower to learn: more than any language model's last state.",
        experiment="foreign-text",
        quantity="token accuracy of its own decoder",
        threshold=0.15,
        at_least=True,
        measure=_regenerated("attention", "held_out"),
    ),
    Claim(
        name="memories-hold-foreign-text",
        statement="Memories hold text of a kind that was never trained on: a novel, after addresses.",
        experiment="foreign-text",
        quantity="token accuracy of its own decoder",
        threshold=0.95,
        at_least=True,
        measure=_regenerated("masked_mixer", "novel"),
    ),
    Claim(
        name="memories-are-no-trivial-codes",
        statement="Memories lean on what text is like: uniformly random tokens, which a mere code would keep as well, "
        "they keep worse.",
        experiment="foreign-text",
        quantity="share of random tokens given back, over the share of held-out text's",
        threshold=0.9,
        at_least=False,
        measure=_random_tokens,
    ),
    Claim(
        name="causal-memories-are-poor",
        statement="A memory model trained on next tokens alone forms poor memories.",
        experiment="memory-model",
        quantity="token accuracy of a trained reader",
        threshold=0.4,
        at_least=False,
        measure=_probed("causal"),
    ),
    Claim(
        name="combined-memories-are-rich",
        statement="Trained to regenerate as well, it forms nearly perfect ones.",
        experiment="memory-model",
        quantity="token accuracy of a trained reader",
        threshold=0.995,
        at_least=True,
        measure=_probed("combined"),
    ),
    Claim(
        name="memories-help",
        statement="Memories of the past make next tokens cheaper.",
        experiment="memory-model",
        quantity="nats a token gained over no memory",
        threshold=0.0,
        at_least=True,
        measure=_paired("gain", "combined"),
    ),
    Claim(
        name="rich-memories-cost-no-prediction",
        statement="Regeneration does not cost next-token loss.",
        experiment="memory-model",
        quantity="next-token loss of combined above causal training, relative",
        threshold=0.02,
        at_least=False,
        measure=_paired("gap", "combined"),
    ),
    Claim(
        name="curriculum-is-cheaper",
        statement="A frozen autoencoder's encoder with a curriculum makes rich memories for half the operations.",
        experiment="memory-model",
        quantity="operations to 99.5%, with the autoencoder's own, over combined training's",
        threshold=0.5,
        at_least=False,
        measure=_curriculum_cost,
    ),
    Claim(
        name="memories-can-be-used",
        statement="A decoder gives back exact strings from memories of any distance.",
        experiment="recall",
        quantity="exact answers at the worst distance",
        threshold=0.95,
        at_least=True,
        measure=_recall,
    ),
    Claim(
        name="memories-save-time",
        statement="A past as memories is read sooner than as tokens, encoding included.",
        experiment="substitution",
        quantity="seconds to the first token of the longest past, as tokens over as memories",
        threshold=3.0,
        at_least=True,
        measure=_longest_past("ttft_ratio_cold"),
    ),
    Claim(
        name="memories-save-compute",
        statement="They take fewer operations, encoding included.",
        experiment="substitution",
        quantity="operations to the first token of the longest past, as tokens over as memories",
        threshold=3.0,
        at_least=True,
        measure=_longest_past("flops_ratio_cold"),
    ),
    Claim(
        name="memories-save-cache",
        statement="They leave a smaller cache.",
        experiment="substitution",
        quantity="bytes of keys and values of the longest past, as tokens over as memories",
        threshold=10.0,
        at_least=True,
        measure=_longest_past("cache_bytes_ratio"),
    ),
    Claim(
        name="memory-models-are-parallel",
        statement="All chunks at once train faster than one after the other.",
        experiment="memory-training",
        quantity="seconds of a step of the recipe chunk by chunk, over ours",
        threshold=2.5,
        at_least=True,
        measure=lambda result: _point(result["combined_step_ratio"]),
    ),
    Claim(
        name="faster-than-recurrent-memory",
        statement="Memories of many chunks train faster than memory that is carried from chunk to chunk.",
        experiment="memory-training",
        quantity="seconds of a next-token step of recurrent memory over ours, most chunks",
        threshold=1.0,
        at_least=True,
        measure=_most_chunks("recurrent_step_ratio"),
    ),
    Claim(
        name="faster-than-encoder-decoders",
        statement="And faster than a decoder that attends to the states of all past tokens.",
        experiment="memory-training",
        quantity="seconds of a next-token step of an encoder-decoder over ours, most chunks",
        threshold=1.0,
        at_least=True,
        measure=_most_chunks("encoder_decoder_step_ratio"),
    ),
    Claim(
        name="prediction-keeps-the-state",
        statement="Causal training keeps what the future needs of a past whose every bit is counted.",
        experiment="non-invertible",
        quantity="share of the predictive state's bits",
        threshold=0.9,
        at_least=True,
        measure=_chain("causal", "retained_state_bits", "state"),
    ),
    Claim(
        name="prediction-is-not-invertible",
        statement="Causal training keeps little of everything else.",
        experiment="non-invertible",
        quantity="share of all other bits",
        threshold=0.2,
        at_least=False,
        measure=_chain("causal", "retained_rest_bits", "rest"),
    ),
    Claim(
        name="both-objectives-keep-all",
        statement="Trained to regenerate as well, nearly all of it is kept.",
        experiment="non-invertible",
        quantity="share of all bits",
        threshold=0.95,
        at_least=True,
        measure=_chain("combined", "retained_bits", "all"),
    ),
    Claim(
        name="no-attack-refutes-it",
        statement="No attack on one state of a causal model gives its text back.",
        experiment="settle-causal",
        quantity="token accuracy of the best attack on one vector",
        threshold=0.9,
        at_least=False,
        measure=_best_attack,
    ),
)
"""In the order of the argument."""

"""The numbers that decide claims, read from the results of their experiments."""

from collections.abc import Callable

from memlm_evidence.claims.claim import Measured, Row


def point(value: float) -> Measured:
    """A number without an interval."""
    return Measured(value, value, value)


def given(row: Row, name: str) -> Measured:
    """A number of a row, with the interval it has there."""
    return Measured(row[name], *row["intervals"][name])


def embedding(objective: str) -> Callable[[Row], Measured]:
    """Token accuracy of a reader of the embeddings of one objective."""
    return lambda result: given(next(row for row in result["rows"] if row["objective"] == objective), "token_accuracy")


def slope(name: str) -> Callable[[Row], Measured]:
    """A slope over causal models."""
    return lambda result: given(result, name)


def probed(arm: str) -> Callable[[Row], Measured]:
    """Token accuracy of a reader of an arm's memories."""
    return lambda result: given(result["probes"][arm], "token_accuracy")


def paired(name: str, arm: str) -> Callable[[Row], Measured]:
    """A paired difference of an arm."""
    return lambda result: Measured(result[name][arm]["value"], *result[name][arm]["interval"])


def curriculum_cost(result: Row) -> Measured:
    """Operations to rich memories by the curriculum, its autoencoder's included, over those of combined training."""
    spent, whole = result["flops_to_rich"], result["train_flops"]
    if spent["curriculum"] is None:
        return point(float("inf"))  # it never got there
    curriculum = spent["curriculum"] + whole["autoencoder"]
    if spent["combined"] is None:  # the other never did: more than all it was given
        most = curriculum / whole["combined"]
        return Measured(most, 0.0, most)
    return point(curriculum / spent["combined"])


def recall(result: Row) -> Measured:
    """Exact answers from combined memories, at the worst distance."""
    distances = [
        Measured(rate, *result["recall_intervals"]["combined"][far])
        for far, rate in result["recall"]["combined"].items()
    ]
    return min(distances)


def longest_past(name: str) -> Callable[[Row], Measured]:
    """A ratio at the longest past."""
    return lambda result: point(max(result["rows"], key=lambda row: row["context_tokens"])[name])


def most_chunks(name: str) -> Callable[[Row], Measured]:
    """A ratio at the most chunks of a window."""
    return lambda result: point(max(result["rows"], key=lambda row: row["window_chunks"])[name])


def regenerated(mixer: str, text: str) -> Callable[[Row], Measured]:
    """Token accuracy of an autoencoder's own decoder on a kind of text."""
    return lambda result: given(_of_text(result, mixer, text), "token_accuracy")


def random_tokens(result: Row) -> Measured:
    """Token accuracy on random tokens over that on held-out text."""
    text, noise = (_of_text(result, "masked_mixer", name) for name in ("held_out", "random_tokens"))
    return Measured(*(found / text["token_accuracy"] for found in given(noise, "token_accuracy")))


def _of_text(result: Row, mixer: str, text: str) -> Row:
    return next(row for row in result["rows"] if (row["mixer"], row["text"]) == (mixer, text))


def chain(objective: str, name: str, part: str) -> Callable[[Row], Measured]:
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
        return Measured(*(bits / parts[part] for bits in given(row, name)))

    return measure


def best_attack(result: Row) -> Measured:
    """Token accuracy of the best attack that is given one vector."""
    attacks = [attack for attack in result["attacks"] if attack["given"].startswith("one vector")]
    return given(max(attacks, key=lambda attack: attack["token_accuracy"]), "token_accuracy")

"""Ablations: named sweeps, each a question that the paper leaves open, small enough to be answered on two cores.

All autoencoders are the recipe's, 64 tokens in one vector of 256 dimensions, trained on full chunks from the start, so
that growth does not hide what is asked for. The weight of retention beside next tokens, the decoder's size and the ways
in which a memory enters it are swept by `memlm reproduce memory-model --full`; tokens per dimension by `memlm bench
density`.
"""

import math
from collections.abc import Callable, Mapping

from memlm.config import Recipe
from memlm.recipes.autoencoder import autoencoder
from memlm.recipes.memory_model import memory_model
from memlm.recipes.scale import Scale
from memlm_evidence.sweep.config import Axis, SweepConfig

Ablation = Callable[..., SweepConfig]
"""Tokens that each run is trained on (`num_tokens`) → sweep; its docstring is the command's help."""


def _autoencoder(num_tokens: int) -> Recipe:
    return autoencoder(Scale(chunk_len=64, memory_dim=256, num_tokens=num_tokens), grown_from=0)


def _ablation(
    name: str, varied: str, question: str, *axes: str | Axis, recipe: Callable[[int], Recipe] = _autoencoder
) -> Ablation:
    """What asks a question by varying fields, given as `Axis.parse` reads them or whole."""
    parsed = tuple(Axis.parse(axis) if isinstance(axis, str) else axis for axis in axes)

    def sweep(num_tokens: int = 500_000) -> SweepConfig:
        return SweepConfig(name=name, question=question, recipe=recipe(num_tokens), axes=parsed)

    cost = math.prod(len(axis.options) for axis in parsed)
    sweep.__doc__ = f"Ablation: {varied}.\n\nQuestion: {question} Cost: {cost} runs."
    return sweep


def _of_both(name: str, field: str, values: str) -> Axis:
    """A field of encoder and decoder, which moves together, under a name of its own."""
    return Axis(name=name, options=Axis.parse(f"model.encoder.{field},model.decoder.{field}={values}").options)


def _shapes(name: str, field: str, values: Mapping[int, int], between: str) -> Axis:
    """A field of the memory's shape and the dimensions that go with each of its values."""
    options = {
        f"{value} {between} {dim}": (f"model.shape.{field}={value}", f"model.shape.memory_dim={dim}")
        for value, dim in values.items()
    }
    return Axis(name=name, options=options)


def _optimizers() -> Axis:
    path = "stages.*.training.optimizer"
    rates = [("adamw", rate) for rate in (2e-4, 1e-3, 3e-3, 1e-2)] + [("muon", rate) for rate in (0.005, 0.02, 0.05)]
    options: dict[str, tuple[str, ...]] = {
        f"{kind} {rate:g}": (f"{path}={kind}", f"{path}.learning_rate={rate}") for kind, rate in rates
    }
    # What Muon leaves to AdamW has a rate of its own.
    options["muon 0.05, adamw 0.002"] = (*options["muon 0.05"], f"{path}.adamw.learning_rate=0.002")
    return Axis(name="optimizer", options=options)


_MIXERS = _of_both("mixer", "mixer", "attention,masked_mixer")
_TRAINED = "encoder_from=english"
ABLATIONS: Mapping[str, Ablation] = {
    "architecture": _ablation(
        "architecture",
        "token mixer, causal mask and pooling of an autoencoder, crossed",
        "Is it attention, the causal mask or the last token's state that keeps an autoencoder from regenerating?",
        _MIXERS,
        _of_both("causal mask", "causal", "true,false"),
        "model.pooling=last_token,mean,learned_query,positional",
    ),
    "unpooling": _ablation(
        "unpooling",
        "how an autoencoder's decoder reads a memory, by mixer",
        "What must a position be told of the memory?",
        "model.unpooling=repeat,sliding_window,learned_query,positional",
        _MIXERS,
    ),
    "optimizer": _ablation(
        "optimizer",
        "an autoencoder's optimizer and learning rate, the paper's AdamW at 2e-4 among them",
        "How much of the gain over the paper's recipe is the optimizer's?",
        _optimizers(),
    ),
    "width": _ablation(
        "width",
        "widths of an autoencoder's encoder and decoder, crossed",
        "Does fidelity need a wide encoder, or a wide decoder?",
        "model.encoder.dim=64,128,256",
        "model.decoder.dim=64,128,256",
    ),
    "depth": _ablation(
        "depth",
        "numbers of layers of an autoencoder's encoder and decoder, crossed",
        "Does fidelity need a deep encoder, or a deep decoder?",
        "model.encoder.num_layers=1,2,3",
        "model.decoder.num_layers=1,2,3",
    ),
    "slots": _ablation(
        "slots",
        "one memory vector per chunk, or several with the same total of dimensions, crossed with pooling",
        "Is one vector harder to read than several?",
        _shapes("slots × dimensions", "num_slots", {1: 256, 2: 128, 4: 64, 8: 32}, "×"),
        "model.pooling=positional,learned_query",
    ),
    "chunk-length": _ablation(
        "chunk length",
        "an autoencoder's chunk length at four dimensions per token, with equal tokens in all and per step",
        "Are longer chunks harder at the same density?",
        _shapes("tokens → dimensions", "chunk_len", {16: 64, 32: 128, 64: 256, 128: 512}, "→"),
    ),
    "noise": _ablation(
        "noise",
        "Gaussian noise on an autoencoder's memories in training",
        "What does a memory that bears noise cost in fidelity without it?",
        "model.memory_noise=0,0.03,0.1,0.3,1",
    ),
    "frozen": _ablation(
        "frozen",
        "a memory model's encoder (128 tokens in 512 dimensions): a new one, or that of `english`, frozen or not",
        "Do next tokens need an encoder that learns with them, and does one that learns keep what it knew?",
        Axis(
            name="encoder",
            options={
                "new": (),
                "trained, goes on": (_TRAINED,),
                "trained, frozen": (_TRAINED, 'stages.0.frozen=["encoder"]'),
            },
        ),
        recipe=lambda tokens: memory_model(chunk_len=128, memory_dim=512, vocab_size=2048, num_tokens=tokens),
    ),
}
"""Named sweeps, by the name they have on the command line."""

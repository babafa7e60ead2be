"""Ablations: named sweeps, each a question that the paper leaves open, small enough to be answered on two cores.

All autoencoders are the recipe's, 64 tokens in one vector of 256 dimensions, trained on full chunks from the start, so
that growth does not hide what is asked for. The weight of retention beside next tokens, the decoder's size and the ways
in which a memory enters it are swept by `memlm reproduce memory-model --full`; tokens per dimension by `memlm bench
density`.
"""

from collections.abc import Callable, Iterable, Mapping

from memlm.config import AutoencoderRecipe, Recipe
from memlm.recipes.autoencoder import autoencoder
from memlm.recipes.memory_model import memory_model
from memlm.recipes.scale import Scale
from memlm_evidence.sweep.config import Axis, SweepConfig

_BOTH = "model.encoder.{0},model.decoder.{0}"
_OPTIMIZER = "stages.*.training.optimizer"


def architecture(num_tokens: int = 500_000) -> SweepConfig:
    """Ablation: token mixer, causal mask and pooling of an autoencoder, crossed.

    Asks: is it attention, the causal mask or the last token's state that keeps the paper's autoencoders from
    regenerating? Cost: 16 runs.
    """
    question = "Is it attention, the causal mask or the last token's state that keeps an autoencoder from regenerating?"
    axes = (
        _named("mixer", "attention,masked_mixer", _BOTH.format("mixer")),
        _named("causal mask", "true,false", _BOTH.format("causal")),
        Axis.parse("model.pooling=last_token,mean,learned_query,positional"),
    )
    return _sweep("architecture", question, _autoencoder(num_tokens), axes)


def unpooling(num_tokens: int = 500_000) -> SweepConfig:
    """Ablation: how an autoencoder's decoder reads a memory, by mixer.

    Asks: what must a position be told of the memory? Cost: 8 runs.
    """
    axes = (
        Axis.parse("model.unpooling=repeat,sliding_window,learned_query,positional"),
        _named("mixer", "attention,masked_mixer", _BOTH.format("mixer")),
    )
    return _sweep("unpooling", "What must a position be told of the memory?", _autoencoder(num_tokens), axes)


def optimizer(num_tokens: int = 500_000) -> SweepConfig:
    """Ablation: an autoencoder's optimizer and learning rate, the paper's AdamW at 2e-4 among them.

    Asks: how much of the gain over the paper's recipe is the optimizer's? Cost: 8 runs.
    """
    settings = [("adamw", rate) for rate in (2e-4, 1e-3, 3e-3, 1e-2)] + [("muon", rate) for rate in (0.005, 0.02, 0.05)]
    options: dict[str, tuple[str, ...]] = {
        f"{kind} {rate:g}": (f"{_OPTIMIZER}={kind}", f"{_OPTIMIZER}.learning_rate={rate}") for kind, rate in settings
    }
    # What Muon leaves to AdamW has a rate of its own.
    options["muon 0.05, adamw 0.002"] = (*options["muon 0.05"], f"{_OPTIMIZER}.adamw.learning_rate=0.002")
    axes = (Axis(name="optimizer", options=options),)
    question = "How much of the gain over the paper's recipe is the optimizer's?"
    return _sweep("optimizer", question, _autoencoder(num_tokens), axes)


def width(num_tokens: int = 500_000) -> SweepConfig:
    """Ablation: width of an autoencoder's encoder and decoder, apart.

    Asks: does fidelity need a wide encoder, or a wide decoder? Cost: 9 runs.
    """
    axes = (Axis.parse("model.encoder.dim=64,128,256"), Axis.parse("model.decoder.dim=64,128,256"))
    question = "Does fidelity need a wide encoder, or a wide decoder?"
    return _sweep("width", question, _autoencoder(num_tokens), axes)


def depth(num_tokens: int = 500_000) -> SweepConfig:
    """Ablation: layers of an autoencoder's encoder and decoder, apart.

    Asks: does fidelity need a deep encoder, or a deep decoder? Cost: 9 runs.
    """
    axes = (Axis.parse("model.encoder.num_layers=1,2,3"), Axis.parse("model.decoder.num_layers=1,2,3"))
    question = "Does fidelity need a deep encoder, or a deep decoder?"
    return _sweep("depth", question, _autoencoder(num_tokens), axes)


def slots(num_tokens: int = 500_000) -> SweepConfig:
    """Ablation: one memory vector for a chunk, or several that have as many dimensions together, by pooling.

    Asks: is one vector harder to read than several? Cost: 8 runs.
    """
    options = {
        f"{number} × {256 // number}": (f"model.shape.num_slots={number}", f"model.shape.memory_dim={256 // number}")
        for number in (1, 2, 4, 8)
    }
    axes = (Axis(name="slots × dimensions", options=options), Axis.parse("model.pooling=positional,learned_query"))
    return _sweep("slots", "Is one vector harder to read than several?", _autoencoder(num_tokens), axes)


def chunk_length(num_tokens: int = 500_000) -> SweepConfig:
    """Ablation: an autoencoder's chunk length at four dimensions a token, at equal tokens and tokens a step.

    Asks: are longer chunks harder at the same density? Cost: 4 runs.
    """
    options = {
        f"{length} → {4 * length}": (f"model.shape.chunk_len={length}", f"model.shape.memory_dim={4 * length}")
        for length in (16, 32, 64, 128)
    }
    axes = (Axis(name="tokens → dimensions", options=options),)
    return _sweep("chunk length", "Are longer chunks harder at the same density?", _autoencoder(num_tokens), axes)


def noise(num_tokens: int = 500_000) -> SweepConfig:
    """Ablation: Gaussian noise on an autoencoder's memories in training.

    Asks: what does a memory that bears noise cost in fidelity without it? Cost: 5 runs.
    """
    axes = (Axis.parse("model.memory_noise=0,0.03,0.1,0.3,1"),)
    question = "What does a memory that bears noise cost in fidelity without it?"
    return _sweep("noise", question, _autoencoder(num_tokens), axes)


def frozen(num_tokens: int = 500_000) -> SweepConfig:
    """Ablation: a memory model whose encoder is new, or an autoencoder's (that of `english`), frozen or not.

    Asks: do next tokens need an encoder that learns with them, and does one that learns keep what it knew?
    Cost: 3 runs, of 128 tokens in 512 dimensions.
    """
    recipe = memory_model(chunk_len=128, memory_dim=512, vocab_size=2048, num_tokens=num_tokens)
    trained, still = "encoder_from=english", 'stages.0.frozen=["encoder"]'
    options = {"new": (), "trained, goes on": (trained,), "trained, frozen": (trained, still)}
    question = "Do next tokens need an encoder that learns with them, and does one that learns keep what it knew?"
    return _sweep("frozen", question, recipe, (Axis(name="encoder", options=options),))


ABLATIONS: Mapping[str, Callable[..., SweepConfig]] = {
    "architecture": architecture,
    "unpooling": unpooling,
    "optimizer": optimizer,
    "width": width,
    "depth": depth,
    "slots": slots,
    "chunk-length": chunk_length,
    "noise": noise,
    "frozen": frozen,
}
"""Named sweeps, by the name they have on the command line."""


def _autoencoder(num_tokens: int) -> AutoencoderRecipe:
    return autoencoder(Scale(chunk_len=64, memory_dim=256, num_tokens=num_tokens), grown_from=0)


def _named(name: str, values: str, fields: str) -> Axis:
    """Fields that move together, under a name of their own."""
    return Axis(name=name, options=Axis.parse(f"{fields}={values}").options)


def _sweep(name: str, question: str, recipe: Recipe, axes: Iterable[Axis]) -> SweepConfig:
    return SweepConfig(name=name, question=question, recipe=recipe, axes=tuple(axes))

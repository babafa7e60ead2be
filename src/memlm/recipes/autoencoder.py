"""Autoencoders: ours (positional projection, bidirectional masked mixers, Muon, growth), and the paper's to compare."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from memlm import config
from memlm.recipes.scale import DEFAULT_SCALE, Scale, muon_training
from memlm.runtime.files import boxed_folder

TUNED_FRACTION = 0.25
"""Share of the budget that is spent on chunks of full length."""
TUNED_LEARNING_RATE = 0.15
"""Of the grown model, in units of the short chunks': more undoes what it has grown from."""


def autoencoder(
    scale: Annotated[Scale, tyro.conf.arg(name="")] = DEFAULT_SCALE, *, grown_from: int = 16
) -> config.AutoencoderRecipe:
    """Our autoencoder: a chunk of text in one vector.

    Three quarters of the token budget go to short chunks, the rest to the model grown from them (`models.growth`).

    Claim: 64 tokens in 256 dimensions, held-out token accuracy ≥ 0.998 after 1 M tokens; half a minute on one core.

    Args:
        scale: Size, budget and seed.
        grown_from: Tokens per chunk at first; then the model grows. 0 trains on full chunks from the start.
    """
    if grown_from < 0:
        raise ValueError(f"grown_from must be a chunk length, or 0 for no growth, not {grown_from}")
    shape = config.MemoryShape(
        vocab_size=scale.vocab_size, chunk_len=scale.chunk_len, memory_dim=scale.memory_dim, end_token=True
    )
    stack = config.StackConfig(dim=scale.dim, mixer=config.MaskedMixer(num_heads=8))
    return config.Recipe(
        name=f"autoencoder {scale.chunk_len} → {scale.memory_dim}",
        data=config.DataConfig(tokenizer=config.BpeTokenizer(vocab_size=scale.vocab_size)),
        model=config.AutoencoderConfig(
            shape=shape,
            encoder=replace(stack, num_layers=scale.encoder_layers),
            pooling=config.Positional(token_dim=16),
            unpooling=config.Positional(token_dim=16),
            decoder=replace(stack, num_layers=scale.decoder_layers),
        ),
        stages=_stages(scale, grown_from),
    )


def _stages(scale: Scale, grown_from: int) -> tuple[config.Stage, ...]:
    full_batch = scale.batch_chunks * scale.chunk_len
    if not grown_from:
        return (_stage(scale.num_tokens, full_batch, scale.seed),)
    tuned = round(scale.num_tokens * TUNED_FRACTION)
    # Short chunks in small batches: steps are cheap there, and steps are what counts.
    short = _stage(scale.num_tokens - tuned, 2 * scale.batch_chunks * grown_from, scale.seed, chunk_len=grown_from)
    return short, _stage(tuned, full_batch, scale.seed, TUNED_LEARNING_RATE)


def _stage(
    num_tokens: int, batch_tokens: int, seed: int, rate: float = 1.0, chunk_len: int | None = None
) -> config.Stage:
    training = muon_training(
        num_tokens,
        batch_tokens,
        seed,
        rates=(0.05 * rate, 1e-2 * rate),
        warmup_tokens=10 * batch_tokens,
        short_fraction=0.3,
        eval_tokens=max(batch_tokens, num_tokens // 20),
        checkpoint_tokens=max(batch_tokens, num_tokens // 5),
    )
    return config.Stage(weights=config.Weights(retention=1.0), training=training, chunk_len=chunk_len)


def reference(
    scale: Annotated[Scale, tyro.conf.arg(name="")] = DEFAULT_SCALE,
    *,
    mixer: Literal["attention", "masked_mixer"] = "attention",
) -> config.AutoencoderRecipe:
    """The paper's autoencoder recipe at our scale, for comparison.

    Causal stacks, last-token memory, sliding-window unrolling, AdamW at 2e-4 with 500 steps of warm-up and linear
    decay. `mixer` is a Llama-style transformer, or the masked mixer, which is the paper's stronger autoencoder. Both
    also read learned positions, without which a causal transformer cannot tell apart the places of a repeated vector.
    These parts are not the paper's: layers that start silent, orthogonal mixers, norms without parameters, a memory of
    unit root mean square, batches of `batch_chunks`, and the size.

    Claim: under a fifth of the tokens come back, where ours gives back nearly all.
    """
    ours = autoencoder(scale, grown_from=0)
    blocks: dict[str, Any] = {"causal": True, "mixer": config.MaskedMixer(num_heads=4)}
    if mixer == "attention":
        # SwiGLU has three matrices where our MLP has two: 8/3 of the width keeps the parameters equal.
        blocks |= {"mixer": config.Attention(num_heads=4), "activation": "swiglu", "mlp_ratio": 8 / 3}
    batch_tokens = ours.stages[0].training.batch_tokens
    model = replace(
        ours.model,
        shape=replace(ours.model.shape, end_token=False),
        encoder=replace(ours.model.encoder, **blocks),
        decoder=replace(ours.model.decoder, **blocks),
        pooling=config.LastToken(),
        unpooling=config.SlidingWindow(),
    )
    return replace(ours, name=f"reference {mixer} {scale.chunk_len} → {scale.memory_dim}", model=model).with_training(
        optimizer=config.AdamW(learning_rate=2e-4),
        warmup_tokens=500 * batch_tokens,
        decay_fraction=1.0,
        short_fraction=0.02,
    )


def demo(seed: int = 0) -> config.AutoencoderRecipe:
    """What `memlm demo` trains: 64 tokens in one vector of 256 dimensions.

    Claim: held-out token accuracy ≥ 0.998, exact chunks ≥ 0.9. Cost: 3 M tokens, a minute or two.
    """
    return autoencoder(_demo_scale(seed))


def demo_reference(seed: int = 0) -> config.AutoencoderRecipe:
    """The paper's transformer autoencoder on the same data, budget and seed, to stand beside the demo."""
    return reference(_demo_scale(seed))


def _demo_scale(seed: int) -> Scale:
    return Scale(chunk_len=64, memory_dim=256, num_tokens=3_000_000, seed=seed)


def english(seed: int = 0) -> config.AutoencoderRecipe:
    """The model that ships with memlm: 128 tokens (350 to 460 bytes of English prose) in one vector of 512 dimensions.

    A quarter of the training chunks are everyday text (words, names, dates, amounts, addresses, code, other alphabets).
    A quarter are scrambled, so that memories hold rare strings too. Memories are trained with a little noise, so that
    they can be stored in few bits.

    Claim: exact at every length from 1 to 128 tokens, for text of every kind: 0.995 of English prose, words, names,
    dates, addresses, code, German, French and digits, 0.97 of other alphabets and emoji (`memlm bench everyday`).
    Cost: 40 M tokens, about an hour on one core.
    """
    scale = Scale(chunk_len=128, memory_dim=512, decoder_layers=3, vocab_size=2048, num_tokens=40_000_000, seed=seed)
    recipe = autoencoder(scale)
    data, model = replace(recipe.data, everyday_bytes=8_000_000), replace(recipe.model, memory_noise=0.03)
    recipe = replace(recipe, name="english", data=data, model=model)
    return recipe.with_training(everyday_fraction=0.25, scrambled_fraction=0.25, repeated_fraction=0.1)


def searchable(
    encoder_from: str = "english",
    teacher: str = "minilm",
    search_dim: int = 128,
    num_layers: int = 4,
    num_tokens: int = 400_000_000,
    batch_texts: int = 2048,
    seed: int = 0,
) -> config.AutoencoderRecipe:
    """An autoencoder whose memories also have search dimensions, which are close where texts mean the same.

    The search dimensions learn from a sentence encoder, the teacher. The dimensions that hold the text do not change.
    Half of the training texts are short, as queries are.

    Claim: passages are found as often as by the teacher, to a tenth (`memlm bench search`).
    Cost: 400 M tokens: half an hour of a shared H200, or 100 hours of a processor's core.

    Args:
        encoder_from: The autoencoder: one that ships with memlm, or a checkpoint folder. One that has search dimensions
            already, such as english-search, learns on, from its own teacher.
        teacher: The teacher, a sentence-transformers model: minilm, a folder, or a hub name.
        search_dim: Dimensions to add.
        num_layers: Layers of the network that makes these dimensions.
        num_tokens: Tokens to train on.
        batch_texts: Texts per optimizer step.
        seed: Random seed of the first weights and of the order of the data.
    """
    base = config_of(encoder_from)
    if base.search is None:
        search = config.SearchConfig(dim=search_dim, teacher=teacher)
        base = replace(base, search=replace(search, stack=replace(search.stack, num_layers=num_layers)))
    batch_tokens = batch_texts * base.shape.chunk_len
    training = muon_training(
        num_tokens, batch_tokens, seed, rates=(0.02, 5e-3), momentum=0.95, short_fraction=0.5, decay_fraction=0.7
    )
    return config.Recipe(
        name=f"searchable {encoder_from}",
        data=config.DataConfig(tokenizer=config.PretrainedTokenizer(name=encoder_from)),
        model=base,
        stages=(config.Stage(weights=config.Weights(likeness=1.0), training=training),),
        encoder_from=encoder_from,
    )


def finetuned(
    encoder_from: str = "english",
    learning_rate: float = 0.01,
    num_tokens: int = 4_000_000,
    batch_chunks: int = 32,
    seed: int = 0,
) -> config.AutoencoderRecipe:
    """A trained autoencoder that learns on, such as `english` from your own text. Its memories become others.

    Its sizes and its tokenizer stay. What it was taught for search is left out. With `--set 'model.context={}'` a model
    without a context also learns which tokens follow which, for smaller memory files.

    Claim: in 21 M tokens, memory files became 4 to 18% smaller (`english-compact`).
    Cost: an hour on one core for these; five minutes for four million tokens of `english`.

    Args:
        encoder_from: The autoencoder: one that ships with memlm, or a checkpoint folder.
        learning_rate: Of Muon; AdamW's is a fifth of it. More forgets more of what was learned.
        num_tokens: Tokens to train on.
        batch_chunks: Chunks per optimizer step.
        seed: Random seed of the order of the data.
    """
    if learning_rate <= 0 or batch_chunks < 1:
        raise ValueError(f"learning_rate and batch_chunks must be positive, not {learning_rate:g} and {batch_chunks}")
    base = replace(config_of(encoder_from), search=None)
    training = muon_training(
        num_tokens,
        batch_chunks * base.shape.chunk_len,
        seed,
        rates=(learning_rate, learning_rate / 5),
        short_fraction=0.3,
        everyday_fraction=0.15,
        decay_fraction=0.7,
    )
    return config.Recipe(
        name=f"finetuned {encoder_from}",
        data=config.DataConfig(tokenizer=config.PretrainedTokenizer(name=encoder_from), everyday_bytes=8_000_000),
        model=base,
        stages=(config.Stage(weights=config.Weights(retention=1.0), training=training),),
        encoder_from=encoder_from,
    )


def config_of(encoder: str) -> config.AutoencoderConfig:
    """What an autoencoder's checkpoint says about it.

    Raises:
        ValueError: there is none, or it is something else.
    """
    folder = Path(encoder) if Path(encoder).is_dir() else boxed_folder(encoder)
    if folder is None or not encoder:
        raise ValueError(f"no encoder {encoder!r} here: give a checkpoint folder, or a model that ships with memlm")
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"{folder} is no checkpoint: it has no config.json; of a training run, give its subfolder model"
        )
    try:
        return config.AutoencoderConfig.read(folder / "config.json")
    except ValueError as error:
        raise ValueError(
            f"{folder} is no autoencoder of memlm's: give the subfolder model of one's run, or english"
        ) from error


def density(
    chunk_len: int = 128, tokens_per_dim: float = 0.5, num_tokens: int = 4_000_000, seed: int = 0
) -> config.AutoencoderRecipe:
    """One row of the density table: `chunk_len` tokens in one vector, at a number of tokens per dimension.

    Claim: 128 tokens in 256 dimensions, held-out token accuracy ≥ 0.99 after 6 M tokens.
    Cost: three to four minutes on one core for four million tokens.

    Args:
        chunk_len: Tokens per chunk.
        tokens_per_dim: Tokens per dimension of the vector.
        num_tokens: Tokens to train on, over all stages.
        seed: Random seed of the first weights and of the order of the data.
    """
    if tokens_per_dim <= 0:
        raise ValueError(f"tokens_per_dim must be positive, not {tokens_per_dim}")
    memory_dim = round(chunk_len / tokens_per_dim)
    scale = Scale(chunk_len=chunk_len, memory_dim=memory_dim, decoder_layers=3, num_tokens=num_tokens, seed=seed)
    return autoencoder(scale)

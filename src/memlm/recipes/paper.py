"""The paper's sizes, as complete configurations: for several GPUs, by torchrun."""

from dataclasses import replace
from typing import Literal

from memlm import config
from memlm.recipes.autoencoder import reference
from memlm.recipes.memory_model import memory_model
from memlm.recipes.reader import arms, reader
from memlm.recipes.scale import Scale

Corpus = Literal["fineweb-edu", "finemath"]
Mixer = Literal["attention", "masked_mixer"]

VOCAB_SIZE = 8000
BATCH_TOKENS = 2**16
NUM_TOKENS = 200_000 * BATCH_TOKENS
"""200,000 steps: 13.1 billion."""


def paper_autoencoder(
    mixer: Mixer = "masked_mixer",
    corpus: Corpus = "fineweb-edu",
    dim: int = 1024,
    num_layers: int = 16,
    num_tokens: int = NUM_TOKENS,
    seed: int = 0,
) -> config.AutoencoderRecipe:
    """The paper's autoencoder at the paper's size: 512 tokens in one vector of `dim` (512 to 1024) dimensions.

    It is built as `reference`, with `num_layers` layers in the encoder and as many in the decoder.

    Claim (paper, §3): token accuracy 0.77 with masked mixers, 0.39 with attention. Cost: `memlm bench paper`.
    """
    scale = Scale(
        chunk_len=512,
        memory_dim=dim,
        dim=dim,
        encoder_layers=num_layers,
        decoder_layers=num_layers,
        vocab_size=VOCAB_SIZE,
        num_tokens=num_tokens,
        batch_chunks=BATCH_TOKENS // 512,
        seed=seed,
    )
    recipe = replace(reference(scale, mixer=mixer), name=f"paper's autoencoder, {mixer}", data=_data(corpus))
    # The reference's optimizer and schedule, sharded, watched and saved every few thousand steps.
    return recipe.with_training(
        short_fraction=0.0,
        num_micro_batches=4,
        precision="bf16",
        sharded=True,
        eval_tokens=4000 * BATCH_TOKENS,
        checkpoint_tokens=8000 * BATCH_TOKENS,
    )


def paper_causal(
    mixer: Mixer = "attention",
    corpus: Corpus = "fineweb-edu",
    dim: int = 1024,
    num_layers: int = 16,
    num_tokens: int = NUM_TOKENS,
    seed: int = 0,
) -> config.LanguageModelRecipe:
    """The paper's causal language model at the paper's size, with the same blocks as its autoencoder's encoder.

    Claim (paper, §3): its last token's state gives back 0.05 of 512 tokens. Cost: `memlm bench paper`.
    """
    same = paper_autoencoder(mixer, corpus, dim, num_layers, num_tokens, seed)
    return config.Recipe(
        name=f"paper's causal model, {mixer}",
        data=same.data,
        model=config.LanguageModelConfig(vocab_size=VOCAB_SIZE, chunk_len=512, stack=same.model.encoder),
        stages=tuple(replace(stage, weights=config.Weights(causal=1.0)) for stage in same.stages),
    )


def paper_memory_model(
    mixer: Mixer = "masked_mixer",
    corpus: Corpus = "fineweb-edu",
    encoder_dim: int = 512,
    dim: int = 1024,
    num_layers: int = 16,
    retention: float = 1.0,
    num_tokens: int = NUM_TOKENS,
    encoder_from: str | None = None,
    reading_fraction: float = 0.0,
    seed: int = 0,
) -> config.MemoryModelRecipe:
    """The paper's memory model at the paper's size: windows of 4 chunks of 256 tokens, a vector of `encoder_dim` each.

    The encoder is that of the autoencoder, with `mixer`. The decoder is a Llama of width `dim`, which reads a memory in
    one position before the text. With `encoder_from` the encoder is frozen. The paper's curriculum is
    `reading_fraction` 0.5. `retention` 0 is causal training alone.

    Claim (paper, §4): combined training gives memories that can be copied (0.947 of tokens), causal training does not.
    Cost: `memlm bench paper`.
    """
    encoder = paper_autoencoder(mixer, corpus, encoder_dim, num_layers)
    recipe = memory_model(
        chunk_len=256,
        memory_dim=encoder_dim,
        window_chunks=4,
        insertion="prefix",
        num_positions=1,
        overlap=0,
        dim=dim,
        num_layers=num_layers,
        vocab_size=VOCAB_SIZE,
        retention=retention,
        num_tokens=num_tokens,
        encoder_from=encoder_from,
        reading_fraction=reading_fraction,
        seed=seed,
    )
    training = replace(encoder.stages[0].training, seed=seed)
    stages = tuple(
        replace(stage, training=replace(training, num_tokens=stage.training.num_tokens)) for stage in recipe.stages
    )
    return replace(
        recipe,
        name=f"paper's memory model, {mixer}",
        data=encoder.data,
        model=replace(recipe.model, encoder=encoder.model.encoder, pooling=config.LastToken()),
        stages=stages,
    )


def paper_reader(
    model: str = "smollm2",
    encoder: str = "english",
    lora_rank: int = 16,
    num_tokens: int = 256_000,
    batch_rows: int = 4,
    seed: int = 0,
) -> config.MemoryReaderRecipe:
    """The paper's way to let a pretrained language model read memories, on the budget of `reader`.

    The encoder is frozen (`english`: 512 dimensions). One linear map turns each of 4 vectors into one position of the
    language model's width. It first learns to copy chunks, then also to predict next tokens. Without LoRA (rank 0) only
    the map is trained. As in `reader`, the last tokens of the past are also read as tokens.

    Claim: none; the paper shows no results for it. It is here for comparison with `reader`.
    """
    ours = reader(model, encoder, lora_rank=lora_rank, num_tokens=num_tokens, batch_rows=batch_rows, seed=seed)
    return arms(ours)["paper"]


def _data(corpus: Corpus) -> config.DataConfig:
    names = {
        "fineweb-edu": ("HuggingFaceFW/fineweb-edu", "sample-10BT"),
        "finemath": ("HuggingFaceTB/finemath", "finemath-4plus"),
    }
    name, subset = names[corpus]
    return config.DataConfig(
        corpus=config.HubCorpus(name=name, subset=subset, max_bytes=60_000_000_000),
        tokenizer=config.BpeTokenizer(vocab_size=VOCAB_SIZE, train_bytes=1_000_000_000),
        # Of ten million documents, thousands are enough to measure on.
        validation_fraction=5e-4,
        test_fraction=1e-3,
    )

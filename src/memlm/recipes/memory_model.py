"""Memory models: past text as one vector a chunk."""

from dataclasses import replace
from typing import Literal

from memlm import config
from memlm.recipes.scale import muon_training


def memory_model(
    chunk_len: int = 32,
    memory_dim: int = 256,
    window_chunks: int = 4,
    insertion: Literal["prefix", "unpooled", "cross_attention"] = "unpooled",
    num_positions: int = 4,
    overlap: int = 4,
    pointer_span: int = 0,
    dim: int = 128,
    num_layers: int = 3,
    vocab_size: int = 1024,
    retention: float = 1.0,
    num_tokens: int = 2_000_000,
    encoder_from: str | None = None,
    reading_fraction: float = 0.0,
    recall_fraction: float = 0.0,
    seed: int = 0,
) -> config.MemoryModelRecipe:
    """A causal decoder that reads one vector for each past chunk, trained on the combined objective.

    Claim (paper, §4): memories of combined training give back nearly all of their text, at the same next-token loss.
    Cost: one million tokens, two and a half minutes on two cores.

    Args:
        chunk_len: Tokens per chunk.
        memory_dim: Dimensions of the one vector that holds a chunk.
        window_chunks: Consecutive chunks of a document that are trained on together; the last sees all before it.
        insertion: How the decoder reads a memory: as positions before the text, or by attention in every layer.
        num_positions: Decoder positions, or keys of attention, that a memory takes.
        overlap: The decoder also reads this many tokens from the end of the chunk before, regenerated from its memory.
        pointer_span: Tokens per key of the pointer, which finds and copies regenerated text; 0 for no pointer.
        dim: Width of the decoder.
        num_layers: Layers of the decoder.
        vocab_size: Token types of the byte-level BPE.
        retention: Weight of regenerating each chunk from its memory; 0 is causal training alone: memories stay poor.
        num_tokens: Tokens to train on, over all stages.
        encoder_from: Use the encoder of this trained model, frozen.
        reading_fraction: Share of the tokens on which it first learns only to read memories: the paper's curriculum.
        recall_fraction: Share of windows with facts and a question about one of them, as in `memlm bench recall`.
    """
    # Small batches: steps are what counts. But attention that finds a fact by its key is not learned from small ones.
    batch_tokens = (32 if recall_fraction else 8) * window_chunks * chunk_len
    return config.Recipe(
        name=f"memory model {chunk_len} → {memory_dim}",
        data=config.DataConfig(tokenizer=config.BpeTokenizer(vocab_size=vocab_size)),
        model=config.MemoryModelConfig(
            shape=config.MemoryShape(vocab_size=vocab_size, chunk_len=chunk_len, memory_dim=memory_dim, end_token=True),
            encoder=config.StackConfig(num_layers=1, mixer=config.MaskedMixer(num_heads=8)),
            pooling=config.Positional(token_dim=16),
            insertion=_insertion(insertion, num_positions),
            decoder=config.DecoderConfig(dim=dim, num_layers=num_layers),
            max_memories=window_chunks - 1,
            # Without retention nobody learns to give tokens back.
            overlap=overlap if retention else 0,
            pointer_span=pointer_span,
        ),
        stages=_stages(reading_fraction, retention, num_tokens, batch_tokens, seed, frozen=encoder_from is not None),
        windows=config.WindowConfig(num_chunks=window_chunks, recall_fraction=recall_fraction),
        encoder_from=encoder_from,
    )


def _insertion(kind: str, num_positions: int) -> config.Insertion:
    insertions: dict[str, config.Insertion] = {
        "prefix": config.Prefix(num_positions=num_positions),
        "unpooled": config.Unpooled(num_positions=num_positions),
        "cross_attention": config.CrossAttention(num_parts=num_positions),
    }
    return insertions[kind]


def _stages(
    reading_fraction: float, retention: float, num_tokens: int, batch_tokens: int, seed: int, *, frozen: bool
) -> tuple[config.Stage, ...]:
    """The curriculum: reading memories alone, if it is asked for, then next tokens as well."""
    if not 0 <= reading_fraction < 1:
        raise ValueError(f"reading_fraction must lie in [0, 1), not {reading_fraction}")
    reading = round(reading_fraction * num_tokens)
    parts = [(config.Weights(retention=1.0), reading)] if reading else []
    parts.append((config.Weights(causal=1.0, retention=retention), num_tokens - reading))
    return tuple(_stage(*part, batch_tokens, seed, frozen=frozen) for part in parts)


def _stage(weights: config.Weights, num_tokens: int, batch_tokens: int, seed: int, *, frozen: bool) -> config.Stage:
    training = muon_training(num_tokens, batch_tokens, seed, rates=(0.05, 1e-2), short_fraction=0.0)
    return config.Stage(weights=weights, training=training, frozen=("encoder",) if frozen else ())


def without_memory(recipe: config.MemoryModelRecipe, *, full_context: bool = False) -> config.MemoryModelRecipe:
    """The same decoder without memories, trained on the same tokens: blind to the past, or, with `full_context`,
    reading whole windows as tokens."""
    shape, windows = recipe.model.shape, recipe.windows
    longer = windows.num_chunks if full_context else 1
    model = replace(
        recipe.model, shape=replace(shape, chunk_len=shape.chunk_len * longer), encoder=None, pointer_span=0
    )
    placed = windows.recall_chunk_len or shape.chunk_len
    return replace(
        recipe.with_stages(weights=config.Weights(causal=1.0), frozen=()),
        name=f"{'full context' if full_context else 'no memory'} of {recipe.name}",
        model=model,
        windows=replace(windows, num_chunks=windows.num_chunks // longer, recall_chunk_len=placed),
        encoder_from=None,
    )


def oracle(recipe: config.MemoryModelRecipe) -> config.MemoryModelRecipe:
    """The same model, which predicts each chunk from the memory of that very chunk: more than any past can tell."""
    model = replace(recipe.model, overlap=0, pointer_span=0)
    return replace(recipe.with_stages(weights=config.Weights(copy=1.0)), name=f"oracle of {recipe.name}", model=model)


def encoder_decoder(recipe: config.MemoryModelRecipe) -> config.MemoryModelRecipe:
    """A standard encoder-decoder with the same encoder and a decoder of the same size: every layer attends to the
    states of all past tokens, and nothing is pooled."""
    shape, decoder = recipe.model.shape, recipe.model.decoder
    if not isinstance(decoder, config.DecoderConfig):
        raise ValueError(f"an encoder-decoder's decoder is trained from scratch, not {decoder.kind}")
    model = replace(
        recipe.model,
        shape=replace(shape, memory_dim=decoder.dim, num_slots=shape.chunk_len),
        pooling=config.Aligned(),
        insertion=config.CrossAttention(num_parts=None),
        overlap=0,
        pointer_span=0,
    )
    causal = recipe.with_stages(weights=config.Weights(causal=1.0))
    return replace(causal, name=f"encoder-decoder of {recipe.name}", model=model)

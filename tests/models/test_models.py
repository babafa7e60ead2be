from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from memlm.config import (
    Attention,
    AutoencoderConfig,
    LastToken,
    LearnedQuery,
    MaskedMixer,
    Mean,
    MemoryShape,
    Positional,
    RecurrentMixer,
    Repeat,
    SlidingWindow,
    StackConfig,
)
from memlm.models.autoencoder import Autoencoder, Encoder
from tiny import randomized, tiny_model

SHAPE = MemoryShape(vocab_size=300, chunk_len=16, memory_dim=32, num_slots=2)
QUERY = LearnedQuery(num_heads=2, num_parts=4)
RECURRENT = StackConfig(dim=32, num_layers=1, mixer=RecurrentMixer(num_heads=2), causal=True)

configs = st.builds(
    AutoencoderConfig,
    shape=st.just(SHAPE),
    encoder=st.one_of(
        st.just(RECURRENT),
        st.builds(
            StackConfig,
            dim=st.just(32),
            num_layers=st.just(1),
            mixer=st.sampled_from([Attention(num_heads=2), MaskedMixer(num_heads=2)]),
            causal=st.booleans(),
            activation=st.sampled_from(["relu_squared", "swiglu"]),
        ),
    ),
    decoder=st.sampled_from([StackConfig(dim=16, num_layers=1, mixer=Attention(num_heads=2)), RECURRENT]),
    pooling=st.sampled_from([LastToken(), Mean(), Positional(token_dim=4), QUERY]),
    unpooling=st.sampled_from([Repeat(), SlidingWindow(), Positional(token_dim=4), QUERY]),
)


def chunks(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Four chunks, one of them whole."""
    tokens = torch.randint(300, (4, 16), generator=torch.Generator().manual_seed(seed))
    return tokens, torch.arange(16) < torch.tensor([16, 1, 7, 15])[:, None]


@settings(max_examples=30, deadline=None)
@given(configs)
def test_any_autoencoder_has_unit_memories_that_know_no_padding(cfg: AutoencoderConfig) -> None:
    model = randomized(Autoencoder(cfg))
    tokens, mask = chunks()
    output = model(tokens, mask)
    assert output.logits.shape == (4, 16, 300)
    assert output.memory.shape == (4, 2, 32)
    torch.testing.assert_close(output.memory.square().mean(dim=-1), torch.ones(4, 2), rtol=1e-4, atol=1e-4)
    other = torch.where(mask, tokens, chunks(seed=1)[0])
    torch.testing.assert_close(model(other, mask).memory, output.memory, rtol=1e-4, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(configs)
def test_the_decoder_sees_nothing_but_the_memory(cfg: AutoencoderConfig) -> None:
    model = randomized(Autoencoder(cfg)).eval()
    tokens, mask = chunks()
    logits, memory, _ = model(tokens, mask)
    torch.testing.assert_close(model.decoder(memory), logits)
    (gradient,) = torch.autograd.grad(logits[0].sum(), memory)
    assert torch.all(gradient[1:] == 0)  # of its own chunk


def test_chunks_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="chunks of 16 tokens, not 9"):
        Autoencoder(tiny_model())(torch.zeros(1, 9, dtype=torch.long), torch.ones(1, 9, dtype=torch.bool))


def test_memory_noise_is_on_what_the_decoder_reads_in_training_only() -> None:
    model = randomized(Autoencoder(tiny_model(memory_noise=0.5)))
    batch = chunks()
    first, second = model.train()(*batch), model(*batch)
    torch.testing.assert_close(first.memory, second.memory)
    assert not torch.allclose(first.logits, second.logits)
    model.eval()
    torch.testing.assert_close(model(*batch).logits, model(*batch).logits)


def test_an_encoder_is_the_same_alone_and_inside_an_autoencoder() -> None:
    cfg = tiny_model()
    model, encoder = randomized(Autoencoder(cfg)), Encoder(cfg.shape, cfg.encoder, cfg.pooling)
    encoder.load_state_dict(model.encoder.state_dict())
    torch.testing.assert_close(encoder(*chunks()), model(*chunks()).memory)


# --- what a checkpoint holds: a change here is a change of the format ---


def shapes(cfg: AutoencoderConfig) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in Autoencoder(cfg).state_dict().items()}


def stack_shapes(name: str, mixer: dict[str, tuple[int, ...]], up: int, down: int) -> dict[str, tuple[int, ...]]:
    block = {f"mixer.{part}": shape for part, shape in mixer.items()}
    block |= {"mlp.up.weight": (up, 32), "mlp.down.weight": (32, down)}
    return {f"{name}.stack.blocks.0.{part}": shape for part, shape in block.items()}


def test_the_tensors_of_ours() -> None:
    mixer = {"inward.weight": (32, 32), "outward.weight": (32, 32), "weight.0": (16, 16), "weight.1": (16, 16)}
    assert shapes(tiny_model()) == {
        "encoder.embed.weight": (301, 32),
        "encoder.positions": (16, 32),
        **stack_shapes("encoder", mixer, 64, 64),
        "encoder.pooling.narrow.weight": (8, 32),
        "encoder.pooling.gather.weight": (32, 16 * 8),
        "decoder.unpooling.scatter.weight": (16 * 8, 32),
        "decoder.unpooling.widen.weight": (32, 8),
        "decoder.positions": (16, 32),
        **stack_shapes("decoder", mixer, 64, 64),
        "decoder.head.weight": (301, 32),
    }


def test_the_tensors_of_the_paper() -> None:
    stack = StackConfig(dim=32, num_layers=1, mixer=Attention(num_heads=2), activation="swiglu", mlp_ratio=8 / 3)
    stack = replace(stack, causal=True)
    cfg = tiny_model(encoder=stack, decoder=stack, pooling=LastToken(), unpooling=SlidingWindow())
    mixer = {"inward.weight": (96, 32), "outward.weight": (32, 32)}
    assert shapes(cfg) == {
        "encoder.embed.weight": (301, 32),
        "encoder.positions": (16, 32),
        **stack_shapes("encoder", mixer, 170, 85),
        "encoder.pooling.project.weight": (32, 32),
        "decoder.unpooling.project.weight": (32, 16),
        "decoder.positions": (16, 32),
        **stack_shapes("decoder", mixer, 170, 85),
        "decoder.head.weight": (301, 32),
    }


def test_parameter_counts() -> None:
    def count(cfg: AutoencoderConfig) -> int:
        return sum(parameter.numel() for parameter in Autoencoder(cfg).parameters())

    embeddings_and_head, positions = 2 * 301 * 32, 2 * 16 * 32
    mlp, pool = 2 * 32 * 64, 8 * 32 + 32 * 128
    assert count(tiny_model()) == embeddings_and_head + positions + 2 * (2 * 32 * 32 + 2 * 16 * 16 + mlp + pool)
    attention = replace(tiny_model().encoder, mixer=Attention(num_heads=2))
    other = tiny_model(encoder=attention, decoder=attention, pooling=LastToken(), unpooling=Repeat())
    assert count(other) == embeddings_and_head + positions + 2 * (4 * 32 * 32 + mlp + 32 * 32)

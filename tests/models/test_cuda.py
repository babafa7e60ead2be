"""On a GPU everything is what it is on the CPU, up to rounding."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from memlm import TextAutoencoder
from memlm.config import (
    AdamW,
    Attention,
    ContextConfig,
    CrossAttention,
    DecoderConfig,
    Insertion,
    MemoryModelConfig,
    Muon,
    Prefix,
    Unpooled,
    Weights,
)
from memlm.models.autoencoder import Autoencoder
from memlm.models.batch import Batch
from memlm.models.exact import ExactDecoder
from memlm.models.generation import generate
from memlm.models.memory_model import MemoryModel
from memlm.training.objectives import RETENTION, Objective, combined
from memlm.training.optimizers import build_optimizers
from tiny import randomized, tiny_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
TEXTS = ["the memory holds one long text ünd 漢字", "two words", "", "vector " * 30]
CLOSE = {"rtol": 1e-3, "atol": 1e-3}
insertions = pytest.mark.parametrize(
    "insertion",
    [Prefix(num_positions=2), Unpooled(num_positions=2, token_dim=8), CrossAttention(num_parts=2)],
    ids=lambda each: each.kind,
)


@pytest.fixture(autouse=True)
def exact_products() -> None:
    """No TF32, which rounds more than the CPU does."""
    torch.backends.cuda.matmul.allow_tf32 = False


def memory_model(insertion: Insertion) -> MemoryModel:
    cfg = tiny_model()
    return randomized(
        MemoryModel(
            MemoryModelConfig(
                shape=cfg.shape,
                encoder=cfg.encoder,
                pooling=cfg.pooling,
                insertion=insertion,
                decoder=DecoderConfig(dim=32, num_layers=1, num_heads=2),
                max_memories=2,
                pointer_span=2,
            )
        )
    ).eval()


def tokens(*shape: int) -> Tensor:
    return torch.randint(300, shape, generator=torch.Generator().manual_seed(0))


def test_texts_are_encoded_and_regenerated_as_on_the_cpu(trained: TextAutoencoder) -> None:
    other = copy.deepcopy(trained).to("cuda")
    here, there = trained.to("cpu").encode(TEXTS, verify=True), other.encode(TEXTS, verify=True)
    torch.testing.assert_close(there.vectors, here.vectors, **CLOSE)
    assert torch.equal(here.exact, there.exact)
    assert other.encoder_fingerprint == trained.encoder_fingerprint
    for proven, text, again in zip(TEXTS, trained.regenerate(here), other.regenerate(there), strict=True):
        assert again == text
        assert again.proven == text.proven == (text == proven)
    assert other.regenerate(here) == trained.regenerate(there), "each reads the other's memories"


def gradients(model: torch.nn.Module, objective: Objective, batch: Batch, device: str) -> dict[str, Tensor]:
    model = copy.deepcopy(model).to(device)
    objective.nats(model, batch.rows(slice(None), device)).sum().backward()
    return {name: each.grad.cpu() for name, each in model.named_parameters() if each.grad is not None}


@pytest.mark.parametrize("mixer", [None, Attention(num_heads=2)], ids=["masked mixer", "attention"])
def test_an_autoencoders_gradients_and_step_are_the_cpus(mixer: Attention | None) -> None:
    cfg = tiny_model()
    if mixer:
        cfg = replace(cfg, encoder=replace(cfg.encoder, mixer=mixer), decoder=replace(cfg.decoder, mixer=mixer))
    model, batch = randomized(Autoencoder(cfg)), Batch(tokens(6, 16), torch.ones(6, 16, dtype=torch.bool))
    here, there = (gradients(model, RETENTION, batch, device) for device in ("cpu", "cuda"))
    assert here.keys() == there.keys()
    for name, gradient in here.items():
        torch.testing.assert_close(there[name], gradient, rtol=1e-2, atol=1e-2 * float(gradient.abs().max()))
    model = model.cuda()
    optimizers = build_optimizers(model, Muon(learning_rate=0.05, adamw=AdamW(learning_rate=1e-2)))
    batch = batch.rows(slice(None), "cuda")
    before = RETENTION.nats(model, batch)
    for _ in range(3):
        RETENTION.nats(model, batch).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert RETENTION.nats(model, batch) < before


@insertions
def test_a_memory_model_predicts_and_learns_as_on_the_cpu(insertion: Insertion) -> None:
    model, batch = memory_model(insertion), Batch(tokens(2, 3, 16), torch.ones(2, 3, 16, dtype=torch.bool))
    objective = combined(Weights(causal=1.0, retention=1.0))
    nats = [
        objective.nats(copy.deepcopy(model).to(device), batch.rows(slice(None), device)) for device in ("cpu", "cuda")
    ]
    torch.testing.assert_close(nats[1].cpu(), nats[0], **CLOSE)
    here, there = (gradients(model, objective, batch, device) for device in ("cpu", "cuda"))
    for name, gradient in here.items():
        torch.testing.assert_close(there[name], gradient, rtol=1e-2, atol=1e-2 * float(gradient.abs().max()))


@insertions
def test_a_memory_model_writes_what_it_writes_on_the_cpu(insertion: Insertion) -> None:
    model = memory_model(insertion)
    here, there = (
        generate(copy.deepcopy(model).to(device), tokens(20), max_new_tokens=20, do_sample=False)
        for device in ("cpu", "cuda")
    )
    assert there.device.type == "cpu"
    assert here.tolist() == there.tolist()


def test_the_exact_decoder_gives_the_same_bits() -> None:
    model = randomized(Autoencoder(tiny_model(context=ContextConfig(num_tokens=3, dim=16, inner=24))))
    memory, before = torch.randn(4, 1, 32), torch.randint(300, (4 * 16, 3))

    def found(device: str) -> Tensor:
        exactly = ExactDecoder(copy.deepcopy(model).to(device), in_context=True)
        states = exactly.states(memory).flatten(0, 1)
        return exactly.ranked(states, before.to(device)).ends(torch.arange(len(states))).cpu()

    assert torch.equal(found("cpu"), found("cuda"))

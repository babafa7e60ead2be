"""Growth: an autoencoder of short chunks → one of longer chunks, which starts as copies of it side by side."""

from dataclasses import replace

import torch
from torch import Tensor

from memlm import config
from memlm.models.autoencoder import Autoencoder


def check_growable(cfg: config.AutoencoderConfig) -> None:
    """Raise ValueError for a model with parts that have no block-diagonal form."""
    parts = (cfg.pooling, cfg.unpooling, cfg.encoder.mixer, cfg.decoder.mixer)
    wanted = (config.Positional, config.Positional, config.MaskedMixer, config.MaskedMixer)
    for part, kind in zip(parts, wanted, strict=True):
        if not isinstance(part, kind):
            raise ValueError(f"growth needs positional pooling and masked mixers; {part.kind} cannot be grown")
    if cfg.shape.num_slots != 1 or cfg.encoder.causal or cfg.decoder.causal:
        raise ValueError("growth needs num_slots 1 and mixers that are not causal")


def shrunk(cfg: config.AutoencoderConfig, chunk_len: int) -> config.AutoencoderConfig:
    """The same model for shorter chunks, with as many tokens per dimension.

    Raises:
        ValueError: `chunk_len` does not divide the model's, or leaves a fraction of a dimension.
    """
    check_growable(cfg)
    shape = cfg.shape
    factor, rest = divmod(shape.chunk_len, chunk_len)
    if rest or shape.memory_dim % factor:
        raise ValueError(
            f"chunks of {chunk_len} tokens cannot grow into {shape.chunk_len} tokens in {shape.memory_dim} dimensions: "
            "both must be multiples of what they grow from (or let nothing grow: grown_from=0)"
        )
    return replace(cfg, shape=replace(shape, chunk_len=chunk_len, memory_dim=shape.memory_dim // factor))


def grow(model: Autoencoder, cfg: config.AutoencoderConfig) -> Autoencoder:
    """A model of configuration `cfg` that starts as several copies of `model` side by side, one per part of its chunk.

    Mixers, pooling and unpooling become block-diagonal and positions are repeated, so that the grown memory is the
    parts' memories, concatenated (up to the norm, which is now over the whole vector). Training then lets the parts
    share it.

    Raises:
        ValueError: `model` is not `cfg` for shorter chunks.
    """
    if shrunk(cfg, model.config.shape.chunk_len) != model.config:
        raise ValueError("the model to grow differs from the grown one in more than its chunk length")
    factor = cfg.shape.chunk_len // model.config.shape.chunk_len
    grown = Autoencoder(cfg)
    wanted = {name: tensor.shape for name, tensor in grown.state_dict().items()}
    tensors = {name: _grown(tensor, wanted[name], factor) for name, tensor in model.state_dict().items()}
    grown.load_state_dict(tensors)
    return grown


def _grown(tensor: Tensor, shape: torch.Size, factor: int) -> Tensor:
    """Tensors that depend on the chunk length are repeated, or made block-diagonal where both axes do."""
    if tensor.shape == shape:
        return tensor
    if tensor.shape[1] == shape[1]:
        return tensor.repeat(factor, 1)
    return torch.block_diag(*[tensor] * factor)  # type: ignore[no-untyped-call]

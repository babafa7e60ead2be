"""Linear maps, norms and cross-attention as every module here uses them."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


def linear(dim_in: int, dim_out: int, gain: float = 1.0) -> nn.Linear:
    """A linear map without bias whose output variance is `gain`² times its input's; with `gain` 0, zero."""
    layer = nn.Linear(dim_in, dim_out, bias=False)
    nn.init.normal_(layer.weight, std=gain / math.sqrt(dim_in))
    return layer


def orthogonal(dim_out: int, dim_in: int) -> Tensor:
    """A random matrix with orthonormal rows or columns, whichever are fewer."""
    return nn.init.orthogonal_(torch.empty(dim_out, dim_in))


def block_orthogonal(num_blocks: int, dim_out: int, dim_in: int) -> Tensor:
    """`num_blocks` orthogonal blocks on the diagonal of a [num_blocks · dim_out, num_blocks · dim_in] matrix."""
    return torch.block_diag(*(orthogonal(dim_out, dim_in) for _ in range(num_blocks)))  # type: ignore[no-untyped-call]


def norm(hidden: Tensor) -> Tensor:
    """Layer norm without parameters, the only norm with a fused bf16 kernel on CPUs."""
    return F.layer_norm(hidden, hidden.shape[-1:])


def to_compute_dtype(hidden: Tensor) -> Tensor:
    """Cast to autocast's type where autocast is on; else the residual stream would be fp32."""
    device = hidden.device.type
    return hidden.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else hidden


def fp32(layer: nn.Linear, inputs: Tensor) -> Tensor:
    """The layer's output in fp32, regardless of autocast: memories are never rounded to bf16."""
    with torch.autocast(inputs.device.type, enabled=False):
        return layer(inputs.float())


def attend(queries: Tensor, key_value: Tensor, num_heads: int, mask: Tensor | None = None) -> Tensor:
    """Attention of queries [batch query dim] to keys and values [batch token 2·dim] at real tokens [batch token]."""
    inputs = (queries.to(key_value.dtype), *key_value.chunk(2, dim=-1))
    query, key, value = (rearrange(x, "b t (h d) -> b h t d", h=num_heads) for x in inputs)
    allowed = None if mask is None else mask[:, None, None, :]
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
    return rearrange(mixed, "b h t d -> b t (h d)")

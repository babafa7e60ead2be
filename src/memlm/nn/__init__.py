"""Building blocks: token mixers, residual stacks, pooling, unpooling, memory insertion, pointer, quantization.

Axis words: `batch` (chunks), `token`, `dim` (width of the hidden state), `head`, `slot` and `memory_dim` (the
memory), `vocab`.
"""

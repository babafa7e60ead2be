"""Building blocks: token mixers, residual stacks, pooling and unpooling, insertion into a decoder, pointing, rounding.

Axis words: `batch` (chunks), `token`, `dim` (width of the hidden state), `head`, `slot` and `memory_dim` (the
memory), `vocab`.
"""

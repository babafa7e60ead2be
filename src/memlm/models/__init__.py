"""Models: encoder (chunk → memory), parallel decoder (memory → chunk), and the autoencoder of the two.

Models return logits and memories, never a loss.
"""

"""Models: encoder (chunk → memory), parallel decoder (memory → chunk), and the autoencoder of the two; memory models
(memories and tokens → next tokens); language models, readers of embeddings, and pretrained models.

Models return logits and memories, never a loss.
"""

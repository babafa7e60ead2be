"""Models: encoder (chunk → memory), parallel decoder (memory → chunk), autoencoder; causal decoders, memory models
(memories and tokens → next tokens) and their generation; language models, readers of embeddings, pretrained models.

Models return logits and memories, never a loss.
"""

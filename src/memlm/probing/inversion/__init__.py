"""From embeddings back to texts, by search."""

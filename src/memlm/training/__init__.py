"""The only training loop, and what it needs: optimizers, schedule, checkpoints."""

"""memlm."""

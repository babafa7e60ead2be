"""Memories in bulk: a corpus encoded part by part, by any number of workers; and stores that are searched."""

"""Benchmarks: what things cost and hold; where it can be, as a ratio of two, side by side on the same data."""

"""Benchmarks: ratios of two things run side by side, in one process, on the same data."""

"""Benchmarks: what things cost and hold; where it can be, as a ratio of two, side by side on the same data.

Each is a command, a class whose fields are its options, in a module of its own; `memlm_evidence.cli.bench` names them.
"""

"""Sweeps: every combination of values trained, evaluated and kept, once, by however many processes share a folder."""

"""Sweeps: every cell trained, evaluated and kept, once, by however many processes share a folder."""

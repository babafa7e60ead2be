"""Measures: how much of a text a memory gives back, in accuracy and in bits, with intervals."""

"""Memories one can keep: verified when they are written, exact when they are read, in one file."""

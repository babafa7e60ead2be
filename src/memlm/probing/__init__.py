"""Probes: how much of a text is in a frozen encoder's embedding, by trained readers and by search."""

"""`python -m memlm` is `memlm` (torchrun needs a module)."""

from memlm.cli import main

main()

"""Encode texts into vectors, regenerate them from the vectors alone, and see what rounding and noise do to them.

Takes a few seconds. `python examples/encode_and_regenerate.py "Your own text"` uses your texts instead.
"""

import argparse
from dataclasses import replace

import torch

import memlm

TEXTS = [
    "Monday",
    "4 March 1861, 12:30",
    "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a "
    "wife. However little known the feelings or views of such a man may be on his first entering a neighbourhood, this "
    "truth is so well fixed in the minds of the surrounding families.",
    "The meeting of the water board moved to Tuesday, 14 May 2024, at 9:30 in room 4.17; please bring the figures for "
    "the second quarter (1,204.50 in all), and send questions to the clerk before Friday. There will be coffee, and a "
    "short walk along the new dam afterwards, if the weather allows it.",
]


def main() -> None:
    """Show each text, its memory, and what comes back of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="*", default=TEXTS, help="texts to encode")
    texts = parser.parse_args().texts

    model = memlm.load("english")
    memory = model.encode(texts)
    chunks, slots, dim = memory.vectors.shape
    print(f"{len(texts)} texts, {int(memory.num_tokens.sum())} tokens -> {chunks * slots} vectors of {dim} numbers\n")
    for text, regenerated in zip(texts, model.regenerate(memory), strict=True):
        print(f"text:        {text}")
        print(f"regenerated: {regenerated}")
        print("exact" if regenerated == text else "not exact", end=", ")
        # Known without the original: encoded again, a right text gives the same vector.
        print(f"may be wrong: {regenerated.marked()}\n" if regenerated.unsure else "proven\n")

    # The decoder gets nothing but the vectors. Change them, and see what comes back.
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(memory.vectors.shape, generator=generator)
    step = memory.vectors.abs().amax() / 127
    changed = {
        "rounded to 8 bits per number": (memory.vectors / step).round() * step,
        "with noise of 0.1": memory.vectors + 0.1 * noise,
        "with noise of 0.3": memory.vectors + 0.3 * noise,
    }
    for name, vectors in changed.items():
        regenerated = model.regenerate(replace(memory, vectors=vectors))
        exact = sum(one == text for one, text in zip(regenerated, texts, strict=True))
        print(f"{name}: {exact} of {len(texts)} exact; {regenerated[-1].marked()[:70]!r}")


if __name__ == "__main__":
    main()

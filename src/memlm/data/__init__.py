"""Text to chunks of tokens: corpora, tokenizers, the token store and evaluation texts. Needs no torch."""

"""A reliability campaign: killed writers, hard texts, damaged files, for as long as one likes."""

"""What the vectors of a store give away of its texts, and what would hide it at what loss."""

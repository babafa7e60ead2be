"""Text as memories give it back, with what may be wrong in it."""

from typing import Self

Span = tuple[int, int]
"""Characters, from the first to the one after the last."""


class Regenerated(str):
    """A text that was regenerated: a string, and which of its characters may be wrong.

    ```python
    text = model.regenerate(memory)[0]
    text.proven  # True
    print(text.marked())  # It is a truth ⟦universally⟧ acknowledged
    ```
    """

    unsure: tuple[Span, ...]
    """Spans of characters that may be wrong, in order; none in a text that is proven."""
    proven: bool
    """Whether the text, encoded again, is the memory that it was regenerated from: then it is right."""

    def __new__(cls, text: str, unsure: tuple[Span, ...] = (), *, proven: bool = False) -> Self:
        """A text, and what is known of it."""
        made = super().__new__(cls, text)
        made.unsure, made.proven = unsure, proven
        return made

    def marked(self, before: str = "⟦", after: str = "⟧") -> str:
        """The text with marks around what may be wrong."""
        pieces, end = [], 0
        for start, stop in self.unsure:
            pieces += [self[end:start], before, self[start:stop], after]
            end = stop
        return "".join([*pieces, self[end:]])

"""Regenerated text, with the spans that may be wrong."""

from typing import Self

Span = tuple[int, int]
"""Indices of characters: the first, and one after the last."""


class Regenerated(str):
    """A string that was regenerated from memories, with the spans of characters that may be wrong.

    ```python
    text = model.regenerate(memory)[0]
    text.proven  # True
    print(text.marked())  # It is a truth ⟦universally⟧ acknowledged
    ```
    """

    unsure: tuple[Span, ...]
    """Spans that may be wrong, in order; none in a proven text."""
    proven: bool
    """Whether the text encodes to the memory that it was regenerated from: then it is right."""

    def __new__(cls, text: str, unsure: tuple[Span, ...] = (), *, proven: bool = False) -> Self:
        """A text and its marks."""
        made = super().__new__(cls, text)
        made.unsure, made.proven = unsure, proven
        return made

    def marked(self, before: str = "⟦", after: str = "⟧") -> str:
        """The text with marks around the spans that may be wrong."""
        pieces, end = [], 0
        for start, stop in self.unsure:
            pieces += [self[end:start], before, self[start:stop], after]
            end = stop
        return "".join([*pieces, self[end:]])

"""Changes of a text: tokens replaced, put in and left out, words and spans moved, parts of two texts joined."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from memlm.probing.inversion.embedder import Ids

_LONGEST_SPAN = 5


class Parent(NamedTuple):
    """A text to change."""

    text: Ids
    choices: Sequence[Sequence[int]]
    """What is missing without the token in each place, likeliest first."""
    doubts: Sequence[float]
    """How likely the token in each place is wrong, in any unit."""

    def place(self, rng: random.Random) -> int:
        """Where to change it: where it is in doubt more often."""
        return rng.choices(range(len(self.text)), self.doubts)[0]

    def choice(self, rng: random.Random, place: int) -> int:
        """A token that may be missing without the one in this place."""
        options = self.choices[place]
        # As often as its rank is low: 1, 1/2, 1/3...
        return options[int((len(options) + 1) ** rng.random()) - 1]


Move = Callable[[random.Random, Parent, Ids], Ids]
"""A changed copy of a parent; may take parts of another text."""


def replace(rng: random.Random, parent: Parent, _: Ids) -> Ids:
    """Another token in one place."""
    place = parent.place(rng)
    return (*parent.text[:place], parent.choice(rng, place), *parent.text[place + 1 :])


def replace_two(rng: random.Random, parent: Parent, _: Ids) -> Ids:
    """Other tokens in two places, half of the time neighbours."""
    text, place = list(parent.text), parent.place(rng)
    near = (place + 1) % len(text) if rng.random() < 0.5 else parent.place(rng)
    for each in (place, near):
        text[each] = parent.choice(rng, each)
    return tuple(text)


def insert(rng: random.Random, parent: Parent, _: Ids) -> Ids:
    """One more token."""
    place = rng.randrange(len(parent.text) + 1)
    return (*parent.text[:place], parent.choice(rng, parent.place(rng)), *parent.text[place:])


def delete(rng: random.Random, parent: Parent, _: Ids) -> Ids:
    """One token less."""
    place = parent.place(rng)
    return parent.text[:place] + parent.text[place + 1 :]


def shift(rng: random.Random, parent: Parent, _: Ids) -> Ids:
    """One token left out, and what is missing then put in anywhere: what is between moves by one."""
    out = parent.place(rng)
    text, place = parent.text[:out] + parent.text[out + 1 :], rng.randrange(len(parent.text))
    return (*text[:place], parent.choice(rng, out), *text[place:])


def swap(rng: random.Random, parent: Parent, _: Ids) -> Ids:
    """Two tokens exchanged, half of the time neighbours."""
    text, one = list(parent.text), rng.randrange(len(parent.text))
    two = (one + 1) % len(text) if rng.random() < 0.5 else rng.randrange(len(text))
    text[one], text[two] = text[two], text[one]
    return tuple(text)


def move(rng: random.Random, parent: Parent, _: Ids) -> Ids:
    """A span of one to some tokens elsewhere."""
    text = parent.text
    length = min(len(text), 1 + int(rng.random() ** 2 * _LONGEST_SPAN))
    begin = rng.randrange(len(text) - length + 1)
    span, rest = text[begin : begin + length], text[:begin] + text[begin + length :]
    place = rng.randrange(len(rest) + 1)
    return rest[:place] + span + rest[place:]


def join(rng: random.Random, parent: Parent, other: Ids) -> Ids:
    """A span of another text in the place of one as long; or its end after this one's beginning."""
    text = parent.text
    if rng.random() < 0.3:
        cut = rng.randrange(len(text) + 1)
        return text[:cut] + other[cut:]
    length = rng.randint(1, max(1, min(len(text), len(other)) // 2))
    here, there = (rng.randrange(max(1, len(each) - length + 1)) for each in (text, other))
    here = min(len(text) - 1, there) if rng.random() < 0.5 else here
    return text[:here] + other[there : there + length] + text[here + length :]


MOVES: Mapping[Move, float] = {
    replace: 0.36,
    replace_two: 0.12,
    insert: 0.05,
    delete: 0.04,
    shift: 0.13,
    swap: 0.1,
    move: 0.1,
    join: 0.1,
}
"""Changes, and how often each is tried."""

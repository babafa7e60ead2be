"""What the page shows, as HTML: texts with marks, numbers, progress. All that is not ours is escaped."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from memlm.app.change import FLOAT_BITS, Seen
from memlm.app.jobs import Progress
from memlm.text.memory import Regenerated, Span

_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def text(content: str, spans: Mapping[str, Sequence[Span]] | None = None, *, name: str = "") -> str:
    """A text in which each span has a class, such as unsure or wrong; spans of two classes may overlap."""
    spans = spans or {}
    ends = sorted({0, len(content), *(end for some in spans.values() for span in some for end in span)})
    pieces = []
    for start, stop in itertools.pairwise(ends):
        piece = escape(content[start:stop])
        classes = [kind for kind, some in spans.items() if any(low <= start < high for low, high in some)]
        pieces.append(f'<mark class="{" ".join(classes)}">{piece}</mark>' if classes else piece)
    label = f' role="region" aria-label="{escape(name)}"' if name else ""
    return f'<div class="text" tabindex="0"{label}>{"".join(pieces)}</div>'


def marked(content: str, spans: Sequence[Span]) -> str:
    """A line with what was found in it."""
    ends = [0, *itertools.chain(*spans), len(content)]
    parts = [escape(content[start:stop]) for start, stop in itertools.pairwise(ends)]
    return "".join(f"<mark>{part}</mark>" if place % 2 else part for place, part in enumerate(parts))


def regenerated(content: Regenerated, *, name: str = "") -> str:
    """A text with what is unsure in it."""
    return text(content, {"unsure": content.unsure}, name=name)


def note(content: str, kind: str = "") -> str:
    """A sentence, as HTML already; of a kind: error, empty, good."""
    role = ' role="alert"' if kind == "error" else ""
    return f'<p class="note {kind}"{role}>{content}</p>'


def heading(content: str) -> str:
    """Of a part of a tab."""
    return f'<h2 class="section">{escape(content)}</h2>'


def lead(content: str) -> str:
    """What a tab, or a part of it, is about."""
    return f'<p class="lead">{escape(content)}</p>'


def error(reason: Exception | str) -> str:
    """Why something could not be done."""
    said = str(reason)
    if said.split(" ")[0].isalpha():  # and no name of a file
        said = said[0].upper() + said[1:]
    return note(f"{escape(said)}.", "error")


def figures(pairs: Iterable[tuple[str, str, str]]) -> str:
    """Numbers in a row: what, the number, and what it is of."""
    tiles = (
        f"<div><dt>{escape(what)}</dt><dd>{escape(number)}<small>{escape(of)}</small></dd></div>"
        for what, number, of in pairs
    )
    return f'<dl class="figures">{"".join(tiles)}</dl>'


def progress(now: Progress) -> str:
    """How far work is."""
    share = now.share
    known = "" if share is None else f' value="{share:.4f}"'
    percent = "" if share is None else f"{share:.0%}, "
    left = ""
    if share and now.seconds > 3:
        left = f", about {duration(now.seconds * (1 - share) / share)} left"
    told = f"{escape(now.title)}: {percent}{duration(now.seconds)}{left}"
    bar = f'<progress{known} max="1" aria-label="{escape(now.title)}"></progress>'
    return f'<div class="progress">{bar}<span>{told}</span></div>'


def duration(seconds: float) -> str:
    """In words that fit the size."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


def size(num_bytes: float) -> str:
    """Of bytes."""
    for unit, name in _UNITS:
        if num_bytes >= unit:
            return f"{num_bytes / unit:.1f} {name}"
    return f"{num_bytes:.0f} bytes"


def seen(found: Seen) -> str:
    """What came back of a text, with marks and a verdict."""
    back = found.back
    marked = text(back.text, {"unsure": back.unsure, "wrong": back.wrong}, name="The text that comes back")
    return verdict(found) + marked


def verdict(found: Seen) -> str:
    """In a sentence, how good it is."""
    back = found.back
    exact = not back.wrong and back.num_right == back.num_tokens
    if exact and back.proven:
        return note("<b>Exact, and proven</b>: encoded again, this text gives the same memory.", "good")
    if exact:
        doubt = f"{back.num_unsure} tokens are marked unsure" if back.num_unsure else "no token is in doubt"
        return note(
            f"<b>Exact</b>, but not proven: encoded again, it gives another memory than this one; {doubt}.", "good"
        )
    share = back.num_right / max(back.num_tokens, 1)
    told = (
        f"<b>{share:.0%} of the tokens are right.</b> The decoder, which does not know the text, "
        f'<mark class="unsure">is unsure</mark> of {back.num_unsure}; <mark class="wrong">wrong</mark> ones are '
        "underlined."
    )
    return note(told, "poor")


def numbers(found: Seen) -> str:
    """Bits, bytes and ratio."""
    chunks, slots, dim = found.memory.vectors.shape
    per = f"{slots} × {dim}" if slots > 1 else f"{dim}"
    vectors = "1 vector" if chunks == 1 else f"{chunks} vectors"
    ratio = found.num_bytes / max(found.text_bytes, 1)
    rounding = "float32" if found.bits == FLOAT_BITS else "and a scale of 4 bytes"
    return figures(
        [
            ("text", f"{found.text_bytes:,}", f"bytes, {found.back.num_tokens} tokens"),
            ("memory", vectors, f"of {per} dimensions"),
            ("bits", f"{found.num_bits:,}", f"{found.bits} a dimension, {rounding}"),
            ("bytes", f"{found.num_bytes:,}", f"{found.num_bits / max(found.back.num_tokens, 1):,.0f} bits a token"),
            ("ratio", f"{ratio:.2f}", "bytes of memory for one of text"),
            ("right", f"{found.back.num_right / max(found.back.num_tokens, 1):.0%}", "of the tokens"),
        ]
    )


def card(title: str, of: str, body: str, foot: str = "") -> str:
    """A box with a title; `body` and `foot` are HTML."""
    below = f'<p class="foot">{foot}</p>' if foot else ""
    return f'<section class="card"><h4>{escape(title)} <small>{escape(of)}</small></h4>{body}{below}</section>'

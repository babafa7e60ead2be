"""Chats about a past: where its memories stand in one, and questions about texts that a language model answers itself.

A model that is adapted to go on with texts forgets how it answered. So it is also adapted to what it said before, when
it read the text (self-distillation; as in Ge et al. 2024, ICAE, without a larger model).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from memlm.data.documents import utf8
from memlm.runtime.progress import track

QUESTIONS: tuple[str, ...] = tuple(json.loads(Path(__file__).with_name("questions.json").read_bytes()))
"""That can be asked about any text."""
_HERE = "\N{OBJECT REPLACEMENT CHARACTER}"
"""Marks the place of the memories in a chat."""
_ANSWER_TOKENS = 64
_AT_ONCE = {"cpu": 16}
_AT_ONCE_ON_GPU = 256

Message = Mapping[str, str]


class Chat(NamedTuple):
    """A user's messages about a past, in a language model's own format, as its tokens."""

    question: str
    """What the user said last."""
    before: list[int]
    """What stands before the past."""
    after: list[int]
    """What stands after it, as far as the answer."""
    end: list[int]
    """What ends an answer."""
    marks: set[int]
    """Tokens that mark turns, which no answer holds."""


def has_chats(tokenizer: Any) -> bool:
    """Whether a tokenizer of transformers' knows how its model's chats are written."""
    return bool(getattr(tokenizer, "chat_template", None))


def chat_about(tokenizer: Any, messages: str | Sequence[Message], *, past: bool) -> Chat:
    """Messages with, if there is a past, its place at the beginning of the user's first; a string is one of the user.

    Raises:
        ValueError: a message is none, or none is of a user.
    """
    turns = _turns(messages)
    asked = [turn for turn in turns if turn["role"] == "user"]
    if not asked or not asked[-1]["content"].strip():
        raise ValueError("there is no message of a user to answer")
    question = asked[-1]["content"]
    if past:
        asked[0]["content"] = f"{_HERE}\n\n{asked[0]['content']}"
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    before, here, after = text.partition(_HERE)
    answer = [{"role": "user", "content": question}, {"role": "assistant", "content": _HERE}]
    answered = tokenizer.apply_chat_template(answer, tokenize=False)
    pieces = (before, after) if here else ("", before)
    before, after, end = (
        tokenizer(piece, add_special_tokens=False).input_ids if piece else []
        for piece in (*pieces, answered.rpartition(_HERE)[2])
    )
    return Chat(question, before, after, end, {*tokenizer.all_special_ids} & {*before, *after, *end})


def _turns(messages: str | Sequence[Message]) -> list[dict[str, str]]:
    """Messages, none of which says where the memories stand."""
    turns: Sequence[Any] = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    for turn in turns:
        if not isinstance(turn, Mapping) or not all(isinstance(turn.get(key), str) for key in ("role", "content")):
            raise ValueError(f"a message is a role and a content, both strings, not {turn!r:.60}")
        utf8(turn["content"], "the message")
    return [{**turn, "content": turn["content"].replace(_HERE, "")} for turn in turns]


def ends_of(eos_token_id: int | Sequence[int] | None) -> list[int]:
    """The tokens that end a text, of which transformers' configurations name one, several or none."""
    return [] if eos_token_id is None else [eos_token_id] if isinstance(eos_token_id, int) else [*eos_token_id]


@torch.no_grad()
def answers(model: Any, tokenizer: Any, texts: Sequence[str], questions: Sequence[str]) -> list[str]:
    """What a causal language model of transformers' says, greedily, when it reads a text and is asked about it."""
    at_once = _AT_ONCE.get(model.device.type, _AT_ONCE_ON_GPU)
    asked = [f"{text}\n\n{question}" for text, question in zip(texts, questions, strict=True)]
    chats = [chat_about(tokenizer, message, past=False) for message in asked]
    rows, ends = [chat.after for chat in chats], {*ends_of(model.generation_config.eos_token_id)}
    ends |= {end for chat in chats for end in chat.end[:1]}
    order, found = np.argsort([*map(len, rows)]), [""] * len(rows)
    with track("Answering questions", total=sum(map(len, rows)), unit="tokens") as advance:
        for start in range(0, len(rows), at_once):
            some = order[start : start + at_once]
            width = max(len(rows[place]) for place in some)
            filler = tokenizer.eos_token_id or 0
            ids = torch.tensor([[filler] * (width - len(rows[place])) + rows[place] for place in some])
            mask = torch.tensor([[0] * (width - len(rows[place])) + [1] * len(rows[place]) for place in some])
            written = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=_ANSWER_TOKENS,
                do_sample=False,
                pad_token_id=filler,
                **({"eos_token_id": sorted(ends)} if ends else {}),
            )
            for place, row in zip(some, written[:, width:], strict=True):
                answer = tokenizer.decode(row, skip_special_tokens=True).strip()
                # One that did not come to its end is cut after a sentence.
                found[place] = answer if ends & {*row.tolist()} else answer[: answer.rfind(". ") + 1] or answer
            advance(sum(len(rows[place]) for place in some))
    return found

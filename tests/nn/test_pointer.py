"""A pointer copies what went on from the same words."""

import torch

from memlm.nn.pointer import PastTokens, Pointer

VOCAB = 20


def past_tokens(pointer: Pointer, chunks: list[list[int]]) -> PastTokens:
    tokens = torch.tensor(chunks)[None]
    return PastTokens(tokens, pointer.keys(torch.eye(VOCAB)[tokens]), torch.ones_like(tokens, dtype=torch.bool))


def pointer(span: int) -> Pointer:
    return Pointer(span, VOCAB)


def test_a_key_is_of_the_tokens_before_within_the_chunk() -> None:
    points = pointer(span=2)
    embedded = torch.randn(3, 5, VOCAB)
    other = embedded.clone()
    other[:, 1] += 1
    with torch.no_grad():
        keys, differs = points.keys(embedded), (points.keys(other) - points.keys(embedded)).abs().amax((0, 2)) > 1e-6
    assert keys.shape == embedded.shape
    assert keys[:, 0].abs().max() == 0  # nothing stands before the first
    assert differs.tolist() == [False, False, True, True, False]


def test_what_went_on_from_the_word_before_is_copied_from_whichever_chunk_it_stands_in() -> None:
    points = pointer(span=1)
    with torch.no_grad():
        points.key.weight.copy_(torch.eye(VOCAB))
        points.query.weight.copy_(100 * torch.eye(VOCAB))
        past = past_tokens(points, [[3, 7, 4], [5, 9, 6]])
        hidden = torch.eye(VOCAB)[torch.tensor([[3, 5, 7, 11]])]  # states that say which token was last
        logits = torch.zeros(1, 4, VOCAB)
        log_probs = points(hidden, logits, past, torch.tensor([[True, True]]))
        torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(1, 4))
        assert log_probs.argmax(-1)[0, :3].tolist() == [7, 9, 4]
        assert (log_probs[0, :3].exp().amax(-1) > 0.99).all()
        without = points(hidden, logits, past, torch.tensor([[False, True]]))
    assert without[0, 0].exp().max() < 0.5  # what is absent is not pointed at
    assert without[0, 1].argmax() == 9


def test_with_nothing_to_point_at_the_decoder_speaks_alone() -> None:
    points = pointer(span=2)
    hidden, logits = torch.randn(1, 3, VOCAB), torch.randn(1, 3, VOCAB)
    empty = PastTokens(
        torch.zeros(1, 0, 5, dtype=torch.long), torch.zeros(1, 0, 5, VOCAB), torch.zeros(1, 0, 5, dtype=torch.bool)
    )
    with torch.no_grad():
        alone = points(hidden, logits, empty, torch.zeros(1, 0, dtype=torch.bool))
        absent = points(hidden, logits, past_tokens(points, [[1, 2], [3, 4]]), torch.zeros(1, 2, dtype=torch.bool))
    torch.testing.assert_close(alone, logits.log_softmax(-1))
    torch.testing.assert_close(absent, logits.log_softmax(-1))


def test_every_beam_points_into_its_own_rows_past() -> None:
    points = pointer(span=1)
    past = PastTokens(*(torch.cat([part, part.flip(2)]) for part in past_tokens(points, [[3, 7, 4]])))
    hidden, logits, present = torch.randn(4, 2, VOCAB), torch.randn(4, 2, VOCAB), torch.ones(2, 1, dtype=torch.bool)
    with torch.no_grad():
        together = points(hidden, logits, past, present)
        for row in range(4):
            own, one = slice(row, row + 1), slice(row // 2, row // 2 + 1)
            alone = points(hidden[own], logits[own], PastTokens(*(part[one] for part in past)), present[one])
            torch.testing.assert_close(together[own], alone)

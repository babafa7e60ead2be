"""`memlm bench generation`, run small: what it compares is alike, and what it counts is so."""

import pytest
import torch

from memlm.config import DecoderConfig, RecurrentDecoder, RecurrentMixer, StackConfig
from memlm_evidence.benchmarks import generation as bench
from memlm_evidence.benchmarks import generation_memories as memories
from memlm_evidence.benchmarks.generation import Generation, Writer, in_place, read, repeated
from tiny import randomized

DIM, LAYERS = 16, 2


def test_rows_say_how_fast_both_write_and_what_they_keep(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    answer = Generation(tokens=(8, 32), batch=(1, 3), chunks=(1, 5), dim=DIM, num_layers=LAYERS).run()
    assert [(row["tokens"], row["batch"]) for row in answer["rows"]] == [(8, 1), (8, 3), (32, 1), (32, 3)]
    for row in answer["rows"]:
        rates = row["attention_tokens_per_second"]
        assert row["tokens_per_second_ratio"] == pytest.approx(row["tokens_per_second"] / max(rates.values()))
        assert min(rates.values()) > 0
        assert row["state_bytes"] == row["batch"] * LAYERS * DIM * 4, "of one size, whatever was read"
        assert row["state_bytes_ratio"] == 2 * row["tokens"], "keys and values of every token, of the same width"
    assert [row["tokens"] for row in answer["prefill"]] == [8, 32]
    assert all(row["tokens_per_second"] > 0 and row["tokens_per_second_ratio"] > 0 for row in answer["prefill"])
    ours, attentions = answer["parameters"]["recurrent"], answer["parameters"]["attention"]
    assert abs(ours - attentions) < 3 * DIM * LAYERS, "as near as whole dimensions of an MLP allow"
    told = answer["memories"]
    assert [row["chunks"] for row in told["rows"]] == [1, 5]
    for row in told["rows"]:
        assert row["seconds"] > 0
        assert set(row["times_ours"]) == {"anew", "attention", "attention_anew"}
        assert row["state_bytes"] == LAYERS * DIM * 4, "of one size, however many memories"
        assert row["state_bytes_ratio"] == 2 * row["chunks"] * told["positions_per_memory"]
    assert set(told["rows"][0]["seconds_ratio"].values()) == {1.0}
    ours, attentions = told["parameters"]["recurrent"], told["parameters"]["attention"]
    assert abs(ours - attentions) < 3 * DIM * LAYERS
    assert answer["num_threads"] == 1
    assert torch.get_num_threads() == threads
    shown = capsys.readouterr().out
    assert "{" not in shown
    assert all(words in shown for words in ("Writing after a text", "Reading one text", "next chunk")), shown


def test_every_way_writes_what_the_whole_text_is_followed_by() -> None:
    torch.manual_seed(0)
    recurrent = bench.recurrent_model(DIM, LAYERS, 64)
    attention = bench.attention_model(recurrent, DIM, LAYERS)
    text = torch.randint(bench.VOCAB_SIZE, (1, 9))
    with torch.inference_mode():
        for model, make in (
            (recurrent, repeated),
            (attention, repeated),
            (attention, lambda cache, batch: in_place(cache, attention, batch)),
        ):
            writer = Writer(model, make(read(model, text), 2), 2)
            writer()
            expected = torch.cat([text, torch.zeros(1, 1, dtype=torch.long)], dim=1)
            for _ in range(bench.STEPS):
                expected = torch.cat([expected, model(expected).logits[:, -1:].argmax(-1)], dim=1)
            assert writer.last.tolist() == [[int(expected[0, -1])]] * 2


def test_all_ways_to_the_next_chunk_read_the_same() -> None:
    torch.manual_seed(0)
    decoders = (
        RecurrentDecoder(window=160, stack=StackConfig(dim=DIM, mixer=RecurrentMixer(), causal=True)),
        DecoderConfig(dim=DIM, num_layers=LAYERS, num_heads=2),
    )
    for decoder in decoders:
        chunks, seen = memories.Chunks(randomized(memories.memory_model(decoder, 5, DIM))), []
        chunks.model.decoder.hf.base_model.register_forward_hook(
            lambda _, inputs, output, seen=seen: seen.append(output.last_hidden_state[:, -bench.STEPS :])
        )
        with torch.inference_mode():
            chunks.read_anew(4)
            if isinstance(decoder, RecurrentDecoder):
                chunks.read_after(chunks.model.remember(chunks.memories[:, :4]), 4)
            else:
                cache = chunks.keys_and_values(4)
                chunks.read_after_keys_and_values(cache, 4)
                assert cache.get_seq_length() == 4 * memories.NUM_POSITIONS, "as it was"
        torch.testing.assert_close(seen[-1], seen[0], rtol=1e-4, atol=1e-4)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="--batch takes positive numbers"):
        Generation(batch=(0,)).run()
    with pytest.raises(ValueError, match="--dim must be a multiple of 8, not 12"):
        Generation(dim=12).run()
    with pytest.raises(ValueError, match="--dim must be a multiple of 24, not 200"):
        Generation(dim=200).run()
    with pytest.raises(ValueError, match="--num-layers must be positive, not 0"):
        Generation(num_layers=0).run()

import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memlm import TextAutoencoder
from memlm.config import (
    Attention,
    AutoregressiveReader,
    LanguageModelConfig,
    LinearReader,
    ParallelReader,
    ProbeConfig,
    Quantization,
    ReadingConfig,
    StackConfig,
)
from memlm.models.language_model import LanguageModel
from memlm.probing import probe as probe_module
from memlm.probing import specs
from memlm.probing.cells import probe
from memlm.probing.encoders import FrozenEncoder, MemoryEncoder, StateEncoder
from memlm.probing.probe import CONTROLS, EncoderProbe
from memlm.probing.results import ProbeResult, ProbeRow, View
from memlm.probing.specs import views_of
from memlm.runtime.executor import Workers
from memlm.text.language_model import TextLanguageModel
from tiny import SENTENCE, randomized

LENGTH, DIM, LAYERS = 8, 32, 2
SMALL = ParallelReader(dim=64, num_layers=1)
READING = ReadingConfig(num_steps=45, max_chunks=500, test_chunks=60)
LONGER = replace(READING, num_steps=150, max_chunks=1000)


def texts(num_texts: int = 80, num_words: int = 100, *, seed: int = 1) -> list[str]:
    """As those of the tiny corpus."""
    rng, vocabulary = random.Random(seed), SENTENCE.split()
    return [
        " ".join(f"{rng.choice(vocabulary)}{rng.randrange(10) if rng.random() < 0.2 else ''}" for _ in range(num_words))
        for _ in range(num_texts)
    ]


def language_model(trained: TextAutoencoder) -> TextLanguageModel:
    stack = StackConfig(dim=DIM, num_layers=LAYERS, mlp_ratio=2.0, mixer=Attention(num_heads=2), causal=True)
    model = randomized(LanguageModel(LanguageModelConfig(vocab_size=300, chunk_len=2 * LENGTH, stack=stack)))
    return TextLanguageModel(model, trained.tokenizer, {})


def small_config(**settings: Any) -> ProbeConfig:
    """Of a parallel reader that trains in a second."""
    reads = "parallel" in settings.get("readers", ("parallel",))
    return ProbeConfig(**{**({"parallel": SMALL} if reads else {}), **settings})


@pytest.fixture(scope="module", autouse=True)
def small_readers() -> Iterator[None]:
    """Others that do, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(specs.READERS, "linear", LinearReader(token_dim=32))
        patch.setitem(specs.READERS, "autoregressive", AutoregressiveReader(dim=64, num_layers=1, num_prefix=4))
        yield


@pytest.fixture(scope="module")
def encoder(trained: TextAutoencoder) -> StateEncoder:
    return StateEncoder(language_model(trained).model.eval(), trained.tokenizer, name="tiny")


@pytest.fixture(scope="module")
def ours(trained: TextAutoencoder) -> MemoryEncoder:
    return MemoryEncoder(trained.model.encoder, trained.tokenizer, name="ours")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("probes")


@pytest.fixture(scope="module")
def run(encoder: StateEncoder, cache: Path) -> Callable[..., ProbeResult]:
    """A probe of the tiny language model on the tiny texts."""

    def probed(
        of: FrozenEncoder | str | Path = encoder, of_texts: list[str] | None = None, **settings: Any
    ) -> ProbeResult:
        cfg = small_config(**{"chunk_lens": (LENGTH,), "reading": READING, "controls": False, **settings})
        of_texts = of_texts or texts()
        return probe(of, of_texts, train_texts=of_texts, cfg=cfg, cache=cache)

    return probed


@pytest.fixture(scope="module")
def complete(run: Callable[..., ProbeResult]) -> ProbeResult:
    """Every kind of row, with controls."""
    return run(layers=(-1, LAYERS, 1), poolings=("last", "all"), bits=(1, 8), controls=True)


@pytest.fixture(scope="module")
def of_memory(run: Callable[..., ProbeResult], ours: MemoryEncoder) -> ProbeResult:
    """A memory that was made to be read."""
    return run(ours, chunk_lens=(16,), bits=(2, 8), reading=LONGER)


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither embedding nor reading may happen."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("this has been done before")

    for name in ("embed_chunks", "train_reader", "train_autoencoder"):
        monkeypatch.setattr(probe_module, name, refuse)


def row(result: ProbeResult, **wanted: Any) -> ProbeRow:
    """The one row of this description."""
    (found,) = (row for row in result.rows if all(getattr(row, name) == value for name, value in wanted.items()))
    return found


def quantized(result: ProbeResult, num_bits: int, **wanted: Any) -> ProbeRow:
    return row(result, degradation=Quantization(num_bits=num_bits), **wanted)


# --- what comes out ---


def test_every_combination_is_a_row(complete: ProbeResult) -> None:
    combinations = [(row.pooling, row.layer, getattr(row.degradation, "num_bits", None)) for row in complete.rows]
    # -1 is the last layer, and a view asked for twice is one.
    assert combinations == [
        (pooling, layer, bits) for pooling in ("last", "all") for layer in (LAYERS, 1) for bits in (None, 1, 8)
    ]
    for row in complete.rows:
        assert (row.encoder, row.reader, row.chunk_len, row.seed) == ("tiny", "parallel", LENGTH, 0)
        assert row.control is None
        assert row.num_chunks == 60
        assert row.num_tokens == 60 * LENGTH
        assert row.num_train_chunks == 500
        assert row.memory_dim == DIM
        assert row.num_slots == (LENGTH if row.pooling == "all" else 1)
        assert len(row.accuracy_by_position) == LENGTH


def test_the_result_is_plain_json(complete: ProbeResult) -> None:
    again = json.loads(json.dumps(complete.to_dict(), allow_nan=False))
    assert ProbeResult.from_dict(again).rows == complete.rows
    assert ProbeResult.from_dict(again).to_dict() == again
    assert again["round_trips"] is True
    assert again["provenance"]["settings"]["config"]["bits"] == [1, 8]


def test_baselines_are_what_the_text_costs_without_a_memory(complete: ProbeResult) -> None:
    (baselines,) = complete.baselines.values()
    first = complete.rows[0]
    assert list(complete.baselines) == [str(LENGTH)]
    assert baselines.unconditional_nats_per_token == first.unconditional_nats_per_token
    assert baselines.num_train_chunks == 500
    # A language model knows more than how often each token occurs.
    assert 0 < baselines.causal_nats_per_token < baselines.unconditional_nats_per_token


def test_intervals_hold_their_measures(complete: ProbeResult) -> None:
    for row in (*complete.rows, *complete.control_rows):
        assert row.intervals.keys() >= {"token_accuracy", "retained_bits_per_token", "nats_per_token"}
        for name, (low, high) in row.intervals.items():
            assert low <= getattr(row, name) <= high


def test_retained_bits_are_the_difference_of_the_nats(complete: ProbeResult) -> None:
    for row in complete.rows:
        saved = (row.unconditional_nats_per_token - row.nats_per_token) / 0.6931471805599453
        assert row.retained_bits_per_token == pytest.approx(saved, abs=1e-6)
        dims = row.num_slots * row.memory_dim
        assert row.bits_per_dim * dims == pytest.approx(row.retained_bits_per_token * LENGTH, abs=1e-6)


def test_all_states_side_by_side_hold_more_than_the_last_one(complete: ProbeResult) -> None:
    last, every = (row(complete, pooling=pooling, layer=1, degradation=None) for pooling in ("last", "all"))
    assert every.token_accuracy > 0.7
    assert every.intervals["retained_bits_per_token"][0] > last.intervals["retained_bits_per_token"][1]


# --- controls ---


@pytest.mark.parametrize("name", ["shuffled", "constant"])
def test_nothing_is_retained_where_there_is_nothing(name: str, complete: ProbeResult) -> None:
    control = complete.controls[name]
    low, high = control.intervals["retained_bits_per_token"]
    assert low <= 0 <= high
    assert high - low < 0.5
    assert control.token_accuracy < complete.controls["positive"].token_accuracy


def test_the_positive_control_is_read_and_beats_the_untrained_one(complete: ProbeResult) -> None:
    positive, untrained = complete.controls["positive"], complete.controls["untrained"]
    assert positive.retained_fraction > 0.5
    assert positive.retained_fraction > untrained.retained_fraction + 0.2


def test_controls_are_of_the_first_view_and_marked(complete: ProbeResult) -> None:
    assert tuple(complete.controls) == CONTROLS
    for name, control in complete.controls.items():
        assert control.control == name
        assert (control.pooling, control.layer) == ("last", LAYERS)
        assert control.num_chunks == 60


def test_without_controls_there_are_none(run: Callable[..., ProbeResult]) -> None:
    result = run(poolings=("last",))
    assert result.controls == result.baselines == {}
    assert result.control_rows == ()


# --- side by side ---


@pytest.mark.parametrize("ray_address", [None, pytest.param("local", marks=pytest.mark.slow)])
def test_workers_measure_what_one_process_does(
    ray_address: str | None, run: Callable[..., ProbeResult], encoder: StateEncoder, tmp_path: Path
) -> None:
    alone, who = run(poolings=("last",), controls=True), Workers(num_workers=2, ray_address=ray_address)
    cfg = small_config(chunk_lens=(LENGTH,), reading=READING, poolings=("last",))
    beside = probe(encoder, texts(), train_texts=texts(), cfg=cfg, cache=tmp_path, **who)
    assert beside == replace(alone, provenance=beside.provenance)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EncoderProbe, "_measured", lambda *_: pytest.fail("it has been measured"))
        assert probe(encoder, texts(), train_texts=texts(), cfg=cfg, cache=tmp_path, **who) == beside


# --- once ---


@pytest.mark.usefixtures("no_work")
def test_a_second_run_does_no_work_and_ends_the_same(complete: ProbeResult, run: Callable[..., ProbeResult]) -> None:
    again = run(layers=(-1, LAYERS, 1), poolings=("last", "all"), bits=(1, 8), controls=True)
    assert again == replace(complete, provenance=again.provenance)


@pytest.mark.usefixtures("no_work")
def test_part_of_what_was_done_is_not_done_again(complete: ProbeResult, run: Callable[..., ProbeResult]) -> None:
    again = run(layers=(1,), poolings=("all",), bits=(8,))
    assert again.rows == (complete.rows[9], complete.rows[11])


@pytest.mark.usefixtures("complete", "no_work")
@pytest.mark.parametrize(
    "settings",
    [
        {"seeds": (1,)},
        {"readers": ("linear",)},
        {"noise": (1.0,)},
        {"reading": replace(READING, num_steps=61)},
        {"reading": replace(READING, test_chunks=59)},
        {"chunk_lens": (LENGTH + 1,)},
    ],
    ids=str,
)
def test_anything_else_is_work(settings: dict[str, Any], run: Callable[..., ProbeResult]) -> None:
    with pytest.raises(AssertionError, match="done before"):
        run(poolings=("last",), **settings)


@pytest.mark.usefixtures("complete", "no_work")
def test_another_encoder_is_work(run: Callable[..., ProbeResult], encoder: StateEncoder) -> None:
    with pytest.raises(AssertionError, match="done before"):
        run(encoder.untrained(5), poolings=("last",))


def test_a_seed_repeats_itself_wherever_it_is_run(complete: ProbeResult, encoder: StateEncoder, tmp_path: Path) -> None:
    cfg = small_config(chunk_lens=(LENGTH,), reading=READING, controls=False)
    other = list(reversed(texts()))
    again = probe(encoder, other, train_texts=other, cfg=cfg, cache=tmp_path)
    assert again.rows[0].nats_per_token == pytest.approx(complete.rows[0].nats_per_token, rel=1e-3)
    assert again.rows[0].num_documents == complete.rows[0].num_documents


# --- readers that are kept ---


@pytest.fixture(scope="module")
def ask(encoder: StateEncoder, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ProbeResult]:
    """A probe of texts by readers that have learned from other texts, and are kept."""
    kept = tmp_path_factory.mktemp("kept")

    def probed(of_texts: list[str], *, of: FrozenEncoder = encoder, cache: Path = kept, **settings: Any) -> ProbeResult:
        settings = {"chunk_lens": (LENGTH,), "layers": (1,), "poolings": ("all",), "reading": READING, **settings}
        learned = settings.pop("train_texts", texts())
        return probe(of, of_texts, train_texts=learned, cfg=small_config(**settings), cache=cache)

    return probed


@pytest.fixture(scope="module")
def asked(ask: Callable[..., ProbeResult]) -> ProbeResult:
    """The first text, with all controls."""
    return ask(texts(20, seed=2))


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be trained."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("this has been learned before")

    for name in ("train_reader", "train_autoencoder"):
        monkeypatch.setattr(probe_module, name, refuse)


def test_a_text_is_read_by_readers_that_have_learned_from_others(asked: ProbeResult) -> None:
    (found,) = asked.rows
    assert found.token_accuracy > 0.7
    assert found.num_chunks == 60
    assert found.num_train_chunks == 500  # all of them other texts'
    for name in ("shuffled", "constant"):
        low, high = asked.controls[name].intervals["retained_bits_per_token"]
        assert low <= 0 <= high
    assert asked.controls["positive"].retained_fraction > 0.5


@pytest.mark.usefixtures("asked", "no_training")
def test_a_second_text_is_read_without_training(ask: Callable[..., ProbeResult]) -> None:
    again = ask(texts(20, seed=3))
    assert {row.num_chunks for row in (*again.rows, *again.control_rows)} == {60}
    assert again.controls["positive"].retained_fraction > 0.5


def test_a_kept_reader_reads_as_one_that_was_just_trained(ask: Callable[..., ProbeResult], tmp_path: Path) -> None:
    other = texts(20, seed=3)
    kept, fresh = ask(other, controls=False), ask(other, controls=False, cache=tmp_path)
    assert kept.rows == fresh.rows


@pytest.mark.usefixtures("asked", "no_training")
@pytest.mark.parametrize(
    "settings",
    [
        {"seeds": (1,)},
        {"readers": ("linear",)},
        {"noise": (1.0,)},
        {"layers": (2,)},
        {"reading": replace(READING, num_steps=46)},
        {"reading": replace(READING, batch_chunks=16)},
        {"chunk_lens": (LENGTH + 1,)},
        {"train_texts": texts(70)},
    ],
    ids=str,
)
def test_any_other_reader_has_to_learn(settings: dict[str, Any], ask: Callable[..., ProbeResult]) -> None:
    with pytest.raises(AssertionError, match="learned before"):
        ask(texts(20, seed=4), controls=False, **settings)


@pytest.mark.usefixtures("asked", "no_training")
def test_a_reader_is_one_encoders(ask: Callable[..., ProbeResult], encoder: StateEncoder) -> None:
    with pytest.raises(AssertionError, match="learned before"):
        ask(texts(20, seed=4), controls=False, of=encoder.untrained(5))


def test_a_damaged_reader_learns_again_with_a_word(ask: Callable[..., ProbeResult], tmp_path: Path) -> None:
    other = texts(20, seed=3)
    first = ask(other, controls=False, cache=tmp_path)
    shutil.rmtree(tmp_path / "probes")  # the answers
    (kept,) = (tmp_path / "readers").glob("*.safetensors")
    kept.write_bytes(kept.read_bytes()[:-100])
    with pytest.warns(UserWarning, match=rf"{kept} is damaged .*made again"):
        assert ask(other, controls=False, cache=tmp_path).rows == first.rows


def test_readers_learn_further_from_a_long_text(
    ask: Callable[..., ProbeResult], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # A kind of text that the readers have not seen.
    own = [" ".join(reversed(one.upper().split())) for one in texts(80, seed=5)]
    reading = replace(READING, num_steps=150, batch_chunks=8)
    (only_tested,) = ask(own, controls=False, reading=reading).rows
    monkeypatch.setattr(probe_module, "LEAST_STEPS", 60)
    (learned,) = ask(own, controls=False, reading=reading, cache=tmp_path).rows
    assert learned.num_train_chunks > only_tested.num_train_chunks
    assert learned.nats_per_token < only_tested.nats_per_token - 0.2
    assert learned.token_accuracy > only_tested.token_accuracy


def test_text_of_another_kind_holds_tokens_that_no_reader_has_seen(ask: Callable[..., ProbeResult]) -> None:
    (found,) = ask([one.upper().replace("E", "é") for one in texts(20, seed=5)], controls=False).rows
    assert found.vocab_size > ask(texts(20, seed=3), controls=False).rows[0].vocab_size


@pytest.mark.usefixtures("no_training")
def test_how_much_text_is_needed_is_said_before_anything_is_done(ask: Callable[..., ProbeResult]) -> None:
    with (
        pytest.warns(UserWarning, match=r"controls may stay undecided.*give about [\d,]+ bytes"),
        pytest.raises(AssertionError, match="learned before"),
    ):
        ask(texts(6, 60, seed=6), seeds=(7,), reading=replace(READING, test_chunks=1000))


# --- encoders and readers ---


def test_a_saved_language_model_is_the_same_encoder(
    complete: ProbeResult, trained: TextAutoencoder, run: Callable[..., ProbeResult], no_work: None, tmp_path: Path
) -> None:
    language_model(trained).save_pretrained(tmp_path / "model")
    result = run(tmp_path / "model", layers=(-1,), poolings=("last",))
    assert result.encoder == str(tmp_path / "model")
    assert result.rows[0].nats_per_token == complete.rows[0].nats_per_token


def test_a_trained_autoencoders_memory_is_read_at_least_as_well_as_by_its_own_decoder(
    of_memory: ProbeResult, trained: TextAutoencoder
) -> None:
    plain, own = row(of_memory, degradation=None), trained.evaluate(texts())
    assert plain.pooling == "memory"
    assert plain.retained_fraction > max(0.6, own.retained_fraction)
    assert plain.token_accuracy > max(0.6, own.token_accuracy)


@pytest.mark.usefixtures("no_work")
def test_an_autoencoders_folder_is_the_same_encoder(
    of_memory: ProbeResult, finished_run: Path, run: Callable[..., ProbeResult]
) -> None:
    folder = run(finished_run / "model", chunk_lens=(16,), reading=LONGER)
    assert folder.rows[0].nats_per_token == of_memory.rows[0].nats_per_token


@pytest.mark.parametrize("reader", ["linear", "autoregressive"])
def test_other_readers_read_it_too(reader: str, run: Callable[..., ProbeResult]) -> None:
    result = run(readers=(reader,), layers=(1,), poolings=("all",))
    assert [found.reader for found in result.rows] == [reader]
    assert result.rows[0].retained_fraction > 0.1
    low, high = result.rows[0].intervals["retained_bits_per_token"]
    assert 0 < low <= result.rows[0].retained_bits_per_token <= high


def test_an_autoregressive_reader_is_compared_with_a_language_model(
    complete: ProbeResult, run: Callable[..., ProbeResult]
) -> None:
    (found,) = run(readers=("autoregressive",), layers=(1,), poolings=("all",)).rows
    # It knows what stands before each token, without a memory too: not only how often each occurs.
    assert found.unconditional_nats_per_token < complete.rows[0].unconditional_nats_per_token - 0.2


# --- degradations ---


def test_no_more_is_read_of_a_quantized_embedding_than_it_stores(complete: ProbeResult, of_memory: ProbeResult) -> None:
    checked = 0
    for found in (*complete.rows, *of_memory.rows):
        if found.degradation is None:
            assert found.stored_bits is None
            continue
        dims = found.num_slots * found.memory_dim
        assert found.stored_bits == found.degradation.num_bits * dims
        retained = found.retained_bits_per_token * found.chunk_len
        assert retained <= found.stored_bits
        assert found.storage_efficiency == pytest.approx(retained / found.stored_bits, abs=1e-6)
        checked += 1
    assert checked == 10


def test_fewer_bits_hold_less(of_memory: ProbeResult, complete: ProbeResult) -> None:
    plain, two, eight = row(of_memory, degradation=None), quantized(of_memory, 2), quantized(of_memory, 8)
    assert two.retained_bits_per_token < eight.retained_bits_per_token
    assert eight.retained_bits_per_token == pytest.approx(plain.retained_bits_per_token, rel=0.1)
    for pooling in ("last", "all"):
        for layer in (1, LAYERS):
            one, eight = (quantized(complete, bits, pooling=pooling, layer=layer) for bits in (1, 8))
            plain = row(complete, degradation=None, pooling=pooling, layer=layer)
            assert one.retained_bits_per_token <= eight.retained_bits_per_token + 0.05
            assert eight.retained_bits_per_token <= plain.retained_bits_per_token + 0.1


def test_text_that_repeats_itself_can_be_read_from_few_bits(
    run: Callable[..., ProbeResult], ours: MemoryEncoder
) -> None:
    # Sixteen like tokens are one choice of a token to store, but each of them is a choice to a parallel reader.
    rng, vocabulary = random.Random(2), SENTENCE.split()[:8]
    repeated = [" ".join(word for word in rng.choices(vocabulary, k=8) for _ in range(24)) for _ in range(80)]
    result = run(ours, of_texts=repeated, chunk_lens=(16,), bits=(1,), reading=LONGER)
    assert [found.degradation is None for found in result.rows] == [True, False]


def test_noise_hides_what_a_memory_holds(run: Callable[..., ProbeResult]) -> None:
    result = run(layers=(1,), poolings=("all",), noise=(0.3, 10.0))
    plain, little, much = (found.retained_bits_per_token for found in result.rows)
    assert much < 0.3 * plain
    assert much < little <= plain + 0.1


# --- what cannot be done ---


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"layers": (3,)}, "tiny has no layer 3: there are 0 to 2"),
        ({"layers": (-4,)}, "tiny has no layer -4"),
        ({"poolings": ("sentence",)}, "tiny is no sentence-transformers model"),
        ({"chunk_lens": (LENGTH, 17)}, "tiny reads at most 16 tokens, not chunks of 17"),
        ({"chunk_lens": (1,), "poolings": ("second_to_last",)}, "no second to last"),
    ],
)
@pytest.mark.usefixtures("no_work")
def test_the_impossible_is_refused_before_any_work(
    settings: dict[str, Any], words: str, run: Callable[..., ProbeResult]
) -> None:
    with pytest.raises(ValueError, match=words):
        run(**settings)


@pytest.mark.usefixtures("no_work")
def test_an_autoencoder_has_its_memory_only(run: Callable[..., ProbeResult], ours: MemoryEncoder) -> None:
    with pytest.raises(ValueError, match="its only embedding is its memory, not 'mean'"):
        run(ours, chunk_lens=(16,), poolings=("mean",))
    with pytest.raises(ValueError, match="at most 16 tokens, not 32"):
        run(ours, chunk_lens=(32,))


@pytest.mark.usefixtures("no_work")
def test_texts_are_a_list_with_enough_in_it(encoder: StateEncoder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not one string"):
        probe(encoder, texts()[0], cache=tmp_path)
    with pytest.raises(ValueError, match="too little text for chunks of 16 tokens"):
        probe(encoder, texts(4, 20), cache=tmp_path)
    with pytest.raises(ValueError, match="too little text"):
        probe(encoder, [], cache=tmp_path)
    with pytest.raises(ValueError, match="lone surrogate"):
        probe(encoder, [*texts(), "a\ud800"], cache=tmp_path)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"chunk_lens": ()}, "chunk_lens must not be empty"),
        (
            {"readers": ("linear",), "parallel": SMALL},
            "dim=64, num_layers=1 is of the reader parallel, which is not asked for",
        ),
        ({"chunk_lens": (0,)}, "at least one token"),
        ({"readers": ()}, "readers must not be empty"),
        ({"bits": (17,)}, r"num_bits must lie in \[1, 16\], not 17"),
        ({"noise": (0.0,)}, "std must be positive"),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    settings: dict[str, Any], words: str, run: Callable[..., ProbeResult]
) -> None:
    with pytest.raises(ValueError, match=words):
        run(**settings)


def test_views_are_counted_from_the_last_layer_too(encoder: StateEncoder, ours: MemoryEncoder) -> None:
    for layer in range(LAYERS + 1):
        assert encoder.resolve(View(layer - LAYERS - 1, "mean"), LENGTH) == View(layer, "mean")
    assert encoder.default_view == View(LAYERS, "last")
    assert ours.resolve(View(-1, "memory"), 16) == ours.default_view


def test_the_first_length_gives_the_controls(encoder: StateEncoder) -> None:
    cfg = small_config(chunk_lens=(LENGTH, 12), reading=READING)
    assert [views_of(encoder, cfg, chunk_len) for chunk_len in cfg.chunk_lens] == [[encoder.default_view]] * 2

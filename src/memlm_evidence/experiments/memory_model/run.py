"""Claim: causal training alone leaves memories poor; the combined objective makes them rich at the same next-token
loss; a frozen autoencoder's encoder and a curriculum make that cheap.

Arms of one decoder, trained on equal causal tokens: no memory, memories by causal training, by combined training, from
a frozen autoencoder with a curriculum, the whole context as tokens, and recurrent memory tokens.
"""

from pathlib import Path

from memlm.data.cache import default_cache
from memlm.evaluation.prediction import excess, prediction_measures
from memlm.runtime.results import Provenance, Result
from memlm_evidence.experiments.memory_model.conditions import Arms, Plan, Row, Swept

BOUNDS = ("encoder_decoder", "oracle")
"""Arms that read more of the past, or of the very chunk, than memories hold; of a full comparison."""
WITH_MEMORIES = ("causal", "combined", "curriculum")


def reproduce_memory_model(
    out: Path, plan: Plan | None = None, *, cache: Path | None = None, quiet: bool = False
) -> Result:
    """Train every arm, measure and compare. What was trained before is not trained again.

    Returns:
        `causal_nats` by arm, on chunks that have a past to read; `gain` over no memory and `gap` to causal training,
        with paired intervals; `retention_accuracy` of the arms with memories, by the same reader trained on each, and
        `own_retention_accuracy` by their own decoders; `train_flops` of each arm, and `flops_to_rich`, what it took to
        give back 99.5% of tokens; `decoder_positions_per_chunk`. Of a full plan also bounds (an encoder-decoder, an
        oracle), and, at fewer tokens, `trade_off` over the weight of retention, `by_size` of the decoder, with its
        gap to causal training, and `by_insertion`.
    """
    plan = plan or Plan()
    work = Arms(out, plan, cache or default_cache(), quiet)
    arms = {name: work.arm(name) for name in (*plan.arms, *(BOUNDS if plan.full else ()))}
    nats = {name: prediction_measures(arm.prediction) for name, arm in arms.items()}
    probed = {name: work.probed(arms[name]) for name in WITH_MEMORIES}
    own = {name: work.own_retention(arms[name]) for name in WITH_MEMORIES}
    flops = {name: arm.flops_until(arm.num_tokens) for name, arm in arms.items()}
    reads = arms["combined"].trained
    assert reads is not None
    values: Row = {
        "retention_accuracy": {name: row["token_accuracy"] for name, row in probed.items()},
        "own_retention_accuracy": {name: row["token_accuracy"] for name, row in own.items()},
        "causal_nats": {name: found["causal_nats_per_token"] for name, (found, _) in nats.items()},
        "causal_nats_by_chunk": {name: found["causal_nats_by_chunk"] for name, (found, _) in nats.items()},
        "causal_nats_intervals": {
            name: list(spread["causal_nats_per_token"]) for name, (_, spread) in nats.items() if spread
        },
        "gain": {
            name: excess(arms["no_memory"].prediction, arm.prediction)
            for name, arm in arms.items()
            if name != "no_memory"
        },
        "gap": {
            name: excess(arms[name].prediction, arms["causal"].prediction, relative=True)
            for name in ("combined", "curriculum")
        },
        "train_flops": {**flops, "autoencoder": work.autoencoder_flops()},
        "flops_to_rich": {name: work.flops_to_rich(name, arms[name]) for name in ("combined", "curriculum")},
        "tokens": {name: arm.num_tokens for name, arm in arms.items()},
        "probes": probed,
        "trade_off": [_swept(work, arm) for arm in work.by_weight()] if plan.full else [],
        "by_size": [_swept(work, arm) for arm in work.by_size()] if plan.full else [],
        "by_insertion": [_swept(work, arm) for arm in work.by_insertion()] if plan.full else [],
        "decoder_positions_per_chunk": reads.model.decoder_positions_per_chunk,
        "chunk_len": plan.chunk_len,
        "window_chunks": plan.window_chunks,
        "seed": plan.seed,
    }
    made_by = Provenance.here(plan=vars(plan), data=work.prepared.fingerprint)
    return Result(name="memory model", measures=values, provenance=made_by)


def _swept(work: Arms, swept: Swept) -> Row:
    """What came of one arm of a sweep."""
    found, spread = prediction_measures(swept.arm.prediction)
    nats = {"causal_nats": found["causal_nats_per_token"], "interval": list(spread["causal_nats_per_token"])}
    gap = {"gap": excess(swept.arm.prediction, swept.against.prediction, relative=True)} if swept.against else {}
    reads = swept.arm.trained
    assert reads is not None
    retained = (
        {} if reads.model.encoder is None else {"retention_accuracy": work.own_retention(swept.arm)["token_accuracy"]}
    )
    positions = {"decoder_positions_per_chunk": reads.model.decoder_positions_per_chunk}
    return {
        **swept.values,
        **nats,
        **gap,
        **retained,
        **positions,
        "train_flops": swept.arm.flops_until(swept.arm.num_tokens),
    }

"""The claims that seconds of training steps decide."""

from memlm_evidence.claims import Claim, Measured
from memlm_evidence.experiments.memory_training.result import MemoryTrainingResult

CLAIMS: tuple[Claim[MemoryTrainingResult], ...] = (
    Claim(
        name="memory-models-are-parallel",
        statement="All chunks at once train faster than one after the other.",
        experiment=MemoryTrainingResult.name,
        quantity="seconds of a step of the recipe chunk by chunk, over ours",
        threshold=2.5,
        at_least=True,
        measure=lambda result: Measured.exactly(result.combined_step_ratio),
    ),
    Claim(
        name="faster-than-recurrent-memory",
        statement="Memories of many chunks train faster than memory that is carried from chunk to chunk.",
        experiment=MemoryTrainingResult.name,
        quantity="seconds of a next-token step of recurrent memory over ours, most chunks",
        threshold=1.0,
        at_least=True,
        measure=lambda result: Measured.exactly(result.most_chunks.recurrent_step_ratio),
    ),
    Claim(
        name="faster-than-encoder-decoders",
        statement="And faster than a decoder that attends to the states of all past tokens.",
        experiment=MemoryTrainingResult.name,
        quantity="seconds of a next-token step of an encoder-decoder over ours, most chunks",
        threshold=1.0,
        at_least=True,
        measure=lambda result: Measured.exactly(result.most_chunks.encoder_decoder_step_ratio),
    ),
)

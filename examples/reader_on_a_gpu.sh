#!/bin/sh
# A reader and what it is compared with, on one GPU of 80 GB and a dozen cores: the same model adapted to all of the past
# as tokens (full), which then teaches the reader, and to recent tokens alone (last), beside it; then the benchmark.
#
#     sh examples/reader_on_a_gpu.sh runs/gpu
#
# It resumes where it was interrupted. Sizes are set by variables, as STEPS=40 sh examples/reader_on_a_gpu.sh runs/try.
set -eu
out=${1:?give a folder for the runs}
model=${MODEL:-smollm2} encoder=${ENCODER:-english}
rows=${ROWS:-96} steps=${STEPS:-300} regenerating=${REGENERATING:-400} workers=${WORKERS:-14}

adapt() { # a name, then options
    name=$1
    shift
    ${PYTHON:-python} -m memlm adapt "$model" --encoder "$encoder" --batch-rows "$rows" --out "$out/$name" ${TEXT:+--text "$TEXT"} "$@"
}

# A step predicts at most 96 tokens of each row, and regenerates stretches of 80 on average.
predicted=$((rows * 96))
common="model.window.max_memories=4 model.window.predicted_tokens=96 model.window.regenerated_tokens=${STRETCH:-128}
    model.decoder.lora.rank=32 model.decoder.lora.alpha=64 stages.*.training.batch_tokens=$predicted ${SET:-}"
set -f # the stars are memlm's
adapt last --arm last --set $common "stages.*.training.num_tokens=$((steps * predicted))" \
    "stages.*.training.workers=$((workers / 2))" &
adapt full --arm full --set $common "stages.*.training.num_tokens=$((steps * predicted))" \
    "stages.*.training.workers=$((workers / 2))"
wait $!
adapt reader --teacher "$out/full/model" --set $common "stages.*.training.workers=$workers" \
    "stages.0.training.num_tokens=$((regenerating * rows * 50))" "stages.1.training.num_tokens=$((steps * predicted))"
${PYTHON:-python} -m memlm bench reader "$out/reader/model" --last "$out/last/model" --full "$out/full/model" \
    --out "$out/measured" --json ${BENCH:-} > "$out/reader.json"
echo "The reader: $out/reader/model; measured: $out/reader.json" >&2

#!/usr/bin/env bash
# All of Tigret that wants an NVIDIA GPU, on a Linux machine (x86-64) that has one, a Python with
# torch 2.11.0 (CUDA), and a glibc as new as that of the machine that packed the programs (2.35 does
# where that was Debian 12). `cargo xtask pack --run RUN` packs this script with them and the run:
#
#   tar xzf gpu.tar.gz && bash tigret-gpu/gpu.sh OUT [STEP ...]
#
# Steps, all of them in this order if none is named:
#   check     the tests that need a device: loss and gradient on CUDA beside those on the CPU
#   bench     training beside `transformers`, eager and compiled (needs transformers, safetensors)
#   engine    one recommendation: times, kernels, and the floor (needs a driver for Vulkan)
#             after the tests of kernels and of the whole engine on this GPU
#   train     the preset `paper` for MINUTES (6), then the figures of all test users
#   tokenize  RQ-VAE for the paper's 20,000 epochs
# Called again, `train` goes on where it stopped. A step that fails does not end the others; the exit
# status is 1 then. TRAIN holds options of `tigret train` (the device, the preset, --validate-every and
# the minutes are given), and DEVICE=cpu tries the script without a GPU.
#
# OUT gets a log a step, and of training the figures and the model in pieces of at most 15 MB
# (`cat model.tar.* | tar x`).
set -uo pipefail

if [ $# -eq 0 ] || [ "$1" = --help ]; then
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd)
shift
[ $# -gt 0 ] || set -- check bench engine train tokenize
for step in "$@"; do
    case $step in
    check | bench | engine | train | tokenize) ;;
    *)
        echo "gpu.sh: there is no step $step" >&2
        exit 2
        ;;
    esac
done
run=$here/run
device=${DEVICE:-cuda}

libraries=$(python3 -c 'import os, torch; print(os.path.join(os.path.dirname(torch.__file__), "lib"))') || {
    echo "gpu.sh: python3 does not import torch; pip install torch==2.11.0" >&2
    exit 2
}
# In front of what is there: the driver's own libraries may be found by the same variable.
export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
# Otherwise each step fails for the same reason. The loader says what it misses.
said=$("$here/tigret" --version 2>&1) || {
    echo "gpu.sh: tigret does not start; it needs torch 2.11.0 in python3, and a glibc as new as that of the machine that packed it (${said//$'\n'/; })" >&2
    exit 2
}

check() {
    # Without a device there is nothing to compare.
    [ "$device" = cpu ] || export TIGRET_REQUIRE_CUDA=1
    "$here/device-tests" cuda --nocapture || return 1
}

bench() {
    local work=$here/bench
    local common=(--warm-up 50 --steps 200)
    "$here/tigret" bench --device "$device" --users 0 --optimizer adamw "${common[@]}" \
        --dump "$work" --json || return 1
    local peer=(python3 "$here/bench_train.py" "$work" "${common[@]}" --device "$device" --precision bf16)
    "${peer[@]}" && "${peer[@]}" --compile
}

engine() {
    local format beams status=0
    # Times are worth something also where a test fails.
    TIGRET_REQUIRE_GPU=1 "$here/kernel-tests" gpu:: || status=1
    TIGRET_REQUIRE_GPU=1 "$here/engine-tests" || status=1
    for format in q8 f32 f16 q4; do
        for beams in 10 20 50; do
            "$here/time_one" --backend gpu --format "$format" --beams "$beams" --calls 200 \
                --floor true --profile true || return 1
        done
    done
    return $status
}

train() {
    local resume=()
    compgen -G "$run/model/last*" >/dev/null && resume=(--resume)
    # shellcheck disable=SC2086 # TRAIN is a list of options.
    "$here/tigret" train --run "$run" --device "$device" --preset paper --validate-every 2000 \
        --max-minutes "${MINUTES:-6}" ${TRAIN:---epochs 200 --schedule linear} ${resume[@]+"${resume[@]}"} --json ||
        return 1
    "$here/tigret" evaluate --run "$run" --device "$device" --batch 512 --json || return 1
    cp "$run/train.jsonl" "$run/evaluation.json" "$out/"
    (cd "$run/model" && tar c config.json model*) | split -b 15MB - "$out/model.tar."
}

tokenize() {
    # Another run, so that the model keeps its semantic IDs.
    mkdir -p "$here/tokenized"
    cp "$run"/{dataset.json,items.jsonl,sequences.jsonl,vectors.safetensors} "$here/tokenized/"
    "$here/tigret" tokenize --run "$here/tokenized" --device "$device" --epochs 20000 --json
}

failed=0
for step in "$@"; do
    echo "== $step"
    begin=$SECONDS
    "$step" 2>&1 | tee "$out/$step.log" || failed=$((failed + 1))
    echo "== $step: $((SECONDS - begin)) s"
done
exit $((failed > 0))

#!/usr/bin/env bash
# All of Tigret that wants an NVIDIA GPU, on a Linux machine (x86-64) that has one, a Python with
# torch 2.11.0 (CUDA; the usual wheels are of CUDA 13 and need driver 580 or later), and a glibc as
# new as that of the machine that packed the programs (2.35 does where that was Debian 12).
# `cargo xtask pack --run RUN` packs this script with them and the run:
#
#   tar xzf gpu.tar.gz && bash tigret-gpu/gpu.sh OUT [STEP ...]
#
# Steps, all of them in this order if none is named:
#   check     the tests that need a device: training and search on CUDA beside those on the CPU
#   bench     training on the run beside `transformers`, eager and compiled (needs transformers,
#             safetensors; compiled also a C compiler and Python's headers, for Triton; COMPILE=0
#             leaves it out)
#   engine    one recommendation: times, kernels, and the floor (needs a driver for Vulkan); then
#             the tests of kernels and of the whole engine on this GPU
#   train     the preset `paper` for MINUTES (6), then the figures of all test users
#   tokenize  RQ-VAE for the paper's 20,000 epochs, or as many as TOKENIZE_MINUTES (6) hold
#   state     what `train` goes on from, to OUT/state (for the sizes of `paper` 77 MB, or 58 MB with
#             TRAIN="--epochs 200 --ema 0")
# Called again, `train` and `tokenize` go on where they stopped, on another machine too if OUT is the
# one before. A step that fails does not end the others; the exit status is 1 then. On a GPU each program
# has a time limit of its own, so that one that hangs costs minutes; where none does, all steps take about
# half an hour. In pieces of less than ten minutes and 64 MB: `check bench engine`, `train`, `state` (on the
# same machine, with --ema 0) and `tokenize`. TRAIN holds options of `tigret train` (the device, the
# preset, --validate-every and the minutes are given), and DEVICE=cpu tries the script without a GPU.
#
# OUT gets a log a step, the log and the figures of training, and in pieces of at most 15 MB
# (`cat model.tar.* | tar x`) the model, the state, and the semantic IDs with the tokenizer or its
# unfinished training.
set -uo pipefail

if [ $# -eq 0 ] || [ "$1" = --help ]; then
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
    [ $# -gt 0 ] && exit 0
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd)
shift
[ $# -gt 0 ] || set -- check bench engine train tokenize state
for step in "$@"; do
    case $step in
    check | bench | engine | train | tokenize | state) ;;
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
if [ "$device" != cpu ] && ! python3 -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "gpu.sh: torch in python3 sees no CUDA device; \`nvidia-smi\` shows the driver, and wheels of CUDA 13 need 580 or later" >&2
    exit 2
fi
# In front of what is there: the driver's own libraries may be found by the same variable.
export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
# Where containers get NVIDIA's driver, and where the loader of Vulkan does not look for it.
manifest=/usr/local/nvidia/share/vulkan/icd.d/nvidia_icd.json
if [ -e $manifest ] && [ -z "${VK_DRIVER_FILES-}${VK_ICD_FILENAMES-}" ]; then
    export VK_DRIVER_FILES=$manifest
fi
# Otherwise each step fails for the same reason. The loader says what it misses.
said=$("$here/tigret" --version 2>&1) || {
    echo "gpu.sh: tigret does not start; it needs torch 2.11.0 in python3, and a glibc as new as that of the machine that packed it (${said//$'\n'/; })" >&2
    exit 2
}

# within SECONDS PROGRAM ARGUMENT...: ends one that takes longer, on a GPU: drivers are known to hang,
# also at a program's exit. In the foreground, so that Ctrl-C reaches it.
within() {
    local status=0
    if [ "$device" = cpu ]; then
        "${@:2}"
        return
    fi
    timeout --foreground --kill-after 10 "$@" || status=$?
    case $status in
    124 | 137) echo "gpu.sh: $(basename "$2") did not end within $1 s" ;;
    esac
    return $status
}

# keep NAME FOLDER FILE...: files of a folder to OUT, in pieces.
keep() {
    rm -f "$out/$1.tar."*
    mkdir -p "$(dirname "$out/$1")"
    tar c -C "$2" -- "${@:3}" | split -b 15MB - "$out/$1.tar."
}

# take NAME FOLDER: back again what OUT has of them.
take() {
    compgen -G "$out/$1.tar.*" >/dev/null || return 0
    mkdir -p "$2" && cat "$out/$1.tar."* | tar x -C "$2"
}

# The names, without their folder, of what FOLDER has that matches.
names() {
    (cd "$1" 2>/dev/null && compgen -G "$2")
}

check() {
    # Without a device there is nothing to compare.
    [ "$device" = cpu ] || export TIGRET_REQUIRE_CUDA=1
    # One after the other: libtorch has one generator for all threads.
    within 240 "$here/device-tests" cuda --nocapture --test-threads 1
}

bench() {
    local work=$here/bench
    local common=(--warm-up 50 --steps 200)
    # Lengths and users as they are, not as they are drawn where no run is named.
    within 180 "$here/tigret" bench --run "$run" --device "$device" --users 0 --optimizer adamw "${common[@]}" \
        --dump "$work" --json || return 1
    local peer=(python3 "$here/bench_train.py" "$work" "${common[@]}" --device "$device" --precision bf16)
    within 180 "${peer[@]}" || return 1
    [ "${COMPILE:-1}" != 0 ] || return 0
    # What Triton compiles its launchers with.
    local headers
    headers=$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h
    if [ -e "$headers" ] && command -v "${CC:-cc}" gcc clang >/dev/null; then
        within 240 "${peer[@]}" --compile
    else
        echo "compiled: left out, Triton finds no C compiler or no $headers"
    fi
}

engine() {
    local format beams status=0 said
    # Without a driver all that follows fails for the same reason.
    said=$(within 60 "$here/time_one" --backend gpu --calls 1 2>&1) || status=1
    echo "$said"
    [[ $said != *"no usable GPU"* ]] || return 1
    for format in q8 f32 f16 q4; do
        for beams in 10 20 50; do
            within 30 "$here/time_one" --backend gpu --format "$format" --beams "$beams" --calls 200 \
                --floor true --profile true || status=1
        done
    done
    # One after the other: they are what is tested, and not how a driver bears many devices at once.
    export TIGRET_REQUIRE_GPU=1
    within 240 "$here/kernel-tests" gpu:: --test-threads 1 || status=1
    within 240 "$here/engine-tests" --test-threads 1 || status=1
    return $status
}

train() {
    # By default the rate follows no end, which the minutes may not reach, and the average of the weights
    # is as good as they allow at any time.
    local resume=() status=0 minutes=${MINUTES:-6}
    if ! names "$run/model" "last*" >/dev/null; then
        take state/last "$run/model" && take model "$run/model" || return 1
        [ ! -e "$out/train.jsonl" ] || cp "$out/train.jsonl" "$run/"
    fi
    names "$run/model" "last*" >/dev/null && resume=(--resume)
    # It stops by itself; the limit is for one that hangs.
    # shellcheck disable=SC2086 # TRAIN is a list of options.
    within $((10#0${minutes%%.*} * 60 + 120)) \
        "$here/tigret" train --run "$run" --device "$device" --preset paper --validate-every 2000 \
        --max-minutes "$minutes" ${TRAIN:---epochs 200} ${resume[@]+"${resume[@]}"} --json ||
        status=1
    # What there is of a training that failed is worth as much.
    [ ! -e "$run/train.jsonl" ] || cp "$run/train.jsonl" "$out/"
    # shellcheck disable=SC2046 # Their names have no spaces.
    names "$run/model" "model*" >/dev/null || return 1
    keep model "$run/model" config.json $(names "$run/model" "model*") || return 1
    within 300 "$here/tigret" evaluate --run "$run" --device "$device" --batch 512 --json &&
        cp "$run/evaluation.json" "$out/" && return $status
}

state() {
    # shellcheck disable=SC2046 # Their names have no spaces.
    if names "$run/model" "last*" >/dev/null; then
        keep state/last "$run/model" $(names "$run/model" "last*")
    else
        echo "there is no training to go on from" && return 1
    fi
}

tokenize() {
    # Another run, so that the model keeps its semantic IDs.
    local tokenized=$here/tokenized status=0
    [ -d "$tokenized" ] || take tokenized "$tokenized" || return 1
    if [ -e "$tokenized/tokenizer.json" ] && [ ! -e "$tokenized/tokenizer.partial.safetensors" ]; then
        echo "the tokenizer is trained; remove $out/tokenized.tar.* and $tokenized to train it anew"
        return 0
    fi
    mkdir -p "$tokenized"
    cp "$run"/{dataset.json,items.jsonl,sequences.jsonl,vectors.safetensors} "$tokenized/"
    # Interrupted, it keeps its state.
    timeout --foreground --kill-after 60 --signal INT "${TOKENIZE_MINUTES:-6}m" \
        "$here/tigret" tokenize --run "$tokenized" --device "$device" --epochs 20000 --json || status=$?
    # That the time is up is no failure.
    [ $status -ne 124 ] || status=0
    local files
    files=$(names "$tokenized" "to*"; names "$tokenized" "catalog.json")
    # shellcheck disable=SC2086 # Their names have no spaces.
    [ -z "$files" ] || keep tokenized "$tokenized" $files || return 1
    return $status
}

failed=0
for step in "$@"; do
    echo "== $step"
    begin=$SECONDS
    "$step" 2>&1 | tee "$out/$step.log" || failed=$((failed + 1))
    echo "== $step: $((SECONDS - begin)) s"
done
exit $((failed > 0))

#!/bin/bash
# train_peer.sh - a training step beside PyTorch's and llm.c's, with the same shapes, in alternating
# runs (ours, theirs, ours, theirs ...), so that a machine that gets slower slows all.
#
#     make build/bench_train && bench/train_peer.sh [--json]
#
# Run it from the top of the tree. To choose, with their defaults:
#   SHAPES="nano-llama nano-gpt2 gpt2-124m small-llama"   PAIRS=3   THREADS=2   STEPS=10
#   PYTHON=/usr/bin/python3    one that has PyTorch
#   LLMC=                      a build of bench/train_llmc.c, which knows the shape gpt2-124m only
#   OURS=                      more options of bench_train: --bf16-amx
# PyTorch's threads wait without spinning: Debian's has two pools of them, its own and OpenBLAS's,
# which take the processors from each other else (2 to 5 times as long for the small shapes).
# Of every run the median step counts; min is the best step of all runs, med the median of the runs,
# cpu the processor time of a step (all threads together, waiting ones too where they spin).
: "${BUILD:=build}" "${PYTHON:=/usr/bin/python3}" "${PAIRS:=3}" "${THREADS:=2}" "${STEPS:=10}"
: "${SHAPES:=nano-llama nano-gpt2 gpt2-124m small-llama}" "${LLMC:=}" "${OURS:=}"
export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=$THREADS
# Debian's OpenBLAS takes processors newer than itself for old ones, at a fifth of the speed.
if [ -z "${OPENBLAS_CORETYPE-}" ] && grep -qw avx512bw /proc/cpuinfo 2>/dev/null; then
    export OPENBLAS_CORETYPE=SkylakeX
fi
fail() { echo "train_peer.sh: $*" >&2; exit 1; }

case ${1-} in
'' | --json) json=${1-} ;;
*) fail "what is $1?" ;;
esac
[ -x "$BUILD/bench_train" ] || fail "no $BUILD/bench_train: run make"
"$PYTHON" -c 'import torch' 2>/dev/null || fail "$PYTHON has no PyTorch"

values() { sed -nE "s/.*\"$1\":([0-9.]+).*/\1/p" "$2"; } # FIELD LOG
least() { sort -g | head -n 1; }
most() { sort -g | tail -n 1; }
median() {
    sort -g | awk '{ v[NR] = $1 }
        END { h = int((NR + 1) / 2); print(NR % 2 ? v[h] : (v[h] + v[h + 1]) / 2) }'
}
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf("%.2f\n", b > 0 ? a / b : 0) }'; }

log=$(mktemp -d) || exit 1
trap 'rm -rf "$log"' EXIT
line='%-12s %-5s %9.1f %9.1f %9.1f %9.0f %7.1f %8.0f\n'
[ -n "$json" ] || printf '%-12s %-5s %9s %9s %9s %9s %7s %8s\n' \
    shape who "min ms" "med ms" "cpu ms" tok/s GFLOPS "RSS MB"
for shape in $SHAPES; do
    rm -f "$log"/*
    for ((i = 0; i < PAIRS; i++)); do
        # shellcheck disable=SC2086
        "$BUILD/bench_train" -m "$shape" -t "$THREADS" -n "$STEPS" $OURS --json >>"$log/ours" ||
            fail "bench_train failed"
        "$PYTHON" bench/train_torch.py -m "$shape" -t "$THREADS" -n "$STEPS" --json \
            >>"$log/torch" || fail "train_torch.py failed"
        [ "$shape" != gpt2-124m ] || [ -z "$LLMC" ] ||
            OMP_WAIT_POLICY=active "$LLMC" -n "$STEPS" 2>>"$log/llm.c" || fail "$LLMC failed"
    done
    # floating-point operations of a step, in millions: both do the same work
    work=$(paste <(values gflops "$log/ours") <(values median_ms "$log/ours") |
        awk 'NR == 1 { print $1 * $2 }')
    row="" ratios=""
    for who in ours torch llm.c; do
        [ -s "$log/$who" ] || continue
        best=$(values min_ms "$log/$who" | least) med=$(values median_ms "$log/$who" | median)
        cpu=$(values cpu_ms "$log/$who" | median) speed=$(values tok_s "$log/$who" | median)
        rss=$(values rss_mb "$log/$who" | most) gflops=$(ratio "$work" "$med")
        row+=",\"${who}_min_ms\":$best,\"${who}_median_ms\":$med,\"${who}_cpu_ms\":$cpu"
        row+=",\"${who}_tok_s\":$speed,\"${who}_gflops\":$gflops,\"${who}_rss_mb\":$rss"
        # shellcheck disable=SC2059
        [ -n "$json" ] || printf "$line" "$shape" "$who" "$best" "$med" "$cpu" "$speed" "$gflops" \
            "$rss"
        if [ "$who" = ours ]; then
            our_best=$best our_med=$med our_cpu=$cpu
            continue
        fi
        row+=",\"${who}_ratio\":$(ratio "$med" "$our_med")"
        ratios+=$(printf '%-12s %-5s %9.2f %9.2f %9.2f' "" x "$(ratio "$best" "$our_best")" \
            "$(ratio "$med" "$our_med")" "$(ratio "$cpu" "$our_cpu")")" of $who"$'\n'
    done
    if [ -n "$json" ]; then
        echo "{\"shape\":\"$shape\",\"threads\":$THREADS,\"pairs\":$PAIRS,\"steps\":$STEPS$row}"
    else
        printf %s "$ratios"
    fi
done

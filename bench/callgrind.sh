#!/bin/bash
# callgrind.sh - instructions of a decoded token, counted by valgrind: the same on a busy machine as
# on an idle one, so that a change of 1 % is seen. They say nothing of memory or of waiting.
#
#     make build/bench_model && bench/callgrind.sh
#
# Run it from the top of the tree. Two runs that differ in the number of decoded tokens only: what
# the prompt takes is in both, and their difference is what the tokens took. To choose:
#   MODELS="stories15m-q8_0 stories15m-q4_0"   as in bench/peer.sh; made with llama.cpp's libraries
#   P=16 N=16   prompt, and tokens that are counted: those that decode after 8 others
#   ISA=avx2    scalar or avx2 (valgrind has no AVX-512)   TOP=8   functions shown
: "${PEER:=build/peer/node_modules/@node-llama-cpp/linux-x64/bins/linux-x64}"
: "${TOOLS:=../shared/tools}" "${BUILD:=build}"
: "${MODELS:=stories15m-q8_0 stories15m-q4_0}" "${P:=16}" "${N:=16}" "${ISA:=avx2}" "${TOP:=8}"
fail() { echo "callgrind.sh: $*" >&2; exit 1; }

command -v valgrind >/dev/null || fail "no valgrind here (Debian's package valgrind)"
command -v callgrind_annotate >/dev/null || fail "no callgrind_annotate (valgrind has it)"
[ -x "$BUILD/bench_model" ] || fail "no $BUILD/bench_model: run make"
case $ISA in
scalar | avx2) ;;
*) fail "ISA: valgrind runs scalar and avx2, not $ISA" ;;
esac
# shellcheck source=bench/models.sh
. bench/models.sh
out=$BUILD/callgrind
mkdir -p "$out"

# Within sm_eval only: loading, measuring how fast memory is read (which goes by the clock) and the
# benchmark's own search for the best token do not count. Every run warms up once: two rounds.
count() { # FILE TOKENS
    valgrind --tool=callgrind --toggle-collect=sm_eval --callgrind-out-file="$out/$2.out" \
        "$BUILD/bench_model" -m "$1" -p "$P" -n "$2" -t 1 --isa "$ISA" --reps 1 --json \
        >"$out/$2.log" 2>&1 || { tail -n 3 "$out/$2.log" >&2; return 1; }
    callgrind_annotate --threshold=100 "$out/$2.out" >"$out/$2.txt" 2>>"$out/$2.log"
}

for model in $MODELS; do
    file=$(model_file "$model") || { echo "$model: could not be made"; status=1; continue; }
    few=8 many=$((8 + N))
    if ! count "$file" "$few" || ! count "$file" "$many"; then
        echo "$model: bench_model failed under valgrind"
        status=1
        continue
    fi
    # A line of the annotation: count (share)  file:function [object]; its numbers have commas.
    awk -v tokens=$((2 * N)) -v model="$(basename "$file" .gguf)" -v isa="$ISA" \
        -v FUNCTIONS="$out/functions" -v from=$((P + few)) -v to=$((P + many - 1)) '
        $1 !~ /^[0-9,]+$/ { next }
        { n = $1; gsub(/,/, "", n); sub(/^[^)]*\) */, ""); sign = FNR == NR ? -1 : 1 }
        /PROGRAM TOTALS/ { total += sign * n; next }
        { sub(/ \[.*/, ""); sub(/^.*:/, ""); count[$0] += sign * n }
        END {
            if (total <= 0) { print model ": nothing was counted"; exit 1 }
            printf("%-18s %-7s %.0f instructions a token (positions %d to %d)\n", model, isa,
                total / tokens, from, to)
            for (f in count)
                printf("    %5.1f %% %10.0f  %s\n", 100 * count[f] / total, count[f] / tokens,
                    f) >FUNCTIONS
        }' "$out/$few.txt" "$out/$many.txt" || { status=1; continue; }
    sort -k3,3nr -k4 "$out/functions" | head -n "$TOP"
done
exit "${status:-0}"

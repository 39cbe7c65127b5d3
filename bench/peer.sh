#!/bin/bash
# peer.sh - decode and prompt speed beside llama.cpp's, on the same files: its published shared
# libraries, one folder for each instruction set, in alternating runs (ours, its, ours, its ...), so
# that a machine that gets slower slows both. Prints medians.
#
#     npm install --ignore-scripts @node-llama-cpp/linux-x64     (in build/peer, say)
#     PEER=build/peer/node_modules/@node-llama-cpp/linux-x64/bins/linux-x64 bench/peer.sh
#
# Run it from the top of the tree. To choose, with their defaults:
#   MODELS="stories15m-q8_0 stories15m-q4_0 stories15m-f32 smollm135m-q8_0 ..."   SHAPE-TYPE, made
#           with random weights by mkgguf.py into build/models, or paths of GGUF files
#   ISAS="avx2 avx512 amx"   THREADS="1 2"   PAIRS=5   P=128   N=64   REPS=2   TOOLS=../shared/tools
#   COMPARE_BEST=1   our best level against each of theirs, instead of like against like
: "${PEER:=build/peer/node_modules/@node-llama-cpp/linux-x64/bins/linux-x64}"
: "${TOOLS:=../shared/tools}" "${BUILD:=build}" "${CC:=cc}"
: "${MODELS:=stories15m-q8_0 stories15m-q4_0 stories15m-f32
    smollm135m-q8_0 smollm135m-q4_0 smollm135m-f32}"
: "${ISAS:=avx2 avx512 amx}" "${THREADS:=1 2}" "${PAIRS:=5}" "${P:=128}" "${N:=64}" "${REPS:=2}"
fail() { echo "peer.sh: $*" >&2; exit 1; }

[ -d "$PEER" ] || fail "no folder $PEER (see the first lines of bench/peer.sh)"
PEER=$(cd "$PEER" && pwd)
[ -f "$TOOLS/peerbench.c" ] || fail "no $TOOLS/peerbench.c"
[ -x "$BUILD/bench_model" ] || fail "no $BUILD/bench_model: run make"
$CC -O2 -w "$TOOLS/peerbench.c" -o "$BUILD/peerbench" -ldl || fail "peerbench.c does not compile"

# A folder with one CPU library only forces it. Prints the folder of the first library of this level
# that is in the package and runs here (icelake wants more of AVX-512 than VNNI), or nothing.
forced() { # ISA FILE
    local names name dir f
    case $1 in
    avx2) names=haswell ;;
    avx512) names="icelake cascadelake" ;;
    amx) names=sapphirerapids ;;
    *) fail "ISAS: what is $1?" ;;
    esac
    for name in $names; do
        [ -f "$PEER/libggml-cpu-$name.so" ] || continue
        dir=$BUILD/peer-$name
        mkdir -p "$dir"
        for f in "$PEER"/*; do
            case $f in
            */libggml-cpu-*) ;;
            *) ln -sf "$f" "$dir/" ;;
            esac
        done
        ln -sf "$PEER/libggml-cpu-$name.so" "$dir/"
        if PEER=$dir "$BUILD/peerbench" -m "$2" -p 1 -n 1 -t 1 -r 1 >/dev/null 2>&1; then
            echo "$dir"
            return
        fi
    done
}

model_file() { # SHAPE-TYPE or a path: prints the path
    case $1 in
    *.gguf | */*) echo "$1"; return ;;
    esac
    local file=$BUILD/models/$1.gguf python=python3
    # Debian's numpy belongs to Debian's python.
    [ -x /usr/bin/python3 ] && python=/usr/bin/python3
    if [ ! -f "$file" ]; then
        mkdir -p "$BUILD/models"
        PEER=$PEER $python "$TOOLS/mkgguf.py" "${1%-*}" "${1##*-}" "$file.new" >&2 &&
            mv "$file.new" "$file" || return 1
    fi
    echo "$file"
}

field() { sed -nE "s/.*\"$1\":\"?([^,\"}]*).*/\\1/p"; }
median() {
    sort -g | awk '{ v[NR] = $1 }
        END { h = int((NR + 1) / 2); print(NR % 2 ? v[h] : (v[h] + v[h + 1]) / 2) }'
}

echo "medians of $PAIRS alternating pairs, prompt $P, decode $N, best of $REPS runs each"
columns='%-18s %-7s %s | %9s %9s %6s %9s %5s | %9s %9s %6s\n'
# shellcheck disable=SC2059
printf "$columns" "" "" " " decode tok/s "" reading "" prompt tok/s ""
# shellcheck disable=SC2059
printf "$columns" model isa t ours peer ratio limit "of it" ours peer ratio
compared=0
for model in $MODELS; do
    file=$(model_file "$model") || { echo "$model: could not be made"; continue; }
    for isa in $ISAS; do
        folder=$(forced "$isa" "$file")
        if [ -z "$folder" ]; then
            echo "$(basename "$model" .gguf) $isa: the peer has no library for it that runs here"
            continue
        fi
        ours_isa=$isa
        [ -z "${COMPARE_BEST-}" ] || ours_isa=auto
        for t in $THREADS; do
            log=$BUILD/peer-runs
            rm -f "$log".*
            for ((i = 0; i < PAIRS; i++)); do
                "$BUILD/bench_model" -m "$file" -p "$P" -n "$N" -t "$t" --isa "$ours_isa" \
                    --reps "$REPS" --json >>"$log.ours" || fail "bench_model failed on $file"
                PEER=$folder "$BUILD/peerbench" -m "$file" -p "$P" -n "$N" -t "$t" \
                    -r "$REPS" >>"$log.peer" || fail "peerbench failed on $file"
            done
            od=$(field tg_tok_s <"$log.ours" | median) pd=$(field tg_tok_s <"$log.peer" | median)
            op=$(field pp_tok_s <"$log.ours" | median) pp=$(field pp_tok_s <"$log.peer" | median)
            read_rate=$(field read_gb_s <"$log.ours" | median)
            bytes=$(field decode_bytes <"$log.ours" | head -n 1)
            awk -v m="$(basename "$model" .gguf)" -v isa="$isa" -v t="$t" -v od="$od" -v pd="$pd" \
                -v op="$op" -v pp="$pp" -v rate="$read_rate" -v bytes="$bytes" 'BEGIN {
                limit = (bytes > 0 ? rate * 1e9 / bytes : 0)
                printf("%-18s %-7s %s | %9.1f %9.1f %6.2f %9.1f %5.2f | %9.1f %9.1f %6.2f\n",
                    m, isa, t, od, pd, (pd > 0 ? od / pd : 0), limit,
                    (limit > 0 ? od / limit : 0), op, pp, (pp > 0 ? op / pp : 0)) }'
            compared=$((compared + 1))
        done
    done
done
[ "$compared" -gt 0 ] || fail "nothing was compared"

#!/bin/bash
# peer.sh - decode and prompt speed beside llama.cpp's, on the same files: its published shared
# libraries, one folder for each instruction set, in alternating runs (ours, its, ours, its ...), so
# that a machine that gets slower slows both. Prints medians.
#
#     make bench-peer         builds, fetches the libraries (npm), runs this, keeps the results
#     bench/peer.sh           the same by hand, after make and
#                             npm install --ignore-scripts @node-llama-cpp/linux-x64  in build/peer
#
# Run it from the top of the tree. To choose, with their defaults:
#   MODELS="stories15m-q8_0 stories15m-q4_0 stories15m-f32 smollm135m-q8_0 ..."   SHAPE-TYPE
#           (llama1b-q4_k, say), made with random weights by mkgguf.py into build/models, or paths
#           of GGUF files
#   ISAS="avx2 avx512 amx"   THREADS="1 2"   PAIRS=5   P=128   N=64   REPS=2   TOOLS=../shared/tools
#   SHARES=24        each of our runs then decodes so many more tokens, each beside a reading of the
#           weights; "of it" is their median share instead of the best rate over the best reading
#   COMPARE_BEST=1   our best level against each of theirs, instead of like against like
#   RESULTS=FILE     the results as JSON, too, for bench/plot.py; a folder (ending in /) gets
#                    DATE-PROCESSOR.json; a file that is there is replaced
: "${PEER:=build/peer/node_modules/@node-llama-cpp/linux-x64/bins/linux-x64}"
: "${TOOLS:=../shared/tools}" "${BUILD:=build}" "${CC:=cc}"
: "${MODELS:=stories15m-q8_0 stories15m-q4_0 stories15m-f32
    smollm135m-q8_0 smollm135m-q4_0 smollm135m-f32}"
: "${ISAS:=avx2 avx512 amx}" "${THREADS:=1 2}" "${PAIRS:=5}" "${P:=128}" "${N:=64}" "${REPS:=2}"
fail() { echo "peer.sh: $*" >&2; exit 1; }

[ -d "$PEER" ] || fail "no folder $PEER: make bench-peer fetches it"
PEER=$(cd "$PEER" && pwd)
[ -f "$TOOLS/peerbench.c" ] || fail "no $TOOLS/peerbench.c"
[ -x "$BUILD/bench_model" ] || fail "no $BUILD/bench_model: run make"
$CC -O2 -w "$TOOLS/peerbench.c" -o "$BUILD/peerbench" -ldl || fail "peerbench.c does not compile"
# shellcheck source=bench/models.sh
. bench/models.sh

# What a level wants of the processor, in the words of /proc/cpuinfo: prints what is missing. Asked
# first, because our amx runs on any processor: it falls back.
lacking() { # ISA
    local wants flag
    case $1 in
    avx2) wants="avx2 fma f16c" ;;
    avx512) wants="avx512f avx512bw avx512dq avx512vl avx512_vnni" ;;
    amx) wants="amx_tile amx_int8" ;;
    *) fail "ISAS: what is $1?" ;;
    esac
    for flag in $wants; do
        grep -qwm 1 "$flag" /proc/cpuinfo || echo "$flag"
    done
}

# A folder with one CPU library only forces it. Prints the folder of the first library of this level
# that is in the package and runs here (icelake wants more of AVX-512 than VNNI), or nothing.
forced() { # ISA FILE
    local names name dir f
    case $1 in
    avx2) names=haswell ;;
    avx512) names="icelake cascadelake" ;;
    amx) names=sapphirerapids ;;
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

field() { sed -nE "s/.*\"$1\":\"?([^,\"}]*).*/\1/p"; }
median() {
    sort -g | awk '{ v[NR] = $1 }
        END { h = int((NR + 1) / 2); print(NR % 2 ? v[h] : (v[h] + v[h + 1]) / 2) }'
}
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf("%.4g\n", b > 0 ? a / b : 0) }'; }

# Ticks that the processors were busy (or taken away from this virtual machine), and ticks that this
# script and what it started used: the difference is other programs, which disturb both engines, and
# threads that wait for one another most.
ticks() {
    awk -v now="$(date +%s.%N)" '/^cpu / { busy = $2 + $3 + $4 + $7 + $8 + $9 }
        FILENAME != "/proc/stat" { own = $14 + $15 + $16 + $17 }
        END { print busy, own, now }' /proc/stat "/proc/$$/stat"
}
others() { # TICKS-BEFORE TICKS-AFTER: how many processors other programs kept busy
    echo "$1 $2" | awk -v hz="$(getconf CLK_TCK)" '{
        s = ($6 - $3) * hz; v = s > 0 ? ($4 - $1 - ($5 - $2)) / s : 0
        printf("%.2f\n", v > 0 ? v : 0) }'
}

# --- results as JSON -----------------------------------------------------------------------------

text() { # KEY TEXT, which loses what would want escapes
    printf '"%s":"%s",' "$1" "$(tr -d '\042\134' <<<"$2" | tr -s ' \n' ' ' | sed 's/^ //; s/ $//')"
}
number() { printf '"%s":%s,' "$1" "${2:-null}"; }
object() { printf '{%s}' "$(sed '$s/,$//')"; } # of the members that are piped in
list() { printf '"%s":[%s],' "$1" "$(field "$2" <"$3" | paste -sd,)"; } # KEY FIELD LOG

processor() {
    local name
    name=$(sed -nE 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1)
    echo "${name:-$(uname -m)}"
}
slug() { # of a processor's name, without what all of them have
    sed -E 's/\((R|TM)\)//g; s/ (CPU|Processor|[0-9]+-Core)\b//g; s/@.*//' |
        tr '[:upper:]' '[:lower:]' | tr -cs '[:alnum:]' - | sed 's/^-*//; s/-*$//'
}
commit() { # a tree that differs in results only is the commit itself
    local name
    name=$(git rev-parse --short HEAD 2>/dev/null) || { echo unknown; return; }
    git diff --quiet HEAD -- . ':!bench/results' || name+=-dirty
    echo "$name"
}
options() { # those that change bench_model's code; the rest are warnings and folders
    tr ' ' '\n' <"$BUILD/flags" 2>/dev/null |
        grep -E '^-(std=|O|m|f|D[A-Z_]*SMALLMIND)' | paste -sd' '
}
peer_name() {
    local version release
    version=$(sed -nE 's/.*"version": *"([^"]*).*/\1/p' "$PEER/../../package.json" 2>/dev/null)
    release=$(field release <"$PEER/_nlcBuildMetadata.json" 2>/dev/null)
    echo "llama.cpp ${release:-?} of @node-llama-cpp/linux-x64 ${version:-?}"
}

rows=$BUILD/peer-rows compiler=unknown complete=false
version=$(commit) # of the start: files may change while it runs
started=$(date -u +%Y-%m-%dT%H:%M:%SZ)
rm -f "$rows"

add_row() { # the runs in $log, of what the loops below are at
    {
        text model "$(basename "$file" .gguf)"
        text type "$(field type <"$log.ours" | head -n 1)"
        text isa "$isa"
        text ours_isa "$(field isa <"$log.ours" | head -n 1)" # amx falls back
        text peer_library "$(basename "$folder"/libggml-cpu-*.so)"
        number threads "$t"
        number ours_decode "$od"
        number peer_decode "$pd"
        number decode_ratio "$(ratio "$od" "$pd")"
        number ours_prompt "$op"
        number peer_prompt "$pp"
        number prompt_ratio "$(ratio "$op" "$pp")"
        number decode_bytes "$bytes"
        number read_gb_s "$read_rate"
        number limit_decode "$limit"
        number ours_of_limit "$share"
        number peer_of_limit "$(ratio "$pd" "$limit")"
        number others_busy "$busy"
        list ours_decode_runs tg_tok_s "$log.ours"
        list peer_decode_runs tg_tok_s "$log.peer"
        list ours_prompt_runs pp_tok_s "$log.ours"
        list peer_prompt_runs pp_tok_s "$log.peer"
        list read_gb_s_runs read_gb_s "$log.ours"
    } | object >>"$rows"
    echo >>"$rows"
    compiler=$(field compiler <"$log.ours" | head -n 1)
}
settings() {
    text models "$MODELS"
    text isas "$ISAS"
    text threads "$THREADS"
    number pairs "$PAIRS"
    number prompt "$P"
    number decode "$N"
    number reps "$REPS"
    number shares "${SHARES:-0}"
    number compare_best "$([ -n "${COMPARE_BEST-}" ] && echo true || echo false)"
}
# However it ends: a run that was stopped leaves what it measured, and says so.
write_results() {
    [ -n "${RESULTS-}" ] && [ -s "$rows" ] || return
    local file=$RESULTS
    case $file in
    */) file+=${started%T*}-$(processor | slug).json ;;
    esac
    mkdir -p "$(dirname "$file")"
    {
        text cpu "$(processor)"
        number processors "$(nproc)"
        text compiler "$compiler"
        text options "$(options)"
        text commit "$version"
        text date "$started"
        text peer "$(peer_name)"
        number complete "$complete"
        printf '\n'
        number settings "$(settings | object)"
        printf '\n"rows":[\n%s\n]\n' "$(sed '$!s/$/,/' "$rows")"
    } | object >"$file.new" && echo >>"$file.new" && mv "$file.new" "$file" && echo "results: $file"
}
trap write_results EXIT
trap 'exit 130' INT TERM

# --- the runs ------------------------------------------------------------------------------------

levels=
for isa in $ISAS; do
    missing=$(lacking "$isa") || exit 1
    if [ -n "$missing" ]; then echo "$isa: skipped, this processor has no ${missing//$'\n'/, }"
    else levels+=" $isa"; fi
done
echo "medians of $PAIRS alternating pairs, prompt $P, decode $N, best of $REPS runs each"
columns='%-18s %-7s %s | %9s %9s %6s %9s %5s | %9s %9s %6s\n'
# shellcheck disable=SC2059
printf "$columns" "" "" " " decode tok/s "" reading "" prompt tok/s ""
# shellcheck disable=SC2059
printf "$columns" model isa t ours peer ratio limit "of it" ours peer ratio
compared=0
for model in $MODELS; do
    file=$(model_file "$model") || { echo "$model: could not be made"; continue; }
    for isa in $levels; do
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
            before=$(ticks)
            for ((i = 0; i < PAIRS; i++)); do
                "$BUILD/bench_model" -m "$file" -p "$P" -n "$N" -t "$t" --isa "$ours_isa" \
                    --reps "$REPS" --pairs "${SHARES:-0}" --json >>"$log.ours" ||
                    fail "bench_model failed on $file"
                PEER=$folder "$BUILD/peerbench" -m "$file" -p "$P" -n "$N" -t "$t" \
                    -r "$REPS" >>"$log.peer" || fail "peerbench failed on $file"
            done
            busy=$(others "$before" "$(ticks)")
            od=$(field tg_tok_s <"$log.ours" | median) pd=$(field tg_tok_s <"$log.peer" | median)
            op=$(field pp_tok_s <"$log.ours" | median) pp=$(field pp_tok_s <"$log.peer" | median)
            read_rate=$(field read_gb_s <"$log.ours" | median)
            bytes=$(field decode_bytes <"$log.ours" | head -n 1)
            limit=$(ratio "${read_rate}e9" "$bytes")
            if [ -n "${SHARES-}" ]; then share=$(field pair_share <"$log.ours" | median)
            else share=$(ratio "$od" "$limit"); fi
            add_row
            printf '%-18s %-7s %s | %9.1f %9.1f %6.2f %9.1f %5.2f | %9.1f %9.1f %6.2f\n' \
                "$(basename "$model" .gguf)" "$isa" "$t" "$od" "$pd" "$(ratio "$od" "$pd")" \
                "$limit" "$share" "$op" "$pp" "$(ratio "$op" "$pp")"
            awk -v v="$busy" 'BEGIN { exit v < 0.1 }' &&
                echo "    disturbed: other programs kept $busy processors busy meanwhile"
            compared=$((compared + 1))
        done
    done
done
[ "$compared" -gt 0 ] || fail "nothing was compared"
complete=true

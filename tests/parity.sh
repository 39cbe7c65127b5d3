#!/bin/bash
# parity.sh - our logits beside llama.cpp's on the same files (see parity.py). From the top of the
# tree, after:
#     npm install --ignore-scripts @node-llama-cpp/linux-x64     (in build/peer, say)
#     PEER=build/peer/node_modules/@node-llama-cpp/linux-x64/bins/linux-x64 tests/parity.sh
# SHARED=../shared has tools/ (mkgguf.py, peerbench.c) and data/; ISAS="scalar avx2" chooses ours;
# ONLY="qwen2" runs the lines of the table that contain it. What is missing is skipped and counted;
# with REQUIRE_DATA=1 it is a failure.
: "${PEER:=build/peer/node_modules/@node-llama-cpp/linux-x64/bins/linux-x64}"
: "${SHARED:=../shared}" "${CC:=cc}" "${REQUIRE_DATA:=0}"
export OUT=build/parity PEERBENCH=build/parity/peerbench SHARED REQUIRE_DATA
mkdir -p "$OUT"

stop() { # REMARK: nothing can be compared at all
    echo "parity.sh: $*"
    if [ "$REQUIRE_DATA" = 1 ]; then
        echo "0 passed, 1 failed, 0 skipped"
        exit 1
    fi
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
}

# Debian's numpy belongs to Debian's python.
for python in /usr/bin/python3 python3; do
    "$python" -c 'import numpy' 2>/dev/null && break
    python=
done
[ -n "$python" ] || stop "no python3 with numpy"

export ENGINE=build/bench_model QUANTIZE=build/quantize TRAIN=build/train FINETUNE=build/finetune
export MKMODELS=build/mkmodels EMBEDDINGS=build/embeddings DECODE=build/decode IDS=build/ids
export TAVERN=build/tavern_corpus PERPLEXITY=build/perplexity SHIFTED=build/shifted
make -s "$ENGINE" "$QUANTIZE" "$TRAIN" "$FINETUNE" "$TAVERN" "$PERPLEXITY" "$MKMODELS" \
    "$EMBEDDINGS" "$DECODE" "$IDS" "$SHIFTED" || { echo "0 passed, 1 failed, 0 skipped"; exit 1; }

has() { grep -qw "$1" /proc/cpuinfo 2>/dev/null; }

if [ -z "${ISAS-}" ]; then
    ISAS=scalar
    has avx2 && has fma && has f16c && ISAS+=" avx2"
    has avx512bw && has avx512_vnni && ISAS+=" avx512"
    has asimd && ISAS+=" neon"
fi
export ISAS

# The peer takes the best libggml-cpu-*.so of its folder: a folder with only one forces it.
PEERS=
only() { # NAME LIBRARY...: the first library that the package has
    local name=$1 library dir f
    shift
    for library in "$@"; do
        [ -f "$PEER/libggml-cpu-$library.so" ] || continue
        dir=$OUT/peer-$name
        rm -rf "$dir"
        mkdir -p "$dir"
        for f in "$PEER"/*.so; do
            case $f in
            */libggml-cpu-*) ;;
            *) ln -s "$f" "$dir/" ;;
            esac
        done
        ln -s "$PEER/libggml-cpu-$library.so" "$dir/"
        PEERS+=" $name=$dir"
        return
    done
}
if [ ! -d "$PEER" ]; then
    echo "parity.sh: no folder $PEER"
elif ! $CC -O2 -w "$SHARED/tools/peerbench.c" -o "$PEERBENCH" -ldl; then
    echo "parity.sh: no peerbench"
else
    PEER=$(cd "$PEER" && pwd)
    has avx2 && only avx2 haswell
    if has avx512_vnni; then
        if has avx512_vbmi; then only avx512 icelake cascadelake; else only avx512 cascadelake; fi
    fi
    has amx_int8 && only amx sapphirerapids
fi
export PEERS

exec "$python" -B tests/parity.py

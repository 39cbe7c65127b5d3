#!/bin/bash
# tokens.sh - ids of random texts beside llama.cpp's library, for every pre-tokenizer and kind of
# vocabulary, see tokens.py. From the top of the tree; PEER=folder with llama.cpp's libraries,
# DATA=../shared/data, TEXTS=2000 texts for each, ONLY=part of a name, ALL=1 for every name of
# tokenizer.ggml.pre instead of one for each rule.
: "${BUILD:=build}" "${DATA:=../shared/data}" "${REQUIRE_DATA:=0}"
: "${PEER:=build/peer/node_modules/@node-llama-cpp/linux-x64/bins/linux-x64}"
export DATA PEER OUT=$BUILD/tokens IDS=$BUILD/ids
mkdir -p "$OUT"
stop() {
    echo "tokens.sh: $*"
    if [ "$REQUIRE_DATA" = 1 ]; then echo "0 passed, 1 failed, 0 skipped" && exit 1; fi
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
}
python=$(command -v /usr/bin/python3 || command -v python3) || stop "no python3"
[ -d "$PEER" ] || stop "no llama.cpp in $PEER: make bench-peer fetches it"
[ -f "$DATA/tokenizers/ggml-vocab-gpt-2.gguf" ] || stop "no vocabularies in $DATA"
make -s "$IDS" BUILD="$BUILD" || stop "ids.c"
exec "$python" tests/tokens.py

#!/bin/bash
# tokens_peer.sh - text to ids beside llama.cpp (in one process, alternating) and tiktoken (npm: its
# WebAssembly build, and a native one for x86-64 Linux; processes alternate), one thread, the best
# of RUNS. From the top of the tree, after `make bench`; DATA=../shared/data, RUNS=7.
: "${BUILD:=build}" "${DATA:=../shared/data}" "${RUNS:=7}"
: "${PEER:=build/peer/node_modules/@node-llama-cpp/linux-x64/bins/linux-x64}"
export PEER
bench=$BUILD/bench_tokens dir=$BUILD/tiktoken
[ -x "$bench" ] || { echo "tokens_peer.sh: no $bench: make $bench"; exit 1; }
[ -d "$PEER" ] || { echo "tokens_peer.sh: no llama.cpp in $PEER"; unset PEER; }
texts=("$DATA/text/tinyshakespeare.txt" "$DATA/text/wikitext2-test.txt")
for name in gpt-2 llama-bpe qwen2 llama-spm; do
    for text in "${texts[@]}"; do
        "$bench" -m "$DATA/tokenizers/ggml-vocab-$name.gguf" -f "$text" -r "$RUNS"
    done
done
mkdir -p "$dir"
# Unigram and WordPiece: a vocabulary of 32,000 that is made of these texts.
/usr/bin/python3 tests/tokens.py "$dir" "${texts[@]}" && for name in ugm wpm; do
    for text in "${texts[@]}"; do "$bench" -m "$dir/$name.gguf" -f "$text" -r "$RUNS"; done
done
[ -d "$dir/node_modules/tiktoken" ] || timeout 300 npm install --prefix "$dir" --ignore-scripts \
    --no-audit --no-fund tiktoken tiktoken-rs-node-linux-x64-gnu >"$dir/npm.log" 2>&1 ||
    { echo "tokens_peer.sh: no tiktoken: see $dir/npm.log"; exit 1; }
for pair in gpt2:gpt-2 cl100k_base:smaug-bpe o200k_base:o200k; do
    name=${pair%:*}
    node bench/tokens_peer.mjs "$dir/node_modules" "$name" - 1 "$dir" || exit 1
    for text in "${texts[@]}"; do
        for _ in 1 2; do
            "$bench" -m "$dir/$name.tiktoken" -p "${pair#*:}" -f "$text" -r "$RUNS"
            node bench/tokens_peer.mjs "$dir/node_modules" "$name" "$text" "$RUNS"
        done
    done
done

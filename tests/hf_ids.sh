#!/bin/bash
# hf_ids.sh - the ids of tokenizer.json files, and the texts of ids, beside Hugging Face's library
# (npm: tokenizers), and the ids of .tiktoken files beside tiktoken (npm), see hf_ids.mjs: each kind
# of model, normalizers, pre-tokenizers, decoders, added tokens (the files are made by tokens.py).
# From the top of the tree; DATA=../shared/data.
: "${BUILD:=build}" "${DATA:=../shared/data}" "${REQUIRE_DATA:=0}"
dir=$BUILD/hf
library=$dir/node_modules/tokenizers
mkdir -p "$dir"
stop() {
    echo "hf_ids.sh: $*"
    if [ "$REQUIRE_DATA" = 1 ]; then echo "0 passed, 1 failed, 0 skipped" && exit 1; fi
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
}
command -v node >/dev/null || stop "no node"
[ -d "$library" ] && [ -d "$dir/node_modules/tiktoken" ] ||
    timeout 300 npm install --prefix "$dir" --ignore-scripts --no-audit --no-fund \
    tokenizers tiktoken >"$dir/npm.log" 2>&1 || stop "not installed: see $dir/npm.log"
vocabularies=("$DATA"/models/tinystories-656k/tokenizer.json)
for name in gpt-2 llama-bpe qwen2; do vocabularies+=("$DATA"/tokenizers/ggml-vocab-$name.gguf); done
for file in "${vocabularies[@]}"; do [ -f "$file" ] || stop "no $file"; done
for pre in smollm o200k tekken-case qwen35 deepseek-v3 bloom front; do
    vocabularies+=("$DATA/tokenizers/ggml-vocab-gpt-2.gguf:$pre")
done
for name in gpt2 cl100k_base o200k_base; do vocabularies+=("tiktoken:$name"); done
python=$(command -v /usr/bin/python3 || command -v python3) || stop "no python3"
"$python" tests/tokens.py "$dir" >"$dir/made" || stop "tokens.py"
while read -r file; do vocabularies+=("$file"); done <"$dir/made"
make -s "$BUILD/ids" BUILD="$BUILD" || stop "ids.c"
exec node tests/hf_ids.mjs "$BUILD/ids" "$library" "$dir" "${vocabularies[@]}" "$@"

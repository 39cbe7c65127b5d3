#!/bin/sh
# grammar_peer.sh - our masks against llama.cpp's library (see grammar_peer.c): random texts under
# the grammars of the test data and three of our own, with two vocabularies.
#
#     tests/grammar_peer.sh          from the top of the tree; PEER=folder of libllama
: "${PEER:=build/peer/node_modules/@node-llama-cpp/linux-x64/bins/linux-x64}"
: "${BUILD:=build}" "${CC:=cc}" "${DATA:=../shared/data}"
if ! [ -d "$PEER" ] || ! [ -d "$DATA/tokenizers" ]; then
    echo "grammar_peer.sh: no folder $PEER (make bench-peer fetches it), or none of data"
    [ "$REQUIRE_PEER" = 1 ] && exit 1
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
fi
mkdir -p "$BUILD/grammars"
$CC -O1 -DSMALLMIND_NO_TRAIN -DSMALLMIND_NO_AVX512 -DSMALLMIND_NO_AVX2 -DSMALLMIND_NO_SSE41 \
    tests/grammar_peer.c -o "$BUILD/grammar_peer" -lpthread -ldl -lm || exit 1
cat >"$BUILD/grammars/ambiguous.gbnf" <<'END'
root ::= s s s | "x"
s ::= "a"* t? | "b" s "b" | [^a-c]{2,4}
t ::= ("c" | "cc") s
END
cat >"$BUILD/grammars/characters.gbnf" <<'END'
root ::= ([α-ω] | [^\x00-ヿ] | "é" | "\U0001F600"){3,} "\u00e9\xe9" .*
END
cat >"$BUILD/grammars/tokens.gbnf" <<'END'
root ::= <[300]> !<[301]> (<[302]> !<[303]>)* "ab" [c-z]* <[304]>
END
PEER=$(cd "$PEER" && pwd)
export PEER
for v in llama-spm gpt-2; do
    "$BUILD/grammar_peer" "$DATA/tokenizers/ggml-vocab-$v.gguf" "$DATA"/grammar/*.gbnf \
        "$BUILD"/grammars/*.gbnf || failed=1
done
exit ${failed:-0}

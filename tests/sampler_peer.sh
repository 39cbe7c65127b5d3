#!/bin/sh
# sampler_peer.sh - our sampler against llama.cpp's library (see sampler_peer.c): the kept ids and
# their probabilities, stage by stage and in chains, with vocabularies from 10 to 151,936 ids.
#
#     tests/sampler_peer.sh          from the top of the tree; PEER=folder of libllama
: "${PEER:=build/peer/node_modules/@node-llama-cpp/linux-x64/bins/linux-x64}"
: "${BUILD:=build}" "${CC:=cc}"
if ! [ -d "$PEER" ]; then
    echo "sampler_peer.sh: no folder $PEER (make bench-peer fetches it)"
    [ "$REQUIRE_PEER" = 1 ] && exit 1
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
fi
mkdir -p "$BUILD"
$CC -O1 -DSMALLMIND_NO_TRAIN -DSMALLMIND_NO_AVX512 -DSMALLMIND_NO_AVX2 -DSMALLMIND_NO_SSE41 \
    tests/sampler_peer.c -o "$BUILD/sampler_peer" -lpthread -ldl -lm || exit 1
PEER=$(cd "$PEER" && pwd) exec "$BUILD/sampler_peer" examples/tavern.gguf

#!/bin/sh
# bpe_peer.sh TEXT... - are the merges of sm_vocab_train those of another trainer? Hugging Face's
# (npm: tokenizers) is asked with what its bindings train by default: no least count, no limit. It
# reads line by line, so blank lines and blanks at line ends are taken out first, where words would
# differ. Needs cc, node and npm; not a part of `make test`. Run it from the top of the tree.
: "${CC:=cc}" "${BUILD:=build}" "${DATA:=../shared/data}"
dir=$BUILD/bpe_peer
mkdir -p "$dir" || exit 1
[ $# -gt 0 ] || set -- "$DATA"/text/*.txt
if [ ! -d "$dir/node_modules/tokenizers" ]; then
    npm install --prefix "$dir" --ignore-scripts --no-audit --no-fund tokenizers \
        >"$dir/npm.log" 2>&1 || { echo "not installed: see $dir/npm.log"; exit 1; }
fi
cat >"$dir/peer.js" <<'END'
const t = require('tokenizers'), fs = require('fs'), [, , text, out] = process.argv
const peer = new t.Tokenizer(t.BPE.empty())
peer.setPreTokenizer(t.byteLevelPreTokenizer(false))
peer.train([text])
peer.save(out + '.json')
const merges = JSON.parse(fs.readFileSync(out + '.json')).model.merges
fs.writeFileSync(out, merges.map(m => (Array.isArray(m) ? m.join(' ') : m) + '\n').join(''))
END
cat >"$dir/ours.c" <<'END'
#include <stdio.h>
#include <stdlib.h>
#define SMALLMIND_IMPLEMENTATION
#include "smallmind.h"
int main(int argc, char **argv) {
    size_t max = (size_t)1 << 28, n;
    char *text = (char *)malloc(max);
    sm_vocab_params p = sm_vocab_default();
    sm_vocab *v;
    sm_error error;
    int i;
    if (argc < 2 || !text) return 1;
    n = fread(text, 1, max, stdin);
    p.min_count = 1;
    p.max_token_bytes = 1024;
    p.n_vocab = atoi(argv[1]);
    if (sm_vocab_train(&p, text, n, &v, &error)) return fprintf(stderr, "%s\n", error.text), 1;
    for (i = 0; i < v->n_merges; i++) puts(v->merges[i]);
    return 0;
}
END
$CC -O2 -I. "$dir/ours.c" -o "$dir/ours" -lpthread || exit 1
bad=0
for text; do
    name=$dir/$(basename "$text")
    sed 's/[[:space:]]*$//' "$text" | grep -v '^$' >"$name"
    (cd "$dir" && node peer.js "$(basename "$name")" "$(basename "$name").peer") || exit 1
    n=$(wc -l <"$name.peer")
    # The peer's vocabulary has the bytes of the text only; ours has all, so ours may go on.
    "$dir/ours" $((n + 256)) <"$name" | head -n "$n" >"$name.ours" || exit 1
    if cmp "$name.peer" "$name.ours" && [ "$n" -gt 0 ]; then echo "$text: $n merges, all equal"
    else bad=1; fi
done
exit $bad

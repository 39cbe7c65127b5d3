/* clang -g -O1 -fsanitize=fuzzer,address,undefined tests/fuzz_grammar.c -o fuzz_grammar &&
 * ./fuzz_grammar -max_len=4096 CORPUS ../shared/data/grammar        (or: make fuzz)
 * The first byte chooses the notation; the text is a grammar, and what it says itself is tried. */
#define SMALLMIND_IMPLEMENTATION
#include "../smallmind.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    sm_grammar_params p = sm_grammar_default();
    sm_grammar *g = NULL;
    sm_error error;
    size_t i;
    if (n < 2) return 0;
    p.kind = data[0] % 8 == 1 ? SM_GRAMMAR_REGEX : SM_GRAMMAR_GBNF;
    p.text = (const char *)data + 1;
    p.bytes = n - 1;
    p.max_bytes = 1 << 18;
    if (sm_grammar_create(&p, &g, &error) == SM_OK) {
        uint32_t state = g->root;
        for (i = 1; i < n && i < 256 && g->b.error.status == SM_OK; i++) {
            const sm__gnode *row;
            if (!sm__gb_row(&g->b, state)) break;
            row = &g->b.nodes[state];
            if (!row->n_row) break; /* a text that the grammar has: each arc by the input */
            state = g->b.arcs[row->row - 1 + data[i] % row->n_row].to;
        }
        sm_grammar_destroy(g);
    }
    return 0;
}

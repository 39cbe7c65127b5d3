/* Build and run, from the top of the tree:
 *   clang -std=c99 -g -O1 -fsanitize=fuzzer,address,undefined tests/fuzz_tokenizer.c \
 *       -o build/fuzz -lpthread && build/fuzz -max_total_time=60
 * The input is four bytes of flags, a vocabulary (a line a token: kind, score, text; "=" begins a
 * merge, "#" a charsmap) and, after an empty line, a text: opening must succeed or fail cleanly,
 * and ids must come back as text. */
#include <stdlib.h>
#define SMALLMIND_IMPLEMENTATION
#include "../smallmind.h"

static void fuzz_text(const sm_model *m, const char *text, size_t n) {
    static int32_t ids[1 << 17];
    static char out[1 << 19];
    sm_tokenizer *t = NULL;
    size_t bytes = 0;
    int i, count = 0, flags;
    if (n > 60000) n = 60000;
    if (sm_tokenizer_create(m, n, NULL, &t, NULL)) abort();
    for (flags = 0; flags < 16; flags++) {
        sm_status status = sm_tokenize(t, text, n, flags, ids, 1 << 17, &count);
        if (status == SM_ERR_FULL) continue; /* it became longer */
        if (status) abort();
        for (i = 0, bytes = 0; i < count; i++) { /* an unknown byte may stand for a long token */
            size_t length = 0;
            if (!sm_token_text(m, ids[i], &length)) abort();
            if ((bytes += length) > 16384) count = i + 1;
        }
        (void)sm_detokenize(m, ids, count, flags, out, sizeof out, &bytes);
    }
    sm_tokenizer_destroy(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static sm__str tokens[4096], merges[4096];
    static uint8_t kinds[4096];
    static float scores[4096];
    const char *s = (const char *)data, *end = s + size;
    sm_model m;
    sm_error error;
    sm__vocab *v = &m.vocab;
    int i;
    memset(&m, 0, sizeof m);
    if (size < 4) return 0;
    v->kind = SM__VOCAB_SPM + (int)(data[0] & 3);
    v->text_flags = data[1] | (data[2] & 15) << 8; /* SM__TEXT_* */
    v->plain_bytes = v->kind == SM__VOCAB_BPE && (data[2] & 16);
    v->byte_fallback = data[2] >> 5 & 1;
    v->max_word = data[2] >> 6;
    v->whole = (int)(data[3] & 3) - 1;
    s += 4;
    v->plain_spaces = (int)(size >> 1 & 1);
    v->add_bos = v->add_space_prefix = (int)(size >> 2 & 3) - 1;
    v->bos = v->eos = v->eot = v->unk = v->pad = v->sep = (int)(size & 7) - 1;
    v->pre = sm__str_of(sm__pres[(data[3] >> 2) * 5u % (sizeof sm__pres / sizeof *sm__pres)].name);
    while (s < end && *s != '\n' && v->n < 4096 && v->n_merges < 4096) {
        const char *line = (const char *)memchr(s, '\n', (size_t)(end - s));
        sm__str rest;
        if (!line) line = end;
        rest.p = s + 1;
        rest.n = (size_t)(line - s) - 1;
        if (*s == '=') merges[v->n_merges++] = rest;
        else if (*s == '#') v->charsmap = rest; /* ends at no line's end */
        else {
            kinds[v->n] = (uint8_t)(*s & 7);
            scores[v->n] = (float)*s;
            tokens[v->n++] = rest;
        }
        s = line < end ? line + 1 : end;
    }
    v->tokens = tokens;
    v->kinds = kinds;
    v->scores = scores;
    v->merges = merges;
    if (sm__vocab_build(&m, &error) == SM_OK) fuzz_text(&m, s, (size_t)(end - s));
    for (i = 0; i < m.n_chunks; i++) sm__heap_free(&m.heap, m.chunks[i]);
    sm__heap_free(&m.heap, m.chunks);
    return 0;
}

/* shifted.c - logits after a shift, for parity.py, which compares them with llama.cpp's.
 *
 *     shifted MODEL IDS AT FROM TO [KEYS VALUES] >logits.f32
 *
 * IDS: a file. The first AT ids are evaluated, tokens [FROM, TO) of them removed, then the others
 * evaluated: their logits are written, raw. KEYS, VALUES: types' numbers, F32 (0) unless given. */
#ifndef COMMON_LINKED /* the Makefile compiles the implementation once */
#define SMALLMIND_IMPLEMENTATION
#endif
#include "../smallmind.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_IDS = 4096 };

static int fail(const char *why) {
    fprintf(stderr, "shifted: %s\n", why);
    return 1;
}

int main(int argc, char **argv) {
    static int32_t ids[MAX_IDS];
    static uint8_t want[MAX_IDS];
    sm_model_params mp = sm_model_default();
    sm_ctx_params cp = sm_ctx_default();
    sm_model *model = NULL;
    sm_ctx *ctx = NULL;
    sm_batch batch;
    sm_error error;
    FILE *file = argc > 5 ? fopen(argv[2], "r") : NULL;
    int n = 0, i, at;
    if (!file) return fail("MODEL IDS AT FROM TO [KEYS VALUES]");
    while (n < MAX_IDS && fscanf(file, "%d", &i) == 1) ids[n++] = i;
    fclose(file);
    at = atoi(argv[3]);
    if (at < 1 || at >= n) return fail("AT is not within the ids");
    mp.file.path = argv[1];
    if (sm_model_open(&mp, &model, &error)) return fail(error.text);
    cp.n_ctx = n;
    cp.n_threads = 1;
    cp.max_logits = n;
    cp.key_type = argc > 6 ? atoi(argv[6]) : SM_TYPE_F32;
    cp.value_type = argc > 7 ? atoi(argv[7]) : cp.key_type;
    if (sm_ctx_create(model, &cp, &ctx, &error)) return fail(error.text);
    memset(&batch, 0, sizeof batch);
    batch.n = at;
    batch.tokens = ids;
    if (sm_eval(ctx, &batch)) return fail(sm_ctx_error(ctx));
    if (sm_seq_shift(ctx, 0, atoi(argv[4]), atoi(argv[5]))) return fail(sm_ctx_error(ctx));
    batch.n = n - at;
    batch.tokens = ids + at;
    batch.want = want;
    memset(want, 1, sizeof want);
    if (sm_eval(ctx, &batch)) return fail(sm_ctx_error(ctx));
    for (i = 0; i < batch.n; i++)
        fwrite(sm_logits(ctx, i), sizeof(float), (size_t)sm_model_get_info(model)->n_vocab, stdout);
    sm_ctx_destroy(ctx);
    sm_model_close(model);
    return 0;
}

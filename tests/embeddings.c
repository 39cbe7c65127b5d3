/* embeddings.c - the embeddings of ids, for parity.py, which compares them with llama.cpp's.
 *
 *     embeddings MODEL POOLING NORMALIZE IDS [ISA THREADS BATCH] >vectors.f32
 *
 * IDS: a file with a sequence a line. One batch holds all of them. Written are raw float32 vectors:
 * one a sequence, under POOLING 2 (SM_POOLING_NONE) one an id. */
#ifndef COMMON_LINKED /* the Makefile compiles the implementation once */
#define SMALLMIND_IMPLEMENTATION
#endif
#include "../smallmind.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_IDS = 4096, MAX_SEQS = 64 };

static int fail(const char *why) {
    fprintf(stderr, "embeddings: %s\n", why);
    return 1;
}

/* How many ids there are; a line is a sequence. */
static int read_ids(const char *path, int32_t *ids, int32_t *seqs, int *n_seqs) {
    FILE *file = fopen(path, "r");
    char line[65536], *at, *end;
    int n = 0;
    if (!file) return 0;
    for (*n_seqs = 0; *n_seqs < MAX_SEQS && fgets(line, sizeof line, file); ++*n_seqs)
        for (at = line; n < MAX_IDS; at = end) {
            ids[n] = (int32_t)strtol(at, &end, 10);
            if (end == at) break;
            seqs[n++] = *n_seqs;
        }
    fclose(file);
    return n;
}

int main(int argc, char **argv) {
    static int32_t ids[MAX_IDS], seqs[MAX_IDS];
    static uint8_t want[MAX_IDS];
    sm_model_params mp = sm_model_default();
    sm_ctx_params cp = sm_ctx_default();
    sm_model *model = NULL;
    sm_ctx *ctx = NULL;
    sm_batch batch;
    sm_error error;
    int n_seqs = 0, i, n;
    if (argc < 5) return fail("MODEL POOLING NORMALIZE IDS [ISA THREADS BATCH]");
    batch.n = read_ids(argv[4], ids, seqs, &n_seqs);
    batch.tokens = ids;
    batch.seqs = seqs;
    batch.want = want;
    memset(want, 1, sizeof want);
    if (!batch.n) return fail("no ids");
    mp.file.path = argv[1];
    if (sm_model_open(&mp, &model, &error)) return fail(error.text);
    cp.embeddings = atoi(argv[2]);
    cp.normalize = atoi(argv[3]);
    cp.n_ctx = batch.n < 512 ? batch.n : 512;
    cp.n_seqs = n_seqs;
    cp.max_logits = batch.n;
    cp.key_type = cp.value_type = SM_TYPE_F32;
    cp.isa = argc > 5 ? atoi(argv[5]) : 0;
    cp.n_threads = argc > 6 ? atoi(argv[6]) : 1;
    cp.n_batch = argc > 7 ? atoi(argv[7]) : batch.n;
    if (sm_ctx_create(model, &cp, &ctx, &error)) return fail(error.text);
    if (sm_eval(ctx, &batch)) return fail(sm_ctx_error(ctx));
    n = cp.embeddings == SM_POOLING_NONE ? batch.n : n_seqs;
    for (i = 0; i < n; i++)
        fwrite(sm_embedding(ctx, i), sizeof(float), (size_t)sm_model_get_info(model)->n_embd,
               stdout);
    sm_ctx_destroy(ctx);
    sm_model_close(model);
    return 0;
}

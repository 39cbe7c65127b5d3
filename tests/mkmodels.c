/* mkmodels.c - writes small random models, of every family and in several shapes, as GGUF files
 * that llama.cpp opens too: the models of the tests' builder, of any size. The same arguments give
 * the same bytes everywhere.
 *
 *     mkmodels                                    prints the families that have logits, one a line:
 *                                                 name, arch
 *     mkmodels FAMILY SHAPE TYPE SEED OUT.gguf    writes one; shapes are in the table below
 *
 * A new family is a row of gguf_families in build_gguf.h (and of sm__archs). */
#define SMALLMIND_IMPLEMENTATION
#include "../smallmind.h"

#include <stdio.h>
#include <stdlib.h>

#include "build_gguf.h"

/* Sizes. Families that want as many KV heads as heads, or heads as wide as the model, change them
 * below. k: all widths are multiples of 256, as the K-quants want them. */
typedef struct shape {
    const char *name;
    int n_vocab, n_embd, n_heads, n_kv_heads, head_dim, n_ff, n_experts, n_used;
} shape;

static const shape shapes[] = {
    {"even", 384, 128, 4, 2, 32, 192, 8, 2},
    {"odd", 331, 160, 5, 1, 32, 224, 5, 3},
    /* heads together wider than the model, where a file can */
    {"wide", 337, 96, 3, 3, 64, 160, 7, 7},
    {"k", 349, 256, 4, 2, 64, 512, 16, 4},
};
#define N_SHAPES ((int)(sizeof shapes / sizeof *shapes))

static int usage(void) {
    int i;
    for (i = 0; i < GGUF_N_FAMILIES; i++)
        printf("%s %s\n", gguf_families[i].name, gguf_families[i].arch);
    return 0;
}

/* Families whose heads are as wide as the model together. */
static int heads_fill_the_model(const char *arch) {
    static const char *const list[] = {"olmo2",     "starcoder2", "phi2",      "phi3",  "stablelm",
                                       "gptneox",   "bitnet",     "gpt2",      "qwen2", "internlm2",
                                       "command-r", "cohere2",    "exaone4",   "qwen2moe",
                                       "olmoe", NULL};
    int i;
    for (i = 0; list[i]; i++)
        if (!strcmp(arch, list[i])) return 1;
    return 0;
}

int main(int argc, char **argv) {
    gguf_model_params p;
    size_t bytes;
    uint8_t *file;
    FILE *out;
    int type, i;
    if (argc < 2) return usage();
    if (argc != 6) return 2;
    for (i = 0; i < N_SHAPES && strcmp(argv[2], shapes[i].name); i++) {
    }
    for (type = 0; type < 64; type++)
        if (sm_type_get_info(type) && !strcmp(sm_type_get_info(type)->name, argv[3])) break;
    if (!gguf_family_find(argv[1]) || i == N_SHAPES || type == 64) {
        fprintf(stderr, "mkmodels: no family %s, shape %s or type %s\n", argv[1], argv[2], argv[3]);
        return 2;
    }
    p = gguf_model_default(argv[1], type);
    p.n_layers = p.family->n_layers;
    p.n_ctx = 2048;
    p.n_vocab = shapes[i].n_vocab;
    p.n_embd = shapes[i].n_embd;
    p.n_heads = shapes[i].n_heads;
    p.n_kv_heads = shapes[i].n_kv_heads;
    p.head_dim = shapes[i].head_dim;
    p.n_ff = shapes[i].n_ff;
    if (heads_fill_the_model(p.arch) || strstr(p.arch, "bert")) p.head_dim = p.n_embd / p.n_heads;
    if (!strcmp(p.arch, "gpt2") || !strcmp(p.arch, "gptneox") || !strcmp(p.arch, "olmoe") ||
        strstr(p.arch, "bert"))
        p.n_kv_heads = p.n_heads;
    if (p.n_experts) {
        p.n_experts = shapes[i].n_experts;
        p.n_used = shapes[i].n_used;
        p.n_ff_expert = strncmp(p.arch, "qwen", 4) ? p.n_ff : p.n_ff / 64 * 32;
        if (p.n_ff_shared) p.n_ff_shared = p.n_ff;
    }
    p.seed = (uint64_t)strtoul(argv[4], NULL, 10);
    file = gguf_model(&p, &bytes);
    out = fopen(argv[5], "wb");
    if (!out || fwrite(file, 1, bytes, out) != bytes || fclose(out)) {
        fprintf(stderr, "mkmodels: cannot write %s\n", argv[5]);
        return 1;
    }
    free(file);
    return 0;
}

/* test_adapter.c - LoRA adapters set on a context: beside the same weights merged, bits whatever
 * the way, swaps, refusals. (What a damaged file does is tested in test_lora.c, by merging: there
 * is one reader.) Included by test.c. */
#include "runs.h"

/* --- an adapter file, and its model merged in memory ------------------------------------------ */

enum { ADAPTER_RANK = 5 };

/* Pairs for some of a model's matrices: number i of those that are products when mask & 1 << i % 8.
 * Ranks differ: 1 .. rank. */
static gguf_builder adapter_begin(const sm_model *m, int type, int rank, unsigned mask,
                                  float alpha) {
    gguf_builder g = gguf_make(3);
    char name[80];
    int i, n = 0;
    g.random = 77 + mask;
    gguf_key_str(&g, "general.architecture", m->info.arch);
    gguf_key_str(&g, "general.type", "adapter");
    gguf_key_str(&g, "adapter.type", "lora");
    if (alpha != 0.0f) gguf_key_f32(&g, "adapter.lora.alpha", alpha);
    for (i = 0; i < m->info.n_tensors; i++) {
        const sm_tensor *t = &m->tensors[i];
        int r = type == SM_TYPE_F32 ? 1 + n % rank : rank;
        if (t->n_dims != 2 || strstr(t->name, "_norm") ||
            (strncmp(t->name, "blk.", 4) && strncmp(t->name, "output.", 7)))
            continue;
        if (!(mask & 1u << n++ % 8)) continue;
        snprintf(name, sizeof name, "%s.lora_a", t->name);
        gguf_tensor(&g, name, type, (int)t->dims[0], r, 0.0f, 0.125f);
        snprintf(name, sizeof name, "%s.lora_b", t->name);
        gguf_tensor(&g, name, type, r, (int)t->dims[1], 0.0f, 0.5f);
    }
    return g;
}

static sm_status adapter_open_bytes(const sm_model *m, const uint8_t *file, size_t n,
                                    sm_adapter **a, sm_error *error) {
    sm_model_params p = sm_model_default();
    p.file.data = file;
    p.file.bytes = n;
    p.allocator = heap_allocator();
    return sm_adapter_open(m, &p, a, error);
}

/* The file is gone when this returns: an adapter does not need it. */
static sm_adapter *adapter_make(const sm_model *m, int type, int rank, unsigned mask,
                                float alpha) {
    gguf_builder g = adapter_begin(m, type, rank, mask, alpha);
    sm_adapter *a = NULL;
    sm_error error;
    size_t n;
    uint8_t *file = gguf_finish(&g, &n);
    if (adapter_open_bytes(m, file, n, &a, &error)) FAIL("%s", error.text);
    memset(file, 0xff, n);
    free(file);
    return a;
}

/* A second copy of an F32 model, with the adapter's products in its weights. */
static void adapter_merge(sm_model *m, const sm_adapter *a, double scale) {
    int p, i, j, k;
    for (p = 0; p < a->n_pairs; p++) {
        const sm__adapter_pair *pair = &a->pairs[p];
        float *w = (float *)(uintptr_t)m->tensors[pair->tensor - a->model->tensors].data;
        double s = sm__adapter_scale(a, pair, scale);
        for (i = 0; i < pair->n; i++)
            for (k = 0; k < pair->k; k++) {
                double sum = 0.0;
                for (j = 0; j < pair->rank; j++)
                    sum += (double)pair->b[i * pair->rank + j] * (double)pair->a[j * pair->k + k];
                w[(size_t)i * (size_t)pair->k + (size_t)k] += (float)(s * sum);
            }
    }
}

/* --- the numbers ------------------------------------------------------------------------------ */

static void adapter_check_merged(const char *name, sm_model *m, sm_model *merged,
                                 const sm_adapter *a) {
    enum { N = 24 };
    run_way w = run_plain(SM_TYPE_F32);
    int n_vocab = m->hp.n_vocab, i;
    float *with = run_rows(N, n_vocab), *want = run_rows(N, n_vocab), *base = run_rows(N, n_vocab);
    double off = 0.0, moved = 0.0, low = 0.0, high = 0.0;
    int32_t tokens[N];
    run_tokens(m, tokens, N);
    run_logits(m, &w, tokens, N, base);
    w.adapter = a;
    w.scale = 0.75f;
    run_logits(m, &w, tokens, N, with);
    adapter_merge(merged, a, 0.75);
    w.adapter = NULL;
    run_logits(merged, &w, tokens, N, want);
    for (i = 0; i < N * n_vocab; i++) {
        off = larger(off, fabs((double)with[i] - (double)want[i]));
        moved = larger(moved, fabs((double)want[i] - (double)base[i]));
        high = larger(high, (double)want[i]);
        low = larger(low, -(double)want[i]);
    }
    if (!(off <= 1e-5 * (high + low) && moved > 0.1 * (high + low)))
        FAIL("%s: off by %.3g, moved by %.3g, of a range of %.3g", name, off, moved, high + low);
    free(with);
    free(want);
    free(base);
}

static void adapter_is_the_merged_model(void) {
    int a;
    for (a = 0; a < GGUF_N_FAMILIES; a++) {
        gguf_model_params p = gguf_model_default(gguf_families[a].name, SM_TYPE_F32);
        sm_model *m = gguf_model_open(&p), *merged = gguf_model_open(&p);
        float alpha = a % 2 ? 4.0f : 0.0f;
        sm_adapter *adapter = m ? adapter_make(m, SM_TYPE_F32, ADAPTER_RANK, 0xff, alpha) : NULL;
        if (adapter && merged) adapter_check_merged(p.family->name, m, merged, adapter);
        sm_adapter_close(adapter);
        sm_model_close(merged);
        sm_model_close(m);
    }
}

/* Rows of q and k lie otherwise in Hugging Face's files than in an adapter's, which are GGUF's. */
static void adapter_of_safetensors(void) {
    const char *path = data_path("models/tinystories-656k/model.safetensors");
    sm_model_params mp = sm_model_default();
    sm_model *m[2];
    sm_adapter *a;
    sm_error error;
    int i;
    if (!path) return;
    mp.file.path = path;
    mp.load = SM_LOAD_COPY;
    mp.allocator = heap_allocator();
    for (i = 0; i < 2; i++)
        if (!CHECK_STATUS(sm_model_open(&mp, &m[i], &error), SM_OK)) return;
    CHECK(m[0]->arch->pos != m[0]->hp.pos); /* else this shows nothing */
    a = adapter_make(m[0], SM_TYPE_F32, ADAPTER_RANK, 0xff, 4);
    for (i = 0; i < a->n_pairs; i++) { /* row 1 of the file is the first of the second half */
        const sm__adapter_pair *p = &a->pairs[i];
        gguf_builder g = adapter_begin(m[0], SM_TYPE_F32, ADAPTER_RANK, 0xff, 4);
        size_t n, at = 0;
        uint8_t *file = gguf_finish(&g, &n);
        sm_model *raw = sm__model_new(&mp.allocator);
        sm__bytes bytes = {NULL, 0, NULL};
        const float *b = NULL;
        bytes.p = file, bytes.n = n;
        CHECK_STATUS(sm__gguf_directory(raw, &bytes, 0, NULL), SM_OK);
        b = (const float *)sm__adapter_half(raw, p->tensor->name, ".lora_b")->data;
        if (strstr(p->tensor->name, "attn_q") || strstr(p->tensor->name, "attn_k"))
            at = (size_t)m[0]->hp.n_rot / 2 - 1;
        CHECK(!memcmp(b + p->rank, p->b + (1 + at) * (size_t)p->rank, (size_t)p->rank * 4));
        sm_model_close(raw);
        free(file);
    }
    adapter_check_merged("safetensors", m[0], m[1], a);
    sm_adapter_close(a);
    sm_model_close(m[0]);
    sm_model_close(m[1]);
}

/* --- the bits --------------------------------------------------------------------------------- */

static void adapter_same_bits(const sm_model *m, const sm_adapter *a) {
    enum { N = 70 }; /* more than a block of keys */
    int isas[8], n_isas = run_isas(isas), i;
    run_way w = run_plain(SM_TYPE_F16);
    int n_vocab = m->hp.n_vocab;
    float *want = run_rows(N, n_vocab), *got = run_rows(N, n_vocab);
    int32_t tokens[N];
    run_tokens(m, tokens, N);
    w.isa = SM_ISA_SCALAR;
    w.adapter = a;
    w.scale = -0.5f;
    run_logits(m, &w, tokens, N, want);
    for (i = 1; i < n_isas; i++) {
        w.isa = isas[i];
        run_logits(m, &w, tokens, N, got);
        SAME(sm_isa_name(isas[i]), got, want, N, n_vocab);
    }
    w.isa = SM_ISA_AUTO;
    for (i = 0; i < 4; i++) {
        static const int calls[] = {1, 0, 33, 0}, chunks[] = {0, 7, 16, 64};
        w.call = calls[i];
        w.n_batch = chunks[i];
        w.n_threads = 1 + i;
        w.sliced = i % 2;
        run_logits(m, &w, tokens, N, got);
        SAME("another way", got, want, N, n_vocab);
    }
    free(want);
    free(got);
}

static void adapter_bits_do_not_depend_on_the_way(void) {
    static const int types[] = {SM_TYPE_Q8_0, SM_TYPE_F32, SM_TYPE_Q4_K, SM_TYPE_F16, SM_TYPE_Q4_0};
    int a;
    for (a = 0; a < RUN_ARCHS; a++) {
        gguf_model_params p = gguf_model_default(run_archs[a], types[a]);
        sm_model *m = gguf_model_open(&p);
        int wide = a == 1; /* A of a type of blocks, a rank of two panels */
        sm_adapter *adapter =
            m ? adapter_make(m, wide ? SM_TYPE_Q8_0 : SM_TYPE_F32, wide ? 64 : 20, 0xb7, 9) : NULL;
        if (adapter) adapter_same_bits(m, adapter);
        sm_adapter_close(adapter);
        sm_model_close(m);
    }
}

/* Logits of one token after what the sequence holds, then the sequence as before. */
static void adapter_peek(sm_ctx *ctx, int32_t token, float *row) {
    int n = sm_seq_length(ctx, 0);
    sm_batch b;
    memset(&b, 0, sizeof b);
    b.n = 1;
    b.tokens = &token;
    if (!CHECK_STATUS(sm_eval(ctx, &b), SM_OK)) return;
    memcpy(row, sm_logits(ctx, -1), (size_t)sm_ctx_model(ctx)->hp.n_vocab * sizeof *row);
    CHECK_STATUS(sm_seq_rewind(ctx, 0, n), SM_OK);
}

/* Two adapters and none in turn, on an empty sequence and after keys of another: each gives its own
 * bits whatever was set before, and no call of the heap is made. */
static void adapter_is_swapped(void) {
    gguf_model_params gp = gguf_model_default("llama", SM_TYPE_Q8_0);
    sm_model *m = gguf_model_open(&gp);
    sm_adapter *a = adapter_make(m, SM_TYPE_F32, 4, 0x1d, 2), *b = adapter_make(m, 0, 7, 0xff, 0);
    sm_ctx_params p = sm_ctx_default();
    sm_ctx *plain, *ctx;
    static const int order[] = {0, 1, 2, 1, 3, 2, 0, 2, 4, 1, 0};
    float *first = run_rows(3, 320), *row = run_rows(1, 320);
    uint64_t calls;
    uint32_t process;
    size_t i;
    int known = 0;
    p.n_threads = 1;
    plain = run_ctx(m, &p);
    p.max_lora_rank = 7;
    ctx = run_ctx(m, &p);
    if (!a || !b || !plain || !ctx) return;
    CHECK(sm_adapter_rank(a) == 4 && sm_adapter_rank(b) == 7 && sm_adapter_rank(NULL) == 0);
    CHECK(sm_ctx_get_stats(ctx).used_bytes == sm_ctx_get_stats(ctx).plan.total_bytes);
    adapter_peek(plain, 5, first);
    calls = sm_ctx_get_stats(ctx).heap_calls;
    process = heap_calls();
    for (i = 0; i < sizeof order / sizeof *order; i++) { /* 3, 4: none, said otherwise */
        int which = order[i] % 3;
        const sm_adapter *set = which == 1 || order[i] == 3 ? a : which == 2 ? b : NULL;
        if (order[i] == 4) set = b, which = 0;
        CHECK_STATUS(sm_ctx_set_adapter(ctx, set, which ? 0.5f : 0.0f), SM_OK);
        adapter_peek(ctx, 5, row);
        if (which && !(known & 1 << which)) memcpy(first + 320 * which, row, 320 * sizeof *row);
        known |= 1 << which;
        SAME("after a swap", row, first + 320 * which, 1, 320);
    }
    CHECK(memcmp(first, first + 320, 1280) && memcmp(first + 320, first + 640, 1280));
    CHECK(heap_calls() == process && sm_ctx_get_stats(ctx).heap_calls == calls);
    CHECK_STATUS(run_eval(ctx, 0, &gp.n_ff, 1), SM_OK); /* keys of none, read with a and b */
    CHECK_STATUS(sm_ctx_set_adapter(ctx, a, 1.0f), SM_OK);
    adapter_peek(ctx, 6, first);
    CHECK_STATUS(sm_ctx_set_adapter(ctx, b, 1.0f), SM_OK);
    adapter_peek(ctx, 6, row);
    CHECK(memcmp(first, row, 1280));
    CHECK_STATUS(sm_ctx_set_adapter(ctx, a, 1.0f), SM_OK);
    adapter_peek(ctx, 6, row);
    SAME("the same keys again", row, first, 1, 320);
    sm_ctx_destroy(plain);
    sm_ctx_destroy(ctx);
    sm_adapter_close(a);
    sm_adapter_close(b);
    sm_model_close(m);
    free(first);
    free(row);
}

/* --- what is refused -------------------------------------------------------------------------- */

static void adapter_is_refused_by_a_context(void) {
    gguf_model_params gp = gguf_model_default("llama", SM_TYPE_F16);
    sm_model *m, *twin;
    sm_adapter *a, *big, *embed = NULL, *other;
    sm_ctx_params p = sm_ctx_default();
    sm_ctx *ctx;
    sm_batch b;
    sm_error error;
    gguf_builder g;
    uint8_t *file;
    size_t n;
    int32_t token = 3;
    gp.tied = 1;
    m = gguf_model_open(&gp);
    twin = gguf_model_open(&gp);
    a = adapter_make(m, 0, 4, 0xff, 1);
    big = adapter_make(m, 0, 5, 0xff, 1);
    other = adapter_make(twin, 0, 4, 0xff, 1);
    g = adapter_begin(m, 0, 4, 0xff, 1); /* merging takes such a pair */
    gguf_tensor(&g, "token_embd.weight.lora_a", 0, 64, 2, 0.0f, 0.1f);
    gguf_tensor(&g, "token_embd.weight.lora_b", 0, 2, 320, 0.0f, 0.1f);
    file = gguf_finish(&g, &n);
    CHECK_STATUS(adapter_open_bytes(m, file, n, &embed, &error), SM_OK);
    free(file);
    p.n_threads = 1;
    p.max_lora_rank = 4;
    ctx = run_ctx(m, &p);
    memset(&b, 0, sizeof b);
    b.n = 1;
    b.tokens = &token;
    if (!a || !big || !other || !embed || !ctx) return;
    CHECK_STATUS(sm_ctx_set_adapter(NULL, a, 1.0f), SM_ERR_ARG);
    CHECK_STATUS(sm_ctx_set_adapter(ctx, a, sm__from_bits(0x7fc00000u)), SM_ERR_ARG);
    CHECK_STATUS(sm_ctx_set_adapter(ctx, a, -2e6f), SM_ERR_ARG);
    CHECK_STATUS(sm_ctx_set_adapter(ctx, other, 1.0f), SM_ERR_ARG);
    CHECK_STATUS(sm_ctx_set_adapter(ctx, big, 1.0f), SM_ERR_FULL);
    if (!strstr(sm_ctx_error(ctx), ".weight has rank 5, max_lora_rank is 4"))
        FAIL("%s", sm_ctx_error(ctx));
    CHECK_STATUS(sm_ctx_set_adapter(ctx, embed, 1.0f), SM_ERR_UNSUPPORTED);
    if (!strstr(sm_ctx_error(ctx), "token_embd.weight")) FAIL("%s", sm_ctx_error(ctx));
    CHECK_STATUS(sm_eval_begin(ctx, &b), SM_OK);
    CHECK_STATUS(sm_ctx_set_adapter(ctx, a, 1.0f), SM_ERR_BUSY);
    CHECK_STATUS(sm_ctx_set_adapter(ctx, NULL, 0.0f), SM_ERR_BUSY);
    CHECK_STATUS(sm_eval_step(ctx, -1), SM_OK);
    CHECK_STATUS(sm_ctx_set_adapter(ctx, a, 1.0f), SM_OK);
    sm_ctx_destroy(ctx);
    p.max_lora_rank = -1;
    CHECK_STATUS(sm_ctx_create(m, &p, &ctx, &error), SM_ERR_ARG);
    p.max_lora_rank = 0;
    ctx = run_ctx(m, &p);
    CHECK_STATUS(sm_ctx_set_adapter(ctx, a, 1.0f), SM_ERR_FULL);
    CHECK_STATUS(sm_ctx_set_adapter(ctx, NULL, 1.0f), SM_OK);
    sm_ctx_destroy(ctx);
    sm_adapter_close(a);
    sm_adapter_close(big);
    sm_adapter_close(embed);
    sm_adapter_close(other);
    sm_model_close(m);
    sm_model_close(twin);
}

static void adapter_out_of_memory_is_a_status(void) {
    gguf_model_params gp = gguf_model_default("llama", SM_TYPE_F32);
    sm_model *m = gguf_model_open(&gp);
    gguf_builder g = adapter_begin(m, 0, 3, 0x0f, 1);
    sm_adapter *a = NULL;
    sm_error error;
    size_t n;
    uint8_t *file = gguf_finish(&g, &n);
    uint32_t k, held = heap.held;
    for (k = 1; k < 100; k++) {
        heap_fail(k);
        if (adapter_open_bytes(m, file, n, &a, &error) == SM_OK) break;
        CHECK(error.status == SM_ERR_NOMEM && a == NULL && heap.held == held);
    }
    CHECK(k > 10 && k < 100);
    heap_fail(0);
    sm_adapter_close(a);
    CHECK(heap.held == held);
    CHECK_STATUS(sm_adapter_open(NULL, NULL, &a, &error), SM_ERR_ARG);
    CHECK_STATUS(sm_adapter_open(m, NULL, &a, &error), SM_ERR_ARG);
    CHECK_STATUS(adapter_open_bytes(m, file, 0, &a, &error), SM_ERR_FORMAT);
    CHECK_STATUS(sm_adapter_open(m, NULL, NULL, &error), SM_ERR_ARG);
    sm_adapter_close(NULL);
    free(file);
    sm_model_close(m);
}

static const test tests_adapter[] = {
    {"adapter: set, it is the merged model", adapter_is_the_merged_model},
    {"adapter: on a safetensors model, rows as it has them", adapter_of_safetensors},
    {"adapter: bits do not depend on the way", adapter_bits_do_not_depend_on_the_way},
    {"adapter: swapped, each gives its own bits; no heap call", adapter_is_swapped},
    {"adapter: what a context refuses", adapter_is_refused_by_a_context},
    {"adapter: out of memory is a status", adapter_out_of_memory_is_a_status},
};

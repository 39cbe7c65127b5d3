/* test_embed.c - embeddings: llama.cpp's numbers, poolings by their definition, encoders, bits
 * whatever the way, refusals. tests/parity.py compares many more with llama.cpp. Included by
 * test.c. */
#include "runs.h"

enum { EMBED_N = 20, EMBED_C = 64 };

static void embed_ids(int32_t *ids, int n) {
    int i;
    for (i = 0; i < n; i++) ids[i] = (7 + i * 37) % 320;
}

static sm_model *embed_model(const char *family, int type) {
    gguf_model_params p = gguf_model_default(family, type);
    return gguf_model_open(&p);
}

static sm_ctx_params embed_params(int pooling) {
    sm_ctx_params p = sm_ctx_default();
    p.embeddings = pooling;
    p.key_type = p.value_type = SM_TYPE_F32;
    p.n_threads = 1;
    p.n_ctx = 128;
    p.max_logits = 128;
    return p;
}

/* Entries of the batch for sequences of given lengths, taken in turns when mixed. */
typedef struct embed_batch {
    sm_batch b;
    int32_t ids[128], seqs[128];
    uint8_t want[128];
} embed_batch;

static void embed_fill(embed_batch *e, const int *lengths, int n_seqs, int mixed) {
    int done[8] = {0}, seq = 0, n = 0, i;
    int32_t ids[128];
    embed_ids(ids, 128);
    memset(e, 0, sizeof *e);
    for (i = 0; i < n_seqs; i++) n += lengths[i];
    for (i = 0; i < n; seq = mixed ? (seq + 1) % n_seqs : seq + (done[seq] == lengths[seq])) {
        if (done[seq] == lengths[seq]) continue;
        e->ids[i] = ids[done[seq]++ + 3 * seq];
        e->seqs[i++] = seq;
    }
    memset(e->want, 1, sizeof e->want);
    e->b.n = n;
    e->b.tokens = e->ids;
    e->b.seqs = e->seqs;
    e->b.want = e->want;
}

/* --- the numbers ------------------------------------------------------------------------------ */

static void embed_is_as_llama_cpp_has_it(void) {
    static const struct {
        const char *family;
        int pooling;
        float want[4], largest;
    } known[] = {
        {"bert-steep", SM_POOLING_MEAN, {0.1367148f, 0.0858108f, 0.2469439f, -0.8573839f}, 2.487f},
        {"bert-steep", SM_POOLING_CLS, {0.0810420f, 0.1074497f, 0.3234016f, -0.7263936f}, 2.281f},
        {"bert-steep", SM_POOLING_LAST, {0.16684f, 0.0132321f, -0.0884822f, -1.1334903f}, 2.588f},
        {"nomic-bert", SM_POOLING_MEAN, {-1.6935661f, 0.3646182f, 0.4168768f, 0.691893f}, 3.34f},
        {"nomic-bert", SM_POOLING_CLS, {-1.7916132f, 0.267752f, 0.1614253f, 0.7197704f}, 3.202f},
        {"nomic-bert", SM_POOLING_LAST, {-1.8091171f, 0.6442426f, 0.0333573f, 0.6252694f}, 3.589f},
        {"qwen3", SM_POOLING_MEAN, {-0.5668339f, -0.106355f, -0.7204272f, -0.8711317f}, 1.881f},
        {"qwen3", SM_POOLING_CLS, {-0.7116432f, 0.1295873f, -0.9546202f, -0.2883515f}, 3.121f},
        {"qwen3", SM_POOLING_LAST, {-0.8303224f, -1.1164405f, -0.3667835f, -0.4803626f}, 2.707f},
    };
    size_t i;
    int j;
    for (i = 0; i < sizeof known / sizeof *known; i++) {
        sm_model *m = embed_model(known[i].family, SM_TYPE_F32);
        sm_ctx_params p = embed_params(known[i].pooling);
        sm_ctx *ctx = run_ctx(m, &p);
        static const int length = EMBED_N;
        embed_batch e;
        embed_fill(&e, &length, 1, 0);
        if (ctx && CHECK_STATUS(sm_eval(ctx, &e.b), SM_OK))
            for (j = 0; j < 4; j++)
                CHECK_NEAR(sm_embedding(ctx, 0)[j], known[i].want[j], 1e-5 * known[i].largest);
        sm_ctx_destroy(ctx);
        sm_model_close(m);
    }
}

/* The output's product with an unpooled embedding is the logits, to the bit. */
static void embed_of_an_entry_gives_its_logits(void) {
    static const char *const families[] = {"llama", "gpt2", "olmo2"};
    int i, j;
    for (i = 0; i < 3; i++) {
        sm_model *m = embed_model(families[i], SM_TYPE_F32);
        sm_ctx_params p = embed_params(SM_POOLING_NONE);
        sm_ctx *ctx = run_ctx(m, &p), *plain;
        static const int length = EMBED_N;
        float logits[320], scratch[32 * (EMBED_C + 64)];
        embed_batch e;
        p.embeddings = SM_POOLING_OFF;
        plain = run_ctx(m, &p);
        embed_fill(&e, &length, 1, 0);
        e.want[3] = 0;
        if (ctx && plain && CHECK_STATUS(sm_eval(ctx, &e.b), SM_OK) &&
            CHECK_STATUS(sm_eval(plain, &e.b), SM_OK)) {
            for (j = 0; j < EMBED_N; j++) {
                const sm__weight *w = &m->weights->output;
                sm__acts a;
                memset(&a, 0, sizeof a);
                a.x = sm_embedding(ctx, j);
                if (j == 3) CHECK(a.x == NULL);
                if (j == 3) continue;
                sm__matmul_f32__scalar(w->data, w->stride, w->n, w->k, &a, 1, logits, 320, scratch);
                SAME(families[i], logits, sm_logits(plain, j), 1, 320);
            }
            CHECK(sm_embedding(ctx, -1) == sm_embedding(ctx, EMBED_N - 1));
            CHECK(!sm_logits(ctx, -1) && !sm_embedding(plain, -1) && !sm_embedding(ctx, EMBED_N));
        }
        sm_ctx_destroy(ctx);
        sm_ctx_destroy(plain);
        sm_model_close(m);
    }
}

/* Embeddings of all sequences in a batch; 0 = it failed. */
static int embed_run(const sm_model *m, const sm_ctx_params *p, const embed_batch *e, int n,
                     float *out) {
    sm_ctx *ctx = run_ctx(m, p);
    int i, good = ctx && CHECK_STATUS(sm_eval(ctx, &e->b), SM_OK);
    for (i = 0; i < n && good; i++) {
        const float *x = sm_embedding(ctx, i);
        good = CHECK(x != NULL);
        if (good) memcpy(out + i * EMBED_C, x, EMBED_C * sizeof *x);
    }
    sm_ctx_destroy(ctx);
    return good;
}

/* From the entries' own rows: the poolings, and the length. */
static void embed_pools_by_definition(void) {
    static const int lengths[] = {5, 1, 70};
    int f, pooling, s, j;
    for (f = 0; f < 3; f++) {
        sm_model *m = embed_model(f == 2 ? "qwen2" : f ? "nomic-bert" : "bert", SM_TYPE_F32);
        sm_ctx_params p = embed_params(SM_POOLING_NONE);
        float rows[76 * EMBED_C], pooled[3 * EMBED_C], unit[3 * EMBED_C];
        embed_batch e;
        embed_fill(&e, lengths, 3, 0);
        p.n_seqs = 3;
        if (!m || !embed_run(m, &p, &e, 76, rows)) return;
        for (pooling = SM_POOLING_MEAN; pooling <= SM_POOLING_LAST; pooling++) {
            int at = 0;
            p.embeddings = pooling;
            p.normalize = 0;
            embed_run(m, &p, &e, 3, pooled);
            p.normalize = 1;
            embed_run(m, &p, &e, 3, unit);
            for (s = 0; s < 3; at += lengths[s++]) {
                double length = 0.0;
                for (j = 0; j < EMBED_C; j++) {
                    double want = 0.0, got = (double)pooled[s * EMBED_C + j];
                    int i, n = pooling == SM_POOLING_MEAN ? lengths[s] : 1;
                    int first = pooling == SM_POOLING_LAST ? lengths[s] - 1 : 0;
                    for (i = first; i < first + n; i++)
                        want += (double)rows[(at + i) * EMBED_C + j] / n;
                    CHECK_NEAR(got, want, n > 1 ? 2e-6 : 0.0);
                    length += got * got;
                }
                for (j = 0; j < EMBED_C; j++)
                    CHECK_NEAR(unit[s * EMBED_C + j],
                               (double)pooled[s * EMBED_C + j] / sqrt(length), 2e-7);
            }
        }
        sm_model_close(m);
    }
}

/* --- the bits --------------------------------------------------------------------------------- */

static void embed_bits_do_not_depend_on_the_way(void) {
    static const char *const families[] = {"bert", "nomic-bert", "llama"};
    static const int types[] = {SM_TYPE_Q8_0, SM_TYPE_F16, SM_TYPE_Q4_0}, lengths[] = {9, 80, 2};
    int isas[8], n_isas = run_isas(isas), f, i, pooling;
    for (f = 0; f < 3; f++) {
        sm_model *m = embed_model(families[f], types[f]);
        for (pooling = SM_POOLING_MEAN; m && pooling <= SM_POOLING_LAST; pooling++) {
            sm_ctx_params p = embed_params(pooling), q;
            float want[3 * EMBED_C], got[3 * EMBED_C];
            embed_batch e;
            p.n_seqs = 3;
            p.normalize = 1;
            p.isa = SM_ISA_SCALAR;
            embed_fill(&e, lengths, 3, 0);
            embed_run(m, &p, &e, 3, want);
            for (i = 1; i < n_isas; i++) {
                q = p;
                q.isa = isas[i];
                embed_run(m, &q, &e, 3, got);
                SAME(sm_isa_name(isas[i]), got, want, 3, EMBED_C);
            }
            p.isa = SM_ISA_AUTO;
            for (i = 1; i < 4; i++) { /* threads; chunks, where there are any; neighbours in turn */
                q = p;
                q.n_threads = i;
                q.n_batch = f == 2 ? 4 * i : 0;
                embed_fill(&e, lengths, 3, i > 1);
                embed_run(m, &q, &e, 3, got);
                SAME("another way", got, want, 3, EMBED_C);
            }
            for (i = 0; i < 3; i++) { /* each alone, among sequences that come to nothing */
                embed_batch one;
                int k;
                memset(&one, 0, sizeof one);
                for (k = 0; k < e.b.n; k++)
                    if (e.seqs[k] == i) one.ids[one.b.n++] = e.ids[k];
                one.b.tokens = one.ids;
                embed_run(m, &p, &one, 1, got);
                SAME("alone", got, want + i * EMBED_C, 1, EMBED_C);
            }
        }
        sm_model_close(m);
    }
}

/* --- encoders --------------------------------------------------------------------------------- */

static void embed_encoder_keeps_nothing(void) {
    sm_model *m = embed_model("bert", SM_TYPE_F16);
    sm_ctx_params p = sm_ctx_default();
    sm_gen_params gp = sm_gen_default();
    static const int lengths[] = {20, 30};
    float first[EMBED_C];
    embed_batch e;
    sm_ctx *ctx;
    sm_gen *gen;
    int32_t one = 5;
    uint32_t process;
    int i, steps = 0;
    p.n_threads = 1;
    p.n_seqs = 2;
    p.n_batch = 50;
    ctx = run_ctx(m, &p); /* mean: the file says so */
    if (!ctx) return;
    CHECK(sm_model_get_info(m)->encoder && sm_model_get_info(m)->pooling == SM_POOLING_MEAN);
    CHECK(sm_ctx_get_stats(ctx).plan.key_type == SM_TYPE_F32);
    CHECK(sm_embedding(ctx, 0) == NULL);
    embed_fill(&e, lengths, 2, 0);
    process = heap_calls();
    for (i = 0; i < 4; i++) {
        if (i % 2) {
            CHECK_STATUS(sm_eval_begin(ctx, &e.b), SM_OK);
            CHECK_STATUS(run_step_to_end(ctx, 0, &steps), SM_OK);
        } else {
            CHECK_STATUS(sm_eval(ctx, &e.b), SM_OK);
        }
        if (!i) memcpy(first, sm_embedding(ctx, 1), sizeof first);
        SAME("again", sm_embedding(ctx, 1), first, 1, EMBED_C);
        CHECK(sm_seq_length(ctx, 0) == 0 && sm_seq_length(ctx, 1) == 0);
        CHECK(sm_ctx_get_stats(ctx).pool.outstanding_blocks == 2); /* the embeddings */
    }
    CHECK(heap_calls() == process);
    CHECK_STATUS(sm_eval_begin(ctx, &e.b), SM_OK);
    sm_cancel(ctx, 0);
    CHECK_STATUS(sm_eval_step(ctx, -1), SM_ERR_CANCELLED);
    CHECK(sm_embedding(ctx, 0) == NULL && sm_ctx_get_stats(ctx).pool.outstanding_blocks == 0);
    e.b.n = 51; /* one more than n_batch */
    CHECK_STATUS(sm_eval(ctx, &e.b), SM_ERR_FULL);
    if (!strstr(sm_ctx_error(ctx), "n_batch = 50")) FAIL("%s", sm_ctx_error(ctx));
    e.b.n = 1; /* sequence 0 alone */
    CHECK_STATUS(sm_eval(ctx, &e.b), SM_OK);
    CHECK(sm_embedding(ctx, 0) && !sm_embedding(ctx, 1) && !sm_embedding(ctx, 2));
    CHECK(!sm_embedding(ctx, -1) && !sm_logits(ctx, 0));
    gp.prompt_ids = &one;
    gp.n_prompt_ids = 1;
    CHECK_STATUS(sm_gen_start(ctx, &gp, &gen), SM_ERR_UNSUPPORTED);
    sm_ctx_destroy(ctx);
    sm_model_close(m);
}

/* A bert file with its vocabulary: from a text to its embedding. */
static void embed_text_of_bert(void) {
    static const int32_t want[] = {2, 4, 31, 6, 1, 3}; /* [CLS] a ##b c [UNK] [SEP] */
    gguf_model_params gp = gguf_model_default("bert", SM_TYPE_F32);
    sm_model_params p = sm_model_default();
    sm_model *m = NULL;
    sm_ctx *ctx = NULL;
    sm_ctx_params cp = sm_ctx_default();
    sm_batch batch;
    sm_error error;
    int32_t ids[16];
    size_t n;
    uint8_t *file;
    gp.vocab = GGUF_WPM;
    gp.n_vocab = 60;
    file = gguf_model(&gp, &n);
    p.file.data = file;
    p.file.bytes = n;
    p.allocator = heap_allocator();
    if (sm_model_open(&p, &m, &error)) FAIL("%s", error.text);
    if (m) ctx = run_ctx(m, &cp);
    if (ctx) {
        memset(&batch, 0, sizeof batch);
        CHECK_STR(sm_model_get_info(m)->tokenizer, "wordpiece");
        CHECK_STATUS(sm_tokenize(sm_ctx_tokenizer(ctx), "\xC3\x81" "b c!", 6, SM_TEXT_BOS, ids, 16,
                                 &batch.n), SM_OK);
        CHECK(batch.n == 6 && !memcmp(ids, want, sizeof want));
        batch.tokens = ids;
        CHECK_STATUS(sm_eval(ctx, &batch), SM_OK);
        CHECK(sm_embedding(ctx, 0) != NULL);
    }
    sm_ctx_destroy(ctx);
    sm_model_close(m);
    free(file);
}

/* A file whose key or tensor is not as an encoder's must be. */
static void embed_bad_encoders_are_refused(void) {
    static const char *const names[] = {"blk.1.attn_output_norm.bias", "token_embd_norm.weight",
                                        "blk.0.layer_output_norm.weight", "position_embd.weight"};
    gguf_model_params gp = gguf_model_default("bert", SM_TYPE_F32);
    sm_model_params p = sm_model_default();
    sm_model *m = NULL;
    sm_ctx_params cp = sm_ctx_default();
    sm_ctx *ctx = NULL;
    sm_error error;
    size_t n, i;
    int k;
    uint8_t *file = gguf_model(&gp, &n);
    p.file.data = file;
    p.file.bytes = n;
    p.allocator = heap_allocator();
    for (k = 0; k < 5; k++) { /* a letter of a name is changed, then the key's value */
        const char *name = k < 4 ? names[k] : "bert.attention.causal";
        size_t length = strlen(name), at = 0;
        for (i = 0; i + length < n && !at; i++)
            if (!memcmp(file + i, name, length)) at = i;
        if (k < 4) file[at + length - 1] ^= 1;
        else file[at + length + 4] = 1;
        if (CHECK(sm_model_open(&p, &m, &error) < 0) && !strstr(error.text, name))
            FAIL("%s: %s", name, error.text);
        if (k < 4) file[at + length - 1] ^= 1;
        else file[at + length + 4] = 0;
    }
    CHECK_STATUS(sm_model_open(&p, &m, &error), SM_OK);
    cp.embeddings = SM_POOLING_LAST + 1;
    CHECK_STATUS(sm_ctx_create(m, &cp, &ctx, &error), SM_ERR_ARG);
    sm_model_close(m);
    for (i = 0; i + 17 < n; i++)
        if (!memcmp(file + i, "bert.pooling_type", 17)) file[i + 21] = 4; /* ranks */
    CHECK_STATUS(sm_model_open(&p, &m, &error), SM_OK);
    cp.embeddings = SM_POOLING_OFF;
    CHECK_STATUS(sm_ctx_create(m, &cp, &ctx, &error), SM_ERR_UNSUPPORTED);
    sm_model_close(m);
    free(file);
}

static const test tests_embed[] = {
    {"embed: llama.cpp's numbers", embed_is_as_llama_cpp_has_it},
    {"embed: an entry's gives its logits", embed_of_an_entry_gives_its_logits},
    {"embed: poolings and lengths are what they say", embed_pools_by_definition},
    {"embed: bits do not depend on the way", embed_bits_do_not_depend_on_the_way},
    {"embed: an encoder keeps nothing", embed_encoder_keeps_nothing},
    {"embed: a text of bert's", embed_text_of_bert},
    {"embed: bad encoders are refused", embed_bad_encoders_are_refused},
};

/* test_lora.c - LoRA: a trainer beside frozen weights of any type, adapter files, merging. What it
 * computes follows from a full trainer on the merged weights, exactly: y = (W + s B A) x, so that
 * dA = s B^T dW and dB = s dW A^T. Included by test.c after test_train.c. */
#if !defined(SMALLMIND_NO_TRAIN) && !defined(SMALLMIND_NO_WRITER)

/* --- a base, its adapter, and both in one ----------------------------------------------------- */

static sm_trainer_params lora_params(const sm_model *base, int rank) {
    sm_trainer_params p = sm_trainer_default();
    p.model = base;
    p.lora_rank = rank;
    p.lora_alpha = 3.0f;
    p.n_ctx = 24;
    p.n_batch = 2;
    p.n_accum = 2;
    p.n_threads = 1;
    p.seed = 5;
    p.allocator = heap_allocator();
    return p;
}

static sm_model *lora_base(const char *arch, int type) {
    gguf_model_params gp = gguf_model_default(arch, type);
    gp.tied = strcmp(arch, "qwen2") == 0;
    return gguf_model_open(&gp);
}

/* Every B within +-a, and A as it is: the products matter then. */
static void lora_randomise(sm_trainer *t, float a) {
    sm_train_tensor e;
    int i, j;
    for (i = 0; sm_trainer_tensor_at(t, i, &e) == SM_OK; i++)
        for (j = 0; j < e.rows * e.columns && strstr(e.name, ".lora_b"); j++)
            e.params[j] = random_float() * a;
}

/* An open copy of what was written, whose bytes the sink may lose. */
static sm_model *lora_open(write_sink *s) {
    sm_model_params p = sm_model_default();
    sm_model *m = NULL;
    sm_error error;
    p.file.data = s->file.p;
    p.file.bytes = s->file.n;
    p.load = SM_LOAD_COPY;
    p.allocator = heap_allocator();
    if (sm_model_open(&p, &m, &error)) FAIL("%s", error.text);
    write_drop(s);
    return m;
}

static sm_status lora_merge_to(write_sink *s, const sm_model *base, const write_sink *adapter,
                               int type, sm_error *error) {
    sm_quantize_params p = sm_quantize_default();
    p.out = write_to(s);
    p.type = type;
    if (adapter) {
        p.adapter.data = adapter->file.p;
        p.adapter.bytes = adapter->file.n;
    }
    return sm_quantize(base, &p, error);
}

static sm_model *lora_merge(const sm_model *base, const write_sink *adapter, int type) {
    write_sink s = write_empty();
    sm_error error;
    if (lora_merge_to(&s, base, adapter, type, &error)) FAIL("%s", error.text);
    return lora_open(&s);
}

static write_sink lora_write(const sm_trainer *t) {
    write_sink s = write_empty();
    sm_writer_params p = write_to(&s);
    sm_error error;
    if (sm_trainer_write_adapter(t, &p, &error)) FAIL("%s", error.text);
    return s;
}

/* A trainer of all of a model's weights as F32, with everything else the same. */
static sm_trainer *lora_full(sm_trainer_params p, const sm_model *m) {
    p.model = m;
    p.lora_rank = 0;
    return m ? train_make(&p) : NULL;
}

/* --- the numbers ------------------------------------------------------------------------------ */

/* With B = 0 the loss has the bits of a full trainer's on the decoded weights. */
static void lora_check_zero(const sm_model *base, int n_vocab) {
    sm_trainer_params p = lora_params(base, 4);
    sm_model *decoded = lora_merge(base, NULL, SM_TYPE_F32);
    sm_trainer *lora = train_make(&p), *full = lora_full(p, decoded);
    sm_train_stats a, b;
    train_data d;
    train_fill(&d, 3, 24, n_vocab);
    if (lora && full && CHECK_STATUS(sm_trainer_eval(lora, &d.batch, &a), SM_OK) &&
        CHECK_STATUS(sm_trainer_eval(full, &d.batch, &b), SM_OK))
        CHECK_NEAR(a.loss, b.loss, 0.0);
    sm_trainer_destroy(lora);
    sm_trainer_destroy(full);
    sm_model_close(decoded);
}

static void lora_with_zeros_is_the_model(void) {
    int a, t;
    for (a = 0; a < RUN_ARCHS; a++)
        for (t = 0; t < (a ? RUN_TYPES : RUN_ALL_TYPES); t++) {
            sm_model *m;
            if ((a + t) % 5 && a) continue; /* every type for llama, every architecture */
            m = lora_base(run_archs[a], run_types[t]);
            if (m) lora_check_zero(m, 320);
            sm_model_close(m);
        }
}

/* A base whose matrices are decoded in two pieces, the first of 1,024 rows: embeddings and
 * feed-forward, or the fused attention matrix, have 1,056. */
static sm_model *lora_long_base(const char *arch) {
    gguf_model_params gp = gguf_model_default(arch, SM_TYPE_Q8_0);
    int fused = strcmp(arch, "gpt2") == 0;
    gp.n_embd = 1024;
    gp.n_layers = 1;
    gp.tied = 1;
    gp.n_vocab = fused ? 320 : 1056;
    gp.n_ff = fused ? 32 : 1056;
    gp.head_dim = fused ? 88 : 16;
    return gguf_model_open(&gp);
}

/* Of the parameters of a matrix: what the full trainer's dW says. error: of the largest one. */
static void lora_check_pair(sm_trainer *lora, sm_trainer *full, const sm_train_tensor *a,
                            double s) {
    char name[80];
    sm_train_tensor b, w;
    double worst[2] = {0, 0}, largest[2] = {0, 0};
    int i, j, o, n = (int)strlen(a->name) - 7; /* without ".lora_a" */
    snprintf(name, sizeof name, "%.*s.lora_b", n, a->name);
    if (!CHECK_STATUS(sm_trainer_tensor_find(lora, name, &b), SM_OK)) return;
    name[n] = 0;
    if (!CHECK_STATUS(sm_trainer_tensor_find(full, name, &w), SM_OK)) return;
    CHECK(a->columns == w.columns && b.rows == w.rows && a->rows == b.columns);
    for (j = 0; j < a->rows; j++) {
        for (i = 0; i < w.columns; i++) {
            double want = 0.0, got = (double)a->grads[j * w.columns + i];
            for (o = 0; o < w.rows; o++)
                want += s * (double)b.params[o * a->rows + j] * (double)w.grads[o * w.columns + i];
            worst[0] = larger(worst[0], fabs(got - want));
            largest[0] = larger(largest[0], fabs(want));
        }
        for (o = 0; o < w.rows; o++) {
            double want = 0.0, got = (double)b.grads[o * a->rows + j];
            for (i = 0; i < w.columns; i++)
                want += s * (double)a->params[j * w.columns + i] *
                        (double)w.grads[o * w.columns + i];
            worst[1] = larger(worst[1], fabs(got - want));
            largest[1] = larger(largest[1], fabs(want));
        }
    }
    for (i = 0; i < 2; i++)
        if (!(largest[i] > 1e-9 && worst[i] <= 1e-5 * largest[i]))
            FAIL("%s: d%c is off by %.3g of %.3g", name, 'A' + i, worst[i], largest[i]);
}

static void lora_check_gradients(sm_trainer_params p, int n_vocab) {
    sm_trainer *lora = train_make(&p), *full;
    sm_model *merged;
    write_sink adapter;
    sm_train_stats a, b;
    sm_train_tensor e;
    train_data d;
    int i;
    if (!lora) return;
    lora_randomise(lora, 0.3f);
    adapter = lora_write(lora);
    merged = lora_merge(p.model, &adapter, SM_TYPE_F32);
    full = lora_full(p, merged);
    train_fill(&d, 3, 24, n_vocab); /* micro-batches of two and one */
    if (full && CHECK_STATUS(sm_trainer_backward(lora, &d.batch, &a), SM_OK) &&
        CHECK_STATUS(sm_trainer_backward(full, &d.batch, &b), SM_OK)) {
        CHECK_NEAR(a.loss, b.loss, 1e-5);
        for (i = 0; sm_trainer_tensor_at(lora, i, &e) == SM_OK; i++)
            if (strstr(e.name, ".lora_a"))
                lora_check_pair(lora, full, &e,
                                (double)p.lora_alpha / (double)p.lora_rank);
    }
    sm_trainer_destroy(lora);
    sm_trainer_destroy(full);
    sm_model_close(merged);
    write_drop(&adapter);
}

static void lora_gradients_follow_from_the_full_ones(void) {
    static const int types[] = {SM_TYPE_F32, SM_TYPE_Q8_0, SM_TYPE_Q4_0, SM_TYPE_BF16,
                                SM_TYPE_Q4_K};
    int a;
    for (a = 0; a < RUN_ARCHS; a++) {
        sm_model *m = lora_base(run_archs[a], types[a]);
        sm_trainer_params p = lora_params(m, a == 1 ? 70 : 2 * a + 1); /* 70: two tiles of dA */
        p.dropout = a % 2 ? 0.1f : 0.0f;
        p.checkpoint = a == 3;
        if (m) lora_check_gradients(p, 320);
        p.lora_targets = a % 2 ? SM_LORA_V | SM_LORA_UP : SM_LORA_OUTPUT | SM_LORA_DOWN;
        if (a == 2) p.lora_targets = SM_LORA_GATE | SM_LORA_K;
        if (m) lora_check_gradients(p, 320);
        sm_model_close(m);
    }
}

static void lora_of_long_matrices(void) {
    static const char *const archs[] = {"llama", "gpt2"};
    int a;
    for (a = 0; a < 2; a++) {
        sm_model *m = lora_long_base(archs[a]);
        sm_trainer_params p = lora_params(m, 3);
        if (!m) return;
        CHECK(sm__lora_rows(&m->weights->output, 1056) == 1024);
        lora_check_zero(m, m->hp.n_vocab);
        lora_check_gradients(p, m->hp.n_vocab);
        sm_model_close(m);
    }
}

/* Some steps; the loss falls, and is that of the merged model's logits. */
static void lora_check_learning(const sm_model *base) {
    enum { N = 24 };
    sm_trainer_params p = lora_params(base, 8);
    run_way w = run_plain(SM_TYPE_F32);
    sm_trainer *t;
    sm_model *merged;
    write_sink adapter;
    sm_train_stats first, last;
    train_data d;
    float *rows = run_rows(N, 320);
    double loss = 0.0;
    int i, j;
    p.rate.rate = 0.01f;
    p.dropout = 0.05f;
    p.clip_norm = 1.0f;
    t = train_make(&p);
    if (!t) return;
    train_fill(&d, 1, N, 320);
    for (i = 0; i < N; i++) d.targets[i] = random_below(320);
    CHECK_STATUS(sm_trainer_eval(t, &d.batch, &first), SM_OK);
    for (i = 0; i < 25; i++) CHECK_STATUS(sm_trainer_step(t, &d.batch, NULL), SM_OK);
    CHECK_STATUS(sm_trainer_eval(t, &d.batch, &last), SM_OK);
    if (!(last.loss < 0.7 * first.loss)) FAIL("loss %g, %g before", last.loss, first.loss);
    adapter = lora_write(t);
    merged = lora_merge(base, &adapter, SM_TYPE_F32);
    if (merged) run_logits(merged, &w, d.tokens, N, rows);
    for (i = 0; i < N; i++) {
        double sum = 0.0;
        for (j = 0; j < 320; j++) sum += exp((double)rows[i * 320 + j]);
        loss += (log(sum) - (double)rows[i * 320 + d.targets[i]]) / (double)N;
    }
    CHECK_NEAR(last.loss, loss, 1e-5); /* sums of F32 in another order */
    free(rows);
    sm_trainer_destroy(t);
    sm_model_close(merged);
    write_drop(&adapter);
}

static void lora_learns_on_every_base(void) {
    static const int types[] = {SM_TYPE_Q8_0, SM_TYPE_Q4_0, SM_TYPE_Q4_K, SM_TYPE_F16};
    int i;
    for (i = 0; i < 4; i++) {
        sm_model *m = lora_base(run_archs[i], types[i]);
        if (m) lora_check_learning(m);
        sm_model_close(m);
    }
}

/* Rows of q and k lie otherwise in Hugging Face's files: those of B in the adapter are GGUF's. */
static void lora_of_safetensors(void) {
    enum { N = 24 };
    const char *path = data_path("models/tinystories-656k/model.safetensors");
    sm_model_params mp = sm_model_default();
    sm_model *m = NULL, *as_gguf, *merged;
    sm_trainer_params p;
    sm_trainer *t, *full;
    write_sink adapter, plain = write_empty();
    sm_train_stats a, b;
    train_data d;
    sm_error error;
    int i;
    if (!path) return;
    mp.file.path = path;
    mp.allocator = heap_allocator();
    if (!CHECK_STATUS(sm_model_open(&mp, &m, &error), SM_OK)) return;
    CHECK(m->arch->pos != m->hp.pos); /* else this shows nothing */
    p = lora_params(m, 4);
    t = train_make(&p);
    lora_randomise(t, 0.5f);
    adapter = lora_write(t);
    train_fill(&d, 1, N, sm_model_get_info(m)->n_vocab);
    CHECK_STATUS(sm_trainer_eval(t, &d.batch, &a), SM_OK);
    CHECK_STATUS(lora_merge_to(&plain, m, NULL, SM_TYPE_F32, &error), SM_OK);
    as_gguf = lora_open(&plain);
    for (i = 0; i < 2; i++) { /* merged into either file */
        merged = lora_merge(i ? as_gguf : m, &adapter, SM_TYPE_F32);
        full = lora_full(p, merged);
        if (full && CHECK_STATUS(sm_trainer_eval(full, &d.batch, &b), SM_OK))
            CHECK_NEAR(a.loss, b.loss, 1e-5);
        sm_trainer_destroy(full);
        sm_model_close(merged);
    }
    sm_trainer_destroy(t);
    sm_model_close(as_gguf);
    sm_model_close(m);
    write_drop(&adapter);
}

/* --- the bits --------------------------------------------------------------------------------- */

static void lora_bits_do_not_depend_on_the_way(void) {
    static const char *const archs[] = {"llama", "qwen2", "gpt2"};
    static const int types[] = {SM_TYPE_Q4_0, SM_TYPE_F16, SM_TYPE_Q8_0};
    int isas[8], n_isas = run_isas(isas), a, i;
    for (a = 0; a < 3; a++) {
        sm_model *m = lora_base(archs[a], types[a]);
        sm_trainer_params p = lora_params(m, 5);
        uint64_t want;
        if (!m) return;
        p.dropout = 0.1f;
        p.clip_norm = 1.0f;
        p.weight_decay = 0.1f;
        want = train_bits(&p, 2);
        CHECK(want != train_bits(&p, 1));
        for (i = 0; i < n_isas; i++) {
            p.isa = isas[i];
            if (train_bits(&p, 2) != want) FAIL("%s, %s", archs[a], sm_isa_name(p.isa));
        }
        for (p.isa = SM_ISA_AUTO, i = 2; i < 5; i++) {
            p.n_threads = i;
            p.checkpoint = i % 2;
            if (train_bits(&p, 2) != want) FAIL("%s, %d threads", archs[a], i);
        }
        sm_model_close(m);
    }
}

static void lora_resumes_bit_by_bit(void) {
    sm_model *m = lora_base("llama", SM_TYPE_Q4_0);
    sm_trainer_params p = lora_params(m, 3);
    sm_trainer *a = train_make(&p), *b, *other;
    train_data d[4];
    size_t bytes = sm_trainer_state_bytes(a), n;
    void *state = malloc(bytes);
    int i;
    p.checkpoint = 1;
    b = train_make(&p);
    p.lora_alpha = 4.0f;
    other = train_make(&p);
    if (!a || !b || !other || !state) return;
    for (i = 0; i < 4; i++) {
        train_fill(&d[i], 3, 24, 320);
        if (i < 2) CHECK_STATUS(sm_trainer_step(a, &d[i].batch, NULL), SM_OK);
    }
    CHECK_STATUS(sm_trainer_state_save(a, state, bytes), SM_OK);
    CHECK_STATUS(sm_trainer_state_load(other, state, bytes), SM_ERR_UNSUPPORTED);
    CHECK_STATUS(sm_trainer_state_load(b, state, bytes), SM_OK);
    for (i = 2; i < 4; i++) {
        CHECK_STATUS(sm_trainer_step(a, &d[i].batch, NULL), SM_OK);
        CHECK_STATUS(sm_trainer_step(b, &d[i].batch, NULL), SM_OK);
    }
    sm_trainer_flat_params(a, &n);
    CHECK(!memcmp(sm_trainer_flat_params(a, NULL), sm_trainer_flat_params(b, NULL), 4 * n));
    free(state);
    sm_trainer_destroy(a);
    sm_trainer_destroy(b);
    sm_trainer_destroy(other);
    sm_model_close(m);
}

/* --- files ------------------------------------------------------------------------------------ */

/* The file as llama.cpp wants it, with the trainer's numbers. */
static void lora_adapter_file(void) {
    sm_model *m = lora_base("qwen2", SM_TYPE_Q8_0), *file;
    sm_trainer_params p = lora_params(m, 6);
    sm_trainer *t;
    write_sink s;
    t = train_make(&p);
    s = lora_write(t);
    file = sm__model_new(&p.allocator);
    if (t && file) {
        sm__bytes bytes;
        sm_train_tensor e;
        char text[32];
        int i;
        memset(&bytes, 0, sizeof bytes);
        bytes.p = s.file.p;
        bytes.n = s.file.n;
        CHECK_STATUS(sm__gguf_directory(file, &bytes, 0, NULL), SM_OK);
        CHECK_STR(sm_model_meta(file, "general.type", text, sizeof text), "adapter");
        CHECK_STR(sm_model_meta(file, "general.architecture", text, sizeof text), "qwen2");
        CHECK_STR(sm_model_meta(file, "adapter.type", text, sizeof text), "lora");
        CHECK_STR(sm_model_meta(file, "adapter.lora.alpha", text, sizeof text), "3");
        CHECK(sm__meta_find(file, "adapter.lora.alpha")->type == SM_META_F32);
        CHECK(file->info.n_tensors == 2 * 7 * 2);
        for (i = 0; sm_trainer_tensor_at(t, i, &e) == SM_OK; i++) {
            int at = sm__tensor_at(file, e.name);
            if (!CHECK(at >= 0)) continue;
            CHECK(file->tensors[at].n_dims == 2 && file->tensors[at].type == SM_TYPE_F32);
            CHECK(file->tensors[at].dims[0] == (uint64_t)e.columns);
            CHECK(file->tensors[at].dims[1] == (uint64_t)e.rows);
            CHECK(!memcmp(file->tensors[at].data, e.params, file->tensors[at].bytes));
        }
        CHECK_STATUS(sm_trainer_tensor_find(t, "blk.1.ffn_down.weight.lora_b", &e), SM_OK);
        CHECK(e.rows == 64 && e.columns == 6 && e.params[7] == 0.0f);
    }
    sm_model_close(file);
    sm_trainer_destroy(t);
    write_drop(&s);
    sm_model_close(m);
}

/* Merging rounds once: into a type, it is the F32 merge in that type. By itself each tensor keeps
 * its type, and its bytes unless there is something to add. */
static void lora_merges_into_any_type(void) {
    static const int types[] = {SM_TYPE_F16, SM_TYPE_BF16, SM_TYPE_Q8_0, SM_TYPE_Q4_0,
                                SM_TYPE_Q5_K}; /* none that the base has: those are copied */
    sm_model *m = lora_base("llama", SM_TYPE_Q4_K), *merged;
    sm_trainer_params p = lora_params(m, 3);
    sm_trainer *t;
    write_sink adapter, f32 = write_empty(), a, b;
    sm_error error;
    int i;
    p.lora_targets = SM_LORA_Q | SM_LORA_DOWN;
    t = train_make(&p);
    if (!t) return;
    lora_randomise(t, 0.5f);
    adapter = lora_write(t);
    merged = lora_merge(m, &adapter, SM_TYPE_F32);
    for (i = 0; i < 5; i++) {
        a = write_empty(), b = write_empty();
        CHECK_STATUS(lora_merge_to(&a, m, &adapter, types[i], &error), SM_OK);
        CHECK_STATUS(lora_merge_to(&b, merged, NULL, types[i], &error), SM_OK);
        CHECK(a.file.n == b.file.n && !memcmp(a.file.p, b.file.p, a.file.n));
        write_drop(&a);
        write_drop(&b);
    }
    sm_model_close(merged);
    merged = lora_merge(m, &adapter, SM_TYPE_AUTO);
    for (i = 0; merged && i < m->info.n_tensors; i++) {
        const sm_tensor *x = &m->tensors[i], *y = &merged->tensors[i];
        int target = strstr(x->name, "attn_q.") || strstr(x->name, "ffn_down");
        CHECK(x->type == y->type && x->bytes == y->bytes && !strcmp(x->name, y->name));
        CHECK((memcmp(x->data, y->data, x->bytes) != 0) == (target != 0));
    }
    CHECK(merged && merged->info.n_meta == m->info.n_meta);
    sm_model_close(merged);
    CHECK_STATUS(lora_merge_to(&f32, m, NULL, SM_TYPE_AUTO, &error), SM_OK); /* a copy */
    write_drop(&f32);
    write_drop(&adapter);
    sm_trainer_destroy(t);
    sm_model_close(m);
}

/* adapter_scale, an adapter without alpha, halves of other types, and a rank beyond one piece. */
static void lora_merges_other_tools_adapters(void) {
    enum { RANK = 544 };
    static const int types[] = {SM_TYPE_F32, SM_TYPE_F16, SM_TYPE_Q8_0};
    sm_model *m = lora_base("llama", SM_TYPE_F32), *merged = NULL;
    const sm_tensor *w = &m->tensors[sm__tensor_at(m, "blk.1.attn_k.weight")];
    sm_error error;
    int i, j, r, alpha;
    error.text[0] = 0;
    for (i = 0; i < 3; i++)
        for (alpha = 0; alpha < 2; alpha++) {
            gguf_builder g = gguf_make(3);
            write_sink s = write_empty(), out = write_empty();
            sm_quantize_params p = sm_quantize_default();
            float *a = run_rows(RANK, 64), *b = run_rows(32, RANK), *x;
            const float *was = (const float *)(const void *)w->data;
            double worst = 0.0, scale = 0.5 * (alpha ? 7.0 / RANK : 1.0);
            gguf_key_str(&g, "general.architecture", "mistral"); /* llama by another name */
            gguf_key_str(&g, "general.type", "adapter");
            gguf_key_str(&g, "adapter.type", "lora");
            if (alpha) gguf_key_f32(&g, "adapter.lora.alpha", 7.0f);
            gguf_tensor(&g, "blk.1.attn_k.weight.lora_b", types[i], RANK, 32, 0.0f, 0.25f);
            sm_type_decode(types[i], g.data.p, b, 32 * RANK);
            j = (int)gguf_align(&g);
            gguf_tensor(&g, "blk.1.attn_k.weight.lora_a", types[2 - i], 64, RANK, 0.0f, 0.25f);
            sm_type_decode(types[2 - i], g.data.p + j, a, 64 * RANK);
            s.file.p = gguf_finish(&g, &s.file.n);
            p.out = write_to(&out);
            p.adapter.data = s.file.p;
            p.adapter.bytes = s.file.n;
            p.adapter_scale = 0.5f;
            if (sm_quantize(m, &p, &error) || !(merged = lora_open(&out))) {
                FAIL("types %d and %d: %s", types[i], types[2 - i], error.text);
                return;
            }
            x = (float *)(uintptr_t)merged->tensors[w - m->tensors].data;
            for (r = 0; r < 32 * 64; r++) {
                double sum = 0.0;
                for (j = 0; j < RANK; j++)
                    sum += (double)b[r / 64 * RANK + j] * (double)a[j * 64 + r % 64];
                sum = (double)was[r] + scale * sum;
                worst = larger(worst, fabs((double)x[r] - sum) / larger(fabs(sum), 1e-3));
            }
            CHECK_NEAR(worst, 0.0, 6.1e-8); /* one rounding */
            sm_model_close(merged);
            free(a);
            free(b);
            write_drop(&s);
        }
    sm_model_close(m);
}

/* --- what is refused -------------------------------------------------------------------------- */

static sm_status lora_merge_bytes(const sm_model *m, const void *bytes, size_t n, int type,
                                  sm_error *error) {
    write_sink out = write_empty(), in = write_empty();
    sm_status status;
    in.file.n = n;
    in.file.p = (uint8_t *)malloc(n ? n : 1); /* of its own: a sanitizer sees its end */
    if (!in.file.p) exit(3);
    if (n) memcpy(in.file.p, bytes, n);
    status = lora_merge_to(&out, m, &in, type, error);
    free(in.file.p);
    write_drop(&out);
    return status;
}

typedef struct lora_bad {
    const char *general, *arch, *kind;
    float alpha;
    const char *a, *b; /* names; NULL = not there */
    int a_k, a_rank, b_rank, b_n, type;
    sm_status status;
    const char *words;
} lora_bad;

#define LORA_Q "blk.0.attn_q.weight"

static void lora_bad_adapters_are_refused(void) {
    static const lora_bad bad[] = {
        {"adapter", "llama", "lora", 1, LORA_Q ".lora_a", LORA_Q ".lora_b", 64, 2, 2, 64, 0, SM_OK,
         NULL},
        {"model", "llama", "lora", 1, LORA_Q ".lora_a", LORA_Q ".lora_b", 64, 2, 2, 64, 0,
         SM_ERR_FORMAT, "general.type is model"},
        {"adapter", "qwen2", "lora", 1, LORA_Q ".lora_a", LORA_Q ".lora_b", 64, 2, 2, 64, 0,
         SM_ERR_UNSUPPORTED, "made for qwen2, the model is of llama"},
        {"adapter", "rwkv", "lora", 1, LORA_Q ".lora_a", LORA_Q ".lora_b", 64, 2, 2, 64, 0,
         SM_ERR_UNSUPPORTED, "made for"},
        {"adapter", "llama", "control", 1, LORA_Q ".lora_a", LORA_Q ".lora_b", 64, 2, 2, 64, 0,
         SM_ERR_UNSUPPORTED, "adapter.type"},
        {"adapter", "llama", "lora", 3e38f, LORA_Q ".lora_a", LORA_Q ".lora_b", 64, 2, 2, 64, 0,
         SM_ERR_FORMAT, "alpha"},
        {"adapter", "llama", "lora", 1, NULL, LORA_Q ".lora_b", 64, 2, 2, 64, 0, SM_ERR_FORMAT,
         "no other half"},
        {"adapter", "llama", "lora", 1, LORA_Q ".lora_a", NULL, 64, 2, 2, 64, 0, SM_ERR_FORMAT,
         "no other half"},
        {"adapter", "llama", "lora", 1, NULL, NULL, 64, 2, 2, 64, 0, SM_ERR_FORMAT, "no tensors"},
        {"adapter", "llama", "lora", 1, "blk.7.attn_q.weight.lora_a", "blk.7.attn_q.weight.lora_b",
         64, 2, 2, 64, 0, SM_ERR_FORMAT, "no matrix for"},
        {"adapter", "llama", "lora", 1, "blk.0.attn_norm.weight.lora_a",
         "blk.0.attn_norm.weight.lora_b", 64, 2, 2, 1, 0, SM_ERR_FORMAT, "no matrix for"},
        {"adapter", "llama", "lora", 1, LORA_Q ".lora_a", "lora_b", 64, 2, 2, 64, 0, SM_ERR_FORMAT,
         "no "},
        {"adapter", "llama", "lora", 1, LORA_Q, LORA_Q ".lora_b", 64, 2, 2, 64, 0, SM_ERR_FORMAT,
         "no "},
        {"adapter", "llama", "lora", 1, LORA_Q ".lora_a", LORA_Q ".lora_b", 96, 2, 2, 64, 0,
         SM_ERR_FORMAT, "shapes [96, 2] and [2, 64] for [64, 64]"},
        {"adapter", "llama", "lora", 1, LORA_Q ".lora_a", LORA_Q ".lora_b", 64, 2, 2, 65, 0,
         SM_ERR_FORMAT, "shapes"},
        {"adapter", "llama", "lora", 1, LORA_Q ".lora_a", LORA_Q ".lora_b", 64, 2, 3, 64, 0,
         SM_ERR_FORMAT, "shapes"},
        {"adapter", "llama", "lora", 1, LORA_Q ".lora_a", LORA_Q ".lora_b", 64, 32, 32, 64,
         SM_TYPE_Q8_0, SM_OK, NULL},
    };
    sm_model *m = lora_base("llama", SM_TYPE_Q8_0);
    size_t i, n;
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        const lora_bad *c = &bad[i];
        gguf_builder g = gguf_make(3);
        sm_error error;
        uint8_t *file;
        gguf_key_str(&g, "general.architecture", c->arch);
        gguf_key_str(&g, "general.type", c->general);
        gguf_key_str(&g, "adapter.type", c->kind);
        gguf_key_f32(&g, "adapter.lora.alpha", c->alpha);
        if (c->a) gguf_tensor(&g, c->a, c->type, c->a_k, c->a_rank, 0.0f, 0.1f);
        if (c->b) gguf_tensor(&g, c->b, c->type, c->b_rank, c->b_n, 0.0f, 0.1f);
        file = gguf_finish(&g, &n);
        memset(&error, 0, sizeof error);
        if (!CHECK_STATUS(lora_merge_bytes(m, file, n, SM_TYPE_Q8_0, &error), c->status) ||
            (c->words && !strstr(error.text, c->words)))
            FAIL("%d: %s", (int)i, error.text);
        free(file);
    }
    sm_model_close(m);
}

/* One pair in the builder, with a first value of A and an alpha of any bits. */
static uint8_t *lora_small_adapter(uint32_t alpha, uint32_t value, int type, uint64_t rank,
                                   size_t *n) {
    gguf_builder g = gguf_make(3);
    float zeros[2 * 64] = {0.0f};
    uint64_t dims[2], at;
    zeros[0] = sm__from_bits(value);
    gguf_key_str(&g, "general.architecture", "llama");
    gguf_key_str(&g, "general.type", "adapter");
    gguf_key_str(&g, "adapter.type", "lora");
    gguf_key_f32(&g, "adapter.lora.alpha", sm__from_bits(alpha));
    at = gguf_align(&g);
    gguf_bytes(&g.data, zeros, sizeof zeros);
    dims[0] = 64, dims[1] = rank;
    gguf_entry(&g, LORA_Q ".lora_a", 2, dims, (uint32_t)type, at);
    dims[0] = rank, dims[1] = 64;
    gguf_entry(&g, LORA_Q ".lora_b", 2, dims, (uint32_t)type, at);
    return gguf_finish(&g, n);
}

static void lora_damaged_adapters_are_refused(void) {
    static const struct {
        uint32_t alpha, value;
        int type;
        uint64_t rank;
        sm_status status;
    } cases[] = {
        {0x3f800000u, 0, 0, 2, SM_OK},
        {0x7fc00000u, 0, 0, 2, SM_ERR_FORMAT},          /* alpha: a NaN */
        {0x7f800000u, 0, 0, 2, SM_ERR_FORMAT},          /* endless */
        {0x3f800000u, 0x7fc00000u, 0, 2, SM_ERR_FORMAT}, /* a value */
        {0x3f800000u, 0x7f800000u, 0, 2, SM_ERR_FORMAT},
        {0x3f800000u, 0, 0, 0, SM_ERR_FORMAT},
        {0x3f800000u, 0, 0, 3, SM_ERR_FORMAT}, /* does not fit into the file */
        {0x3f800000u, 0, 0, (uint64_t)1 << 40, SM_ERR_FORMAT},
        {0x3f800000u, 0, 0, (uint64_t)1 << 63, SM_ERR_FORMAT},
        {0x3f800000u, 0, 24, 2, SM_ERR_UNSUPPORTED}, /* I8 */
        {0x3f800000u, 0, 77, 2, SM_ERR_UNSUPPORTED},
    };
    sm_model *m = lora_base("llama", SM_TYPE_F32);
    sm_quantize_params p = sm_quantize_default();
    write_sink out = write_empty();
    sm_error error;
    uint8_t *file;
    size_t i, n, at;
    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        file = lora_small_adapter(cases[i].alpha, cases[i].value, cases[i].type, cases[i].rank, &n);
        memset(&error, 0, sizeof error);
        if (!CHECK_STATUS(lora_merge_bytes(m, file, n, SM_TYPE_F32, &error), cases[i].status) ||
            (cases[i].status && strlen(error.text) < 12) ||
            ((i == 1 || i == 2) && !strstr(error.text, "alpha")))
            FAIL("%d: %s", (int)i, error.text);
        free(file);
    }
    file = lora_small_adapter(0x3f800000u, 0, 0, 2, &n);
    for (at = 0; at < n; at += at < n - 512 ? 1 : 31) { /* every beginning of it */
        error.text[0] = 0;
        if (lora_merge_bytes(m, file, at, SM_TYPE_F32, &error) == SM_OK || strlen(error.text) < 12)
            FAIL("%d bytes: %s", (int)at, error.text);
    }
    for (i = 0; i < 300; i++) { /* any byte of the head: whatever comes, comes as a status */
        at = (size_t)random_below((int)n - 512);
        file[at] ^= (uint8_t)(1 << random_below(8));
        if (lora_merge_bytes(m, file, n, SM_TYPE_F32, &error) != SM_OK) CHECK(error.status < 0);
        if (i % 3 == 2) {
            free(file);
            file = lora_small_adapter(0x3f800000u, 0, 0, 2, &n);
        }
    }
    free(file);
    p.out = write_to(&out);
    p.adapter.path = "no/such/adapter.gguf";
    CHECK(sm_quantize(m, &p, &error) < 0);
    p.adapter.path = NULL;
    p.adapter_scale = sm__from_bits(0x7fc00000u);
    CHECK_STATUS(sm_quantize(m, &p, &error), SM_ERR_ARG);
    CHECK(out.file.n == 0);
    sm_model_close(m);
}

static void lora_bad_params_are_refused(void) {
    sm_model *m = lora_base("gpt2", SM_TYPE_Q8_0);
    sm_trainer_params good = lora_params(m, 2), p;
    sm_trainer *t = NULL;
    write_sink s = write_empty();
    sm_writer_params wp = write_to(&s);
    sm_train_plan plan;
    sm_error error;
    int i;
    for (i = 0; i < 8; i++) {
        p = good;
        switch (i) {
        case 0: p.lora_rank = -1; break;
        case 1: p.lora_rank = 1 << 20; break;
        case 2: p.lora_alpha = -1.0f; break;
        case 3: p.lora_alpha = sm__from_bits(0x7fc00000u); break;
        case 4: p.lora_targets = 128; break;
        case 5: p.lora_targets = -1; break;
        case 6: p.lora_targets = SM_LORA_GATE; break; /* gpt2 has none */
        default: p.model = NULL, p.n_vocab = p.n_embd = p.n_layers = p.n_heads = 8; break;
        }
        if (!CHECK_STATUS(sm_trainer_create(&p, &t, &error), SM_ERR_ARG)) FAIL("field %d", i);
        CHECK(t == NULL && strlen(error.text) > 8);
    }
    memset(&plan, 0, sizeof plan);
    good.lora_targets = SM_LORA_K; /* the fused matrix */
    CHECK_STATUS(sm_trainer_plan(&good, &plan, &error), SM_OK);
    CHECK(plan.n_tensors == 2 * 2 && plan.n_params == 2 * 2 * (64 + 192));
    good.lora_rank = 1 << 16;
    CHECK_STATUS(sm_trainer_plan(&good, &plan, &error), SM_OK);
    p = train_params(&train_cases[0]);
    t = train_make(&p);
    CHECK_STATUS(sm_trainer_write_adapter(t, &wp, &error), SM_ERR_ARG);
    CHECK_STATUS(sm_trainer_write_adapter(NULL, &wp, &error), SM_ERR_ARG);
    sm_trainer_destroy(t);
    sm_model_close(m);
}

/* --- memory, and numbers that are not finite -------------------------------------------------- */

static void lora_no_heap_call_after_create(void) {
    sm_model *m = lora_base("qwen3", SM_TYPE_Q4_0);
    sm_trainer_params p = lora_params(m, 4);
    sm_trainer *t;
    sm_train_plan plan;
    train_data d;
    size_t held = heap.bytes;
    uint32_t calls, process;
    int i;
    p.n_threads = 2;
    memset(&plan, 0, sizeof plan);
    CHECK_STATUS(sm_trainer_plan(&p, &plan, NULL), SM_OK);
    t = train_make(&p);
    if (!t) return;
    CHECK(heap.bytes - held == plan.total_bytes);
    CHECK(plan.param_bytes < m->info.n_params * 4); /* no copy of the model */
    calls = heap.calls;
    process = heap_calls();
    for (i = 0; i < 3; i++) {
        train_fill(&d, 3, 24, 320);
        CHECK_STATUS(sm_trainer_step(t, &d.batch, NULL), SM_OK);
    }
    CHECK(heap.calls == calls && heap_calls() == process);
    sm_trainer_destroy(t);
    sm_model_close(m);
}

static void lora_out_of_memory_is_a_status(void) {
    sm_model *m = lora_base("llama", SM_TYPE_Q8_0);
    sm_trainer_params p = lora_params(m, 2);
    sm_trainer *t = train_make(&p);
    write_sink adapter = lora_write(t), s = write_empty();
    sm_writer_params wp = write_to(&s);
    sm_error error;
    uint32_t k, held = heap.held;
    sm_status status = SM_ERR_NOMEM;
    for (k = 1; k < 100 && status; k++) {
        heap_fail(k);
        status = sm_trainer_write_adapter(t, &wp, &error);
        if (status) CHECK(status == SM_ERR_NOMEM && error.status == SM_ERR_NOMEM);
        CHECK(heap.held == held);
        write_drop(&s);
    }
    CHECK(k > 4);
    status = SM_ERR_NOMEM;
    for (k = 1; k < 100 && status; k++) {
        heap_fail(k);
        status = lora_merge_to(&s, m, &adapter, SM_TYPE_Q8_0, &error);
        if (status) CHECK(status == SM_ERR_NOMEM && error.status == SM_ERR_NOMEM);
        CHECK(heap.held == held);
        write_drop(&s);
    }
    CHECK(k > 10 && status == SM_OK);
    heap_fail(0);
    write_drop(&adapter);
    sm_trainer_destroy(t);
    sm_model_close(m);
}

static void lora_not_finite_is_named(void) {
    sm_model *m = lora_base("llama", SM_TYPE_F16);
    sm_trainer_params p = lora_params(m, 2);
    sm_trainer *t = train_make(&p);
    const sm_tensor *w = &m->tensors[sm__tensor_at(m, "blk.1.ffn_up.weight")];
    sm_train_tensor e;
    train_data d;
    if (!t) return;
    train_fill(&d, 2, 24, 320);
    CHECK_STATUS(sm_trainer_step(t, &d.batch, NULL), SM_OK);
    sm_trainer_tensor_find(t, "blk.0.attn_v.weight.lora_b", &e);
    e.params[3] = sm__from_bits(0x7fc00000u);
    CHECK_STATUS(sm_trainer_step(t, &d.batch, NULL), SM_ERR_NUMBER);
    if (!strstr(sm_trainer_error(t), "attn_v of layer 0")) FAIL("%s", sm_trainer_error(t));
    e.params[3] = 0.0f;
    ((uint16_t *)(uintptr_t)w->data)[7] = 0x7e00; /* the base, in the model's own copy */
    CHECK_STATUS(sm_trainer_step(t, &d.batch, NULL), SM_ERR_NUMBER);
    if (!strstr(sm_trainer_error(t), "ffn_up of layer 1")) FAIL("%s", sm_trainer_error(t));
    CHECK(sm_trainer_steps(t) == 1);
    sm_trainer_destroy(t);
    sm_model_close(m);
}

static const test tests_lora[] = {
    {"lora: with B = 0 it is the model, on every type", lora_with_zeros_is_the_model},
    {"lora: gradients follow from the full ones", lora_gradients_follow_from_the_full_ones},
    {"lora: of matrices that are decoded in pieces", lora_of_long_matrices},
    {"lora: learns on every base; merged, it is the same model", lora_learns_on_every_base},
    {"lora: of a safetensors model, as GGUF has its rows", lora_of_safetensors},
    {"lora: bits do not depend on threads, levels, checkpoints",
     lora_bits_do_not_depend_on_the_way},
    {"lora: resumes bit by bit", lora_resumes_bit_by_bit},
    {"lora: the adapter is llama.cpp's kind of file", lora_adapter_file},
    {"lora: merges into any type", lora_merges_into_any_type},
    {"lora: merges other tools' adapters", lora_merges_other_tools_adapters},
    {"lora: bad adapters are refused", lora_bad_adapters_are_refused},
    {"lora: damaged adapters are refused", lora_damaged_adapters_are_refused},
    {"lora: bad params are refused", lora_bad_params_are_refused},
    {"lora: no heap call after create", lora_no_heap_call_after_create},
    {"lora: out of memory is a status", lora_out_of_memory_is_a_status},
    {"lora: a number not finite is named", lora_not_finite_is_named},
};
#else
static void lora_is_left_out(void) { (void)CHECK(1); }
static const test tests_lora[] = {{"lora: left out", lora_is_left_out}};
#endif

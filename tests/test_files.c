/* test_files.c - reading model files: known facts of real ones, equal results by every way in, and
 * files that were made to break a reader. Included by test.c after build_gguf.h. */

/* --- helpers --------------------------------------------------------------------------------- */

static sm_status files_open(const void *data, size_t n, sm_model **m, sm_error *error) {
    sm_model_params p = sm_model_default();
    p.file.data = data;
    p.file.bytes = n;
    p.allocator = heap_allocator();
    memset(error, 0, sizeof *error);
    return sm_model_open(&p, m, error);
}

/* A builder's file must be refused with this status and words in the message. */
static int files_refused(const char *file, int line, gguf_builder *g, sm_status want,
                         const char *words) {
    sm_model *m = NULL;
    sm_error error;
    size_t n;
    uint8_t *data = gguf_finish(g, &n);
    sm_status status = files_open(data, n, &m, &error);
    int ok = status == want && !m && error.status == want && strstr(error.text, words);
    if (!ok)
        check_fail(file, line, "status %d (%s), not %d; \"%s\" should say \"%s\"", status,
                   sm_status_text(status), want, error.text, words);
    sm_model_close(m);
    free(data);
    return ok;
}
#define REFUSED(g, status, words) files_refused(__FILE__, __LINE__, g, status, words)

/* A small model's builder, without a vocabulary: few header bytes. */
static gguf_model_params files_tiny(const char *arch, int type) {
    gguf_model_params p = gguf_model_default(arch, type);
    p.vocab = GGUF_NO_VOCAB;
    p.n_vocab = 7;
    p.n_ctx = 8;
    p.n_embd = 32;
    p.n_layers = 1;
    p.n_heads = 2;
    p.n_kv_heads = strcmp(arch, "gpt2") ? 1 : 2;
    p.head_dim = 16;
    p.n_ff = 32;
    return p;
}

/* Only metadata: what a vocabulary-only file starts with. */
static gguf_builder files_vocab(void) {
    gguf_builder g = gguf_make(3);
    gguf_key_str(&g, "general.architecture", "llama");
    return g;
}

/* Reads all that the model shows: a wrong pointer or length traps here. */
static uint64_t files_touch(const sm_model *m) {
    char key[300], value[300];
    sm_tensor t;
    uint64_t h = 0;
    int i;
    for (i = 0; sm_model_meta_at(m, i, key, sizeof key); i++)
        if (sm_model_meta(m, key, value, sizeof value)) h += hash_bytes(value, strlen(value));
    for (i = 0; sm_model_tensor(m, i, &t) == SM_OK; i++)
        h = h * 31 + hash_bytes(t.data, t.data ? t.bytes : 0) + hash_bytes(t.name, strlen(t.name));
    return h;
}

static const sm_tensor *files_find(const sm_model *m, const char *name, sm_tensor *t) {
    int i;
    memset(t, 0, sizeof *t);
    for (i = 0; sm_model_tensor(m, i, t) == SM_OK; i++)
        if (strcmp(t->name, name) == 0) return t;
    return NULL;
}

static sm_model *files_path(const char *name, const char *tokenizer) {
    sm_model_params p = sm_model_default();
    const char *path = data_path(name);
    sm_model *m = NULL;
    sm_error error;
    if (!path) return NULL;
    p.file.path = path;
    if (tokenizer) p.tokenizer.path = data_path(tokenizer);
    p.allocator = heap_allocator();
    if (sm_model_open(&p, &m, &error)) FAIL("%s: %s", path, error.text);
    return m;
}

/* --- facts about real files ------------------------------------------------------------------ */

typedef struct files_fact {
    const char *file, *tokenizer, *format, *arch;
    int n_vocab, n_ctx, n_embd, n_layers, n_heads, n_kv_heads, head_dim, n_ff;
    int n_tensors, n_meta;
    uint64_t n_params;
    const char *kind;
    int32_t bos, eos;
} files_fact;

static void files_known(void) {
    static const files_fact facts[] = {
        {"models/stories260K/stories260K.gguf", NULL, "GGUF v3", "llama", 512, 128, 64, 5, 8, 4, 8,
         172, 48, 19, 292800, "spm", 1, 2},
        {"models/stories260K/stories260K.bin", "models/stories260K/tok512.bin", "llama2.c", "llama",
         512, 512, 64, 5, 8, 4, 8, 172, 47, 0, 260032, "spm", 1, 2},
        {"models/tinystories-656k/model.safetensors", NULL, "safetensors", "llama", 2048, 512, 128,
         2, 8, 4, 16, 384, 20, 0, 656000, "spm", 1, 2},
        {"models/tiny-random-gpt2/model.safetensors", NULL, "safetensors", "gpt2", 1000, 512, 32, 5,
         4, 4, 8, 128, 64, 0, 111968, "", 98, 98},
        {"models/nano-gpt-sort/model.safetensors", NULL, "safetensors", "gpt2", 3, 11, 48, 3, 3, 3,
         16, 192, 41, 0, 85728, "", -1, -1},
    };
    size_t i;
    for (i = 0; i < sizeof facts / sizeof *facts; i++) {
        const files_fact *f = &facts[i];
        sm_model *m = files_path(f->file, f->tokenizer);
        const sm_model_info *info = sm_model_get_info(m);
        if (!m) return;
        CHECK_STR(info->format, f->format);
        CHECK_STR(info->arch, f->arch);
        CHECK(info->n_vocab == f->n_vocab && info->n_ctx_train == f->n_ctx);
        CHECK(info->n_embd == f->n_embd && info->n_layers == f->n_layers);
        CHECK(info->n_heads == f->n_heads && info->n_kv_heads == f->n_kv_heads);
        CHECK(info->head_dim == f->head_dim && info->n_ff == f->n_ff);
        CHECK(info->n_tensors == f->n_tensors && info->n_meta == f->n_meta);
        CHECK(info->n_params == f->n_params && info->weight_bytes == 4 * f->n_params);
        CHECK(info->decode_bytes > 0 && info->decode_bytes <= info->weight_bytes);
        CHECK(info->type == SM_TYPE_F32 && info->mapped_bytes > info->weight_bytes);
        CHECK(info->heap_bytes > 0 && info->heap_bytes == heap.bytes);
        CHECK_STR(info->tokenizer, f->kind);
        CHECK(info->has_vocab == (f->kind[0] != 0));
        CHECK(info->bos == f->bos && info->eos == f->eos);
        sm_model_close(m);
    }
}

static void files_vocabularies(void) {
    static const struct {
        const char *file, *arch, *kind;
        int n_vocab, n_meta, bos, eos;
    } facts[] = {
        {"tokenizers/ggml-vocab-gpt-2.gguf", "gpt2", "bpe", 50257, 16, 50256, 50256},
        {"tokenizers/ggml-vocab-llama-spm.gguf", "llama", "spm", 32000, 22, 1, 2},
        {"tokenizers/ggml-vocab-phi-3.gguf", "phi3", "spm", 32064, 26, 1, 32000},
        {"tokenizers/ggml-vocab-llama-bpe.gguf", "llama", "bpe", 128256, 11, 128000, 128009},
        {"tokenizers/ggml-vocab-qwen2.gguf", "llama", "bpe", 151646, 11, 151643, 151645},
    };
    size_t i;
    int only;
    for (i = 0; i < sizeof facts / sizeof *facts; i++)
        for (only = 0; only < 2; only++) {
            sm_model_params p = sm_model_default();
            const sm_model_info *info;
            sm_model *m = NULL;
            sm_error error;
            p.file.path = data_path(facts[i].file);
            if (!p.file.path) return;
            p.vocab_only = only;
            p.allocator = heap_allocator();
            if (!CHECK_STATUS(sm_model_open(&p, &m, &error), SM_OK)) return;
            info = sm_model_get_info(m);
            CHECK_STR(info->arch, facts[i].arch);
            CHECK_STR(info->tokenizer, facts[i].kind);
            CHECK(info->n_vocab == facts[i].n_vocab && info->n_meta == facts[i].n_meta);
            CHECK(info->bos == facts[i].bos && info->eos == facts[i].eos);
            CHECK(info->n_tensors == 0 && info->n_params == 0 && info->type == SM_TYPE_AUTO);
            CHECK(m->weights == NULL && m->arch == NULL); /* no context can be made of it */
            sm_model_close(m);
        }
}

/* The .bin and the .gguf of one model hold the same bits, in the same order of rows. */
static void files_same_model(void) {
    sm_model *bin =
        files_path("models/stories260K/stories260K.bin", "models/stories260K/tok512.bin");
    sm_model *gguf = files_path("models/stories260K/stories260K.gguf", NULL);
    sm_tensor a, b;
    int i, same = 0;
    for (i = 0; bin && gguf && sm_model_tensor(bin, i, &a) == SM_OK; i++) {
        if (!CHECK(files_find(gguf, a.name, &b) != NULL)) continue;
        CHECK(a.type == b.type && a.bytes == b.bytes && a.dims[0] == b.dims[0]);
        if (memcmp(a.data, b.data, a.bytes)) FAIL("%s differs", a.name);
        else same++;
    }
    CHECK(!bin || !gguf || same == 47);
    sm_model_close(bin);
    sm_model_close(gguf);
}

/* GPT-2's Conv1D matrices are turned, minGPT's are not. */
static void files_conv1d(void) {
    static const char *const files[] = {"models/tiny-random-gpt2/model.safetensors",
                                        "models/nano-gpt-sort/model.safetensors"};
    int f;
    for (f = 0; f < 2; f++) {
        sm_model *m = files_path(files[f], NULL);
        size_t bytes = 0, header, at = 0;
        uint8_t *raw = file_read(data_path(files[f]), &bytes);
        const char *entry = NULL;
        sm_tensor t;
        uint64_t n, k, i, j, wrong = 0;
        if (!m || !raw) {
            sm_model_close(m);
            free(raw);
            return;
        }
        header = (size_t)sm__get64(raw);
        CHECK(files_find(m, "blk.1.attn_qkv.weight", &t) != NULL);
        k = t.dims[0];
        n = t.dims[1];
        CHECK(n == 3 * k && k == (uint64_t)m->hp.n_embd && t.n_dims == 2);
        for (i = 8; i + 60 < 8 + header; i++)
            if (memcmp(raw + i, "h.1.attn.c_attn.weight", 22) == 0) entry = (const char *)raw + i;
        entry = entry ? strstr(entry, "\"data_offsets\":[") : NULL;
        if (CHECK(entry != NULL)) at = 8 + header + strtoul(entry + 16, NULL, 10);
        for (i = 0; entry && i < n; i++)
            for (j = 0; j < k; j++) {
                size_t source = (size_t)(f == 0 ? j * n + i : i * k + j);
                wrong += memcmp((const uint8_t *)t.data + 4 * (i * k + j), raw + at + 4 * source,
                                4) != 0;
            }
        CHECK(wrong == 0);
        sm_model_close(m);
        free(raw);
    }
}

static const char files_cs336_config[] =
    "{\"model_type\": \"cs336\", \"vocab_size\": 100, \"context_length\": 64, \"d_model\": 128,\n"
    " \"num_layers\": 2, \"num_heads\": 2, \"d_ff\": 512}";

static void files_cs336(void) {
    sm_model_params p = sm_model_default();
    sm_model *m = NULL;
    sm_error error;
    const sm_model_info *info;
    p.file.path = data_path("models/cs336/transformer_lm_weights.safetensors");
    if (!p.file.path) return;
    p.allocator = heap_allocator();
    /* there is no config.json beside it */
    CHECK_STATUS(sm_model_open(&p, &m, &error), SM_ERR_IO);
    CHECK(strstr(error.text, "config.json") != NULL);
    p.config.data = files_cs336_config;
    p.config.bytes = sizeof files_cs336_config - 1;
    if (!CHECK_STATUS(sm_model_open(&p, &m, &error), SM_OK)) return;
    info = sm_model_get_info(m);
    CHECK_STR(info->arch, "cs336");
    CHECK(info->n_tensors == 20 && info->n_params == 427648 && info->n_ff == 512);
    CHECK(m->hp.pos == SM__POS_LEARNED && m->weights->position.n == 64);
    CHECK(m->weights->layers[1].gate.data == NULL && m->weights->layers[1].up.n == 512);
    CHECK(m->weights->output.data != m->weights->embed.data);
    sm_model_close(m);
    /* a wrong shape names the tensor and both shapes */
    p.config.data =
        "{\"vocab_size\": 100, \"context_length\": 64, \"d_model\": 128, \"num_layers\": 2,"
        "\"num_heads\": 2, \"d_ff\": 256}";
    p.config.bytes = strlen((const char *)p.config.data);
    CHECK_STATUS(sm_model_open(&p, &m, &error), SM_ERR_FORMAT);
    CHECK_STR(error.text, "tensor blk.0.ffn_up.weight is [128, 512], expected [128, 256]");
}

/* --- every way in ---------------------------------------------------------------------------- */

typedef struct files_reader {
    const uint8_t *data;
    size_t n;
    int calls, fail_at, cancel_at, progress;
    uint64_t last;
} files_reader;

static int files_read(void *user, uint64_t offset, void *dst, size_t bytes) {
    files_reader *r = (files_reader *)user;
    if (++r->calls == r->fail_at) return 1;
    CHECK(offset <= r->n && bytes <= r->n - (size_t)offset);
    memcpy(dst, r->data + (size_t)offset, bytes);
    return 0;
}

static int files_progress(void *user, uint64_t done, uint64_t total) {
    files_reader *r = (files_reader *)user;
    CHECK(done > r->last && done <= total && total == r->n);
    r->last = done;
    return ++r->progress == r->cancel_at;
}

/* A new file in build/, and its path [64]; NULL when there is no such folder. */
static FILE *files_temporary(char *path) {
    snprintf(path, 64, "build/test_files.%llx.tmp",
             (unsigned long long)(sm__now_ns() ^ (uint64_t)(uintptr_t)path));
    return fopen(path, "wb");
}

static void files_ways_in(void) {
    char path[64];
    gguf_model_params gp = gguf_model_default("llama", SM_TYPE_Q8_0);
    sm_model_params p;
    sm_model *m;
    sm_error error;
    size_t n;
    uint8_t *data, *odd;
    uint64_t want = 0;
    int way;
    FILE *file;
    gp.n_vocab = 4000; /* more than two pieces */
    gp.n_embd = 512;
    gp.n_heads = 8;
    gp.head_dim = 64;
    data = gguf_model(&gp, &n);
    odd = (uint8_t *)malloc(n + 1);
    file = files_temporary(path);
    if (!CHECK(n > 2 * SM__READ_PIECE && odd)) return;
    memcpy(odd + 1, data, n);
    if (file) {
        CHECK(fwrite(data, 1, n, file) == n);
        fclose(file);
    }
    for (way = 0; way < 6; way++) {
        files_reader r;
        int copied = way % 2;
        memset(&r, 0, sizeof r);
        p = sm_model_default();
        m = NULL;
        r.data = data;
        r.n = n;
        p.allocator = heap_allocator();
        p.load = copied ? SM_LOAD_COPY : SM_LOAD_MAP;
        p.progress = files_progress;
        p.progress_user = &r;
        p.file.bytes = n;
        if (way < 2) {
            p.file.data = odd + 1;
        } else if (way < 4) {
            p.file.path = path;
            if (!file) continue; /* no folder build/ here */
        } else {
            p.file.read = files_read;
            p.file.user = &r;
            copied = 1;
        }
        if (!CHECK_STATUS(sm_model_open(&p, &m, &error), SM_OK)) continue;
        CHECK(way == 0 || files_touch(m) == want);
        want = files_touch(m);
        CHECK(sm_model_get_info(m)->mapped_bytes == (copied ? 0 : n));
        CHECK((heap.bytes > n) == copied);
        CHECK((r.progress == (int)(n / SM__READ_PIECE) + 1) == copied);
        CHECK((r.last == n) == copied && (copied || r.progress == 0));
        sm_model_close(m);
    }
    if (file) remove(path);
    free(data);
    free(odd);
}

static void files_callback_fails(void) {
    gguf_model_params gp = gguf_model_default("llama", SM_TYPE_F32);
    sm_error error;
    files_reader r;
    size_t n;
    uint8_t *data;
    int k, calls;
    gp.n_vocab = 4000;
    gp.n_embd = 256;
    gp.head_dim = 64;
    data = gguf_model(&gp, &n);
    calls = (int)((n + SM__READ_PIECE - 1) / SM__READ_PIECE);
    for (k = 1; k <= calls; k++) {
        sm_model_params p = sm_model_default();
        sm_model *m = NULL;
        memset(&r, 0, sizeof r);
        r.data = data;
        r.n = n;
        p.allocator = heap_allocator();
        p.file.read = files_read;
        p.file.user = &r;
        p.file.bytes = n;
        r.fail_at = k;
        CHECK_STATUS(sm_model_open(&p, &m, &error), SM_ERR_IO);
        CHECK(r.calls == k && m == NULL);
        p.progress = files_progress;
        p.progress_user = &r;
        r.calls = r.fail_at = 0;
        r.cancel_at = k;
        CHECK_STATUS(sm_model_open(&p, &m, &error), SM_ERR_CANCELLED);
        CHECK(r.progress == k && m == NULL && heap.held == 0);
        p.progress = NULL;
        p.file.bytes = n - 1; /* the caller's size is believed, not more */
        CHECK_STATUS(sm_model_open(&p, &m, &error), SM_ERR_FORMAT);
    }
    free(data);
}

/* A file that is cut, by its path. */
static void files_cut_by_path(void) {
    gguf_model_params gp = gguf_model_default("llama", SM_TYPE_Q4_0);
    size_t n, cut;
    uint8_t *data = gguf_model(&gp, &n);
    for (cut = 0; cut <= n; cut = cut < n && cut + 1 + cut / 8 > n ? n : cut + 1 + cut / 8) {
        sm_model_params p = sm_model_default();
        sm_model *m = NULL;
        sm_error error;
        char path[64];
        FILE *file = files_temporary(path);
        if (!file) break;
        CHECK(fwrite(data, 1, cut, file) == cut);
        fclose(file);
        p.file.path = path;
        p.allocator = heap_allocator();
        for (p.load = 0; p.load < 2; p.load++) {
            CHECK_STATUS(sm_model_open(&p, &m, &error), cut == n ? SM_OK : SM_ERR_FORMAT);
            if (m) files_touch(m);
            sm_model_close(m);
        }
        remove(path);
    }
    free(data);
}

static int files_never_read(void *user, uint64_t offset, void *dst, size_t bytes) {
    (void)user, (void)offset, (void)dst, (void)bytes;
    FAIL("read was called");
    return 1;
}

static void files_bad_arguments(void) {
    sm_model_params p = sm_model_default();
    sm_model *m = (sm_model *)(void *)&p;
    sm_error error;
    CHECK_STATUS(sm_model_open(NULL, &m, &error), SM_ERR_ARG);
    CHECK(m == NULL);
    CHECK_STATUS(sm_model_open(&p, NULL, &error), SM_ERR_ARG);
    CHECK_STATUS(sm_model_open(&p, &m, NULL), SM_ERR_ARG);
    p.file.data = "GGUF";
    CHECK_STATUS(sm_model_open(&p, &m, &error), SM_ERR_FORMAT); /* empty */
    p.file.bytes = 4;
    CHECK_STATUS(sm_model_open(&p, &m, &error), SM_ERR_FORMAT);
    p.load = 2;
    CHECK_STATUS(sm_model_open(&p, &m, &error), SM_ERR_ARG);
    p.load = 0;
    p.allocator.alloc = heap_alloc;
    CHECK_STATUS(sm_model_open(&p, &m, &error), SM_ERR_ARG);
    p = sm_model_default();
    p.file.read = files_never_read;
    p.file.bytes = UINT64_MAX;
    CHECK_STATUS(sm_model_open(&p, &m, &error), SM_ERR_UNSUPPORTED);
    p.file.bytes = 0;
    CHECK_STATUS(sm_model_open(&p, &m, &error), SM_ERR_FORMAT);
#ifndef SMALLMIND_NO_STDIO
    p.file.path = ".";
    CHECK_STATUS(sm_model_open(&p, &m, &error), SM_ERR_IO);
    p.file.path = "/dev/null";
    CHECK_STATUS(sm_model_open(&p, &m, &error), SM_ERR_IO);
    p.file.path = "no such file";
    CHECK_STATUS(sm_model_open(&p, &m, &error), SM_ERR_IO);
    CHECK(strstr(error.text, "no such file") != NULL);
#endif
    sm_model_close(NULL);
    CHECK(sm_model_get_info(NULL) == NULL);
}

/* --- GGUF ------------------------------------------------------------------------------------ */

static void files_gguf_versions(void) {
    static const char *const archs[] = {"llama", "mistral", "qwen2", "qwen3", "gpt2", "cs336"};
    static const int types[] = {SM_TYPE_F32, SM_TYPE_F16, SM_TYPE_BF16, SM_TYPE_Q8_0, SM_TYPE_Q4_0};
    int a, t, v;
    for (a = 0; a < 6; a++)
        for (t = 0; t < 5; t++) {
            uint64_t want = 0;
            for (v = 1; v <= 3; v++) {
                gguf_model_params p = gguf_model_default(archs[a], types[t]);
                const sm_model_info *info;
                sm_model *m;
                uint64_t got;
                p.version = v;
                p.tied = t & 1;
                m = gguf_model_open(&p);
                if (!m) return;
                info = sm_model_get_info(m);
                got = files_touch(m);
                CHECK(info->format[6] == '0' + v && info->type == types[t]);
                CHECK_STR(info->arch, archs[a]);
                CHECK_STR(info->name, "random");
                CHECK(info->n_vocab == 320 && info->n_layers == 2 && info->has_vocab);
                CHECK((m->weights->output.data == m->weights->embed.data) == p.tied);
                CHECK(v == 1 || got == want);
                want = got;
                sm_model_close(m);
            }
        }
}

static void files_gguf_values(void) {
    static const struct {
        const char *key, *text;
        uint32_t type;
        uint64_t bits;
    } list[] = {
        {"u8", "255", SM__GGUF_U8, 0xff},
        {"i8", "-128", SM__GGUF_I8, 0x80},
        {"u16", "65535", SM__GGUF_U16, 0xffff},
        {"i16", "-1", SM__GGUF_I16, 0xffff},
        {"u32", "4294967295", SM__GGUF_U32, 0xffffffffu},
        {"i32", "-2147483648", SM__GGUF_I32, 0x80000000u},
        {"u64", "18446744073709551615", SM__GGUF_U64, UINT64_MAX},
        {"i64", "-9223372036854775808", SM__GGUF_I64, (uint64_t)1 << 63},
        {"false", "false", SM__GGUF_BOOL, 0},
        {"true", "true", SM__GGUF_BOOL, 1},
        {"f32.0", "0", SM__GGUF_F32, 0},
        {"f32.1", "1e-5", SM__GGUF_F32, 0x3727c5acu},
        {"f32.2", "10000", SM__GGUF_F32, 0x461c4000u},
        {"f32.3", "-0.0625", SM__GGUF_F32, 0xbd800000u},
        {"f32.4", "3.4028235e38", SM__GGUF_F32, 0x7f7fffffu},
        {"f32.5", "1e-45", SM__GGUF_F32, 1},
        {"f32.6", "inf", SM__GGUF_F32, 0x7f800000u},
        {"f32.7", "nan", SM__GGUF_F32, 0x7fc00000u},
        {"f64.0", "0.1", SM__GGUF_F64, 0x3fb999999999999au},
        {"f64.1", "-123456.75", SM__GGUF_F64, 0xc0fe240c00000000u},
    };
    gguf_builder g = files_vocab();
    char text[64], key[64];
    sm_model *m = NULL;
    sm_error error;
    size_t i, n;
    uint8_t *file;
    gguf_vocab_spm(&g, 320);
    for (i = 0; i < sizeof list / sizeof *list; i++) {
        gguf_key(&g, list[i].key, list[i].type);
        gguf_bytes(&g.meta, &list[i].bits, sm__gguf_types[list[i].type].bytes);
    }
    gguf_key_str(&g, "long", "0123456789");
    file = gguf_finish(&g, &n);
    if (CHECK_STATUS(files_open(file, n, &m, &error), SM_OK)) {
        for (i = 0; i < sizeof list / sizeof *list; i++)
            CHECK_STR(sm_model_meta(m, list[i].key, text, sizeof text), list[i].text);
        CHECK_STR(sm_model_meta(m, "tokenizer.ggml.tokens", text, sizeof text), "[string x 320]");
        CHECK_STR(sm_model_meta(m, "tokenizer.ggml.scores", text, sizeof text), "[f32 x 320]");
        CHECK_STR(sm_model_meta_at(m, 0, key, sizeof key), "general.architecture");
        CHECK_STR(sm_model_meta(m, "long", text, 5), "0123");
        CHECK_STR(sm_model_meta(m, "long", text, 1), "");
        CHECK_STR(sm_model_meta(m, "long", NULL, 0), "");
        CHECK(sm_model_meta(m, "lon", text, sizeof text) == NULL);
        CHECK(sm_model_meta(m, NULL, text, sizeof text) == NULL);
        CHECK(sm_model_meta(NULL, "long", text, sizeof text) == NULL);
        CHECK(sm_model_meta_at(m, -1, key, sizeof key) == NULL);
        CHECK(sm_model_meta_at(m, sm_model_get_info(m)->n_meta, key, sizeof key) == NULL);
    }
    sm_model_close(m);
    free(file);
}

/* The hyperparameters' keys: defaults, lists with one value per layer, rotary scaling. */
static void files_gguf_keys(void) {
    static const uint32_t equal[2] = {1, 1}, unequal[2] = {1, 2};
    gguf_model_params p = files_tiny("llama", SM_TYPE_F32);
    sm_error error;
    size_t n;
    int k;
    for (k = 0; k < 12; k++) {
        gguf_builder g = gguf_model_begin(&p);
        sm_model *m = NULL;
        uint8_t *file;
        sm_status want = SM_OK, status;
        if (k == 1) gguf_key_array(&g, "llama.attention.key_length", SM__GGUF_U32, equal, 2);
        if (k == 2) gguf_key_array(&g, "llama.rope.dimension_count", SM__GGUF_U32, unequal, 2);
        if (k == 3) gguf_key_u32(&g, "llama.rope.dimension_count", 8);
        if (k == 4) gguf_key_f32(&g, "llama.rope.scale_linear", 4.0f);
        if (k == 5 || k == 6) {
            gguf_key_str(&g, "llama.rope.scaling.type", "yarn");
            gguf_key_f32(&g, "llama.rope.scaling.factor", 4.0f);
            gguf_key_u32(&g, "llama.rope.scaling.original_context_length", 2);
            if (k == 6) gguf_key_f32(&g, "llama.rope.scaling.attn_factor", 2.0f);
        }
        if (k == 7) gguf_key_str(&g, "llama.rope.scaling.type", "longrope");
        if (k == 8) gguf_key_u32(&g, "llama.attention.key_length", 1 << 21);
        if (k == 9) gguf_key_u32(&g, "llama.attention.sliding_window", 5);
        if (k == 10) gguf_key_u32(&g, "llama.attention.value_length", 8);
        if (k == 11) gguf_key_f32(&g, "llama.rope.freq_base", sm__from_bits(0x7fc00000u));
        if (k == 1 || k == 8 || k == 11) want = SM_ERR_FORMAT; /* a head of 1: n_rot is 16 */
        if (k == 2 || k == 10) want = SM_ERR_UNSUPPORTED;
        file = gguf_finish(&g, &n);
        status = files_open(file, n, &m, &error);
        if (status != want) FAIL("%d: %s", k, error.text);
        if (m && k == 0) CHECK(m->hp.n_rot == 16 && m->hp.scaling == SM__SCALING_NONE);
        if (m && k == 3) CHECK(m->hp.n_rot == 8);
        if (m && k == 4) CHECK(m->hp.scaling == SM__SCALING_LINEAR && m->hp.scaling_factor == 4.0);
        if (m && k == 5) CHECK(m->hp.scaling == SM__SCALING_YARN && m->hp.attn_factor == 0.0);
        if (m && k == 6) CHECK_NEAR(m->hp.attn_factor, 2.0 * (1.0 + 0.1 * log(4.0)), 1e-12);
        if (m && k == 9) CHECK(m->hp.window == 5 && sm__layer_window(&m->hp, 0) == 5);
        sm_model_close(m);
        free(file);
    }
}

/* Which tensors are wanted: missing ones, shapes, types, and extra ones that do not matter. */
static void files_gguf_tensors(void) {
    gguf_model_params p = files_tiny("qwen2", SM_TYPE_F16);
    static const uint64_t dims[2] = {32, 7}, k_dims[2] = {256, 1};
    static const uint8_t zeros[144] = {0};
    gguf_builder g = gguf_model_begin(&p);
    sm_model *m = NULL;
    sm_error error;
    size_t n;
    uint8_t *file, *name;
    gguf_entry(&g, "not.known", 2, k_dims, 12, gguf_align(&g)); /* Q4_K */
    gguf_bytes(&g.data, zeros, sizeof zeros);
    file = gguf_finish(&g, &n);
    CHECK_STATUS(files_open(file, n, &m, &error), SM_OK);
    CHECK(m && m->info.n_tensors == 16 && sm_model_get_info(m)->type == SM_TYPE_F16);
    sm_model_close(m);
    /* rename a bias that qwen2 must have */
    for (name = file; memcmp(name, "attn_k.bias", 11); name++) {}
    memcpy(name, "attn_k.sibb", 11);
    CHECK_STATUS(files_open(file, n, &m, &error), SM_ERR_FORMAT);
    CHECK_STR(error.text, "tensor blk.0.attn_k.bias is missing");
    free(file);
    /* a type that is known to GGUF but not computed with */
    p.tied = 1;
    g = gguf_model_begin(&p);
    gguf_entry(&g, "output.weight", 2, dims, 28, 0); /* F64 */
    REFUSED(&g, SM_ERR_UNSUPPORTED, "tensor output.weight has the type F64");
    g = gguf_model_begin(&p);
    gguf_entry(&g, "output.weight", 2, dims, 99, 0);
    REFUSED(&g, SM_ERR_UNSUPPORTED, "tensor output.weight has type 99");
    g = gguf_model_begin(&p);
    gguf_entry(&g, "output.weight", 2, dims, 4, 0); /* Q4_2 was taken back */
    REFUSED(&g, SM_ERR_UNSUPPORTED, "tensor output.weight has type 4");
}

/* With vocab_only neither architecture nor types matter. */
static void files_vocab_only(void) {
    static const uint64_t dims[1] = {32};
    sm_model_params p = sm_model_default();
    gguf_builder g = gguf_make(3);
    sm_model *m = NULL;
    sm_error error;
    size_t n;
    uint8_t *file;
    gguf_key_str(&g, "general.architecture", "starship");
    gguf_vocab_bpe(&g, 320);
    gguf_entry(&g, "warp.weight", 1, dims, 77, 0);
    file = gguf_finish(&g, &n);
    CHECK_STATUS(files_open(file, n, &m, &error), SM_ERR_UNSUPPORTED);
    p.file.data = file;
    p.file.bytes = n;
    p.vocab_only = 1;
    p.allocator = heap_allocator();
    if (CHECK_STATUS(sm_model_open(&p, &m, &error), SM_OK)) {
        CHECK_STR(sm_model_get_info(m)->arch, "starship");
        CHECK(sm_model_get_info(m)->n_tensors == 1 && sm_model_get_info(m)->n_vocab == 320);
    }
    sm_model_close(m);
    free(file);
    g = gguf_make(3);
    gguf_key_str(&g, "general.architecture", "llama");
    REFUSED(&g, SM_ERR_FORMAT, "no tensors and no vocabulary");
}

static void files_gguf_bad(void) {
    static const char *const files[] = {"gguf-bad/crash-69e8aa7487115a5484cc9c94c0decd84c1361bcb",
                                        "gguf-bad/crash-8052f5de4a2a64de976c40f34a950131912e678d",
                                        "gguf-bad/truncated-header-only.gguf"};
    int i;
    for (i = 0; i < 3; i++) {
        sm_model_params p = sm_model_default();
        sm_model *m = NULL;
        sm_error error;
        p.file.path = data_path(files[i]);
        p.allocator = heap_allocator();
        if (!p.file.path) return;
        CHECK_STATUS(sm_model_open(&p, &m, &error), SM_ERR_FORMAT);
        p.load = SM_LOAD_COPY;
        p.vocab_only = 1;
        CHECK_STATUS(sm_model_open(&p, &m, &error), SM_ERR_FORMAT);
    }
}

/* --- one test per known hole of other loaders (CVE numbers, or llama.cpp issues) -------------- */

/* CVE-2024-23496: a string longer than the file. */
static void files_cve_string(void) {
    static const uint64_t lengths[] = {
        9,         1000, (uint64_t)1 << 31, (uint64_t)1 << 32, (uint64_t)1 << 63, UINT64_MAX - 7,
        UINT64_MAX};
    size_t i;
    for (i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        uint64_t longer = lengths[i] > 1000 ? lengths[i] : lengths[i] + 40;
        gguf_builder g = files_vocab();
        gguf_key(&g, "general.name", SM__GGUF_STRING);
        gguf_u64(&g.meta, lengths[i]);
        gguf_bytes(&g.meta, "12345678", 8);
        REFUSED(&g, SM_ERR_FORMAT, "general.name");
        g = files_vocab();
        g.n_meta++;
        gguf_u64(&g.meta, longer); /* a key */
        gguf_bytes(&g.meta, "12345678123456781234", 20);
        REFUSED(&g, SM_ERR_FORMAT, "a bad key");
        g = files_vocab();
        g.n_tensors = 1;
        gguf_u64(&g.directory, longer); /* a name */
        gguf_bytes(&g.directory, "1234567812345678123412345678123456781234", 40);
        REFUSED(&g, SM_ERR_FORMAT, "tensor 0");
    }
}

/* CVE-2024-21802, -21825, -21836, -23605: n_tensors, n_kv, ne and array counts that overflow. */
static void files_cve_counts(void) {
    static const uint64_t counts[] = {2,
                                      1000000,
                                      (uint64_t)1 << 31,
                                      (uint64_t)1 << 32,
                                      ((uint64_t)1 << 58) + 1,
                                      UINT64_MAX / 8,
                                      UINT64_MAX};
    size_t i;
    for (i = 0; i < sizeof counts / sizeof *counts; i++) {
        gguf_builder g = files_vocab();
        g.n_meta = counts[i];
        REFUSED(&g, SM_ERR_FORMAT, "metadata");
        g = files_vocab();
        g.n_tensors = counts[i];
        REFUSED(&g, SM_ERR_FORMAT, "tensors");
        g = files_vocab();
        gguf_key(&g, "a", SM__GGUF_ARRAY);
        gguf_u32(&g.meta, SM__GGUF_F64);
        gguf_u64(&g.meta, counts[i]);
        gguf_u64(&g.meta, 0);
        REFUSED(&g, SM_ERR_FORMAT, "key a");
    }
}

/* CVE-2024-25664 to -25668: products and sums of sizes in arrays of strings. */
static void files_cve_arrays(void) {
    gguf_builder g = files_vocab();
    gguf_key_strings(&g, "a", 2);
    gguf_u64(&g.meta, UINT64_MAX - 15); /* with the length before it the position wraps */
    gguf_u64(&g.meta, 0);
    REFUSED(&g, SM_ERR_FORMAT, "key a: string 0");
    g = files_vocab();
    gguf_key_strings(&g, "a", 3);
    gguf_string(&g, &g.meta, "x", 1);
    gguf_u64(&g.meta, 1);
    gguf_bytes(&g.meta, "12345678", 8);
    REFUSED(&g, SM_ERR_FORMAT, "key a: string 2");
}

/* CVE-2024-32878: freeing what was never set, when reading stops in the middle. */
static void files_cve_half_read(void) {
    int k;
    for (k = 0; k < 4; k++) {
        gguf_builder g = files_vocab();
        int i;
        for (i = 0; i <= k; i++) {
            char key[2];
            key[0] = (char)('a' + i);
            key[1] = 0;
            gguf_key_strings(&g, key, 1);
            gguf_string(&g, &g.meta, "value", i == k ? 5 : 3);
        }
        g.n_meta++; /* an entry that is not there */
        REFUSED(&g, SM_ERR_FORMAT, "metadata entry");
    }
}

/* CVE-2024-34359: templates are text here: nothing in a file is run. */
static void files_cve_template(void) {
    gguf_builder g = files_vocab();
    char text[128];
    sm_model *m = NULL;
    sm_error error;
    size_t n;
    uint8_t *file;
    gguf_vocab_spm(&g, 320);
    gguf_key_str(&g, "tokenizer.chat_template", "{{ ''.__class__.__mro__ }}{% for %s %n");
    file = gguf_finish(&g, &n);
    if (CHECK_STATUS(files_open(file, n, &m, &error), SM_OK))
        CHECK_STR(sm_model_meta(m, "tokenizer.chat_template", text, sizeof text),
                  "{{ ''.__class__.__mro__ }}{% for %s %n");
    sm_model_close(m);
    free(file);
}

/* CVE-2025-49847: a token whose length is cut to 32 bits. */
static void files_cve_token_length(void) {
    static const uint64_t lengths[] = {0x7fffffffu, 0x80000000u, 0xffffffffu,
                                       ((uint64_t)1 << 32) + 1, (uint64_t)1 << 63};
    char *text = (char *)calloc(1, 70000);
    gguf_builder g;
    size_t i;
    if (!text) return;
    for (i = 0; i < 5; i++) {
        g = files_vocab();
        gguf_key_str(&g, "tokenizer.ggml.model", "llama");
        gguf_key_strings(&g, "tokenizer.ggml.tokens", 1);
        gguf_u64(&g.meta, lengths[i]);
        gguf_bytes(&g.meta, text, 64);
        REFUSED(&g, SM_ERR_FORMAT, "tokenizer.ggml.tokens: string 0");
    }
    g = files_vocab(); /* it does fit, and is absurd */
    gguf_key_str(&g, "tokenizer.ggml.model", "llama");
    gguf_key_strings(&g, "tokenizer.ggml.tokens", 1);
    gguf_string(&g, &g.meta, text, 70000);
    REFUSED(&g, SM_ERR_FORMAT, "tokenizer.ggml.tokens: string 0 has 70000 bytes");
    free(text);
}

/* CVE-2025-52566: counts of tokens and of what belongs to them, signed against unsigned. */
static void files_cve_token_count(void) {
    static const float scores[5] = {0, 0, 0, 0, 0};
    static const uint32_t kinds[4] = {1, 1, 1, 0xffffffffu};
    int k;
    for (k = 0; k < 6; k++) {
        gguf_builder g = files_vocab();
        int i;
        gguf_key_str(&g, "tokenizer.ggml.model", "llama");
        gguf_key_strings(&g, "tokenizer.ggml.tokens", k == 0 ? 0 : 4);
        for (i = 0; k && i < 4; i++) gguf_string(&g, &g.meta, &"abcd"[i], 1);
        if (k == 1) gguf_key_array(&g, "tokenizer.ggml.scores", SM__GGUF_F32, scores, 3);
        if (k == 2) gguf_key_array(&g, "tokenizer.ggml.scores", SM__GGUF_F32, scores, 5);
        if (k == 3) gguf_key_array(&g, "tokenizer.ggml.token_type", SM__GGUF_I32, kinds, 3);
        if (k == 4) gguf_key_array(&g, "tokenizer.ggml.token_type", SM__GGUF_I32, kinds, 4);
        if (k == 5) gguf_key_array(&g, "tokenizer.ggml.scores", SM__GGUF_F32, kinds, 4); /* a NaN */
        REFUSED(&g, SM_ERR_FORMAT,
                k == 4   ? "token 3 has type"
                : k == 5 ? "score of token 3"
                         : "ggml");
    }
}

/* CVE-2025-53630 and CVE-2026-27940: sizes of tensors whose sum wraps. */
static void files_cve_sum(void) {
    static const uint64_t big[2] = {(uint64_t)1 << 40, (uint64_t)1 << 21};
    gguf_model_params p = files_tiny("llama", SM_TYPE_F32);
    int k, i;
    for (k = 1; k <= 4; k++) { /* k * 2^63 bytes */
        gguf_builder g = gguf_model_begin(&p);
        for (i = 0; i < k; i++) {
            char name[2];
            name[0] = (char)('a' + i);
            name[1] = 0;
            gguf_entry(&g, name, 2, big, SM_TYPE_F32, 0);
        }
        REFUSED(&g, SM_ERR_FORMAT, "tensor a");
    }
}

/* CVE-2026-33298 and llama.cpp#27203: the product of the dimensions wraps. */
static void files_cve_product(void) {
    static const uint64_t dims[][4] = {
        {(uint64_t)1 << 32, (uint64_t)1 << 32, 1, 1}, /* 2^64 = 0 */
        {(uint64_t)1 << 62, 4, 1, 1},
        {(uint64_t)1 << 61, 2, 1, 1}, /* elements fit, bytes do not */
        {UINT64_MAX, 1, 1, 1},
        {(uint64_t)1 << 33, (uint64_t)1 << 31, 1, 1},
        {3, 0x5555555555555556u, 1, 1}, /* 2^64 + 2 */
        {65536, 65536, 65536, 65536},
        {1, 1, 1, (uint64_t)1 << 63},
    };
    gguf_model_params p = files_tiny("llama", SM_TYPE_F32);
    size_t i;
    for (i = 0; i < sizeof dims / sizeof *dims; i++) {
        gguf_builder g = gguf_model_begin(&p);
        gguf_entry(&g, "a", 4, dims[i], SM_TYPE_F32, 0);
        REFUSED(&g, SM_ERR_FORMAT, "tensor a");
    }
}

/* CVE-2026-7482, CVE-2026-53923: shapes that promise more than the data, or are cut to 32 bits. */
static void files_cve_shapes(void) {
    static const char *const keys[] = {"block_count",          "context_length",
                                       "embedding_length",     "feed_forward_length",
                                       "attention.head_count", "attention.head_count_kv"};
    static const uint64_t values[] = {
        0, ((uint64_t)1 << 32) + 1, (uint64_t)1 << 63, UINT64_MAX, 0x7fffffff, 0x80000000u};
    int i, j;
    for (i = 0; i < 6; i++)
        for (j = 0; j < 6; j++) {
            gguf_builder g = gguf_make(3);
            static const uint64_t one[1] = {1};
            int k;
            gguf_key_str(&g, "general.architecture", "llama");
            gguf_key_f32(&g, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
            for (k = 0; k < 6; k++) {
                gguf_key(&g, gguf_arch_key("llama", keys[k]), SM__GGUF_U64);
                gguf_u64(&g.meta, k == i ? values[j] : k == 4 ? 2 : k == 5 ? 1 : 32);
            }
            gguf_entry(&g, "token_embd.weight", 1, one, SM_TYPE_F32, 0);
            gguf_u32(&g.data, 0);
            /* an absurd context would be harmless, so it is cut; then the tensors do not fit */
            REFUSED(&g, SM_ERR_FORMAT, "");
        }
    {
        gguf_model_params p = files_tiny("llama", SM_TYPE_F32);
        gguf_builder g = gguf_model_begin(&p);
        g.data.n -= 4;
        REFUSED(&g, SM_ERR_FORMAT, "tensor output.weight: 896 bytes");
        g = gguf_model_begin(&p);
        g.directory.p[g.directory.n - 3] = 0x80; /* the last offset: + 32768 * 256 */
        REFUSED(&g, SM_ERR_FORMAT, "tensor output.weight");
    }
}

/* llama.cpp#26690: arrays whose elements have another type. */
static void files_cve_element_type(void) {
    static const uint64_t numbers[4] = {1, 1, 1, 1};
    static const char *const keys[] = {"tokenizer.ggml.tokens", "tokenizer.ggml.scores",
                                       "tokenizer.ggml.token_type", "tokenizer.ggml.merges"};
    int k, type, i;
    for (k = 0; k < 4; k++)
        for (type = 0; type <= SM__GGUF_N_TYPES; type++) {
            gguf_builder g;
            if (k != 0 && (type == (k == 1 ? SM__GGUF_F32 : SM__GGUF_I32) || type == SM__GGUF_U32))
                continue;
            if (type == SM__GGUF_STRING || type == SM__GGUF_ARRAY || type == SM__GGUF_N_TYPES)
                continue; /* below */
            g = files_vocab();
            gguf_key_str(&g, "tokenizer.ggml.model", k == 3 ? "gpt2" : "llama");
            if (k) {
                gguf_key_strings(&g, keys[0], 4);
                for (i = 0; i < 4; i++) gguf_string(&g, &g.meta, &"abcd"[i], 1);
            }
            gguf_key_array(&g, keys[k], (uint32_t)type, numbers, 4);
            REFUSED(&g, SM_ERR_FORMAT, keys[k]);
        }
    for (k = 0; k < 3; k++) {
        gguf_builder g = files_vocab();
        gguf_key_str(&g, "tokenizer.ggml.model", "llama");
        if (k < 2) {
            gguf_key(&g, keys[0], SM__GGUF_ARRAY);
            gguf_u32(&g.meta, k ? SM__GGUF_ARRAY : SM__GGUF_N_TYPES);
            gguf_u64(&g.meta, 1);
            gguf_u64(&g.meta, 0);
            gguf_u64(&g.meta, 0);
        } else {
            gguf_key_str(&g, keys[0], "not a list");
        }
        REFUSED(&g, k == 1 ? SM_ERR_UNSUPPORTED : SM_ERR_FORMAT, keys[0]);
    }
}

/* llama.cpp#24263: a dimension of 0, an empty key. And what is there twice. */
static void files_cve_empty(void) {
    static const uint64_t dims[][2] = {{0, 1}, {1, 0}, {0, UINT64_MAX}};
    gguf_model_params p = files_tiny("llama", SM_TYPE_F32);
    gguf_builder g;
    int i;
    for (i = 0; i < 3; i++) {
        g = gguf_model_begin(&p);
        gguf_entry(&g, "a", 2, dims[i], SM_TYPE_F32, 0);
        REFUSED(&g, SM_ERR_FORMAT, "tensor a");
    }
    g = files_vocab();
    gguf_key_u32(&g, "", 1);
    REFUSED(&g, SM_ERR_FORMAT, "metadata entry 1");
    g = gguf_model_begin(&p);
    gguf_entry(&g, "", 1, dims[1], SM_TYPE_F32, 0);
    REFUSED(&g, SM_ERR_FORMAT, "a bad name");
    g = gguf_model_begin(&p);
    gguf_entry(&g, "0123456789012345678901234567890123456789012345678901234567890123x", 1, dims[1],
               SM_TYPE_F32, 0);
    REFUSED(&g, SM_ERR_FORMAT, "a bad name");
    g = gguf_model_begin(&p);
    gguf_key_u32(&g, "general.name", 1);
    REFUSED(&g, SM_ERR_FORMAT, "key general.name is there twice");
    g = gguf_model_begin(&p);
    gguf_entry(&g, "blk.0.attn_q.weight", 1, dims[1], SM_TYPE_F32, 0);
    REFUSED(&g, SM_ERR_FORMAT, "tensor blk.0.attn_q.weight is there twice");
}

/* llama.cpp#24997, ggml#1516, llama.cpp#26318: alignments that are huge, 0 or make padding wrap. */
static void files_cve_alignment(void) {
    static const uint32_t bad[] = {0, 3, 33, 1u << 21, 1u << 31, UINT32_MAX};
    gguf_model_params p = files_tiny("llama", SM_TYPE_F32);
    gguf_builder g;
    sm_model *m = NULL;
    sm_error error;
    uint8_t *file;
    size_t i, n;
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        g = gguf_model_begin(&p);
        gguf_key_u32(&g, "general.alignment", bad[i]);
        REFUSED(&g, SM_ERR_FORMAT, "general.alignment");
    }
    g = gguf_model_begin(&p);
    gguf_key_str(&g, "general.alignment", "32");
    REFUSED(&g, SM_ERR_FORMAT, "general.alignment");
    g = gguf_model_begin(&p); /* the padding ends behind the file */
    gguf_key_u32(&g, "general.alignment", 1u << 20);
    REFUSED(&g, SM_ERR_FORMAT, "the file ends");
    for (i = 0; i < 3; i++) { /* offsets near 2^64 */
        static const uint64_t one[1] = {1};
        g = gguf_model_begin(&p);
        gguf_entry(&g, "a", 1, one, SM_TYPE_F32, i == 2 ? 4 : UINT64_MAX - (i ? 31 : 0));
        REFUSED(&g, SM_ERR_FORMAT, "tensor a");
    }
    g = gguf_make(3);
    g.alignment = 256;
    gguf_key_u32(&g, "general.alignment", 256);
    {
        gguf_builder rest;
        gguf_model_keys(&g, &p);
        rest = g;
        rest.random = 1;
        gguf_model_matrix(&rest, &p, -1, "token_embd", 7, 32, 0);
        gguf_model_layer(&rest, &p, 0);
        gguf_model_norm(&rest, -1, "output_norm", 32, 0);
        g = rest;
    }
    file = gguf_finish(&g, &n);
    CHECK_STATUS(files_open(file, n, &m, &error), SM_OK);
    CHECK(m && ((const uint8_t *)m->tensors[1].data - file) % 256 == 0);
    sm_model_close(m);
    free(file);
}

/* llama.cpp#25969, #27226: byte tokens that name no byte. */
static void files_cve_byte_token(void) {
    static const char *const texts[] = {"<0x-1>", "<0xG0>", "<0x1>", "<0x100>", "<0xFF", ""};
    static const int32_t kinds[1] = {SM__TOKEN_BYTE};
    size_t i;
    for (i = 0; i < sizeof texts / sizeof *texts; i++) {
        gguf_builder g = files_vocab();
        gguf_key_str(&g, "tokenizer.ggml.model", "llama");
        gguf_key_strings(&g, "tokenizer.ggml.tokens", 1);
        gguf_string(&g, &g.meta, texts[i], strlen(texts[i]));
        gguf_key_array(&g, "tokenizer.ggml.token_type", SM__GGUF_I32, kinds, 1);
        REFUSED(&g, SM_ERR_FORMAT, "byte token 0");
    }
}

/* whisper.cpp#3787, #3944: more than four dimensions. */
static void files_cve_dimensions(void) {
    static const uint64_t ones[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
    gguf_model_params p = files_tiny("llama", SM_TYPE_F32);
    gguf_builder g;
    uint32_t n;
    for (n = 5; n < 10; n++) {
        g = gguf_model_begin(&p);
        gguf_entry(&g, "a", n, ones, SM_TYPE_F32, 0);
        REFUSED(&g, SM_ERR_FORMAT, "tensor a");
    }
    g = gguf_model_begin(&p);
    gguf_entry(&g, "a", 0, ones, SM_TYPE_F32, 0);
    REFUSED(&g, SM_ERR_FORMAT, "tensor a: 0 dimensions");
    g = gguf_model_begin(&p);
    gguf_string(&g, &g.directory, "a", 1);
    gguf_u32(&g.directory, UINT32_MAX);
    gguf_bytes(&g.directory, ones, sizeof ones);
    g.n_tensors++;
    REFUSED(&g, SM_ERR_FORMAT, "tensor a: 4294967295 dimensions");
}

/* llama.cpp#27188: a file of 43 bytes must not take minutes. Nor may many equal names. */
static void files_cve_time(void) {
    gguf_builder g = gguf_make(3);
    uint64_t start = sm__now_ns();
    char key[32];
    int i;
    gguf_key_strings(&g, "abc", (size_t)1 << 30);
    REFUSED(&g, SM_ERR_FORMAT, "key abc");
    g = gguf_make(3);
    for (i = 0; i < 100000; i++) { /* in falling order, all with a long common start */
        snprintf(key, sizeof key, "the.same.start.%d", 999999 - i);
        gguf_key(&g, key, SM__GGUF_BOOL);
        gguf_bytes(&g.meta, "", 1);
    }
    REFUSED(&g, SM_ERR_FORMAT, "no tensors and no vocabulary");
    CHECK(sm__now_ns() - start < (uint64_t)20 * 1000000000u); /* 0.1 s, 1 s with sanitizers */
}

static void files_gguf_header(void) {
    static const uint32_t versions[] = {0, 4, 0x03000000u, 0x01000000u, UINT32_MAX};
    size_t i;
    for (i = 0; i < 5; i++) {
        gguf_builder g = files_vocab();
        g.version = (int)versions[i];
        REFUSED(&g, i == 0 ? SM_ERR_FORMAT : SM_ERR_UNSUPPORTED,
                i == 2 || i == 3 ? "big-endian" : "version");
    }
}

/* --- any file, cut and changed ---------------------------------------------------------------- */

typedef struct files_case { /* a file with what lies beside it */
    uint8_t *data;
    size_t n, header; /* bytes that are changed one by one */
    const void *config, *tokenizer;
    size_t config_n, tokenizer_n;
} files_case;

static sm_model_params files_case_params(const files_case *c) {
    sm_model_params p = sm_model_default();
    p.file.data = c->data;
    p.file.bytes = c->n;
    p.config.data = c->config;
    p.config.bytes = c->config_n;
    p.tokenizer.data = c->tokenizer;
    p.tokenizer.bytes = c->tokenizer_n;
    p.allocator = heap_allocator();
    return p;
}

/* Opens n bytes at p; touches what came out of it; a failure must explain itself. */
static sm_status files_try(sm_model_params *params, const uint8_t *p, size_t n) {
    sm_model *m = NULL;
    sm_error error;
    sm_status status;
    params->file.data = p;
    params->file.bytes = n;
    memset(&error, 0, sizeof error);
    status = sm_model_open(params, &m, &error);
    if (status == SM_OK) {
        files_touch(m);
    } else {
        CHECK(m == NULL && error.status == status && error.text[0]);
        CHECK(memchr(error.text, 0, sizeof error.text) != NULL);
    }
    sm_model_close(m);
    if (heap.held) FAIL("%u blocks leak at %lu bytes", (unsigned)heap.held, (unsigned long)n);
    return status;
}

/* Every prefix is refused; every byte of the header may have any value. The file lies so that one
 * byte further is a trap. */
static void files_break(const files_case *c) {
    static const int values[] = {0, 1, 0x7f, 0x80, 0xff, -1, -2, -3};
    sm_model_params p = files_case_params(c);
    guard g = guard_make(c->n);
    uint8_t *at = g.end - c->n;
    size_t i;
    int v, step = c->n > 20000 ? 7 : 1;
    for (i = 0; i < c->n && check.errors < 20; i += i < c->header ? 1 : (size_t)step) {
        memcpy(g.end - i, c->data, i);
        if (files_try(&p, g.end - i, i) == SM_OK)
            FAIL("the first %lu bytes open", (unsigned long)i);
    }
    memcpy(at, c->data, c->n);
    CHECK_STATUS(files_try(&p, at, c->n), SM_OK);
    for (i = 0; i < c->header && check.errors < 20; i++) {
        uint8_t old = at[i];
        for (v = 0; v < 8; v++) {
            at[i] = (uint8_t)values[v];
            if (values[v] == -1) at[i] = old ^ 1;
            if (values[v] == -2) at[i] = (uint8_t)(old + 1);
            if (values[v] == -3) at[i] = old ^ 0x20;
            files_try(&p, at, c->n);
        }
        at[i] = old;
    }
    guard_free(&g);
}

/* The k-th allocation fails, for every k: SM_ERR_NOMEM, and nothing is left behind. */
static void files_no_memory(const files_case *c) {
    sm_model_params p = files_case_params(c);
    sm_status status = SM_ERR_NOMEM;
    uint32_t k;
    int copy;
    for (copy = 0; copy < 2; copy++) {
        p.load = copy;
        for (k = 1; k < 1000; k++) {
            heap_fail(k);
            status = files_try(&p, c->data, c->n);
            if (status != SM_ERR_NOMEM) break;
        }
        heap_fail(0);
        CHECK_STATUS(status, SM_OK);
        CHECK(k > 10);
    }
}

/* The file ends earlier than the caller said: the callback refuses. */
static void files_short_callback(const files_case *c) {
    sm_model_params p = files_case_params(c);
    files_reader r;
    sm_model *m = NULL;
    sm_error error;
    memset(&r, 0, sizeof r);
    r.data = c->data;
    r.n = c->n;
    p.file.data = NULL;
    p.file.read = files_read;
    p.file.user = &r;
    CHECK_STATUS(sm_model_open(&p, &m, &error), SM_OK);
    if (m) files_touch(m);
    sm_model_close(m);
    for (p.file.bytes = 1; p.file.bytes < c->n; p.file.bytes += 1 + p.file.bytes / 16) {
        CHECK(sm_model_open(&p, &m, &error) < 0 && m == NULL);
    }
}

static void files_case_all(files_case *c) {
    files_break(c);
    files_no_memory(c);
    files_short_callback(c);
    free(c->data);
}

static files_case files_gguf_case(const gguf_model_params *p) {
    files_case c;
    gguf_builder g = gguf_model_begin(p);
    size_t data = g.data.n;
    memset(&c, 0, sizeof c);
    c.data = gguf_finish(&g, &c.n);
    c.header = c.n - data;
    return c;
}

static void files_broken_llama(void) {
    gguf_model_params p = files_tiny("llama", SM_TYPE_Q8_0);
    files_case c = files_gguf_case(&p);
    files_case_all(&c);
}

static void files_broken_gpt2_v1(void) {
    gguf_model_params p = files_tiny("gpt2", SM_TYPE_F16);
    files_case c;
    p.version = 1;
    c = files_gguf_case(&p);
    files_case_all(&c);
}

static void files_broken_spm(void) {
    gguf_builder g = files_vocab();
    files_case c;
    static const char *const pieces[] = {"<unk>", "<s>", "</s>", "<0x41>", "a", "b", "ab"};
    static const float scores[7] = {0, 0, 0, 0, -1, -2, -3};
    static const int32_t kinds[7] = {2, 3, 3, 6, 1, 1, 1};
    int i;
    memset(&c, 0, sizeof c);
    gguf_key_str(&g, "tokenizer.ggml.model", "llama");
    gguf_key_strings(&g, "tokenizer.ggml.tokens", 7);
    for (i = 0; i < 7; i++) gguf_string(&g, &g.meta, pieces[i], strlen(pieces[i]));
    gguf_key_array(&g, "tokenizer.ggml.scores", SM__GGUF_F32, scores, 7);
    gguf_key_array(&g, "tokenizer.ggml.token_type", SM__GGUF_I32, kinds, 7);
    gguf_key_u32(&g, "tokenizer.ggml.bos_token_id", 1);
    gguf_key_bool(&g, "tokenizer.ggml.add_bos_token", 1);
    c.data = gguf_finish(&g, &c.n);
    c.header = c.n;
    files_case_all(&c);
}

static void files_broken_bpe(void) {
    gguf_builder g = files_vocab();
    files_case c;
    static const char *const pieces[] = {"a", "b", "ab", "c", "abc", "<|end|>"};
    static const int32_t kinds[6] = {1, 1, 1, 1, 1, 3};
    int i;
    memset(&c, 0, sizeof c);
    gguf_key_str(&g, "tokenizer.ggml.model", "gpt2");
    gguf_key_str(&g, "tokenizer.ggml.pre", "gpt-2");
    gguf_key_strings(&g, "tokenizer.ggml.tokens", 6);
    for (i = 0; i < 6; i++) gguf_string(&g, &g.meta, pieces[i], strlen(pieces[i]));
    gguf_key_array(&g, "tokenizer.ggml.token_type", SM__GGUF_I32, kinds, 6);
    gguf_key_strings(&g, "tokenizer.ggml.merges", 2);
    gguf_string(&g, &g.meta, "a b", 3);
    gguf_string(&g, &g.meta, "ab c", 4);
    gguf_key_u32(&g, "tokenizer.ggml.eos_token_id", 5);
    c.data = gguf_finish(&g, &c.n);
    c.header = c.n;
    files_case_all(&c);
}

/* --- llama2.c --------------------------------------------------------------------------------- */

/* dim 8, hidden 12, 2 layers, 2 heads, 1 kv head, vocab 5, seq 4. */
static files_case files_llama2c(int untied) {
    int32_t head[7] = {8, 12, 2, 2, 1, 5, 4};
    size_t n = 5 * 8 + 2 * (8 + 64 + 32 + 32 + 64 + 8 + 3 * 96) + 8 + 4 * 4 + (untied ? 40 : 0), i;
    gguf_buf b = {NULL, 0, 0};
    files_case c;
    memset(&c, 0, sizeof c);
    if (untied) head[5] = -5;
    gguf_bytes(&b, head, sizeof head);
    for (i = 0; i < n; i++) {
        float f = (float)i;
        gguf_bytes(&b, &f, 4);
    }
    c.data = b.p;
    c.n = b.n;
    c.header = 28;
    return c;
}

/* Five tokens: <unk>, \n<s>\n, \n</s>\n, <0x00>, " a". */
static size_t files_tokenizer_bin(uint8_t *out) {
    static const char *const pieces[] = {"<unk>", "\n<s>\n", "\n</s>\n", "<0x00>", " a"};
    gguf_buf b = {NULL, 0, 0};
    size_t n;
    int i;
    gguf_u32(&b, 6);
    for (i = 0; i < 5; i++) {
        float score = -(float)i;
        gguf_bytes(&b, &score, 4);
        gguf_u32(&b, (uint32_t)strlen(pieces[i]));
        gguf_bytes(&b, pieces[i], strlen(pieces[i]));
    }
    n = b.n;
    memcpy(out, b.p, n);
    free(b.p);
    return n;
}

static void files_llama2c_layout(void) {
    /* floats before each tensor of layer 1, in the order of llama2.c's export */
    static const struct {
        const char *name;
        int at, rows, cols;
    } want[] = {
        {"token_embd.weight", 0, 5, 8},        {"blk.1.attn_norm.weight", 48, 1, 8},
        {"blk.1.attn_q.weight", 120, 8, 8},    {"blk.1.attn_k.weight", 216, 4, 8},
        {"blk.1.attn_v.weight", 280, 4, 8},    {"blk.1.attn_output.weight", 376, 8, 8},
        {"blk.1.ffn_norm.weight", 448, 1, 8},  {"blk.1.ffn_gate.weight", 552, 12, 8},
        {"blk.1.ffn_down.weight", 744, 8, 12}, {"blk.1.ffn_up.weight", 936, 12, 8},
        {"output_norm.weight", 1032, 1, 8},    {"output.weight", 1056, 5, 8},
    };
    int untied;
    size_t i;
    for (untied = 0; untied < 2; untied++) {
        files_case c = files_llama2c(untied);
        sm_model *m = NULL;
        sm_error error;
        sm_tensor t;
        CHECK_STATUS(files_open(c.data, c.n, &m, &error), SM_OK);
        for (i = 0; m && i < sizeof want / sizeof *want - (untied ? 0 : 1); i++) {
            float first = -1.0f;
            if (!CHECK(files_find(m, want[i].name, &t) != NULL)) continue;
            memcpy(&first, t.data, 4);
            CHECK(t.dims[0] == (uint64_t)want[i].cols && t.dims[1] == (uint64_t)want[i].rows);
            if (first != (float)want[i].at) FAIL("%s starts at %g", want[i].name, (double)first);
        }
        CHECK(!m || (m->hp.pos == SM__POS_ROPE_PAIRS && m->info.n_vocab == 5 && m->hp.n_rot == 4));
        sm_model_close(m);
        free(c.data);
    }
}

/* int8 and scales of n floats, as llama2.c's export makes them; the products go back to w, so that
 * what was exported can be run as version 0, too. */
static void files_llama2c_groups(gguf_buf *b, uint8_t *w, size_t n, size_t group) {
    gguf_buf scales = {NULL, 0, 0};
    size_t g, i;
    for (g = 0; g < n / group; g++, w += 4 * group) {
        float x, most = 0, scale;
        for (i = 0; i < group; i++) {
            memcpy(&x, w + 4 * i, 4);
            if (fabs((double)x) > (double)most) most = (float)fabs((double)x);
        }
        scale = most / 127.0f;
        gguf_bytes(&scales, &scale, 4);
        for (i = 0; i < group; i++) {
            int8_t q;
            memcpy(&x, w + 4 * i, 4);
            q = (int8_t)(most > 0 ? rint((double)(x / scale)) : 0);
            gguf_bytes(b, &q, 1);
            x = (float)q * scale;
            memcpy(w + 4 * i, &x, 4);
        }
    }
    gguf_bytes(b, scales.p, scales.n);
    free(scales.p);
}

/* Writes a file of version 0 as version 1, or 2 with groups; then the weights of v0 become those
 * that version 2 has of them. */
static uint8_t *files_llama2c_export(uint8_t *v0, int version, int group, size_t *bytes) {
    static const int order[12] = {1, 6, 10, 0, 2, 3, 4, 5, 7, 8, 9, 11};
    gguf_buf b = {NULL, 0, 0};
    uint8_t zeros[256], tied;
    int32_t head[7];
    size_t c, f, v, kv, tables, at[12], elems[12], next = 28;
    int i, k;
    memcpy(head, v0, sizeof head);
    tied = head[5] > 0;
    head[5] = abs(head[5]);
    c = (size_t)head[0], f = (size_t)head[1], v = (size_t)head[5];
    kv = c / (size_t)head[3] * (size_t)head[4];
    tables = (size_t)head[6] * c / (size_t)head[3];
    elems[0] = elems[11] = v * c, elems[1] = elems[6] = elems[10] = c;
    elems[2] = elems[5] = c * c, elems[3] = elems[4] = kv * c;
    elems[7] = elems[8] = elems[9] = f * c;
    for (i = 0; i < 12; i++) { /* where version 0 has them */
        at[i] = next + (i == 11 ? 4 * tables : 0);
        next = at[i] + 4 * elems[i] * (size_t)(i == 0 || i > 9 ? 1 : head[2]);
    }
    memset(zeros, 0, sizeof zeros);
    gguf_u32(&b, 0x616b3432u);
    gguf_u32(&b, (uint32_t)version);
    gguf_bytes(&b, head, sizeof head);
    gguf_bytes(&b, &tied, 1);
    if (version == 2) gguf_u32(&b, (uint32_t)group);
    gguf_bytes(&b, zeros, 256 - b.n);
    for (i = 0; i < 12 - tied; i++) {
        int part = order[i], n = i == 2 || i == 3 || i == 11 ? 1 : head[2];
        for (k = 0; k < n; k++) {
            uint8_t *w = v0 + at[part] + 4 * elems[part] * (size_t)k;
            if (version == 2 && i > 2) files_llama2c_groups(&b, w, elems[part], (size_t)group);
            else gguf_bytes(&b, w, 4 * elems[part]);
        }
    }
    *bytes = b.n;
    return b.p;
}

/* Versions 1 and 2 hold what version 0 does, to the bit, tied or not, whatever the groups are. */
static void files_llama2c_versions(void) {
    static const int groups[] = {0, 1, 2, 4, 8, 16}; /* rows have 8 and 12 */
    size_t mapped = 0;
    int untied, i;
    for (untied = 0; untied < 2; untied++)
        for (i = 0; i < 6; i++) {
            files_case c = files_llama2c(untied);
            sm_model *m = NULL, *want = NULL;
            sm_error error;
            sm_tensor a, b;
            size_t n;
            int t, same = 0;
            uint8_t *file;
            memcpy(c.data + 28 + 4 * 3, "\0\0\xa0\xc2", 4); /* -80: negative values round, too */
            file = files_llama2c_export(c.data, i ? 2 : 1, groups[i], &n);
            if (groups[i] == 16) { /* 40 weights of the embeddings are no multiple */
                CHECK_STATUS(files_open(file, n, &m, &error), SM_ERR_FORMAT);
                CHECK_STR(error.text, "tensor token_embd.weight: 40 weights in groups of 16");
            } else if (CHECK_STATUS(files_open(file, n, &m, &error), SM_OK) &&
                       CHECK_STATUS(files_open(c.data, c.n, &want, &error), SM_OK)) {
                CHECK_STR(m->info.format, i ? "llama2.c v2" : "llama2.c v1");
                CHECK(m->info.n_tensors == want->info.n_tensors && m->hp.n_ctx == want->hp.n_ctx);
                CHECK(m->info.type == SM_TYPE_F32 && m->info.mapped_bytes == n);
                if (i == 0) mapped = m->info.heap_bytes;
                else CHECK(m->info.heap_bytes >= mapped + m->info.weight_bytes - 5 * 8 * 4);
                for (t = 0; sm_model_tensor(m, t, &a) == SM_OK; t++)
                    same += files_find(want, a.name, &b) && a.bytes == b.bytes &&
                            a.dims[0] == b.dims[0] && memcmp(a.data, b.data, a.bytes) == 0;
                CHECK(same == 20 + untied);
            }
            sm_model_close(m);
            sm_model_close(want);
            free(file);
            free(c.data);
        }
}

/* One wrong number after another in a good header. */
static void files_llama2c_refused(void) {
    static const struct {
        int at;
        uint32_t value;
        sm_status status;
        const char *words;
    } list[] = {
        {4, 0, SM_ERR_UNSUPPORTED, "version 0"},
        {4, 3, SM_ERR_UNSUPPORTED, "version 3"},
        {4, 0x80000000u, SM_ERR_UNSUPPORTED, "version 2147483648"},
        {8, 0, SM_ERR_FORMAT, "embedding length 0"},
        {8, 9, SM_ERR_FORMAT, "width 9 is no multiple of 2 heads"},
        {8, 0xffffffffu, SM_ERR_FORMAT, "embedding length -1"},
        {8, 1u << 20, SM_ERR_FORMAT, "bytes, this file"},
        {12, 0, SM_ERR_FORMAT, "feed-forward length 0"},
        {12, 1u << 20, SM_ERR_FORMAT, "bytes, this file"},
        {12, 11, SM_ERR_FORMAT, "bytes, this file"},
        {16, 0, SM_ERR_FORMAT, "layer count 0"},
        {16, 1025, SM_ERR_FORMAT, "layer count 1025"},
        {20, 0, SM_ERR_FORMAT, "head count 0"},
        {20, 0x80000002u, SM_ERR_FORMAT, "head count"},
        {24, 0, SM_ERR_FORMAT, "key/value head count 0"},
        {24, 3, SM_ERR_FORMAT, "key/value head count 3"},
        {28, 0, SM_ERR_FORMAT, "vocabulary size 0"},
        {28, (uint32_t)-5, SM_ERR_FORMAT, "vocabulary size -5"},
        {28, 0x7fffffff, SM_ERR_FORMAT, "vocabulary size 2147483647"},
        {32, 0, SM_ERR_FORMAT, "context length 0"},
        {36, 2 | 4 << 8, SM_ERR_FORMAT, "llama2.c: 2 says"},
        {36, 1 | 4 << 8, SM_ERR_FORMAT, "bytes, this file"}, /* it is not tied */
        {37, 0, SM_ERR_FORMAT, "groups of 0"},
        {37, 0xffffffffu, SM_ERR_FORMAT, "groups of -1"},
        {37, 3, SM_ERR_FORMAT, "tensor token_embd.weight: 40 weights in groups of 3"},
        {37, 0x7fffffff, SM_ERR_FORMAT, "in groups of 2147483647"},
        {37, 2, SM_ERR_FORMAT, "bytes, this file"},
    };
    sm_model *m = NULL;
    sm_error error;
    files_case c = files_llama2c(1);
    size_t n, i;
    uint8_t *file = files_llama2c_export(c.data, 2, 4, &n), kept[4];
    CHECK_STATUS(files_open(file, n, &m, &error), SM_OK);
    sm_model_close(m);
    for (i = 0; i < sizeof list / sizeof *list; i++) {
        memcpy(kept, file + list[i].at, 4);
        memcpy(file + list[i].at, &list[i].value, 4);
        CHECK_STATUS(files_open(file, n, &m, &error), list[i].status);
        if (!strstr(error.text, list[i].words))
            FAIL("\"%s\" should say \"%s\"", error.text, list[i].words);
        memcpy(file + list[i].at, kept, 4);
    }
    CHECK_STATUS(files_open(file, 255, &m, &error), SM_ERR_FORMAT);
    CHECK_STR(error.text, "the header of the llama2.c file is cut");
    free(file);
    c.data[0] = 9; /* no multiple of the heads */
    CHECK_STATUS(files_open(c.data, c.n, &m, &error), SM_ERR_FORMAT);
    c.data[0] = 8;
    CHECK_STATUS(files_open(c.data, c.n - 4, &m, &error), SM_ERR_FORMAT);
    CHECK(strstr(error.text, "has 4412 bytes, this file 4408") != NULL);
    free(c.data);
}

static void files_broken_llama2c(void) {
    uint8_t tokenizer[128];
    files_case c = files_llama2c(1), later = c;
    later.tokenizer = c.tokenizer = tokenizer;
    later.tokenizer_n = c.tokenizer_n = files_tokenizer_bin(tokenizer);
    later.data = files_llama2c_export(c.data, 2, 4, &later.n);
    later.header = 41;
    files_case_all(&c);
    files_case_all(&later);
}

static void files_broken_tokenizer_bin(void) {
    static const int values[] = {0, 1, 7, 0x7f, 0x80, 0xff};
    uint8_t bytes[128];
    size_t n = files_tokenizer_bin(bytes), i;
    guard g = guard_make(n);
    files_case c = files_llama2c(0);
    sm_model_params p = files_case_params(&c);
    sm_model *m = NULL;
    sm_error error;
    int v;
    p.tokenizer.data = bytes;
    p.tokenizer.bytes = n;
    if (CHECK_STATUS(sm_model_open(&p, &m, &error), SM_OK)) {
        const sm_model_info *info = sm_model_get_info(m);
        CHECK(info->bos == 1 && info->eos == 2 && info->unk == 0 && info->pad == -1);
        CHECK_STR(info->tokenizer, "spm");
        CHECK(m->vocab.plain_spaces == 1 && m->vocab.kinds[3] == SM__TOKEN_BYTE);
        CHECK(m->vocab.kinds[0] == SM__TOKEN_UNKNOWN && m->vocab.kinds[2] == SM__TOKEN_CONTROL);
    }
    sm_model_close(m);
    for (i = 1; i < n; i++) {
        memcpy(g.end - i, bytes, i);
        p.tokenizer.data = g.end - i;
        p.tokenizer.bytes = i;
        CHECK_STATUS(files_try(&p, c.data, c.n), SM_ERR_FORMAT);
    }
    memcpy(g.end - n, bytes, n);
    p.tokenizer.data = g.end - n;
    p.tokenizer.bytes = n;
    for (i = 0; i < n; i++)
        for (v = 0; v < 6; v++) {
            g.end[(ptrdiff_t)i - (ptrdiff_t)n] = (uint8_t)values[v];
            files_try(&p, c.data, c.n);
            g.end[(ptrdiff_t)i - (ptrdiff_t)n] = bytes[i];
        }
    bytes[n++] = 0; /* one byte too many */
    p.tokenizer.data = bytes;
    p.tokenizer.bytes = n;
    CHECK_STATUS(files_try(&p, c.data, c.n), SM_ERR_FORMAT);
    guard_free(&g);
    free(c.data);
}

/* --- safetensors ------------------------------------------------------------------------------ */

typedef struct files_st { /* a safetensors file that is being written */
    gguf_buf header, data;
    const char *file; /* one of several: its name, and the list of them all */
    gguf_buf *map;
} files_st;

/* rows 0: a vector. Values count up from `first`. */
static void files_st_tensor(files_st *s, const char *name, const char *dtype, int rows, int cols,
                            int first) {
    char entry[256], shape[32];
    size_t start = s->data.n;
    int i, n = (rows ? rows : 1) * cols;
    for (i = 0; i < n; i++) {
        float f = (float)(first + i);
        uint16_t half = strcmp(dtype, "F16") ? sm__f32_to_bf16(f) : sm__f32_to_f16(f);
        if (strcmp(dtype, "F32") == 0) gguf_bytes(&s->data, &f, 4);
        else gguf_bytes(&s->data, &half, 2);
    }
    if (rows) snprintf(shape, sizeof shape, "%d, %d", rows, cols);
    else snprintf(shape, sizeof shape, "%d", cols);
    snprintf(entry, sizeof entry,
             "%s\"%s\": {\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%lu,%lu]}",
             s->header.n ? ", " : "{\"__metadata__\":{\"format\":\"pt\"}, ", name, dtype, shape,
             (unsigned long)start, (unsigned long)s->data.n);
    gguf_bytes(&s->header, entry, strlen(entry));
    if (!s->map) return;
    snprintf(entry, sizeof entry, "%s\"%s\": \"%s\"", s->map->n ? ", " : "", name, s->file);
    gguf_bytes(s->map, entry, strlen(entry));
}

static files_case files_st_finish(files_st *s, const char *config) {
    gguf_buf b = {NULL, 0, 0};
    files_case c;
    memset(&c, 0, sizeof c);
    gguf_bytes(&s->header, "}  ", 3);
    gguf_u64(&b, s->header.n);
    gguf_bytes(&b, s->header.p, s->header.n);
    gguf_bytes(&b, s->data.p, s->data.n);
    free(s->header.p);
    free(s->data.p);
    memset(s, 0, sizeof *s);
    c.data = b.p;
    c.n = b.n;
    c.config = config;
    c.config_n = strlen(config);
    c.header = b.n;
    return c;
}

/* llama, qwen2, qwen3: C 8, 1 layer, 2 heads, 1 kv head, D 4, F 12, V 5. parts: 1 embed, 2 head.
 * The tensors go to n files in turn. */
static void files_st_llama_tensors(files_st *s, int n, const char *dtype, int qwen, int parts) {
    static const struct {
        const char *name;
        int rows, cols, first, qwen;
    } list[] = {
        {"input_layernorm.weight", 0, 8, 2, 0},
        {"self_attn.q_proj.weight", 8, 8, 3, 0},
        {"self_attn.k_proj.weight", 4, 8, 4, 0},
        {"self_attn.v_proj.weight", 4, 8, 5, 0},
        {"self_attn.o_proj.weight", 8, 8, 6, 0},
        {"self_attn.q_proj.bias", 0, 8, 7, 2},
        {"self_attn.k_proj.bias", 0, 4, 8, 2},
        {"self_attn.v_proj.bias", 0, 4, 9, 2},
        {"self_attn.q_norm.weight", 0, 4, 7, 3},
        {"self_attn.k_norm.weight", 0, 4, 8, 3},
        {"post_attention_layernorm.weight", 0, 8, 10, 0},
        {"mlp.gate_proj.weight", 12, 8, 11, 0},
        {"mlp.up_proj.weight", 12, 8, 12, 0},
        {"mlp.down_proj.weight", 8, 12, 13, 0},
        {"self_attn.rotary_emb.inv_freq", 0, 2, 0, 0},
    };
    size_t i;
    if (parts & 1) files_st_tensor(&s[0], "model.embed_tokens.weight", dtype, 5, 8, 0);
    if (parts & 2) files_st_tensor(&s[n - 1], "lm_head.weight", dtype, 5, 8, 40);
    files_st_tensor(&s[0], "model.norm.weight", dtype, 0, 8, 1);
    for (i = 0; i < sizeof list / sizeof *list; i++) {
        char name[64];
        if (list[i].qwen && list[i].qwen != qwen) continue;
        snprintf(name, sizeof name, "model.layers.0.%s", list[i].name);
        files_st_tensor(&s[i % (size_t)n], name, dtype, list[i].rows, list[i].cols, list[i].first);
    }
}

static files_case files_st_llama(const char *config, const char *dtype, int qwen, int parts) {
    files_st s;
    memset(&s, 0, sizeof s);
    files_st_llama_tensors(&s, 1, dtype, qwen, parts);
    return files_st_finish(&s, config);
}

#define FILES_LLAMA \
    "\"hidden_size\":8,\"num_hidden_layers\":1,\"num_attention_heads\":2," \
    "\"num_key_value_heads\":1,\"intermediate_size\":12,\"vocab_size\":5," \
    "\"max_position_embeddings\":16"

static sm_model *files_case_open(files_case *c, sm_status want, const char *words) {
    sm_model_params p = files_case_params(c);
    sm_model *m = NULL;
    sm_error error;
    sm_status status;
    p.load = SM_LOAD_COPY; /* so that c->data can go */
    memset(&error, 0, sizeof error);
    status = sm_model_open(&p, &m, &error);
    if (status != want || (status && !strstr(error.text, words)))
        FAIL("status %d, not %d; \"%s\" should say \"%s\"", status, want, error.text, words);
    free(c->data);
    c->data = NULL;
    return m;
}

static void files_st_variants(void) {
    static const char *const dtypes[] = {"F32", "F16", "BF16"};
    static const int types[] = {SM_TYPE_F32, SM_TYPE_F16, SM_TYPE_BF16};
    static const char *const configs[] = {
        "{\"model_type\":\"llama\"," FILES_LLAMA "}",
        "{\"architectures\":[\"MistralForCausalLM\"],\"sliding_window\":9," FILES_LLAMA "}",
        "{\"model_type\":\"qwen2\",\"sliding_window\":9,\"rope_theta\":1e6," FILES_LLAMA "}",
        "{\"model_type\":\"qwen3\",\"head_dim\":4,\"rms_norm_eps\":1e-05,"
        "\"eos_token_id\":[4,3],\"bos_token_id\":null," FILES_LLAMA "}",
    };
    int k, d, parts;
    for (k = 0; k < 4; k++)
        for (d = 0; d < 3; d++)
            for (parts = 1; parts < 4; parts++) {
                files_case c = files_st_llama(configs[k], dtypes[d], k, parts);
                sm_model *m = files_case_open(&c, SM_OK, "");
                if (!m) return;
                CHECK(m->info.type == types[d] && m->hp.pos == SM__POS_ROPE_HALF);
                CHECK(m->hp.n_rot == 4 && m->hp.n_ctx == 16 && m->hp.window == (k == 1 ? 9 : 0));
                CHECK(m->hp.rope_base == (k == 2 ? 1e6 : 1e4));
                CHECK(sm__bits(m->hp.norm_eps) == sm__bits(k == 3 ? 1e-5f : 1e-6f));
                CHECK((m->weights->output.data == m->weights->embed.data) == (parts != 3));
                CHECK((m->weights->layers[0].q.bias != NULL) == (k == 2));
                CHECK((m->weights->layers[0].q_norm != NULL) == (k == 3));
                CHECK(m->weights->layers[0].ffn_norm[7] == 17.0f);
                CHECK(m->info.eos == (k == 3 ? 4 : -1) && m->info.eot == (k == 3 ? 3 : -1));
                sm_model_close(m);
            }
}

static void files_st_config(void) {
    static const struct {
        const char *config;
        sm_status status;
        const char *words;
    } list[] = {
        {"", SM_ERR_FORMAT, "config.json is empty"},
        {"[]", SM_ERR_FORMAT, "malformed"},
        {"{\"model_type\":\"llama\"," FILES_LLAMA "} x", SM_ERR_FORMAT, "behind"},
        {"{\"model_type\":\"llama\"," FILES_LLAMA ",}", SM_ERR_FORMAT, "malformed"},
        {"{" FILES_LLAMA "}", SM_ERR_UNSUPPORTED, "model_type"},
        {"{\"model_type\":\"bert\"," FILES_LLAMA "}", SM_ERR_UNSUPPORTED, "bert"},
        {"{\"model_type\":\"llama\"}", SM_ERR_FORMAT, "vocab_size"},
        {"{\"model_type\":7," FILES_LLAMA "}", SM_ERR_FORMAT, "model_type"},
        {"{\"model_type\":\"llama\"," FILES_LLAMA ",\"vocab_size\":\"5\"}", SM_ERR_FORMAT,
         "vocab_size"},
        {"{\"model_type\":\"llama\"," FILES_LLAMA ",\"vocab_size\":5.5}", SM_ERR_FORMAT,
         "vocab_size"},
        {"{\"model_type\":\"llama\"," FILES_LLAMA ",\"hidden_size\":1e300}", SM_ERR_FORMAT,
         "hidden_size"},
        {"{\"model_type\":\"llama\"," FILES_LLAMA ",\"num_attention_heads\":0}", SM_ERR_FORMAT,
         "head count"},
        {"{\"model_type\":\"llama\"," FILES_LLAMA ",\"num_attention_heads\":3}", SM_ERR_FORMAT,
         "hidden_size 8"},
        {"{\"model_type\":\"llama\"," FILES_LLAMA ",\"hidden_act\":\"relu\"}", SM_ERR_UNSUPPORTED,
         "relu"},
        {"{\"model_type\":\"llama\"," FILES_LLAMA ",\"hidden_act\":\"silu\"}", SM_OK, ""},
        {"{\"model_type\":\"llama\"," FILES_LLAMA ",\"rms_norm_eps\":0}", SM_ERR_FORMAT, "epsilon"},
        {"{\"model_type\":\"llama\"," FILES_LLAMA ",\"rope_theta\":1e400}", SM_ERR_FORMAT, "base"},
        {"{\"model_type\":\"llama\"," FILES_LLAMA ",\"partial_rotary_factor\":0.3}", SM_ERR_FORMAT,
         "rotated"},
        {"{\"model_type\":\"llama\"," FILES_LLAMA ",\"rope_scaling\":null}", SM_OK, ""},
        {"{\"model_type\":\"llama\"," FILES_LLAMA ",\"rope_scaling\":true}", SM_ERR_FORMAT,
         "rope_scaling"},
        {"{\"model_type\":\"llama\"," FILES_LLAMA ",\"rope_scaling\":{\"type\":\"linear\"}}",
         SM_ERR_FORMAT, "factor"},
        {"{\"model_type\":\"llama\"," FILES_LLAMA
         ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":-1}}",
         SM_ERR_FORMAT, "factor"},
        {"{\"model_type\":\"llama\"," FILES_LLAMA
         ",\"rope_scaling\":{\"type\":\"longrope\",\"factor\":2}}",
         SM_ERR_UNSUPPORTED, "longrope"},
        {"{\"model_type\":\"llama\"," FILES_LLAMA
         ",\"quantization_config\":{\"bits\":4}}",
         SM_ERR_UNSUPPORTED, "quantization_config is not supported"},
        {"{\"model_type\":\"llama\"," FILES_LLAMA
         ",\"quantization_config\":null,\"num_experts\":0,\"alibi\":false}",
         SM_OK, ""},
        {"{\"model_type\":\"llama\"," FILES_LLAMA
         ",\"num_local_experts\":8}",
         SM_ERR_UNSUPPORTED, "num_local_experts is not supported"},
        {"{\"model_type\":\"llama\"," FILES_LLAMA
         ",\"clip_qkv\":8.5}",
         SM_ERR_UNSUPPORTED, "clip_qkv is not supported"},
        {"{\"model_type\":\"llama\"," FILES_LLAMA
         ",\"layer_types\":[\"chunked_attention\"]}",
         SM_ERR_UNSUPPORTED, "layers of type chunked_attention"},
        {"{\"model_type\":\"llama\"," FILES_LLAMA
         ",\"layer_types\":[\"full_attention\",\"full_attention\"]}",
         SM_ERR_FORMAT, "layer_types has no value"},
        {"{\"model_type\":\"llama\"," FILES_LLAMA
         ",\"layer_types\":[1]}",
         SM_ERR_FORMAT, "a bad value of layer_types"},
        {"{\"model_type\":\"llama\"," FILES_LLAMA
         ",\"layer_types\":null,\"no_rope_layers\":[1]}",
         SM_OK, ""},
        {"{\"model_type\":\"smollm3\"," FILES_LLAMA
         ",\"rope_theta\":5e5,\"no_rope_layers\":[1,1]}",
         SM_ERR_FORMAT, "no_rope_layers has no value"},
        {"{\"model_type\":\"smollm3\"," FILES_LLAMA
         "}",
         SM_ERR_FORMAT, "has no rope_theta"},
        {"{\"model_type\":\"llama\"," FILES_LLAMA
         ",\"sliding_window\":-1}",
         SM_OK, ""},
        {"{\"model_type\":\"llama\"," FILES_LLAMA
         ",\"sliding_window\":2e6}",
         SM_ERR_FORMAT, "sliding window"},
        {"{\"model_type\":\"gemma\"," FILES_LLAMA
         "}",
         SM_ERR_FORMAT, "has no head_dim"},
        {"{\"model_type\":\"gemma\"," FILES_LLAMA
         ",\"hidden_activation\":\"gelu\"}",
         SM_ERR_UNSUPPORTED, "activation gelu"},
        {"{\"model_type\":\"gemma2\"," FILES_LLAMA
         ",\"head_dim\":4}",
         SM_ERR_FORMAT, "has no query_pre_attn_scalar"},
        {"{\"model_type\":\"gemma2\"," FILES_LLAMA
         ",\"head_dim\":4,\"query_pre_attn_scalar\":4}",
         SM_ERR_FORMAT, "has no attn_logit_softcapping"},
        {"{\"model_type\":\"gemma2\"," FILES_LLAMA
         ",\"head_dim\":4,\"query_pre_attn_scalar\":0,\"attn_logit_softcapping\":5"
         ",\"final_logit_softcapping\":5,\"sliding_window\":9}",
         SM_ERR_FORMAT, "scale of attention"},
        {"{\"model_type\":\"gemma2\"," FILES_LLAMA
         ",\"head_dim\":4,\"query_pre_attn_scalar\":4,\"attn_logit_softcapping\":5"
         ",\"final_logit_softcapping\":5}",
         SM_ERR_FORMAT, "has no sliding_window"},
        {"{\"model_type\":\"gemma2\"," FILES_LLAMA
         ",\"head_dim\":4,\"query_pre_attn_scalar\":4,\"attn_logit_softcapping\":5"
         ",\"final_logit_softcapping\":5,\"sliding_window\":9}",
         SM_ERR_FORMAT, "tensor blk.0.ffn_norm.weight is missing"},
        {"{\"model_type\":\"gemma3_text\"," FILES_LLAMA
         ",\"head_dim\":4,\"query_pre_attn_scalar\":4}",
         SM_ERR_FORMAT, "has no rope_theta"},
        {"{\"model_type\":\"gemma3_text\"," FILES_LLAMA
         ",\"rope_parameters\":{\"sliding_attention\":{\"rope_type\":\"yarn\"}}}",
         SM_ERR_UNSUPPORTED, "yarn in local layers"},
        {"{\"model_type\":\"gemma3_text\"," FILES_LLAMA
         ""
         ",\"rope_parameters\":{\"full_attention\":{\"full_attention\":{\"rope_type\":7}}"
         ",\"sliding_attention\":7}}",
         SM_ERR_FORMAT, "a bad value of sliding_attention"},
        {"{\"model_type\":\"granite\"," FILES_LLAMA
         "}",
         SM_ERR_FORMAT, "has no logits_scaling"},
        {"{\"model_type\":\"granite\"," FILES_LLAMA
         ",\"logits_scaling\":0,\"attention_multiplier\":1}",
         SM_ERR_FORMAT, "scale of logits"},
        {"{\"model_type\":\"llama\"," FILES_LLAMA ",\"rope_scaling\":{\"type\":\"llama3\","
         "\"factor\":2,\"low_freq_factor\":4,\"high_freq_factor\":4}}",
         SM_ERR_FORMAT, "rope_scaling has bad factors"},
        {"{\"model_type\":\"llama\"," FILES_LLAMA ",\"bos_token_id\":5,\"eos_token_id\":-1}", SM_OK,
         ""},
        {"{\"model_type\":\"llama\"," FILES_LLAMA ",\"x\":[[[{\"y\":[1,2,{}]}]]]}", SM_OK, ""},
    };
    size_t i;
    for (i = 0; i < sizeof list / sizeof *list; i++) {
        files_case c = files_st_llama(list[i].config, "F32", 0, 3);
        sm_model *m = files_case_open(&c, list[i].status, list[i].words);
        CHECK(!m || (m->info.bos == -1 && m->info.eos == -1));
        sm_model_close(m);
    }
}

static void files_st_scaling(void) {
    files_case c;
    sm_model *m;
    c = files_st_llama("{\"model_type\":\"llama\"," FILES_LLAMA
                       ",\"rope_scaling\":{\"factor\":32.0,"
                       "\"low_freq_factor\":2.0,\"high_freq_factor\":8.0,"
                       "\"original_max_position_embeddings\":4096,\"rope_type\":\"llama3\"}}",
                       "F32", 0, 1);
    m = files_case_open(&c, SM_OK, "");
    if (m) { /* angles of 1 and 1/100: the second lies between the bounds */
        double smooth = (4096 * 0.01 / 6.283185307179586 - 2) / (8 - 2);
        CHECK(m->hp.scaling == SM__SCALING_FACTORS && m->weights->rope_factors[0] == 1.0f);
        CHECK_NEAR((double)m->weights->rope_factors[1], 1 / ((1 - smooth) / 32 + smooth), 1e-6);
    }
    sm_model_close(m);
    c = files_st_llama("{\"model_type\":\"llama\"," FILES_LLAMA
                       ",\"rope_parameters\":{\"factor\":4,"
                       "\"rope_theta\":5e5,\"rope_type\":\"yarn\",\"attention_factor\":1.5}}",
                       "F32", 0, 1);
    m = files_case_open(&c, SM_OK, "");
    CHECK(m && m->hp.scaling == SM__SCALING_YARN && m->hp.attn_factor == 1.5 &&
          m->hp.rope_base == 5e5 && m->hp.original_ctx == 16.0 && m->hp.beta_fast == 32.0);
    sm_model_close(m);
    c = files_st_llama("{\"model_type\":\"llama\"," FILES_LLAMA
                       ",\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2.0}}",
                       "F32", 0, 1);
    m = files_case_open(&c, SM_OK, "");
    CHECK(m && m->hp.scaling == SM__SCALING_NONE && m->hp.n_ctx == 16);
    sm_model_close(m);
}

/* Tied and untied: what config.json declares decides what may be missing. */
static void files_st_tied(void) {
    files_case c = files_st_llama(
        "{\"model_type\":\"llama\",\"tie_word_embeddings\":false," FILES_LLAMA "}", "F32", 0, 1);
    sm_model *m = files_case_open(&c, SM_ERR_FORMAT, "lm_head.weight is missing");
    CHECK(m == NULL);
    c = files_st_llama("{\"model_type\":\"llama\",\"tie_word_embeddings\":true," FILES_LLAMA "}",
                       "F32", 0, 3);
    m = files_case_open(&c, SM_OK, "");
    CHECK(m && m->weights->output.data == m->weights->embed.data && m->weights->embed.data[3] == 0);
    sm_model_close(m);
}

/* One header after another with a mistake of its own. */
static void files_st_refused(void) {
    static const struct {
        const char *header;
        uint64_t length; /* 0 = the header's */
        sm_status status;
        const char *words;
    } list[] = {
        {"{}", 3, SM_ERR_FORMAT, "header of 3 bytes"},
        {"{}", (uint64_t)200 << 20, SM_ERR_FORMAT, "does not fit"},
        {"{}", 0, SM_ERR_UNSUPPORTED, "no tensor"},
        {"{\"a\"}", 0, SM_ERR_FORMAT, "malformed at byte"},
        {"{\"a\":1}", 0, SM_ERR_FORMAT, "tensor a"},
        {"{\"a\":{}}", 0, SM_ERR_FORMAT, "tensor a"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 0, SM_ERR_FORMAT, "tensor a"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 0, SM_ERR_FORMAT,
         "tensor a"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 0, SM_ERR_FORMAT,
         "bytes 0 to 4 of 0"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 0, SM_ERR_FORMAT,
         "bytes 4 to 0"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,0]}}", 0, SM_ERR_FORMAT,
         "tensor a: a malformed"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[18446744073709551616],\"data_offsets\":[0,0]}}", 0,
         SM_ERR_FORMAT, "tensor a: a malformed"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0,
         SM_ERR_FORMAT, "tensor a: a malformed"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,0]}}", 0, SM_ERR_FORMAT,
         "1 elements in 0 bytes"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},"
         "\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}",
         0, SM_ERR_FORMAT, "tensor a is there twice"},
        {"{\"wte.weight\":{\"dtype\":\"I8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0,
         SM_ERR_UNSUPPORTED, "tensor wte.weight is not"},
        {"{\"wte.weight\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,0]}}", 0,
         SM_ERR_FORMAT, "1 elements"},
        {"{\"wte.weight\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0,
         SM_ERR_FORMAT, "1 dimensions and 0 bytes"},
    };
    static const char config[] = "{\"model_type\":\"gpt2\",\"n_embd\":8,\"n_layer\":1,\"n_head\":2,"
                                 "\"vocab_size\":5,\"n_positions\":16}";
    size_t i;
    for (i = 0; i < sizeof list / sizeof *list; i++) {
        gguf_buf b = {NULL, 0, 0};
        files_case c;
        memset(&c, 0, sizeof c);
        gguf_u64(&b, list[i].length ? list[i].length : strlen(list[i].header));
        gguf_bytes(&b, list[i].header, strlen(list[i].header));
        c.data = b.p;
        c.n = b.n;
        c.config = config;
        c.config_n = sizeof config - 1;
        sm_model_close(files_case_open(&c, list[i].status, list[i].words));
    }
}

/* Data that belongs to no tensor is refused, as the format asks. Names may have escapes. */
static void files_st_data(void) {
    static const char config[] = "{\"model_type\":\"llama\"," FILES_LLAMA "}";
    files_case c = files_st_llama(config, "F32", 0, 3);
    uint8_t *more = (uint8_t *)realloc(c.data, c.n + 4), *p;
    sm_model *m;
    if (!CHECK(more != NULL)) return;
    c.data = more;
    memset(more + c.n, 0, 4);
    c.n += 4;
    m = files_case_open(&c, SM_ERR_FORMAT, "bytes of data, the tensors have");
    CHECK(m == NULL);
    c = files_st_llama(config, "F32", 0, 3);
    for (p = c.data; memcmp(p, "model.norm.weight", 17); p++) {}
    memcpy(p - 1, "\"norm\\u002eweight\" ", 19);
    m = files_case_open(&c, SM_OK, "");
    CHECK(m && m->weights->output_norm[7] == 8.0f);
    sm_model_close(m);
}

/* --- shards --- */

#ifndef SMALLMIND_NO_STDIO
typedef struct files_shards { /* a folder with a config, an index and two shards */
    char dir[64];
    files_case shard[2];
    gguf_buf map, index;
} files_shards;

static const char *const files_shard_names[2] = {"model-00001-of-00002.safetensors",
                                                 "model-00002-of-00002.safetensors"};
static const char files_index_name[] = "model.safetensors.index.json";
static const char files_shards_config[] = "{\"model_type\":\"llama\"," FILES_LLAMA "}";

/* A path in the folder, valid until the second next call. */
static const char *files_in(const files_shards *s, const char *name) {
    static char paths[2][128];
    static int next;
    snprintf(paths[next ^= 1], sizeof paths[0], "%s/%s", s->dir, name);
    return paths[next];
}

static void files_put(const files_shards *s, const char *name, const void *data, size_t n) {
    FILE *file = fopen(files_in(s, name), "wb");
    if (!CHECK(file != NULL)) return;
    CHECK(fwrite(data, 1, n, file) == n);
    fclose(file);
}

/* 0 = there is no folder build/. */
static int files_shards_make(files_shards *s) {
    static const char head[] = "{\"metadata\": {\"total_size\": 1}, \"weight_map\": {";
    files_st st[2];
    int i;
    memset(s, 0, sizeof *s);
    memset(st, 0, sizeof st);
    snprintf(s->dir, sizeof s->dir, "build/test_files.%llx",
             (unsigned long long)(sm__now_ns() ^ (uint64_t)(uintptr_t)s));
    if (mkdir(s->dir, 0755)) return 0;
    for (i = 0; i < 2; i++) st[i].file = files_shard_names[i], st[i].map = &s->map;
    files_st_llama_tensors(st, 2, "F32", 0, 3);
    gguf_bytes(&s->index, head, sizeof head - 1);
    gguf_bytes(&s->index, s->map.p, s->map.n);
    gguf_bytes(&s->index, "}}\n", 3);
    files_put(s, "config.json", files_shards_config, sizeof files_shards_config - 1);
    files_put(s, files_index_name, s->index.p, s->index.n);
    for (i = 0; i < 2; i++) {
        s->shard[i] = files_st_finish(&st[i], "");
        files_put(s, files_shard_names[i], s->shard[i].data, s->shard[i].n);
    }
    return 1;
}

static void files_shards_free(files_shards *s) {
    int i;
    for (i = 0; i < 2; i++) {
        remove(files_in(s, files_shard_names[i]));
        free(s->shard[i].data);
    }
    remove(files_in(s, files_index_name));
    remove(files_in(s, "config.json"));
    remove(files_in(s, "model.safetensors"));
    CHECK(rmdir(s->dir) == 0);
    free(s->map.p);
    free(s->index.p);
}

/* Opens a path; status and words of the message as expected. */
static sm_model *files_shards_open(const char *path, int load, sm_status want, const char *words) {
    sm_model_params p = sm_model_default();
    sm_model *m = NULL;
    sm_error error;
    sm_status status;
    p.file.path = path;
    p.load = load;
    p.allocator = heap_allocator();
    memset(&error, 0, sizeof error);
    status = sm_model_open(&p, &m, &error);
    if (status != want || !strstr(error.text, words) || (!status && error.text[0]))
        FAIL("%s: status %d, not %d; \"%s\" should say \"%s\"", path, status, want, error.text,
             words);
    if (status) CHECK(m == NULL && heap.held == 0);
    return m;
}

/* What a model's tensors hold, whatever their order is. */
static uint64_t files_content(const sm_model *m) {
    sm_tensor t;
    uint64_t h = 0;
    int i;
    for (i = 0; sm_model_tensor(m, i, &t) == SM_OK; i++)
        h += hash_bytes(t.data, t.bytes) * 31 + hash_bytes(t.name, strlen(t.name));
    return h;
}

#ifndef SMALLMIND_NO_CHAT
/* The chat template beside the shards is metadata, under GGUF's name for it. */
static void files_st_chat_template(void) {
    static const char list[] =
        "{\"x\": 1, \"chat_template\": [{\"name\": \"default\", \"template\": \"a\\n{{ 1 }}\"},"
        "{\"name\": \"tool_use\", \"template\": \"\\u00e9\"}]}";
    static const char *const configs[] = {"{\"chat_template\": \"one\"}", list, "[", "{}"};
    static const char *const want[][2] = {{"one", NULL}, {"a\n{{ 1 }}", "\xc3\xa9"}, {NULL, NULL},
                                          {NULL, NULL}};
    files_shards s;
    char buf[64];
    int i;
    if (!files_shards_make(&s)) return;
    for (i = 0; i < 5; i++) {
        sm_model *m;
        const char *text;
        if (i < 4) files_put(&s, "tokenizer_config.json", configs[i], strlen(configs[i]));
        else files_put(&s, "chat_template.jinja", "{{ 2 }}", 7);
        m = files_shards_open(s.dir, i & 1, SM_OK, "");
        text = sm_model_meta(m, "tokenizer.chat_template", buf, sizeof buf);
        if (i < 4 && !want[i][0]) CHECK(text == NULL && m->info.n_meta == 0);
        else CHECK_STR(text, i < 4 ? want[i][0] : "{{ 2 }}");
        text = sm_model_meta(m, "tokenizer.chat_template.tool_use", buf, sizeof buf);
        if (i == 1) CHECK_STR(text, want[i][1]);
        else CHECK(text == NULL);
        sm_model_close(m);
    }
    remove(files_in(&s, "tokenizer_config.json"));
    remove(files_in(&s, "chat_template.jinja"));
    files_shards_free(&s);
}
#endif

static void files_st_shards(void) {
    files_case c = files_st_llama(files_shards_config, "F32", 0, 3);
    sm_model *m = files_case_open(&c, SM_OK, "");
    uint64_t want = m ? files_content(m) : 0;
    files_shards s;
    size_t mapped = 0;
    int way, load, i;
    sm_model_close(m);
    for (i = 0; i < 1 && files_shards_make(&s); i++) {
        const char *names[] = {".", "", "./.", files_index_name, files_shard_names[0],
                               files_shard_names[1]};
        for (way = 0; way < 6; way++)
            for (load = 0; load < 2; load++) {
                size_t sum = s.shard[0].n + s.shard[1].n;
                m = files_shards_open(way ? files_in(&s, names[way]) : s.dir, load, SM_OK, "");
                if (!m) continue;
                CHECK(files_content(m) == want && m->info.mapped_bytes == (load ? 0 : sum));
                if (!load) mapped = m->info.heap_bytes;
                else CHECK(m->info.heap_bytes >= mapped - 512 + sum); /* less the mappings' list */
                sm_model_close(m);
            }
        /* without an index: a shard alone lacks tensors, a folder may hold the one file */
        remove(files_in(&s, files_index_name));
        files_shards_open(files_in(&s, files_shard_names[0]), 0, SM_ERR_FORMAT, "is missing");
        files_shards_open(s.dir, 0, SM_ERR_IO, s.dir);
        c = files_st_llama(files_shards_config, "F32", 0, 3);
        files_put(&s, "model.safetensors", c.data, c.n);
        m = files_shards_open(s.dir, 0, SM_OK, "");
        CHECK(m && files_content(m) == want && m->info.mapped_bytes == c.n);
        sm_model_close(m);
        free(c.data);
        files_shards_free(&s);
    }
}

/* --- tokenizer.json --------------------------------------------------------------------------- */

#define TJ_MARKS \
    "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":" \
    "\"\\u2581\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\u2581\"}]},"
#define TJ_LEVEL "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}"
#define TJ_SPM "\"vocab\":{\"<unk>\":0,\"\\u2581\":1,\"a\":2,\"\u2581a\":3,\"aa\":4}"
#define TJ_BPE "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"\u0120\":3,\"\\u0120a\":4}"
#define TJ_MODEL "\"model\":{\"type\":\"BPE\","

/* The file opens, and gives a text these ids. */
static void files_tj_try(const char *json, const char *text, const char *want) {
    files_case c = files_st_llama("{\"model_type\":\"llama\"," FILES_LLAMA "}", "F32", 0, 3);
    sm_tokenizer *t = NULL;
    sm_model *m;
    int32_t ids[64];
    char got[256] = "";
    int n = 0, i;
    c.tokenizer = json;
    c.tokenizer_n = strlen(json);
    m = files_case_open(&c, SM_OK, "");
    if (m && sm_tokenizer_create(m, 64, NULL, &t, NULL) == SM_OK &&
        sm_tokenize(t, text, strlen(text), SM_TEXT_BOS | SM_TEXT_SPECIAL, ids, 64, &n) == SM_OK)
        for (i = 0; i < n; i++)
            snprintf(got + strlen(got), sizeof got - strlen(got), i ? " %d" : "%d", (int)ids[i]);
    CHECK_STR(got, want);
    sm_tokenizer_destroy(t);
    sm_model_close(m);
}

static void files_tokenizer_json(void) {
    static const struct {
        const char *json, *text, *ids;
    } good[] = {
        {"{" TJ_MARKS TJ_MODEL TJ_SPM ",\"merges\":[\"\\u2581 a\",\"a a\"]}}", "aa", "3 2"},
        {"{" TJ_MARKS TJ_MODEL TJ_SPM ",\"merges\":[[\"a\",\"a\"],[\"\u2581\",\"a\"]]}}", "aa",
         "1 4"},
        {"{" TJ_MARKS TJ_MODEL TJ_SPM ",\"merges\":[],\"unk_token\":\"<unk>\"}}", "xya", "1 0 0 2"},
        {"{" TJ_MARKS TJ_MODEL TJ_SPM
         ",\"merges\":[],\"fuse_unk\":true,\"unk_token\":\"<unk>\"}}", "xyaz", "1 0 2 0"},
        {"{\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\u2581\","
         "\"prepend_scheme\":\"never\"}," TJ_MODEL TJ_SPM ",\"merges\":[\"\u2581 a\"]}}", "a a",
         "2 3"},
        {"{\"pre_tokenizer\":" TJ_LEVEL "," TJ_MODEL TJ_BPE
         ",\"merges\":[\"a b\",\"\u0120 a\"]}}", "ab ab", "2 3 2"},
        {"{\"pre_tokenizer\":" TJ_LEVEL "," TJ_MODEL TJ_BPE
         ",\"merges\":[\"\u0120 a\",\"a b\"]}}", "ab ab", "2 4 1"},
        {"{\"added_tokens\":[{\"id\":4,\"content\":\"<s>\",\"special\":true}],"
         "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{"
         "\"id\":\"<s>\"}},{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"<s>\":{"
         "\"id\":\"<s>\",\"ids\":[4]}}},\"pre_tokenizer\":{\"type\":"
         "\"Sequence\",\"pretokenizers\":[" TJ_LEVEL "]}," TJ_MODEL
         "\"vocab\":{\"a\":0,\"b\":1},\"merges\":[]}}", "b<s>a", "4 1 4 0"},
    };
    size_t i;
    for (i = 0; i < sizeof good / sizeof *good; i++)
        files_tj_try(good[i].json, good[i].text, good[i].ids);
}

static void files_tokenizer_json_refused(void) {
    static const struct {
        const char *json;
        sm_status status;
        const char *words;
    } bad[] = {
        {"{", SM_ERR_FORMAT, "bad JSON at byte 1"},
        {"{} {}", SM_ERR_FORMAT, "bad JSON at byte 3"},
        {"{}", SM_ERR_FORMAT, "no model"},
        {"{\"decoder\":{\"type\":\"CTC\"},\"model\":{\"type\":\"Unigram\"}}", SM_ERR_UNSUPPORTED,
         "kind CTC"},
        {"{" TJ_MODEL "\"merges\":[]}}", SM_ERR_FORMAT, "no model.vocab"},
        {"{" TJ_MODEL TJ_SPM "}}", SM_ERR_FORMAT, "no model.merges"},
        {"{" TJ_MODEL "\"vocab\":{\"a\":5},\"merges\":[]}}", SM_ERR_FORMAT, "id 5, the model"},
        {"{" TJ_MODEL "\"vocab\":{\"a\":1,\"b\":1},\"merges\":[]}}", SM_ERR_FORMAT, "id 1 is"},
        {"{" TJ_MODEL "\"vocab\":{\"a\":-1},\"merges\":[]}}", SM_ERR_FORMAT, "not text to ids"},
        {"{" TJ_MODEL TJ_SPM ",\"merges\":[3]}}", SM_ERR_FORMAT, "merge 0 is no pair"},
        {"{" TJ_MODEL TJ_SPM ",\"merges\":[[\"a\"]]}}", SM_ERR_FORMAT, "merge 0 is no pair"},
        {"{" TJ_MODEL TJ_SPM ",\"merges\":[\"a b\"]}}", SM_ERR_FORMAT, "right side is not a token"},
        {"{" TJ_MODEL TJ_SPM ",\"merges\":[\"aa\"]}}", SM_ERR_FORMAT, "merge 0 is not"},
        {"{" TJ_MODEL "\"end_of_word_suffix\":\" \"}}", SM_ERR_UNSUPPORTED, "marks of subwords"},
        {"{" TJ_MODEL "\"dropout\":0.1}}", SM_ERR_UNSUPPORTED, "random: dropout"},
        {"{\"more\":1," TJ_MODEL TJ_SPM "}}", SM_ERR_UNSUPPORTED, "key: more"},
        {"{" TJ_MODEL TJ_SPM ",\"more\":1}}", SM_ERR_UNSUPPORTED, "key: more"},
        {"{" TJ_MODEL TJ_SPM ",\"fuse_unk\":1}}", SM_ERR_UNSUPPORTED, "false is fuse_unk"},
        {"{\"normalizer\":{\"type\":\"NFC\",\"form\":3}," TJ_MODEL TJ_SPM "}}", SM_ERR_UNSUPPORTED,
         "key: form"},
        {"{\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":"
         "\"A\"}},{\"Sequence\":{\"id\":\"B\"}}]}," TJ_MODEL TJ_SPM ",\"merges\":[]}}",
         SM_ERR_UNSUPPORTED, "kind TemplateProcessing"},
        {"{\"post_processor\":{\"type\":\"Other\"}," TJ_MODEL TJ_SPM ",\"merges\":[]}}",
         SM_ERR_UNSUPPORTED, "kind Other"},
        {"{\"normalizer\":{\"type\":\"Uppercase\"}," TJ_MODEL TJ_SPM ",\"merges\":[]}}",
         SM_ERR_UNSUPPORTED, "kind Uppercase"},
        {"{\"normalizer\":{\"type\":\"Prepend\",\"prepend\":\"x\"}," TJ_MODEL TJ_SPM
         ",\"merges\":[]}}", SM_ERR_UNSUPPORTED, "kind Prepend"},
        {"{\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"}," TJ_MODEL TJ_SPM ",\"merges\":[]}}",
         SM_ERR_UNSUPPORTED, "kind UnicodeScripts"},
        {"{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","
         "\"pattern\":{\"Regex\":\"[a-z]+?\"},\"behavior\":\"Isolated\"},{\"type\":\"ByteLevel\","
         "\"add_prefix_space\":false,\"use_regex\":false}]}," TJ_MODEL TJ_BPE ",\"merges\":[]}}",
         SM_ERR_UNSUPPORTED, "not known: [a-z]+?"},
        {"{\"added_tokens\":[{\"id\":1}]," TJ_MODEL TJ_SPM ",\"merges\":[]}}", SM_ERR_FORMAT,
         "without id or content"},
    };
    size_t i;
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        files_case c = files_st_llama("{\"model_type\":\"llama\"," FILES_LLAMA "}", "F32", 0, 3);
        c.tokenizer = bad[i].json;
        c.tokenizer_n = strlen(bad[i].json);
        sm_model_close(files_case_open(&c, bad[i].status, bad[i].words));
    }
}

/* One wrong index after another; '%' stands for the right list. */
static void files_index_refused(void) {
    static const struct {
        const char *index;
        sm_status status;
        const char *words;
    } list[] = {
        {"{}  ", SM_ERR_FORMAT, "no weight_map"},
        {"{\"weight_map\": [%]}", SM_ERR_FORMAT, "the index is malformed"},
        {"{\"weight_map\": {%}", SM_ERR_FORMAT, "the index is malformed"},
        {"{\"weight_map\": {%}} {", SM_ERR_FORMAT, "the index is malformed"},
        {"{\"weight_map\": {%}, \"weight_map\": {%}}", SM_ERR_FORMAT, "the index is malformed"},
        {"{\"weight_map\": {%, \"x\": 1}}", SM_ERR_FORMAT, "the index is malformed"},
        {"{\"weight_map\": {}}", SM_ERR_UNSUPPORTED, "no tensor"},
        {"{\"weight_map\": {\"x\": \"../x\", %}}", SM_ERR_FORMAT, "names ../x, which"},
        {"{\"weight_map\": {\"x\": \"..\", %}}", SM_ERR_FORMAT, "names .., which"},
        {"{\"weight_map\": {\"x\": \"/etc/passwd\", %}}", SM_ERR_FORMAT, "names /etc/passwd"},
        {"{\"weight_map\": {\"x\": \"c:x\", %}}", SM_ERR_FORMAT, "names c:x"},
        {"{\"weight_map\": {\"x\": \"..\\u002fx\", %}}", SM_ERR_FORMAT, "no plain file"},
        {"{\"weight_map\": {\"x\": \"a\\\\x\", %}}", SM_ERR_FORMAT, "no plain file"},
        {"{\"weight_map\": {\"x\": \"\", %}}", SM_ERR_FORMAT, "no plain file"},
        {"{\"weight_map\": {\"x\": \"not here\", %}}", SM_ERR_IO, "not here"},
        {"{\"weight_map\": {\"x\": \"config.json\", %}}", SM_ERR_FORMAT,
         "config.json: this is no safetensors file"},
        {"{\"weight_map\": {\"x\": \"model-00001-of-00002.safetensors\", %}}", SM_ERR_FORMAT,
         "tensor x is not in model-00001"},
        {"{\"weight_map\": {\"lm_head.weight\": \"model-00001-of-00002.safetensors\", %}}",
         SM_ERR_FORMAT, "tensor lm_head.weight is not in model-00001"},
        {"{\"weight_map\": {\"lm_head.weight\": \"model-00002-of-00002.safetensors\", %}}",
         SM_ERR_FORMAT, "names tensor lm_head.weight twice"},
        {"{\"weight_map\": {\"model.norm.weight\": \"model-00001-of-00002.safetensors\"}}",
         SM_ERR_FORMAT, "is missing"},
    };
    files_shards s;
    sm_model_params p = sm_model_default();
    sm_model *m = NULL;
    sm_error error;
    size_t i, k, n;
    if (!files_shards_make(&s)) return;
    for (i = 0; i < sizeof list / sizeof *list; i++) {
        gguf_buf b = {NULL, 0, 0};
        const char *text = list[i].index;
        for (k = 0; text[k]; k++)
            if (text[k] == '%') gguf_bytes(&b, s.map.p, s.map.n);
            else gguf_bytes(&b, text + k, 1);
        files_put(&s, files_index_name, b.p, b.n);
        m = files_shards_open(s.dir, (int)i & 1, list[i].status, list[i].words);
        sm_model_close(m);
        free(b.p);
    }
    for (n = 0; n + 2 < s.index.n; n += n < 60 ? 1 : 29) { /* the last byte is a line end */
        files_put(&s, files_index_name, s.index.p, n);
        files_shards_open(s.dir, n & 1, SM_ERR_FORMAT, "");
    }
    /* in memory there is no folder to look in */
    p.file.data = s.index.p;
    p.file.bytes = s.index.n;
    CHECK_STATUS(sm_model_open(&p, &m, &error), SM_ERR_ARG);
    CHECK(strstr(error.text, "by its path") != NULL);
    files_shards_free(&s);
}

/* Shards that are cut, changed, or hold what another one has; no memory at any allocation. */
static void files_broken_shards(void) {
    files_shards s;
    sm_status status = SM_ERR_NOMEM;
    files_st twice;
    files_case c;
    size_t n;
    uint32_t k;
    if (!files_shards_make(&s)) return;
    c = s.shard[1];
    for (n = 0; n < c.n; n += 1 + (n > 64 ? n / 8 : 0)) {
        files_put(&s, files_shard_names[1], c.data, n);
        files_shards_open(s.dir, n & 1, SM_ERR_FORMAT, "00002-of-00002.safetensors");
    }
    memset(&twice, 0, sizeof twice);
    files_st_tensor(&twice, "model.norm.weight", "F32", 0, 8, 1);
    c = files_st_finish(&twice, "");
    files_put(&s, files_shard_names[1], c.data, c.n);
    files_shards_open(s.dir, 0, SM_ERR_FORMAT, "tensor model.norm.weight is there twice");
    free(c.data);
    files_put(&s, files_shard_names[1], s.shard[1].data, s.shard[1].n);
    for (k = 1; k < 1000 && status == SM_ERR_NOMEM; k++) {
        sm_model_params p = sm_model_default();
        sm_model *m = NULL;
        sm_error error;
        p.file.path = k & 1 ? s.dir : files_in(&s, files_shard_names[0]);
        p.load = k >> 1 & 1;
        p.allocator = heap_allocator();
        heap_fail(k);
        status = sm_model_open(&p, &m, &error);
        heap_fail(0);
        sm_model_close(m);
        CHECK(heap.held == 0);
    }
    CHECK_STATUS(status, SM_OK);
    CHECK(k > 20);
    files_shards_free(&s);
}
#endif

static void files_broken_safetensors(void) {
    files_case c = files_st_llama("{\"model_type\":\"llama\"," FILES_LLAMA "}", "BF16", 0, 3);
    c.header = 8 + (size_t)sm__get64(c.data);
    files_case_all(&c);
}

static files_case files_st_gpt2(const char *config) {
    files_st s;
    memset(&s, 0, sizeof s);
    files_st_tensor(&s, "wte.weight", "F16", 3, 4, 0);
    files_st_tensor(&s, "wpe.weight", "F16", 5, 4, 0);
    files_st_tensor(&s, "ln_f.weight", "F16", 0, 4, 0);
    files_st_tensor(&s, "ln_f.bias", "F16", 0, 4, 0);
    files_st_tensor(&s, "h.0.ln_1.weight", "F16", 0, 4, 0);
    files_st_tensor(&s, "h.0.ln_1.bias", "F16", 0, 4, 0);
    files_st_tensor(&s, "h.0.ln_2.weight", "F16", 0, 4, 0);
    files_st_tensor(&s, "h.0.ln_2.bias", "F16", 0, 4, 0);
    files_st_tensor(&s, "h.0.attn.c_attn.weight", "F16", 4, 12, 0);
    files_st_tensor(&s, "h.0.attn.c_attn.bias", "F16", 0, 12, 0);
    files_st_tensor(&s, "h.0.attn.c_proj.weight", "F16", 4, 4, 0);
    files_st_tensor(&s, "h.0.attn.c_proj.bias", "F16", 0, 4, 0);
    files_st_tensor(&s, "h.0.mlp.c_fc.weight", "F16", 4, 16, 0);
    files_st_tensor(&s, "h.0.mlp.c_fc.bias", "F16", 0, 16, 0);
    files_st_tensor(&s, "h.0.mlp.c_proj.weight", "F16", 16, 4, 0);
    files_st_tensor(&s, "h.0.mlp.c_proj.bias", "F16", 0, 4, 0);
    return files_st_finish(&s, config);
}

static const char files_gpt2_config[] =
    "{\"n_embd\":4,\"n_head\":2,\"n_layer\":1,\"vocab_size\":3,\"n_positions\":5,\"n_inner\":null}";

static void files_broken_gpt2_safetensors(void) {
    files_case c = files_st_gpt2(files_gpt2_config);
    c.header = 8 + (size_t)sm__get64(c.data);
    files_case_all(&c);
}

static void files_broken_config(void) {
    static const int values[] = {0, '"', '{', '}', '[', ',', '-', '9', 'e', '\\', 0xff};
    files_case c = files_st_gpt2(files_gpt2_config);
    size_t n = sizeof files_gpt2_config - 1, i;
    guard g = guard_make(n);
    sm_model_params p = files_case_params(&c);
    int v;
    for (i = 1; i < n; i++) {
        memcpy(g.end - i, files_gpt2_config, i);
        p.config.data = g.end - i;
        p.config.bytes = i;
        CHECK_STATUS(files_try(&p, c.data, c.n), SM_ERR_FORMAT);
    }
    memcpy(g.end - n, files_gpt2_config, n);
    p.config.data = g.end - n;
    p.config.bytes = n;
    for (i = 0; i < n; i++)
        for (v = 0; v < 11; v++) {
            g.end[(ptrdiff_t)i - (ptrdiff_t)n] = (uint8_t)values[v];
            files_try(&p, c.data, c.n);
            g.end[(ptrdiff_t)i - (ptrdiff_t)n] = (uint8_t)files_gpt2_config[i];
        }
    guard_free(&g);
    free(c.data);
}

/* --- JSON and numbers ------------------------------------------------------------------------- */

static int files_json_ok(const char *text, size_t n) {
    guard g = guard_make(n);
    sm__json j;
    memcpy(g.end - n, text, n);
    j = sm__json_make(g.end - n, n);
    sm__json_skip(&j);
    sm__json_peek(&j);
    n = !j.bad && j.p == j.end;
    guard_free(&g);
    return (int)n;
}

static void files_json(void) {
    static const char *const good[] = {"0",
                                       "-0",
                                       "-1.5e+3",
                                       "\"\"",
                                       "\"\\ud83d\\ude00\"",
                                       "[]",
                                       "{}",
                                       "[1,[2,{\"a\":[]}],null]",
                                       " { \"a\" : true } ",
                                       "[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]"};
    static const char *const bad[] = {
        "",    " ",         "01",         "1.",     ".5",        "+1",       "1e",   "-",
        "\"",  "\"\\x\"",   "\"\\u12\"",  "\"\n\"", "[1 2]",     "[1,]",     "[,1]", "{1:2}",
        "tru", "{\"a\" 1}", "{\"a\":1,}", "[1}",    "{\"a\":1]", "]",        "[[",   "{",
        "1 2", "\"a\\",     "\"\\u00",    "nul",    "{\"a\":}",  "[\"a\":1]"};
    static const char deep[] = "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]"
                               "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]"
                               "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]";
    char text[64];
    sm__str s;
    size_t i;
    for (i = 0; i < sizeof good / sizeof *good; i++)
        if (!files_json_ok(good[i], strlen(good[i]))) FAIL("refused: %s", good[i]);
    for (i = 0; i < sizeof bad / sizeof *bad; i++)
        if (files_json_ok(bad[i], strlen(bad[i]))) FAIL("accepted: %s", bad[i]);
    CHECK(!files_json_ok(deep, 130) && files_json_ok(deep + 1, 128)); /* 65 and 64 levels */
    s = sm__str_of("a\\\"\\n\\u0041\\u00e9\\u20ac\\ud83d\\ude00\\ud83dx\\udc00");
    CHECK(sm__json_text(s, text, sizeof text) == 20);
    CHECK_STR(text, "a\"\nA\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xef\xbf\xbdx\xef\xbf\xbd");
    CHECK(sm__json_text(s, text, 4) == 20);
    CHECK_STR(text, "a\"\n");
}

/* JSONTestSuite: y_ accepted, n_ refused; bytes that are no UTF-8 are not judged here. */
static void files_json_suite(void) {
    static const char *const names[] = {"y_array_heterogeneous.json",
                                        "y_number_real_exponent.json",
                                        "y_object_duplicated_key.json",
                                        "y_string_allowed_escapes.json",
                                        "y_structure_whitespace_array.json",
                                        "n_array_extra_comma.json",
                                        "n_number_-01.json",
                                        "n_object_trailing_comma.json",
                                        "n_string_1_surrogate_then_escape.json",
                                        "n_structure_100000_opening_arrays.json",
                                        "n_structure_open_array_object.json",
                                        "n_string_unescaped_tab.json"};
    size_t i, n;
    for (i = 0; i < sizeof names / sizeof *names; i++) {
        char path[128];
        uint8_t *data;
        snprintf(path, sizeof path, "json/JSONTestSuite/test_parsing/%s", names[i]);
        data = file_read(data_path(path), &n);
        if (!data) return;
        if (files_json_ok((const char *)data, n) != (names[i][0] == 'y')) FAIL("%s", names[i]);
        free(data);
    }
}

static void files_numbers(void) {
    static const struct {
        const char *text;
        double want;
    } list[] = {{"0", 0},
                {"-0.0", 0},
                {"1e-05", 1e-05},
                {"1e-6", 1e-6},
                {"10000.0", 1e4},
                {"5e5", 5e5},
                {"0.1", 0.1},
                {"123456789012345", 123456789012345.0},
                {"1e22", 1e22},
                {"-2.5E+3", -2500},
                {"1.0000000000000000000000", 1.0},
                {"1e-400", 0},
                {"0e999999999", 0},
                {"0.000001", 1e-6}};
    size_t i;
    for (i = 0; i < sizeof list / sizeof *list; i++) {
        const uint8_t *p = (const uint8_t *)list[i].text, *end = p + strlen(list[i].text);
        double v = 7;
        int sure;
        CHECK(sm__parse_number(&p, end, &v, &sure) && p == end);
        if (v != list[i].want) FAIL("%s became %.17g", list[i].text, v);
    }
    for (i = 0; i < 2000; i++) { /* what is printed reads back as the same float */
        float f = sm__from_bits(random_u32());
        char text[64];
        sm__text t = sm__text_make(text, sizeof text);
        const uint8_t *p = (const uint8_t *)text;
        double v = 0;
        int sure;
        if (sm__not_finite(f)) continue;
        sm__put_real(&t, f, 1);
        CHECK(sm__parse_number(&p, p + t.at, &v, &sure) && p == (const uint8_t *)text + t.at);
        if ((float)v != f) FAIL("%.9g was printed as %s", (double)f, text);
        CHECK(t.at < 20);
    }
}

static void files_sorting(void) {
    static char names[1000][8];
    sm__named list[1000];
    int n, i, round;
    for (round = 0; round < 50; round++) {
        n = 1 + random_below(round == 0 ? 1 : 1000);
        for (i = 0; i < n; i++) {
            snprintf(names[i], sizeof names[i], "%.*d", 1 + i % 6,
                     (i * 7919 + round) % 1000 + i * 1000);
            list[i].name = sm__str_of(names[i]);
            list[i].i = i;
        }
        sm__named_sort(list, n);
        for (i = 1; i < n; i++) CHECK(sm__str_order(list[i - 1].name, list[i].name) <= 0);
        for (i = 0; i < n; i++) {
            int at = sm__named_find(list, n, sm__str_of(names[i]));
            CHECK(at >= 0 && strcmp(names[at], names[i]) == 0);
        }
        CHECK(sm__named_find(list, n, sm__str_of("x")) == -1);
    }
}

static const test tests_files[] = {
    {"files: five real models have the numbers that are known of them", files_known},
    {"files: five real vocabularies open, with vocab_only and without", files_vocabularies},
    {"files: .bin and .gguf of one model hold the same bits", files_same_model},
    {"files: Conv1D matrices are transposed, Linear ones are not", files_conv1d},
    {"files: a CS336 model opens with a config from memory", files_cs336},
    {"files: path, memory and callback, mapped or copied, give the same model", files_ways_in},
    {"files: a failing or cancelling callback stops at once", files_callback_fails},
    {"files: a file that was cut is refused by its path, too", files_cut_by_path},
    {"files: bad arguments and things that are no files", files_bad_arguments},
    {"gguf: versions 1, 2 and 3 read equal for every architecture and type", files_gguf_versions},
    {"gguf: every type of metadata value as text", files_gguf_values},
    {"gguf: keys of hyperparameters, their defaults and limits", files_gguf_keys},
    {"gguf: missing, unknown and unsupported tensors", files_gguf_tensors},
    {"gguf: vocab_only needs no known architecture or type", files_vocab_only},
    {"gguf: files that crashed other loaders are refused", files_gguf_bad},
    {"gguf: versions that do not exist, and big-endian files", files_gguf_header},
    {"gguf: strings longer than the file (CVE-2024-23496)", files_cve_string},
    {"gguf: counts that overflow (CVE-2024-21802)", files_cve_counts},
    {"gguf: arrays of strings that wrap (CVE-2024-25664)", files_cve_arrays},
    {"gguf: reading that stops in the middle (CVE-2024-32878)", files_cve_half_read},
    {"gguf: templates are only text (CVE-2024-34359)", files_cve_template},
    {"gguf: lengths of tokens beyond 32 bits (CVE-2025-49847)", files_cve_token_length},
    {"gguf: counts of tokens, scores and types (CVE-2025-52566)", files_cve_token_count},
    {"gguf: sizes whose sum wraps (CVE-2025-53630, CVE-2026-27940)", files_cve_sum},
    {"gguf: dimensions whose product wraps (CVE-2026-33298)", files_cve_product},
    {"gguf: shapes that promise too much (CVE-2026-7482, CVE-2026-53923)", files_cve_shapes},
    {"gguf: arrays of another element type (llama.cpp#26690)", files_cve_element_type},
    {"gguf: zero dimensions, empty and repeated names (llama.cpp#24263)", files_cve_empty},
    {"gguf: alignments and offsets (llama.cpp#24997, #26318, ggml#1516)", files_cve_alignment},
    {"gguf: byte tokens that name no byte (llama.cpp#25969, #27226)", files_cve_byte_token},
    {"gguf: none or more than four dimensions (whisper.cpp#3787, #3944)", files_cve_dimensions},
    {"gguf: small files take little time (llama.cpp#27188)", files_cve_time},
    {"gguf: a llama model cut and changed at every byte", files_broken_llama},
    {"gguf: a gpt2 model of version 1 cut and changed at every byte", files_broken_gpt2_v1},
    {"gguf: a SentencePiece vocabulary cut and changed at every byte", files_broken_spm},
    {"gguf: a BPE vocabulary cut and changed at every byte", files_broken_bpe},
    {"llama2.c: the order of the tensors", files_llama2c_layout},
    {"llama2.c: versions 1 and 2 hold the bits of version 0", files_llama2c_versions},
    {"llama2.c: other versions, sizes and groups are refused", files_llama2c_refused},
    {"llama2.c: models cut and changed at every byte", files_broken_llama2c},
    {"llama2.c: a tokenizer.bin cut and changed at every byte", files_broken_tokenizer_bin},
    {"safetensors: llama, mistral, qwen2 and qwen3 in three types", files_st_variants},
    {"safetensors: what config.json may say", files_st_config},
    {"safetensors: rotary scaling", files_st_scaling},
    {"safetensors: tied embeddings", files_st_tied},
    {"safetensors: malformed headers are refused", files_st_refused},
    {"safetensors: data without an owner, names with escapes", files_st_data},
#ifndef SMALLMIND_NO_STDIO
#ifndef SMALLMIND_NO_CHAT
    {"safetensors: a chat template beside it", files_st_chat_template},
#endif
    {"safetensors: shards open by index, shard or folder", files_st_shards},
    {"files: tokenizer.json", files_tokenizer_json},
    {"files: bad tokenizer.json is refused", files_tokenizer_json_refused},
    {"safetensors: an index that says what is not so is refused", files_index_refused},
    {"safetensors: shards cut, doubled, or without memory", files_broken_shards},
#endif
    {"safetensors: a llama model cut and changed at every byte", files_broken_safetensors},
    {"safetensors: a gpt2 model cut and changed at every byte", files_broken_gpt2_safetensors},
    {"safetensors: a config.json cut and changed at every byte", files_broken_config},
    {"json: what is JSON and what is not", files_json},
    {"json: samples of JSONTestSuite", files_json_suite},
    {"json: numbers are read and printed exactly", files_numbers},
    {"files: names are sorted and found", files_sorting},
};

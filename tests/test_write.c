/* test_write.c - writing GGUF files: what is written reads back the same, nothing stays behind when
 * anything fails; quantising and converting whole models. Included by test.c after test_model.c. */
#ifndef _WIN32
#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#endif

/* --- a file in memory ------------------------------------------------------------------------ */

typedef struct write_sink {
    gguf_buf file;
    size_t limit; /* the write that would pass it fails */
} write_sink;

static int write_take(void *user, const void *bytes, size_t n) {
    write_sink *s = (write_sink *)user;
    if (n > s->limit - s->file.n) return 28;
    gguf_bytes(&s->file, bytes, n);
    return 0;
}

static write_sink write_empty(void) {
    write_sink s;
    memset(&s, 0, sizeof s);
    s.limit = SIZE_MAX;
    return s;
}

static void write_drop(write_sink *s) {
    free(s->file.p);
    *s = write_empty();
}

static sm_writer_params write_to(write_sink *s) {
    sm_writer_params p = sm_writer_default();
    p.write = write_take;
    p.user = s;
    p.allocator = heap_allocator();
    return p;
}

static sm_writer *write_open(const sm_writer_params *p) {
    sm_writer *w = NULL;
    sm_error error;
    if (sm_writer_open(p, &w, &error)) FAIL("%s", error.text);
    return w;
}

static sm_model *write_read(const write_sink *s) {
    sm_model *m = NULL;
    sm_error error;
    if (files_open(s->file.p, s->file.n, &m, &error)) FAIL("%s", error.text);
    return m;
}

/* All of a model: metadata, then tensors in pieces of `piece` bytes. The status of the end. */
static sm_status write_model(const sm_writer_params *p, const sm_model *m, size_t piece,
                             sm_error *error) {
    sm_writer *w = NULL;
    gguf_buf all = {NULL, 0, 0};
    size_t at;
    int i;
    sm_tensor t;
    sm_status status = sm_writer_open(p, &w, error);
    if (status) return status;
    sm_writer_copy(w, m, NULL, 0);
    for (i = 0; sm_model_tensor(m, i, &t) == SM_OK; i++) {
        sm_writer_tensor(w, t.name, t.type, t.n_dims, t.dims);
        gguf_bytes(&all, t.data, t.bytes);
    }
    for (at = 0; at < all.n; at += piece)
        sm_writer_data(w, all.p + at, sm__min_size(piece, all.n - at));
    free(all.p);
    return sm_writer_finish(w, error);
}

static sm_model *write_tiny(void) {
    gguf_model_params p = files_tiny("llama", SM_TYPE_Q8_0);
    return gguf_model_open(&p);
}

/* --- round trips ----------------------------------------------------------------------------- */

typedef struct write_value {
    const char *key;
    int type;
    const void *value;
    size_t bytes;
} write_value;

static void write_every_value(void) {
    static const uint8_t u8 = 200, yes = 1, bools[3] = {1, 0, 1};
    static const int8_t i8 = -100;
    static const uint16_t u16 = 65000;
    static const int16_t i16 = -32000;
    static const uint32_t u32 = 4000000000u, list[3] = {1, 2, 0xffffffffu};
    static const int32_t i32 = -2000000000;
    static const float f32 = 0.1f;
    static const uint64_t u64 = 0xfedcba9876543210u;
    static const int64_t i64 = -0x123456789abcdefLL;
    static const double f64 = 0.1;
    static const char *const texts[4] = {"", "one", "zwei \xc3\xa9", "a text that is longer"};
    const write_value values[] = {
        {"a.u8", SM_META_U8, &u8, 1},     {"a.i8", SM_META_I8, &i8, 1},
        {"a.u16", SM_META_U16, &u16, 2},  {"a.i16", SM_META_I16, &i16, 2},
        {"a.u32", SM_META_U32, &u32, 4},  {"a.i32", SM_META_I32, &i32, 4},
        {"a.f32", SM_META_F32, &f32, 4},  {"a.bool", SM_META_BOOL, &yes, 1},
        {"a.u64", SM_META_U64, &u64, 8},  {"a.i64", SM_META_I64, &i64, 8},
        {"a.f64", SM_META_F64, &f64, 8},
    };
    const int n = (int)(sizeof values / sizeof *values);
    write_sink s = write_empty();
    sm_writer_params p = write_to(&s);
    sm_writer *w = write_open(&p);
    sm_model *tiny = write_tiny(), *m;
    char key[32], text[64];
    sm__str *strings;
    sm_tensor t;
    int i, j;
    for (i = 0; i < n; i++) {
        char many[8 * 5];
        CHECK_STATUS(sm_writer_value(w, values[i].key, values[i].type, values[i].value), SM_OK);
        for (j = 0; j < 5; j++)
            memcpy(many + values[i].bytes * (size_t)j, values[i].value, values[i].bytes);
        snprintf(key, sizeof key, "%s.list", values[i].key);
        CHECK_STATUS(sm_writer_array(w, key, values[i].type, many, 5), SM_OK);
        snprintf(key, sizeof key, "%s.none", values[i].key);
        CHECK_STATUS(sm_writer_array(w, key, values[i].type, NULL, 0), SM_OK);
    }
    CHECK_STATUS(sm_writer_value(w, "a.text", SM_META_TEXT, texts[3]), SM_OK);
    CHECK_STATUS(sm_writer_value(w, "a.empty", SM_META_TEXT, ""), SM_OK);
    CHECK_STATUS(sm_writer_array(w, "a.texts", SM_META_TEXT, texts, 4), SM_OK);
    CHECK_STATUS(sm_writer_array(w, "a.bools", SM_META_BOOL, bools, 3), SM_OK);
    CHECK_STATUS(sm_writer_array(w, "a.u32s", SM_META_U32, list, 3), SM_OK);
    CHECK_STATUS(sm_writer_copy(w, tiny, NULL, 0), SM_OK);
    for (i = 0; sm_model_tensor(tiny, i, &t) == SM_OK; i++)
        CHECK_STATUS(sm_writer_tensor(w, t.name, t.type, t.n_dims, t.dims), SM_OK);
    for (i = 0; sm_model_tensor(tiny, i, &t) == SM_OK; i++)
        CHECK_STATUS(sm_writer_data(w, t.data, t.bytes), SM_OK);
    CHECK_STATUS(sm_writer_finish(w, NULL), SM_OK);
    m = write_read(&s);
    CHECK(m && sm_model_get_info(m)->n_meta == sm_model_get_info(tiny)->n_meta + 3 * n + 5);
    for (i = 0; m && i < n; i++) {
        const sm__meta *one = sm__meta_find(m, values[i].key), *many;
        snprintf(key, sizeof key, "%s.list", values[i].key);
        many = sm__meta_find(m, key);
        if (!CHECK(one && many && one->type == values[i].type && many->type == SM__GGUF_ARRAY))
            continue;
        CHECK(one->bytes == values[i].bytes && !memcmp(one->data, values[i].value, one->bytes));
        CHECK(many->elem_type == values[i].type && many->count == 5);
        CHECK(!memcmp(many->data + 4 * one->bytes, values[i].value, one->bytes));
        snprintf(key, sizeof key, "%s.none", values[i].key);
        many = sm__meta_find(m, key);
        CHECK(many && many->count == 0 && many->elem_type == values[i].type);
    }
    CHECK_STR(sm_model_meta(m, "a.text", text, sizeof text), texts[3]);
    CHECK_STR(sm_model_meta(m, "a.empty", text, sizeof text), "");
    CHECK_STR(sm_model_meta(m, "a.texts", text, sizeof text), "[string x 4]");
    CHECK_STR(sm_model_meta(m, "a.i64", text, sizeof text), "-81985529216486895");
    if (m && CHECK_STATUS(sm__gguf_strings(m, "a.texts", &strings, &j, NULL), SM_OK))
        for (i = 0; i < j; i++) CHECK(sm__str_is(strings[i], texts[i]));
    CHECK(j == 4);
    sm_model_close(m);
    sm_model_close(tiny);
    write_drop(&s);
}

/* A copy of a model is the file it came from, whatever its version, and whatever the pieces were;
 * the end is padded, as llama.cpp does it. */
static void write_copies(void) {
    static const char *const archs[] = {"llama", "qwen2", "qwen3", "gpt2", "cs336"};
    static const size_t pieces[] = {1, 7, 4096, SIZE_MAX};
    int a, version, k;
    for (a = 0; a < 5; a++)
        for (version = 1; version <= 3; version++)
            for (k = 0; k < (a ? 1 : 4); k++) {
                gguf_model_params p = gguf_model_default(archs[a], SM_TYPE_F32);
                write_sink s = write_empty();
                sm_writer_params wp = write_to(&s);
                sm_model *m;
                sm_error error;
                size_t n, i;
                uint8_t *file;
                p.version = version;
                m = gguf_model_open(&p);
                p.version = 3;
                file = gguf_model(&p, &n);
                CHECK_STATUS(write_model(&wp, m, pieces[a ? 2 : k], &error), SM_OK);
                CHECK(s.file.n == sm__round_up(n, 32) && memcmp(s.file.p, file, n) == 0);
                for (i = n; i < s.file.n; i++) CHECK(s.file.p[i] == 0);
                free(file);
                write_drop(&s);
                sm_model_close(m);
            }
}

static void write_alignments(void) {
    static const uint32_t good[] = {8, 16, 32, 64, 4096, 1u << 20};
    static const uint32_t bad[] = {1, 4, 24, 33, 1u << 21, 0xffffffffu};
    sm_model *m = write_tiny(), *back;
    sm_error error;
    size_t i;
    int k;
    sm_tensor t, u;
    for (i = 0; i < 6; i++) {
        write_sink s = write_empty();
        sm_writer_params p = write_to(&s);
        sm_writer *w;
        p.alignment = good[i];
        CHECK_STATUS(write_model(&p, m, 1000, &error), SM_OK);
        back = write_read(&s);
        CHECK(s.file.n % good[i] == 0);
        for (k = 0; back && sm_model_tensor(back, k, &t) == SM_OK; k++) {
            CHECK((size_t)((const uint8_t *)t.data - s.file.p) % good[i] == 0);
            sm_model_tensor(m, k, &u);
            CHECK(t.bytes == u.bytes && memcmp(t.data, u.data, t.bytes) == 0);
        }
        CHECK(back && (sm_model_meta(back, "general.alignment", NULL, 0) != NULL) ==
                          (good[i] != 32));
        sm_model_close(back);
        if (i == 3) { /* a copy of a copy has the writer's alignment, not the file's */
            write_sink twice = write_empty();
            sm_writer_params q = write_to(&twice);
            back = write_read(&s);
            CHECK_STATUS(write_model(&q, back, 1000, &error), SM_OK);
            CHECK(twice.file.n % 32 == 0 && twice.file.n < s.file.n);
            sm_model_close(back);
            write_drop(&twice);
        }
        write_drop(&s);
        p.alignment = bad[i];
        CHECK_STATUS(sm_writer_open(&p, &w, &error), SM_ERR_ARG);
        CHECK(w == NULL);
    }
    sm_model_close(m);
}

/* No tensors, no metadata: a header. With a vocabulary alone it can be opened. */
static void write_nothing(void) {
    static const uint8_t header[32] = {'G', 'G', 'U', 'F', 3};
    gguf_model_params gp = gguf_model_default("llama", SM_TYPE_F32);
    write_sink s = write_empty();
    sm_writer_params p = write_to(&s);
    sm_model_params mp = sm_model_default();
    sm_model *m = gguf_model_open(&gp), *back = NULL;
    sm_error error;
    sm_writer *w = write_open(&p);
    CHECK_STATUS(sm_writer_finish(w, &error), SM_OK);
    CHECK(s.file.n == 32 && !memcmp(s.file.p, header, 32));
    write_drop(&s);
    w = write_open(&p);
    CHECK_STATUS(sm_writer_copy(w, m, NULL, 0), SM_OK);
    CHECK_STATUS(sm_writer_data(w, NULL, 0), SM_OK);
    CHECK_STATUS(sm_writer_finish(w, &error), SM_OK);
    mp.file.data = s.file.p;
    mp.file.bytes = s.file.n;
    mp.vocab_only = 1;
    mp.allocator = heap_allocator();
    CHECK_STATUS(sm_model_open(&mp, &back, &error), SM_OK);
    CHECK(back && sm_model_get_info(back)->n_vocab == 320);
    sm_model_close(back);
    sm_model_close(m);
    write_drop(&s);
}

static void write_exceptions(void) {
    static const char *const except[] = {"general.name", "llama.vocab_size", "none.such"};
    write_sink s = write_empty();
    sm_writer_params p = write_to(&s);
    sm_writer *w = write_open(&p);
    gguf_model_params gp = gguf_model_default("llama", SM_TYPE_F32);
    sm_model *m = gguf_model_open(&gp), *back = NULL;
    sm_model_params mp = sm_model_default();
    sm_error error;
    char text[32];
    CHECK_STATUS(sm_writer_copy(w, m, except, 3), SM_OK);
    CHECK_STATUS(sm_writer_value(w, "general.name", SM_META_TEXT, "another"), SM_OK);
    CHECK_STATUS(sm_writer_finish(w, &error), SM_OK);
    mp.file.data = s.file.p;
    mp.file.bytes = s.file.n;
    mp.vocab_only = 1;
    mp.allocator = heap_allocator();
    CHECK_STATUS(sm_model_open(&mp, &back, &error), SM_OK);
    CHECK(back && sm_model_get_info(back)->n_meta == sm_model_get_info(m)->n_meta);
    CHECK_STR(sm_model_meta(back, "general.name", text, sizeof text), "another");
    sm_model_close(back);
    sm_model_close(m);
    write_drop(&s);
}

/* --- what is refused ------------------------------------------------------------------------- */

/* The writer failed with these words, and goes on failing; it is gone afterwards. */
static void write_refused(int line, sm_writer *w, sm_status want, const char *words) {
    static const uint32_t v = 1;
    sm_error error;
    sm_status status;
    if (!w) return;
    if (!strstr(sm_writer_error(w), words))
        check_fail(__FILE__, line, "\"%s\" should say \"%s\"", sm_writer_error(w), words);
    CHECK_STATUS(sm_writer_value(w, "later", SM_META_U32, &v), want);
    CHECK_STATUS(sm_writer_data(w, &v, 4), want);
    memset(&error, 0, sizeof error);
    status = sm_writer_finish(w, &error);
    if (status != want || error.status != want || !strstr(error.text, words))
        check_fail(__FILE__, line, "status %d, \"%s\"; wanted %d, \"%s\"", status, error.text, want,
                   words);
}
#define WRITE_REFUSED(w, status, words) write_refused(__LINE__, w, status, words)

static void write_bad_keys(void) {
    static const uint32_t v = 1;
    static const uint8_t two = 2;
    write_sink s = write_empty();
    sm_writer_params p = write_to(&s);
    sm_writer *w;
    int type;
    char *key = (char *)calloc(1, 65537);
    if (!key) exit(3);
    memset(key, 'k', 65536);
    w = write_open(&p);
    CHECK_STATUS(sm_writer_value(w, key, SM_META_U32, &v), SM_ERR_ARG);
    WRITE_REFUSED(w, SM_ERR_ARG, "65536 bytes");
    key[65535] = 0;
    w = write_open(&p);
    CHECK_STATUS(sm_writer_value(w, key, SM_META_U32, &v), SM_OK);
    CHECK_STATUS(sm_writer_finish(w, NULL), SM_OK);
    CHECK(s.file.n > 65535 && !memcmp(s.file.p + 32, key, 65535));
    write_drop(&s);
    w = write_open(&p);
    CHECK_STATUS(sm_writer_value(w, "", SM_META_U32, &v), SM_ERR_ARG);
    WRITE_REFUSED(w, SM_ERR_ARG, "key");
    w = write_open(&p);
    CHECK_STATUS(sm_writer_value(w, "general.alignment", SM_META_U32, &v), SM_ERR_ARG);
    WRITE_REFUSED(w, SM_ERR_ARG, "general.alignment");
    w = write_open(&p);
    CHECK_STATUS(sm_writer_value(w, "k", SM_META_BOOL, &two), SM_ERR_ARG);
    WRITE_REFUSED(w, SM_ERR_ARG, "bool");
    w = write_open(&p);
    CHECK_STATUS(sm_writer_value(w, "k", SM_META_U32, NULL), SM_ERR_ARG);
    WRITE_REFUSED(w, SM_ERR_ARG, "key k");
    w = write_open(&p);
    CHECK_STATUS(sm_writer_array(w, NULL, SM_META_U32, &v, 1), SM_ERR_ARG);
    WRITE_REFUSED(w, SM_ERR_ARG, "key");
    w = write_open(&p); /* sizes that do not fit into memory, let alone a file */
    CHECK_STATUS(sm_writer_array(w, "k", SM_META_U64, &v, SIZE_MAX / 2), SM_ERR_NOMEM);
    WRITE_REFUSED(w, SM_ERR_NOMEM, "memory");
    for (type = -1; type < 15; type++) {
        if (type != -1 && type != 9 && type < 13) continue;
        w = write_open(&p);
        CHECK_STATUS(sm_writer_value(w, "k", type, &v), SM_ERR_ARG);
        WRITE_REFUSED(w, SM_ERR_ARG, "such type");
    }
    w = write_open(&p);
    CHECK_STATUS(sm_writer_value(w, "b.x", SM_META_U32, &v), SM_OK);
    CHECK_STATUS(sm_writer_value(w, "a.x", SM_META_U32, &v), SM_OK);
    CHECK_STATUS(sm_writer_value(w, "b.x", SM_META_TEXT, "other"), SM_OK);
    CHECK_STATUS(sm_writer_data(w, NULL, 0), SM_ERR_ARG);
    WRITE_REFUSED(w, SM_ERR_ARG, "key b.x is there twice");
    CHECK(s.file.n == 0);
    free(key);
}

static void write_bad_tensors(void) {
    static const struct {
        const char *name, *words;
        int type, n_dims;
        uint64_t dims[4];
        sm_status status;
    } bad[] = {
        {"", "name of 0 bytes", 0, 1, {4, 1, 1, 1}, SM_ERR_ARG},
        {NULL, "(none)", 0, 1, {4, 1, 1, 1}, SM_ERR_ARG},
        {"a.weight", "a.weight", 0, 0, {4, 1, 1, 1}, SM_ERR_ARG},
        {"a.weight", "a.weight", 0, 5, {4, 1, 1, 1}, SM_ERR_ARG},
        {"a.weight", "is empty", 0, 2, {4, 0, 1, 1}, SM_ERR_ARG},
        {"a.weight", "type (4)", 4, 1, {32, 1, 1, 1}, SM_ERR_ARG},
        {"a.weight", "type (-1)", -1, 1, {32, 1, 1, 1}, SM_ERR_ARG},
        {"a.weight", "type (99)", 99, 1, {32, 1, 1, 1}, SM_ERR_ARG},
        {"a.weight", "shape", SM_TYPE_Q8_0, 2, {33, 1, 1, 1}, SM_ERR_ARG},
        {"a.weight", "shape", SM_TYPE_Q4_K, 2, {128, 2, 1, 1}, SM_ERR_ARG},
        {"a.weight", "too large", 0, 4, {1u << 31, 1u << 31, 4, 4}, SM_ERR_FULL},
        {"a.weight", "too large", 0, 2, {1u << 31, 1u << 31, 1, 1}, SM_ERR_FULL},
    };
    static const uint64_t four = 4, large[2] = {(uint64_t)1 << 31, ((uint64_t)1 << 29) - 1};
    char name[65];
    write_sink s = write_empty();
    sm_writer_params p = write_to(&s);
    sm_writer *w;
    size_t i;
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        w = write_open(&p);
        CHECK_STATUS(sm_writer_tensor(w, bad[i].name, bad[i].type, bad[i].n_dims, bad[i].dims),
                     bad[i].status);
        WRITE_REFUSED(w, bad[i].status, bad[i].words);
    }
    w = write_open(&p); /* each fits, both do not */
    CHECK_STATUS(sm_writer_tensor(w, "a", SM_TYPE_F32, 2, large), SM_OK);
    CHECK_STATUS(sm_writer_tensor(w, "b", SM_TYPE_F32, 2, large), SM_OK);
    CHECK_STATUS(sm_writer_tensor(w, "c", SM_TYPE_F32, 2, large), SM_ERR_FULL);
    WRITE_REFUSED(w, SM_ERR_FULL, "tensor c is too large");
    memset(name, 'n', 64);
    name[64] = 0;
    w = write_open(&p);
    CHECK_STATUS(sm_writer_tensor(w, name, 0, 1, &four), SM_ERR_ARG);
    WRITE_REFUSED(w, SM_ERR_ARG, "64 bytes");
    name[63] = 0;
    w = write_open(&p);
    CHECK_STATUS(sm_writer_tensor(w, name, 0, 1, &four), SM_OK);
    CHECK_STATUS(sm_writer_tensor(w, "b", 0, 1, &four), SM_OK);
    CHECK_STATUS(sm_writer_tensor(w, name, SM_TYPE_F16, 1, &four), SM_OK);
    CHECK_STATUS(sm_writer_data(w, "0123", 4), SM_ERR_ARG);
    WRITE_REFUSED(w, SM_ERR_ARG, "nnn is there twice");
    CHECK(s.file.n == 0);
}

/* Too little, too much, too late. */
static void write_bad_order(void) {
    static const uint64_t dims[2] = {4, 2};
    static const char data[40] = "";
    write_sink s = write_empty();
    sm_writer_params p = write_to(&s);
    sm_writer *w = write_open(&p);
    sm_writer_tensor(w, "a", 0, 2, dims);
    sm_writer_tensor(w, "b", 0, 1, dims);
    CHECK_STATUS(sm_writer_data(w, data, 31), SM_OK);
    CHECK_STATUS(sm_writer_finish(w, NULL), SM_ERR_ARG);
    w = write_open(&p);
    sm_writer_tensor(w, "a", 0, 2, dims);
    sm_writer_tensor(w, "b", 0, 1, dims);
    CHECK_STATUS(sm_writer_data(w, data, 32), SM_OK);
    CHECK_STATUS(sm_writer_tensor(w, "c", 0, 1, dims), SM_ERR_ARG);
    WRITE_REFUSED(w, SM_ERR_ARG, "no more can be declared");
    w = write_open(&p);
    sm_writer_tensor(w, "a", 0, 2, dims);
    CHECK_STATUS(sm_writer_data(w, data, 33), SM_ERR_ARG);
    WRITE_REFUSED(w, SM_ERR_ARG, "1 bytes more");
    w = write_open(&p);
    CHECK_STATUS(sm_writer_data(w, data, 1), SM_ERR_ARG);
    sm_writer_discard(w);
    w = write_open(&p);
    CHECK_STATUS(sm_writer_data(w, NULL, 1), SM_ERR_ARG);
    sm_writer_discard(w);
    sm_writer_discard(NULL);
    CHECK_STATUS(sm_writer_finish(NULL, NULL), SM_ERR_ARG);
    CHECK_STATUS(sm_writer_data(NULL, data, 1), SM_ERR_ARG);
    CHECK_STATUS(sm_writer_value(NULL, "k", 0, data), SM_ERR_ARG);
    CHECK_STR(sm_writer_error(NULL), "");
    write_drop(&s);
    p.path = "x"; /* and write */
    CHECK_STATUS(sm_writer_open(&p, &w, NULL), SM_ERR_ARG);
    p = sm_writer_default(); /* neither */
    CHECK_STATUS(sm_writer_open(&p, &w, NULL), SM_ERR_ARG);
    CHECK_STATUS(sm_writer_open(NULL, &w, NULL), SM_ERR_ARG);
    p.path = "";
    CHECK_STATUS(sm_writer_open(&p, &w, NULL), SM_ERR_ARG);
    CHECK_STATUS(sm_writer_open(&p, NULL, NULL), SM_ERR_ARG);
}

/* The write that reaches byte n fails, for every n of a small file, and every 997th of one that is
 * larger than the writer's buffer. */
static void write_fails_everywhere(void) {
    gguf_model_params large = gguf_model_default("llama", SM_TYPE_F32);
    int k;
    for (k = 0; k < 2; k++) {
        sm_model *m = k ? gguf_model_open(&large) : write_tiny();
        write_sink s = write_empty();
        sm_writer_params p = write_to(&s);
        sm_error error;
        size_t n, total;
        CHECK_STATUS(write_model(&p, m, 5000, &error), SM_OK);
        total = s.file.n;
        write_drop(&s);
        for (n = 0; n < total; n += k ? 997 : 1) {
            s.limit = n;
            memset(&error, 0, sizeof error);
            if (!CHECK_STATUS(write_model(&p, m, 5000, &error), SM_ERR_IO)) break;
            CHECK_STR(error.text, "writing the file failed (error 28)");
            CHECK(s.file.n <= n);
            write_drop(&s);
        }
        sm_model_close(m);
    }
}

/* Every allocation of a call fails once: a clean status, nothing leaked. */
static void write_fail_each(sm_status (*call)(const sm_model *m, write_sink *s, sm_error *error),
                            uint32_t least) {
    sm_model *m = write_tiny();
    uint32_t k;
    sm_status status = SM_ERR_NOMEM;
    for (k = 1; status == SM_ERR_NOMEM && k < 100; k++) {
        write_sink s = write_empty();
        sm_error error;
        uint32_t held = heap.held;
        heap_fail(k);
        status = call(m, &s, &error);
        heap_fail(0);
        CHECK(status == SM_OK || (status == SM_ERR_NOMEM && strstr(error.text, "memory")));
        CHECK(heap.held == held);
        write_drop(&s);
    }
    CHECK(status == SM_OK && k > least);
    sm_model_close(m);
}

static sm_status write_some_model(const sm_model *m, write_sink *s, sm_error *error) {
    sm_writer_params p = write_to(s);
    return write_model(&p, m, 100, error);
}

static void write_out_of_memory(void) { write_fail_each(write_some_model, 4); }

/* --- by path --------------------------------------------------------------------------------- */

#ifndef _WIN32
static char write_folder[64], write_path[96];

/* A new folder with a file "model" that holds "old". 0 = that is not possible here. */
static int write_folder_make(void) {
    FILE *f;
    snprintf(write_folder, sizeof write_folder, "build/test_write.%llx",
             (unsigned long long)sm__now_ns());
    snprintf(write_path, sizeof write_path, "%s/model", write_folder);
    if (mkdir(write_folder, 0777)) return 0;
    f = fopen(write_path, "wb");
    if (!f) return 0;
    fputs("old", f);
    return fclose(f) == 0;
}

static int write_folder_count(void) {
    DIR *dir = opendir(write_folder);
    struct dirent *e;
    int n = 0;
    while (dir && (e = readdir(dir)) != NULL) n += e->d_name[0] != '.';
    if (dir) closedir(dir);
    return n;
}

static void write_folder_drop(void) {
    unlink(write_path);
    CHECK(rmdir(write_folder) == 0);
}

/* The old file is as it was, and nothing is beside it. */
static void write_untouched(int line) {
    size_t n;
    uint8_t *data = file_read(write_path, &n);
    if (!data || n != 3 || memcmp(data, "old", 3)) check_fail(__FILE__, line, "the old file");
    if (write_folder_count() != 1) check_fail(__FILE__, line, "files in the folder");
    free(data);
}
#define WRITE_UNTOUCHED() write_untouched(__LINE__)

static void write_by_path(void) {
    sm_model *m = write_tiny();
    write_sink s = write_empty();
    sm_writer_params p = write_to(&s), by_path = sm_writer_default();
    sm_writer *w;
    sm_error error;
    uint8_t *data;
    size_t n;
    static const uint64_t four = 4, giga = 1u << 30;
    if (!write_folder_make()) {
        sm_model_close(m);
        SKIP("no folder build/");
    }
    by_path.path = write_path;
    by_path.allocator = heap_allocator();
    w = write_open(&by_path); /* not before it is finished */
    CHECK(write_folder_count() == 2);
    sm_writer_tensor(w, "a", 0, 1, &four);
    CHECK_STATUS(sm_writer_data(w, "0123456789abcde", 15), SM_OK);
    sm_writer_discard(w);
    WRITE_UNTOUCHED();
    w = write_open(&by_path);
    sm_writer_tensor(w, "a", 0, 1, &four);
    CHECK_STATUS(sm_writer_data(w, "0123456789abcde", 15), SM_OK);
    memset(&error, 0, sizeof error);
    CHECK_STATUS(sm_writer_finish(w, &error), SM_ERR_ARG);
    CHECK_STR(error.text, "writer: tensor a lacks 1 bytes of its data");
    WRITE_UNTOUCHED();
    w = write_open(&by_path); /* gone with the failure, before the writer is */
    CHECK_STATUS(sm_writer_data(w, &four, 8), SM_ERR_ARG);
    WRITE_UNTOUCHED();
    sm_writer_discard(w);
    w = write_open(&by_path); /* 4 GB: where file offsets have 32 bits, nothing is begun */
    CHECK_STATUS(sm_writer_tensor(w, "a", 0, 1, &giga), SM_OK);
    CHECK_STATUS(sm_writer_data(w, NULL, 0), sizeof(off_t) < 8 ? SM_ERR_FULL : SM_OK);
    sm_writer_discard(w);
    WRITE_UNTOUCHED();
    CHECK_STATUS(write_model(&p, m, 1000, &error), SM_OK);
    CHECK_STATUS(write_model(&by_path, m, 77, &error), SM_OK);
    data = file_read(write_path, &n);
    CHECK(n == s.file.n && memcmp(data, s.file.p, n) == 0 && write_folder_count() == 1);
    free(data);
    write_folder_drop();
    write_drop(&s);
    sm_model_close(m);
}

static void write_no_target(void) {
    static const char *const paths[] = {"build/no/such/folder/x", "build", "/dev/full",
                                        "/dev/null"};
    sm_writer_params p = sm_writer_default();
    sm_writer *w;
    sm_error error;
    int i;
    p.allocator = heap_allocator();
    for (i = 0; i < 4; i++) {
        p.path = paths[i];
        CHECK_STATUS(sm_writer_open(&p, &w, &error), SM_ERR_IO);
        CHECK(strstr(error.text, paths[i]) != NULL && w == NULL);
    }
}

static int write_full_device(void *user, const void *bytes, size_t n) {
    return write(*(int *)user, bytes, n) != (ssize_t)n ? errno : 0;
}

/* A device that is full, and files that may not grow beyond n bytes, as on a full disk: a write
 * comes out short, the next one fails. */
static void write_full_disk(void) {
    static const rlim_t limits[] = {0, 1, 1000, 65536, 70000, 100000, 200000};
    gguf_model_params gp = gguf_model_default("llama", SM_TYPE_F32);
    sm_model *m = gguf_model_open(&gp);
    sm_writer_params p = sm_writer_default();
    struct rlimit before, now;
    void (*handler)(int);
    sm_error error;
    int fd = open("/dev/full", O_WRONLY);
    size_t i;
    sm_status status;
    p.allocator = heap_allocator();
    if (fd >= 0) {
        p.write = write_full_device;
        p.user = &fd;
        CHECK_STATUS(write_model(&p, m, 1000, &error), SM_ERR_IO);
        CHECK_STR(error.text, "writing the file failed (error 28)");
        close(fd);
    }
    p.write = NULL;
    p.path = write_path;
    if (!write_folder_make() || getrlimit(RLIMIT_FSIZE, &before)) {
        sm_model_close(m);
        SKIP("no folder build/");
    }
    handler = signal(SIGXFSZ, SIG_IGN);
    for (i = 0; i < sizeof limits / sizeof *limits; i++) {
        now = before;
        now.rlim_cur = limits[i];
        fflush(stdout); /* nothing is printed under the limit */
        memset(&error, 0, sizeof error);
        if (setrlimit(RLIMIT_FSIZE, &now)) continue;
        status = write_model(&p, m, 1000, &error);
        setrlimit(RLIMIT_FSIZE, &before);
        CHECK_STATUS(status, SM_ERR_IO);
        CHECK(strstr(error.text, "failed (error 27)") && strstr(error.text, write_path));
        WRITE_UNTOUCHED();
    }
    signal(SIGXFSZ, handler);
    write_folder_drop();
    sm_model_close(m);
}

/* A model that is mapped can be replaced by what is made from it. */
static void write_in_place(void) {
    sm_model *m = write_tiny(), *again = NULL;
    sm_model_params mp = sm_model_default();
    sm_quantize_params qp = sm_quantize_default();
    sm_writer_params p = sm_writer_default();
    sm_error error;
    if (!write_folder_make()) {
        sm_model_close(m);
        SKIP("no folder build/");
    }
    p.path = mp.file.path = qp.out.path = write_path;
    CHECK_STATUS(write_model(&p, m, 1000, &error), SM_OK);
    sm_model_close(m);
    CHECK_STATUS(sm_model_open(&mp, &m, &error), SM_OK);
    qp.type = SM_TYPE_F16;
    CHECK_STATUS(sm_quantize(m, &qp, &error), SM_OK);
    CHECK_STATUS(sm_model_open(&mp, &again, &error), SM_OK);
    CHECK(again && sm_model_get_info(again)->type == SM_TYPE_F16);
    CHECK(sm_model_get_info(m)->type == SM_TYPE_Q8_0 && files_touch(m) != files_touch(again));
    sm_model_close(again);
    sm_model_close(m);
    write_folder_drop();
}
#endif

/* --- quantising ------------------------------------------------------------------------------ */

static sm_quantize_params quantize_to(write_sink *s, int type) {
    sm_quantize_params p = sm_quantize_default();
    p.out = write_to(s);
    p.type = type;
    return p;
}

/* A model through sm_quantize and back. */
static sm_model *quantize_model(const sm_model *m, int type, write_sink *s) {
    sm_quantize_params p = quantize_to(s, type);
    sm_error error;
    if (!m) return NULL;
    if (sm_quantize(m, &p, &error)) {
        FAIL("%s", error.text);
        return NULL;
    }
    return write_read(s);
}

/* Every row is what the encoder makes of it; vectors are F32; the same for 1, 2 and 3 threads. */
static void quantize_rows(void) {
    gguf_model_params gp = gguf_model_default("llama", SM_TYPE_F32);
    int k, threads, i;
    gp.n_embd = gp.n_ff = 256;
    gp.head_dim = 64;
    gp.n_layers = 1;
    for (k = 0; k < RUN_ALL_TYPES; k++) {
        int type = run_types[k];
        sm_model *m, *back = NULL;
        write_sink first = write_empty();
        gp.type = k % 2 ? SM_TYPE_F16 : SM_TYPE_F32;
        /* more rows than one buffer takes; what is slow has fewer, and not all of them compared */
        gp.n_vocab = k < 3 ? 2100 : 320;
        m = gguf_model_open(&gp);
        for (threads = 1; threads <= (k < RUN_TYPES ? 3 : 1); threads += k < 5 ? 1 : 2) {
            write_sink s = write_empty();
            sm_quantize_params p = quantize_to(&s, type);
            sm_team_params tp = sm_team_default();
            sm_error error;
            tp.n_threads = threads;
            tp.allocator = heap_allocator();
            if (threads > 1) CHECK_STATUS(sm_team_create(&tp, &p.team, &error), SM_OK);
            CHECK_STATUS(sm_quantize(m, &p, &error), SM_OK);
            sm_team_destroy(p.team);
            if (threads == 1) first = s;
            else CHECK(s.file.n == first.file.n && !memcmp(s.file.p, first.file.p, s.file.n));
            if (threads > 1) write_drop(&s);
        }
        back = write_read(&first);
        for (i = 0; back && i < sm_model_get_info(m)->n_tensors; i++) {
            sm_tensor a, b;
            float row[256];
            uint8_t bytes[1024];
            size_t r, stride;
            sm_model_tensor(m, i, &a);
            sm_model_tensor(back, i, &b);
            stride = b.bytes / (size_t)b.dims[1];
            CHECK_STR(a.name, b.name);
            CHECK(b.type == (a.n_dims == 1 ? SM_TYPE_F32 : type) && a.dims[1] == b.dims[1]);
            for (r = 0; r < a.dims[1]; r += k < 5 ? 1 : 4) {
                const uint8_t *src = (const uint8_t *)a.data + r * (a.bytes / (size_t)a.dims[1]);
                sm_type_decode(a.type, src, row, 256);
                sm_type_encode(b.type, row, bytes, 256);
                if (memcmp(bytes, (const uint8_t *)b.data + r * stride, stride)) {
                    FAIL("%s, row %d", a.name, (int)r);
                    break;
                }
            }
        }
        sm_model_close(back);
        sm_model_close(m);
        write_drop(&first);
    }
}

/* Logits of a random model move by no more than the type's rounding explains: mean distances in
 * ranges of a position's logits. */
static void quantize_logits(void) {
    static const double bounds[RUN_ALL_TYPES] = {
        0,    1e-4, 1e-3, 2e-3, 3e-2, 3e-2, 2e-2, 1e-2, 3e-2,
        2e-2, 2e-2, 3e-2, 5e-2, 8e-2, 5e-2, 3e-2, 0.2,  0.2};
    gguf_model_params gp = gguf_model_default("llama", SM_TYPE_F32);
    enum { N = 16 };
    int32_t tokens[N];
    sm_model *m;
    float *want, *got;
    int k, i;
    run_way way = run_plain(SM_TYPE_F32);
    gp.n_embd = gp.n_ff = 256;
    gp.head_dim = 64;
    m = gguf_model_open(&gp);
    want = run_rows(N, gp.n_vocab);
    got = run_rows(N, gp.n_vocab);
    run_tokens(m, tokens, N);
    run_logits(m, &way, tokens, N, want);
    for (k = 0; k < RUN_ALL_TYPES; k++) {
        write_sink s = write_empty();
        sm_model *q = quantize_model(m, run_types[k], &s);
        double sum = 0.0, low = 1e30, high = -1e30;
        if (q) run_logits(q, &way, tokens, N, got);
        for (i = 0; i < N * gp.n_vocab; i++) {
            sum += fabs((double)got[i] - (double)want[i]) / (N * gp.n_vocab);
            if ((double)want[i] < low) low = (double)want[i];
            if ((double)want[i] > high) high = (double)want[i];
        }
        if (!(sum <= bounds[k] * (high - low)))
            FAIL("%s: %.2e of the range", sm_type_get_info(run_types[k])->name,
                 sum / (high - low));
        CHECK(k < 2 || sum > 0.0); /* the weights are exact in F16 */
        sm_model_close(q);
        write_drop(&s);
    }
    free(want);
    free(got);
    sm_model_close(m);
}


/* llama.cpp's rules for 16 layers, written out: of each recipe the types of attn_v and ffn_down in
 * each layer (digits: Qn_K; -: the recipe's own), then of attn_output and attn_qkv. The second row
 * of attn_v is for four query heads that share a key head. */
typedef struct quantize_recipe {
    int type, mix;
    const char *file_type, *v, *v_shared, *down, output, qkv;
} quantize_recipe;

static const quantize_recipe quantize_recipes[] = {
    {SM_TYPE_Q2_K, SM_MIX_S, "21", "----------------", "4444444444444444", "44--------------", '-',
     '-'},
    {SM_TYPE_Q2_K, SM_MIX_M, "10", "3333333333333333", "4444444444444444", "3333333333333333", '3',
     '-'},
    {SM_TYPE_Q3_K, SM_MIX_S, "11", "----------------", "----------------", "----------------", '-',
     '-'},
    {SM_TYPE_Q3_K, SM_MIX_M, "12", "5544444444444444", "5544444444444444", "5444444444444444", '4',
     '4'},
    {SM_TYPE_Q3_K, SM_MIX_L, "13", "5555555555555555", "5555555555555555", "5555555555555555", '5',
     '4'},
    {SM_TYPE_Q4_K, SM_MIX_S, "14", "5555------------", "5555------------", "55--------------", '-',
     '-'},
    {SM_TYPE_Q4_K, SM_MIX_M, "15", "66--6--6--6--666", "66--6--6--6--666", "66--6--6--6--666", '-',
     '5'},
    {SM_TYPE_Q5_K, SM_MIX_S, "16", "----------------", "----------------", "----------------", '-',
     '-'},
    {SM_TYPE_Q5_K, SM_MIX_M, "17", "66--6--6--6--666", "66--6--6--6--666", "66--6--6--6--666", '-',
     '6'},
    {SM_TYPE_IQ4_NL, SM_MIX_M, "25", "----------------", "5555555555555555", "55--------------",
     '-', '-'},
    {SM_TYPE_IQ4_XS, SM_MIX_M, "30", "----------------", "5555555555555555", "55--------------",
     '-', '-'}};

/* What the recipes mean for every tensor, as a rule of the caller sees it. */
typedef struct quantize_seen {
    const quantize_recipe *recipe;
    int n, wrong, tied, shared;
    const char *name;
} quantize_seen;

static int quantize_expected(const quantize_seen *s, const char *name) {
    static const int types[] = {SM_TYPE_Q2_K, SM_TYPE_Q3_K, SM_TYPE_Q4_K, SM_TYPE_Q5_K,
                                SM_TYPE_Q6_K};
    const quantize_recipe *r = s->recipe;
    const char *dot = strchr(name + 4, '.');
    int layer = atoi(name + 4), what = '-';
    if (!strcmp(name, s->tied ? "token_embd.weight" : "output.weight")) return SM_TYPE_Q6_K;
    if (!strcmp(name, "token_embd.weight")) return r->type;
    if (!strcmp(dot, ".attn_qkv.weight")) what = r->qkv;
    if (!strcmp(dot, ".attn_output.weight")) what = r->output;
    if (!strcmp(dot, ".attn_v.weight")) what = (s->shared ? r->v_shared : r->v)[layer];
    if (!strcmp(dot, ".ffn_down.weight")) what = r->down[layer];
    return what == '-' ? r->type : types[what - '2'];
}

static int quantize_choose(void *user, const sm_tensor *t, int type) {
    quantize_seen *s = (quantize_seen *)user;
    s->n++;
    if (type != quantize_expected(s, t->name)) {
        s->wrong++;
        s->name = t->name;
    }
    return strstr(t->name, "ffn_up") ? SM_TYPE_BF16 : SM_TYPE_F16;
}

static void quantize_mixes(void) {
    int k, gpt2, tied;
    for (k = 0; k < 4 * COUNT(quantize_recipes); k++) {
        gguf_model_params gp;
        sm_model *m, *back;
        write_sink s = write_empty();
        sm_quantize_params p = quantize_to(&s, quantize_recipes[k / 4].type);
        quantize_seen rule;
        sm_error error;
        sm_tensor t;
        char text[16];
        int i;
        gpt2 = k & 1, tied = k >> 1 & 1;
        gp = files_tiny(gpt2 ? "gpt2" : "llama", SM_TYPE_F32);
        gp.n_layers = 16;
        gp.tied = tied;
        if (!gpt2 && tied) gp.n_heads = 4, gp.n_kv_heads = 1, gp.head_dim = gp.n_embd / 4;
        m = gguf_model_open(&gp);
        memset(&rule, 0, sizeof rule);
        rule.recipe = &quantize_recipes[k / 4];
        p.mix = rule.recipe->mix;
        rule.tied = tied;
        rule.shared = gp.n_heads >= 4 * gp.n_kv_heads;
        p.choose = quantize_choose;
        p.choose_user = &rule;
        CHECK_STATUS(sm_quantize(m, &p, &error), SM_OK);
        if (rule.wrong) FAIL("%d tensors, %s for one", rule.wrong, rule.name);
        CHECK(rule.n == 16 * (gpt2 ? 4 : 7) + 2 - tied);
        back = write_read(&s);
        CHECK_STR(sm_model_meta(back, "general.file_type", text, sizeof text),
                  rule.recipe->file_type);
        CHECK_STR(sm_model_meta(back, "general.quantization_version", text, sizeof text), "2");
        for (i = 0; back && sm_model_tensor(back, i, &t) == SM_OK; i++)
            CHECK(t.type == (strstr(t.name, "ffn_up.weight")               ? SM_TYPE_BF16
                             : t.n_dims == 2 && !strstr(t.name, "position") ? SM_TYPE_F16
                                                                            : SM_TYPE_F32));
        sm_model_close(back);
        sm_model_close(m);
        write_drop(&s);
    }
}

/* Rows that are no whole blocks; numbers that are none; a file that has its type already. */
static void quantize_count_log(void *user, int importance, const char *text) {
    (void)text;
    if (importance == 1) ++*(int *)user;
}

static void quantize_fallbacks(void) {
    static const struct {
        int width, type, becomes;
    } list[] = {{32, SM_TYPE_Q4_K, SM_TYPE_Q8_0}, {32, SM_TYPE_Q6_K, SM_TYPE_Q8_0},
                {24, SM_TYPE_Q5_K, SM_TYPE_F16},  {24, SM_TYPE_Q8_0, SM_TYPE_F16},
                {24, SM_TYPE_Q4_0, SM_TYPE_F16},  {24, SM_TYPE_BF16, SM_TYPE_BF16}};
    int k, i;
    for (k = 0; k < 6; k++) {
        gguf_model_params gp = files_tiny("llama", SM_TYPE_F32);
        write_sink s = write_empty();
        sm_quantize_params p = quantize_to(&s, list[k].type);
        sm_model *m, *back;
        sm_error error;
        sm_tensor t;
        int logged = 0, matrices = 0;
        gp.n_embd = gp.n_ff = list[k].width;
        gp.head_dim = list[k].width / 2;
        m = gguf_model_open(&gp);
        p.log = quantize_count_log;
        p.log_user = &logged;
        CHECK_STATUS(sm_quantize(m, &p, &error), SM_OK);
        back = write_read(&s);
        for (i = 0; back && sm_model_tensor(back, i, &t) == SM_OK; i++) {
            matrices += t.n_dims == 2;
            CHECK(t.type == (t.n_dims == 2 ? list[k].becomes : SM_TYPE_F32));
        }
        CHECK(matrices == 9 && logged == (list[k].type == list[k].becomes ? 0 : 9));
        sm_model_close(back);
        sm_model_close(m);
        write_drop(&s);
    }
}

static void quantize_endless(void) {
    static const uint32_t values[] = {0x7f800000u, 0xff800000u, 0x7fc00000u};
    gguf_model_params gp = files_tiny("llama", SM_TYPE_F32);
    size_t n;
    int k, type;
    for (k = 0; k < 3; k++)
        for (type = 0; type < 2; type++) {
            uint8_t *file = gguf_model(&gp, &n);
            write_sink s = write_empty();
            sm_quantize_params p = quantize_to(&s, type ? SM_TYPE_Q8_0 : SM_TYPE_BF16);
            sm_model *m = NULL;
            sm_error error;
            sm_tensor t;
            if (!CHECK_STATUS(files_open(file, n, &m, &error), SM_OK)) return;
            files_find(m, "blk.0.ffn_up.weight", &t);
            memcpy((uint8_t *)(uintptr_t)t.data + 4 * 100, &values[k], 4);
            CHECK_STATUS(sm_quantize(m, &p, &error), type ? SM_ERR_FORMAT : SM_OK);
            if (type) CHECK(strstr(error.text, "blk.0.ffn_up.weight") != NULL);
            sm_model_close(m);
            write_drop(&s);
            free(file);
        }
}

/* The type is there already: all bytes stay, also of tensors that are not computed with. */
static void quantize_copies(void) {
    static const uint64_t dims[2] = {32, 3};
    gguf_model_params gp = files_tiny("llama", SM_TYPE_Q4_0);
    gguf_builder g = gguf_model_begin(&gp);
    static const uint8_t noise[108] = {1, 2, 3, 250};
    write_sink s = write_empty();
    sm_model *m, *back;
    sm_tensor a, b;
    int i;
    uint64_t offset = gguf_align(&g);
    gguf_bytes(&g.data, noise, 108);
    gguf_entry(&g, "extra.weight", 2, dims, 9, offset); /* Q8_1 */
    m = run_open(&g);
    back = quantize_model(m, SM_TYPE_Q4_0, &s);
    for (i = 0; m && back && sm_model_tensor(m, i, &a) == SM_OK; i++) {
        sm_model_tensor(back, i, &b);
        CHECK_STR(a.name, b.name);
        CHECK(a.type == b.type && a.bytes == b.bytes && !memcmp(a.data, b.data, a.bytes));
    }
    CHECK(i == 13);
    sm_model_close(back);
    sm_model_close(m);
    write_drop(&s);
}

/* What progress says is true, and every call of it may cancel. */
typedef struct quantize_watch {
    int calls, cancel_at, finished;
    uint64_t done, total;
    double worst; /* error of a tensor, by the size of its elements */
} quantize_watch;

static int quantize_progress(void *user, const sm_quantize_progress *p) {
    quantize_watch *w = (quantize_watch *)user;
    CHECK(p->done_bytes > w->done && p->done_bytes <= p->total_bytes);
    CHECK(p->i_tensor == w->finished && p->n_tensors == 12);
    w->done = p->done_bytes;
    w->total = p->total_bytes;
    w->finished += p->finished;
    if (p->finished && p->type != SM_TYPE_F32)
        w->worst = larger(w->worst, sqrt(p->mse / p->mean_square));
    return ++w->calls == w->cancel_at;
}

static void quantize_watched(void) {
    gguf_model_params gp = gguf_model_default("llama", SM_TYPE_F32);
    sm_model *m;
    quantize_watch watch;
    sm_error error;
    int k;
    gp.n_layers = 1;
    m = gguf_model_open(&gp);
    for (k = 0; k < 14; k++) {
        write_sink s = write_empty();
        sm_quantize_params p = quantize_to(&s, SM_TYPE_Q8_0);
        memset(&watch, 0, sizeof watch);
        watch.cancel_at = k;
        p.check = 1;
        p.progress = quantize_progress;
        p.progress_user = &watch;
        CHECK_STATUS(sm_quantize(m, &p, &error),
                     k == 0 || k == 13 ? SM_OK : SM_ERR_CANCELLED);
        if (k == 0) {
            CHECK(watch.calls == 12 && watch.finished == 12 && watch.done == watch.total);
            /* uniform values: half a step of 1/127 and the rounding of scales */
            CHECK(watch.worst > 0.003 && watch.worst < 0.006);
        }
        write_drop(&s);
    }
    sm_model_close(m);
}

static sm_status quantize_some_model(const sm_model *m, write_sink *s, sm_error *error) {
    sm_quantize_params p = quantize_to(s, SM_TYPE_Q4_0);
    return sm_quantize(m, &p, error);
}

static void quantize_out_of_memory(void) { write_fail_each(quantize_some_model, 6); }

static int quantize_no_type(void *user, const sm_tensor *t, int type) {
    (void)user, (void)type;
    return strcmp(t->name, "blk.0.attn_k.weight") ? SM_TYPE_F16 : 9; /* Q8_1 */
}

static void quantize_bad_arguments(void) {
    sm_model *m = write_tiny();
    write_sink s = write_empty();
    sm_quantize_params p = quantize_to(&s, 9);
    sm_error error;
    CHECK_STATUS(sm_quantize(m, &p, &error), SM_ERR_ARG);
    p.type = SM_TYPE_Q4_K;
    p.mix = SM_MIX_L;
    CHECK_STATUS(sm_quantize(m, &p, &error), SM_ERR_ARG);
    p.mix = SM_MIX_M;
    p.type = SM_TYPE_Q8_0;
    CHECK_STATUS(sm_quantize(m, &p, &error), SM_ERR_ARG);
    p.mix = 0;
    CHECK_STATUS(sm_quantize(NULL, &p, &error), SM_ERR_ARG);
    CHECK_STATUS(sm_quantize(m, NULL, &error), SM_ERR_ARG);
    p.choose = quantize_no_type;
    CHECK_STATUS(sm_quantize(m, &p, &error), SM_ERR_ARG);
    CHECK_STR(error.text, "quantize: no type for tensor blk.0.attn_k.weight");
    p.choose = NULL;
    p.out.alignment = 3;
    CHECK_STATUS(sm_quantize(m, &p, &error), SM_ERR_ARG);
    CHECK(s.file.n == 0);
    p.out.alignment = 0;
    s.limit = 5000; /* fails within the data */
    CHECK_STATUS(sm_quantize(m, &p, &error), SM_ERR_IO);
    sm_model_close(m);
    write_drop(&s);
}

/* --- converting ------------------------------------------------------------------------------ */

/* Largest distance of two models' logits, by the range of a position's. */
static double convert_distance(const sm_model *a, const sm_model *b, int n) {
    int n_vocab = sm_model_get_info(a)->n_vocab, i, t;
    float *x = run_rows(n, n_vocab), *y = run_rows(n, n_vocab);
    int32_t *tokens = (int32_t *)calloc((size_t)n, sizeof *tokens);
    run_way way = run_plain(SM_TYPE_F32);
    double worst = 0.0;
    if (!tokens) exit(3);
    run_tokens(a, tokens, n);
    if (run_logits(a, &way, tokens, n, x) < 0 || run_logits(b, &way, tokens, n, y) < 0) worst = 1e9;
    for (t = 0; t < n && worst < 1e9; t++) {
        double low = 1e30, high = -1e30, off = 0.0;
        for (i = t * n_vocab; i < (t + 1) * n_vocab; i++) {
            if ((double)x[i] < low) low = (double)x[i];
            if ((double)x[i] > high) high = (double)x[i];
            off = larger(off, fabs((double)x[i] - (double)y[i]));
        }
        worst = larger(worst, off / (high - low));
    }
    free(tokens);
    free(x);
    free(y);
    return worst;
}

/* The F32 copies of stories260K, from both of its files, tell its stories; the one that was a
 * llama2.c file has the vocabulary of the one that was not. */
static void convert_stories(void) {
    static const char *const same[] = {"tokenizer.ggml.tokens", "tokenizer.ggml.scores",
                                       "tokenizer.ggml.token_type"};
    sm_model *m[2], *back[2];
    write_sink s[2];
    sm_ctx_params p = sm_ctx_default();
    story empty, zoo;
    uint64_t k;
    int i;
    if (!story_expected("empty", &empty) || !story_expected("zoo", &zoo)) return;
    p.n_threads = 1;
    p.n_ctx = 256;
    for (i = 0; i < 2; i++) {
        s[i] = write_empty();
        m[i] = stories_open(i);
        back[i] = quantize_model(m[i], SM_TYPE_F32, &s[i]);
        if (!back[i]) continue;
        story_check(back[i], &p, "", 1, -1, &empty);
        story_check(back[i], &p, "Zoo", 4, -1, &zoo);
        CHECK(convert_distance(m[i], back[i], 20) == 0.0);
        CHECK(sm_model_get_info(back[i])->bos == 1 && sm_model_get_info(back[i])->eos == 2);
    }
    for (i = 0; i < 3 && back[0] && back[1]; i++) {
        const sm__meta *a = sm__meta_find(back[0], same[i]), *b = sm__meta_find(m[1], same[i]);
        if (!CHECK(a && b)) continue;
        CHECK(a->type == b->type && a->elem_type == b->elem_type && a->count == b->count);
        CHECK(a->bytes == b->bytes);
        if (i != 1) CHECK(memcmp(a->data, b->data, a->bytes) == 0);
        for (k = 0; i == 1 && k < a->count; k++) { /* -0 has become 0 */
            double x = 0.0, y = 1.0;
            CHECK(sm__meta_number(a, k, &x) && sm__meta_number(b, k, &y) && x == y);
        }
    }
    if (back[0] && back[1]) CHECK(convert_distance(back[0], back[1], 20) == 0.0);
    for (i = 0; i < 2; i++) {
        sm_model_close(back[i]);
        sm_model_close(m[i]);
        write_drop(&s[i]);
    }
}

/* Trained and random models from safetensors. The rows of llama's q and k change places, so that
 * their sums are taken in another order: equal within that. */
static void convert_safetensors(void) {
    static const struct {
        const char *path, *config, *arch;
        double distance;
    } list[] = {
        {"models/tinystories-656k/model.safetensors", NULL, "llama", 2e-6},
        {"models/tiny-random-gpt2/model.safetensors", NULL, "gpt2", 0.0},
        {"models/nano-gpt-sort/model.safetensors", NULL, "gpt2", 0.0},
        {"models/cs336/transformer_lm_weights.safetensors", files_cs336_config, "cs336", 0.0},
    };
    int i;
    for (i = 0; i < 4; i++) {
        write_sink s = write_empty();
        sm_model *m = known_open(list[i].path, NULL, list[i].config);
        sm_model *back = quantize_model(m, SM_TYPE_F32, &s);
        if (back) {
            const sm_model_info *info = sm_model_get_info(back);
            CHECK_STR(info->format, "GGUF v3");
            CHECK_STR(info->arch, list[i].arch);
            CHECK(info->n_ctx_train == sm_model_get_info(m)->n_ctx_train);
            CHECK(info->has_vocab == sm_model_get_info(m)->has_vocab);
            CHECK_NEAR(convert_distance(m, back, 10), 0.0, list[i].distance);
        }
        sm_model_close(back);
        sm_model_close(m);
        write_drop(&s);
    }
}

/* --- families, from Hugging Face's names and keys --- */

typedef struct convert_family { /* of gguf_families; what its config.json says beside the sizes */
    const char *name, *type, *keys;
} convert_family;

#define CONVERT_MOVED "\"other\":1," /* this is not what the row's models have: other logits */
#define CONVERT_LINEAR "\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":8.0},"
#define CONVERT_GELU "\"hidden_activation\":\"gelu_pytorch_tanh\","
static const convert_family convert_families[] = {
    {"llama", "llama", "\"attention_bias\":false,\"num_experts\":null,"},
    {"mistral-window", "mistral", "\"sliding_window\":24,"},
    {"qwen2", "qwen2", "\"use_sliding_window\":false,\"sliding_window\":24,"},
    {"qwen3", "qwen3", "\"layer_types\":[\"full_attention\",\"full_attention\"],"},
    {"gemma", "gemma", "\"hidden_act\":\"gelu\",\"hidden_activation\":null,"},
    {"gemma2", "gemma2", CONVERT_GELU "\"sliding_window\":24,\"attn_logit_softcapping\":4.0,"
     "\"final_logit_softcapping\":3.0,\"query_pre_attn_scalar\":16,"},
    {"gemma3", "gemma3_text", CONVERT_GELU "\"sliding_window\":20,\"sliding_window_pattern\":6,"
     "\"query_pre_attn_scalar\":16,\"rope_local_base_freq\":10000," CONVERT_LINEAR
     "\"final_logit_softcapping\":null,"},
    {"gemma3", "gemma3_text", CONVERT_GELU "\"sliding_window\":20,\"query_pre_attn_scalar\":16,"
     "\"rope_parameters\":{\"sliding_attention\":{\"rope_type\":\"default\",\"rope_theta\":1e4},"
     "\"full_attention\":{\"rope_type\":\"linear\",\"factor\":8.0,"
     "\"rope_theta\":160000}},\"layer_types\":["
     "\"sliding_attention\",\"sliding_attention\",\"sliding_attention\",\"sliding_attention\","
     "\"sliding_attention\",\"full_attention\",\"sliding_attention\"],"},
    {"gemma3", "gemma3_text", CONVERT_GELU "\"sliding_window\":20,\"query_pre_attn_scalar\":16,"
     "\"rope_local_base_freq\":5000," CONVERT_MOVED},
    {"gemma3", "gemma3_text", CONVERT_GELU "\"sliding_window\":20,\"query_pre_attn_scalar\":16,"
     "\"sliding_window_pattern\":2," CONVERT_MOVED},
    {"phi3", "phi3", "\"sliding_window\":null,"},
    {"olmo2", "olmo2", ""},
    {"olmo3", "olmo3", "\"sliding_window\":24," CONVERT_LINEAR},
    {"granite", "granite", "\"embedding_multiplier\":6,\"residual_multiplier\":0.25,"
     "\"attention_multiplier\":0.125,\"logits_scaling\":4,"},
    {"smollm3", "smollm3", "\"no_rope_layers\":[1,1,1,0],"},
    {"starcoder2", "starcoder2", "\"hidden_act\":\"gelu_pytorch_tanh\",\"use_bias\":true,"},
};
#define CONVERT_N_FAMILIES ((int)(sizeof convert_families / sizeof *convert_families))

/* Hugging Face's name of a tensor of ours. */
static const char *convert_name(const sm_tensor *t, const char *arch, char *out, size_t n) {
    static const char *const names[][2] = {
        {"attn_norm", "input_layernorm"},         {"attn_q", "self_attn.q_proj"},
        {"attn_k", "self_attn.k_proj"},           {"attn_v", "self_attn.v_proj"},
        {"attn_qkv", "self_attn.qkv_proj"},       {"attn_output", "self_attn.o_proj"},
        {"attn_q_norm", "self_attn.q_norm"},      {"attn_k_norm", "self_attn.k_norm"},
        {"ffn_norm", "post_attention_layernorm"}, {"post_attention_norm",
                                                   "post_attention_layernorm"},
        {"post_ffw_norm", "post_feedforward_layernorm"}, {"ffn_gate", "mlp.gate_proj"},
        {"ffn_up", "mlp.up_proj"},                {"ffn_down", "mlp.down_proj"}};
    const char *stem = strchr(t->name + 4, '.'), *end = strrchr(t->name, '.'), *hf = "?";
    int i, starcoder = !strcmp(arch, "starcoder2");
    if (!strcmp(t->name, "token_embd.weight")) return "model.embed_tokens.weight";
    if (!strcmp(t->name, "output.weight")) return "lm_head.weight";
    if (!strncmp(t->name, "output_norm", 11)) {
        snprintf(out, n, "model.norm%s", end);
        return out;
    }
    for (i = 0; i < 14; i++)
        if ((size_t)(end - stem - 1) == strlen(names[i][0]) &&
            !strncmp(stem + 1, names[i][0], strlen(names[i][0])))
            hf = names[i][1];
    if (strstr(t->name, ".ffn_norm.") && (!strcmp(arch, "gemma2") || !strcmp(arch, "gemma3")))
        hf = "pre_feedforward_layernorm";
    if (strstr(t->name, ".ffn_up.")) hf = starcoder ? "mlp.c_fc" : strcmp(arch, "phi3") ? hf
                                                               : "mlp.gate_up_proj";
    if (strstr(t->name, ".ffn_down.") && starcoder) hf = "mlp.c_proj";
    snprintf(out, n, "model.layers.%d.%s%s", atoi(t->name + 4), hf, end);
    return out;
}

/* A tensor's F32 values as Hugging Face has them: rows of q and k that rotate halves, not pairs,
 * and Gemma's norms less 1. */
static void convert_values(const sm_model *m, const sm_tensor *t, gguf_buf *out) {
    size_t rows = (size_t)t->dims[1], cols = (size_t)t->dims[0], d = (size_t)m->hp.head_dim, r, i;
    int turn = m->hp.pos == SM__POS_ROPE_PAIRS &&
               (strstr(t->name, "attn_q.") || strstr(t->name, "attn_k."));
    int gemma = !strncmp(m->info.arch, "gemma", 5) && strstr(t->name, "norm.");
    for (r = 0; r < rows; r++) {
        size_t in_head = r % d, pair = in_head % (d / 2), half = in_head / (d / 2);
        size_t from = turn ? r - in_head + 2 * pair + half : r;
        for (i = 0; i < cols; i++) {
            float v;
            memcpy(&v, (const uint8_t *)t->data + 4 * (from * cols + i), 4);
            if (gemma) v -= 1.0f;
            gguf_bytes(out, &v, 4);
        }
    }
}

/* An F32 model as Hugging Face has it. */
static files_case convert_to_hf(const sm_model *m, const convert_family *f, char *config,
                                size_t n) {
    files_st s;
    sm_tensor t;
    int i;
    memset(&s, 0, sizeof s);
    for (i = 0; sm_model_tensor(m, i, &t) == SM_OK; i++) {
        char entry[256], name[128], shape[64];
        size_t start = s.data.n;
        convert_values(m, &t, &s.data);
        if (t.n_dims == 2)
            snprintf(shape, sizeof shape, "%d,%d", (int)t.dims[1], (int)t.dims[0]);
        else snprintf(shape, sizeof shape, "%d", (int)t.dims[0]);
        snprintf(entry, sizeof entry, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%s],"
                 "\"data_offsets\":[%d,%d]}", i ? "," : "{",
                 convert_name(&t, m->info.arch, name, sizeof name), shape, (int)start,
                 (int)s.data.n);
        gguf_bytes(&s.header, entry, strlen(entry));
    }
    snprintf(config, n, "{\"model_type\":\"%s\",%s\"vocab_size\":%d,\"hidden_size\":%d,"
             "\"num_hidden_layers\":%d,\"num_attention_heads\":%d,\"num_key_value_heads\":%d,"
             "\"head_dim\":%d,\"intermediate_size\":%d,\"max_position_embeddings\":%d,"
             "\"%s\":%.9g,\"rope_theta\":%.9g}", f->type, f->keys, m->hp.n_vocab, m->hp.n_embd,
             m->hp.n_layers, m->hp.n_heads, m->hp.n_kv_heads, m->hp.head_dim, m->hp.n_ff,
             m->hp.n_ctx, strcmp(f->name, "starcoder2") ? "rms_norm_eps" : "norm_epsilon",
             (double)m->hp.norm_eps, m->hp.rope_base);
    return files_st_finish(&s, config);
}

/* Every family, in one of two shapes: as safetensors it has its GGUF's logits, to the bit where
 * heads have the same order, and converted back it is that file's tensors and logits. */
static void convert_every_family(void) {
    int k, shape;
    for (k = 0; k < CONVERT_N_FAMILIES; k++) {
        const convert_family *f = &convert_families[k];
        gguf_model_params p = gguf_model_default(f->name, SM_TYPE_F32);
        sm_model *want, *m, *back = NULL;
        write_sink s = write_empty();
        char config[2048];
        files_case c;
        sm_tensor a, b;
        int i, same = 0, moved = strstr(f->keys, CONVERT_MOVED) != NULL;
        double off;
        shape = k & 1;
        p.vocab = GGUF_NO_VOCAB;
        if (shape) {
            p.n_vocab = 101, p.n_heads = 3, p.n_kv_heads = 1, p.n_embd = 48, p.n_ff = 80;
            p.head_dim = strncmp(f->name, "gemma", 5) && strcmp(f->name, "qwen3") ? 16 : 24;
        }
        if (strstr(f->keys, "query_pre_attn_scalar") && p.head_dim != 16) p.head_dim = 16;
        if (shape && !strncmp(f->name, "gemma", 5)) p.n_heads = 4, p.n_kv_heads = 2;
        want = gguf_model_open(&p);
        if (!want) continue;
        c = convert_to_hf(want, f, config, sizeof config);
        m = files_case_open(&c, SM_OK, "");
        if (m) {
            CHECK_STR(m->info.arch, p.arch);
            off = convert_distance(want, m, 30);
            if (moved) CHECK(off > 1e-3);
            else CHECK_NEAR(off, 0.0, want->hp.pos == SM__POS_ROPE_PAIRS ? 1e-5 : 0.0);
            back = quantize_model(m, SM_TYPE_F32, &s);
        }
        if (back) {
            for (i = 0; sm_model_tensor(want, i, &a) == SM_OK; i++)
                same += files_find(back, a.name, &b) && a.bytes == b.bytes &&
                        a.dims[0] == b.dims[0] && !memcmp(a.data, b.data, a.bytes);
            CHECK(same == i && back->info.n_tensors == i);
            CHECK(convert_distance(moved ? m : want, back, 30) == 0.0);
        }
        if (check.errors) FAIL("%s, shape %d: %s", f->name, shape, config);
        sm_model_close(back);
        sm_model_close(m);
        sm_model_close(want);
        write_drop(&s);
        if (check.errors) return;
    }
}

/* Every family and data type; what rows of q and k (and their biases) became. */
static void convert_variants(void) {
    static const char *const dtypes[] = {"F32", "F16", "BF16"};
    static const char *const configs[] = {
        "{\"model_type\":\"llama\"," FILES_LLAMA "}",
        "{\"model_type\":\"mistral\"," FILES_LLAMA "}",
        "{\"model_type\":\"qwen2\",\"rope_theta\":1e6," FILES_LLAMA "}",
        "{\"model_type\":\"qwen3\",\"head_dim\":4," FILES_LLAMA "}",
        "{\"model_type\":\"llama\",\"rope_scaling\":{\"type\":\"linear\",\"factor\":4}," FILES_LLAMA
        "}",
        "{\"model_type\":\"llama\",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,"
        "\"attention_factor\":1.5,\"original_max_position_embeddings\":8}," FILES_LLAMA "}",
    };
    static const int kinds[] = {2, 0, 2, 3, 0, 0}, order[] = {0, 2, 1, 3};
    int k, d, i;
    for (k = 0; k < 6; k++)
        for (d = 0; d < 3; d++) {
            files_case c = files_st_llama(configs[k], dtypes[d], kinds[k], 3);
            sm_model *m = files_case_open(&c, SM_OK, ""), *back;
            write_sink s = write_empty();
            sm_tensor q, b;
            back = quantize_model(m, d == 1 ? SM_TYPE_F16 : d ? SM_TYPE_BF16 : SM_TYPE_F32, &s);
            if (!back) return;
            CHECK_STR(sm_model_get_info(back)->arch, k < 2 || k > 3 ? "llama"
                                                     : k == 2       ? "qwen2"
                                                                    : "qwen3");
            CHECK(back->hp.pos == (k == 2 || k == 3 ? SM__POS_ROPE_HALF : SM__POS_ROPE_PAIRS));
            CHECK(back->hp.rope_base == m->hp.rope_base && back->hp.n_rot == m->hp.n_rot);
            CHECK(back->hp.scaling == m->hp.scaling);
            CHECK_NEAR(back->hp.scaling_factor, m->hp.scaling_factor, 0);
            CHECK_NEAR(back->hp.attn_factor, m->hp.attn_factor, 1e-6);
            CHECK_NEAR(back->hp.original_ctx, k < 4 ? 16 : m->hp.original_ctx, 0);
            CHECK(sm__bits(back->hp.norm_eps) == sm__bits(m->hp.norm_eps));
            files_find(back, "blk.0.attn_q.weight", &q);
            for (i = 0; i < 8; i++) {
                int from = k == 2 || k == 3 ? i : i / 4 * 4 + order[i % 4];
                float row[8], bias[8];
                sm_type_decode(q.type, (const uint8_t *)q.data + q.bytes / 8 * (size_t)i, row, 8);
                CHECK_NEAR((double)row[0], 3 + 8 * from, d == 2 ? 1 : 0);
                if (kinds[k] != 2) continue;
                files_find(back, "blk.0.attn_q.bias", &b);
                memcpy(bias, b.data, sizeof bias);
                CHECK_NEAR((double)bias[i], 7 + from, 0);
            }
            sm_model_close(back);
            sm_model_close(m);
            write_drop(&s);
        }
    { /* Llama 3's scaling becomes a tensor, in GGUF too */
        files_case c = files_st_llama("{\"model_type\":\"llama\",\"rope_scaling\":{\"rope_type\":"
                                      "\"llama3\",\"factor\":8}," FILES_LLAMA "}",
                                      "F32", 0, 3);
        sm_model *m = files_case_open(&c, SM_OK, ""), *back;
        write_sink s = write_empty();
        back = quantize_model(m, SM_TYPE_F32, &s);
        if (m && back) {
            CHECK(back->hp.scaling == SM__SCALING_FACTORS && back->weights->rope_factors);
            CHECK_NEAR(convert_distance(m, back, 10), 0.0, 2e-6);
        }
        sm_model_close(back);
        sm_model_close(m);
        write_drop(&s);
    }
}

static const test tests_write[] = {
    {"write: every type of metadata value and its arrays", write_every_value},
    {"write: a copy of a model is its file, byte for byte, in any pieces", write_copies},
    {"write: tensors are aligned as asked, and no other way is taken", write_alignments},
    {"write: a file of nothing, and one of a vocabulary", write_nothing},
    {"write: keys that are not to be copied", write_exceptions},
    {"write: keys that are no keys, and keys that are there twice", write_bad_keys},
    {"write: tensors with bad names, types and shapes", write_bad_tensors},
    {"write: too little data, too much, too late; bad arguments", write_bad_order},
    {"write: a write that fails at any byte ends it", write_fails_everywhere},
    {"write: any allocation may fail", write_out_of_memory},
#ifndef _WIN32
    {"write: by path, at once or not at all", write_by_path},
    {"write: folders, devices and places where nothing can be written", write_no_target},
    {"write: a full disk leaves the old file", write_full_disk},
    {"write: a mapped model is replaced by what is made from it", write_in_place},
#endif
    {"quantize: rows are the encoder's, for 1 to 3 threads", quantize_rows},
    {"quantize: logits move within the type's rounding", quantize_logits},
    {"quantize: the mixes are llama.cpp's; the caller's rule decides", quantize_mixes},
    {"quantize: rows that are no whole blocks", quantize_fallbacks},
    {"quantize: infinities and NaN do not become blocks", quantize_endless},
    {"quantize: what has its type already is copied", quantize_copies},
    {"quantize: progress is true, and cancels", quantize_watched},
    {"quantize: any allocation may fail", quantize_out_of_memory},
    {"quantize: bad arguments", quantize_bad_arguments},
    {"convert: stories260K from llama2.c and GGUF tells its stories", convert_stories},
    {"convert: safetensors models give their logits", convert_safetensors},
    {"convert: every family from Hugging Face's names and keys", convert_every_family},
    {"convert: families, data types and rotary scaling", convert_variants},
};

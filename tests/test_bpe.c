/* test_bpe.c - vocabularies from text: answers worked out on paper, a naive trainer that counts
 * everything anew before each merge, round trips through the tokenizer, and every way to fail. */

static sm_vocab *bpe_train(const sm_vocab_params *params, const char *text, size_t bytes) {
    sm_vocab *v = NULL;
    sm_error error;
    sm_vocab_params p = *params;
    p.allocator = heap_allocator();
    if (sm_vocab_train(&p, text, bytes, &v, &error)) FAIL("%s", error.text);
    return v;
}

static sm_model *bpe_model(const sm_vocab *v) {
    sm_allocator a = heap_allocator();
    sm_model *m = NULL;
    sm_error error;
    if (sm_vocab_open(v, &a, &m, &error)) FAIL("%s", error.text);
    return m;
}

static int bpe_same(const sm_vocab *a, const sm_vocab *b) {
    int i, same = a->n_tokens == b->n_tokens && a->n_merges == b->n_merges;
    for (i = 0; same && i < a->n_tokens; i++)
        same = !strcmp(a->tokens[i], b->tokens[i]) && a->types[i] == b->types[i];
    for (i = 0; same && i < a->n_merges; i++) same = !strcmp(a->merges[i], b->merges[i]);
    return same && a->bos == b->bos && a->eos == b->eos;
}

/* --- by hand ---------------------------------------------------------------------------------- */

#define G "\xC4\xA0" /* how GPT-2 writes a space */

/* The example of Sennrich et al. 2016: " low" 5 times, " lower" 2, " newest" 6, " widest" 3. */
static void bpe_classic_example(void) {
    static const char text[] = " low low low low low lower lower newest newest newest newest newest"
                               " newest widest widest widest";
    /* 9: es, est. 7: lo, _lo, _low. 6: ew, new, _new, _newest. 3: dest, idest, widest, _widest.
     * 2: er, _lower. Ties go to the lower left id: the bytes first (d 67, e 68, i 72, l 75, n 77,
     * w 86, space 220), then what was merged. */
    static const char *const merges[] = {
        "e s",   "es t",   "l o",     G " lo",    G "lo w",     "e w",  "n ew",     G " new",
        G "new est", "d est", "i dest", "w idest", G " widest", "e r", G "low er"};
    sm_vocab_params p = sm_vocab_default();
    sm_vocab *v = bpe_train(&p, text, sizeof text - 1);
    size_t i;
    if (!v) return;
    CHECK(v->n_merges == 15 && v->n_tokens == 271 && v->bos == -1 && v->eos == -1);
    for (i = 0; i < 15 && (int)i < v->n_merges; i++) CHECK_STR(v->merges[i], merges[i]);
    CHECK_STR(v->tokens[0], "!");
    CHECK_STR(v->tokens[220], G);
    CHECK_STR(v->tokens[270], G "lower");
    CHECK_STR(v->pre, "gpt-2");
    sm_vocab_destroy(v);
    p.n_vocab = 259;
    v = bpe_train(&p, text, sizeof text - 1);
    CHECK(v && v->n_tokens == 259 && v->n_merges == 3);
    sm_vocab_destroy(v);
    p.n_vocab = 0;
    p.min_count = 7;
    v = bpe_train(&p, text, sizeof text - 1);
    CHECK(v && v->n_merges == 5);
    sm_vocab_destroy(v);
    p.min_count = 0;
    p.max_token_bytes = 3;
    v = bpe_train(&p, text, sizeof text - 1);
    for (i = 0; v && (int)i < v->n_tokens; i++) CHECK(strlen(v->tokens[i]) <= 4);
    sm_vocab_destroy(v);
}

/* A name that ends a turn elsewhere ends nothing beside some others, whatever the file says. */
static void bpe_ends_that_are_none(void) {
    static const struct {
        const char *names[4];
        int ends; /* the first one is an end */
    } cases[] = {{{"<|end|>", "<|return|>", "<|calls", "<s>"}, 1},
                 {{"<|end|>", "<|return|>", "<|call|>", "<s>"}, 0},
                 {{"<|end|>", "<|calls|>", "<|return|>", "<s>"}, 0},
                 {{"<|end|>", "<|calls|>", "<|flush|>", "<s>"}, 0},
                 {{"<|end|>", "<|return|>", "<|flush|>", "<s>"}, 1},
                 {{"</s>", "<|tool_response>", "<s>", "<|end|>"}, 0},
                 {{"</s>", "<|call|>", "<|return|>", "<s>"}, 1}};
    int i, k, id;
    for (i = 0; i < 7; i++) {
        sm_vocab_params p = sm_vocab_default();
        sm_vocab *v;
        sm_model *m;
        p.specials = cases[i].names;
        p.n_specials = 4;
        p.eos = i % 2 ? NULL : cases[i].names[0];
        p.min_count = 1;
        v = bpe_train(&p, "ab", 2);
        m = v ? bpe_model(v) : NULL;
        sm_vocab_destroy(v);
        if (!m) return;
        for (id = 0; id < sm_model_get_info(m)->n_vocab; id++) {
            size_t bytes;
            const char *text = sm_token_text(m, id, &bytes);
            for (k = 0; k < 4; k++) {
                if (bytes != strlen(cases[i].names[k]) || memcmp(text, cases[i].names[k], bytes))
                    continue;
                if (!k) CHECK(sm_token_is_end(m, id) == cases[i].ends);
                else CHECK(sm_token_is_end(m, id) == (strchr("s", cases[i].names[k][1]) == NULL &&
                                                      strcmp(cases[i].names[k], "<|calls")));
            }
        }
        sm_model_close(m);
    }
}

/* Runs are merged from the left; in "aaaaa" the pair stands 4 times and is merged twice. */
static void bpe_runs_of_one_letter(void) {
    sm_vocab_params p = sm_vocab_default();
    sm_vocab *v;
    p.min_count = 1;
    v = bpe_train(&p, "aaaaa", 5);
    if (!v) return;
    CHECK(v->n_merges == 3);
    CHECK_STR(v->merges[0], "a a"); /* aa aa a: both pairs stand once */
    CHECK_STR(v->merges[1], "aa a");
    CHECK_STR(v->merges[2], "aa aaa");
    sm_vocab_destroy(v);
}

static void bpe_special_tokens(void) {
    static const char *const specials[] = {"<s>", "<|end|>", "<|end|>>"};
    static const char text[] = "abab<s>abab<|end|>>>abab<|end|>abab<s";
    sm_vocab_params p = sm_vocab_default();
    sm_vocab *v;
    sm_model *m;
    sm_tokenizer *t;
    p.specials = specials;
    p.n_specials = 3;
    p.bos = "<s>";
    p.eos = "<|end|>";
    v = bpe_train(&p, text, sizeof text - 1);
    if (!v) return;
    CHECK(v->n_merges == 2 && v->n_tokens == 261); /* ab, abab */
    CHECK(v->bos == 258 && v->eos == 259 && v->types[257] == 1 && v->types[258] == 3);
    CHECK_STR(v->tokens[257], "abab");
    CHECK_STR(v->tokens[260], "<|end|>>");
    m = bpe_model(v);
    sm_vocab_destroy(v); /* the model has its own copies */
    if (!m) return;
    CHECK(sm_model_get_info(m)->eos == 259 && sm_model_get_info(m)->n_vocab == 261);
    CHECK(sm_token_is_end(m, 259) && !sm_token_is_end(m, 257));
    t = tokenizer_make(m, 100);
    CHECK_STR(ids_of_text(t, text, SM_TEXT_SPECIAL), "257 258 257 260 29 257 259 257 27 82 ");
    sm_tokenizer_destroy(t);
    sm_model_close(m);
}

/* --- the naive trainer ------------------------------------------------------------------------ */

enum { NAIVE_IDS = 640, NAIVE_TEXT = 1 << 18 };

typedef struct naive {
    int32_t *ids; /* the text's symbols; -1 between words */
    int n;
    int n_tokens, n_merges;
    char *texts[NAIVE_IDS]; /* bytes of tokens, terminated: the texts have no NUL */
    int left[NAIVE_IDS], right[NAIVE_IDS];
} naive;

static void naive_start(naive *v, const char *text, size_t bytes, const char *pre_name) {
    sm__str name;
    sm__cutter cutter;
    size_t at, length, k;
    int16_t byte_of[324];
    int32_t id_of[256];
    int i;
    memset(v, 0, sizeof *v);
    name.p = pre_name;
    name.n = strlen(pre_name);
    sm__byte_map(byte_of);
    for (i = 0; i < 324; i++) {
        if (byte_of[i] < 0) continue;
        id_of[byte_of[i]] = v->n_tokens;
        v->texts[v->n_tokens] = (char *)calloc(1, 2);
        v->texts[v->n_tokens++][0] = (char)byte_of[i];
    }
    v->ids = (int32_t *)malloc((2 * bytes + 1) * sizeof *v->ids);
    cutter = sm__cutter_make(sm__rules[sm__pre_find(name)->rule]);
    for (at = 0; at < bytes; at += length) {
        length = sm__word_next(&cutter, (const unsigned char *)text + at, bytes - at);
        for (k = 0; k < length; k++) v->ids[v->n++] = id_of[(unsigned char)text[at + k]];
        v->ids[v->n++] = -1;
    }
}

static void naive_end(naive *v) {
    int i;
    for (i = 0; i < v->n_tokens; i++) free(v->texts[i]);
    free(v->ids);
}

/* One round: counts all pairs, merges the best one. 0 = there is none. */
static int naive_round(naive *v, int min_count) {
    static int count[NAIVE_IDS][NAIVE_IDS]; /* zeros between the rounds */
    int i, n, a = 0, b = 0, id, best = 0;
    char *text;
    for (i = 0; i + 1 < v->n; i++)
        if (v->ids[i] >= 0 && v->ids[i + 1] >= 0) count[v->ids[i]][v->ids[i + 1]]++;
    for (i = 0; i + 1 < v->n; i++) {
        int x = v->ids[i], y = v->ids[i + 1];
        if (x < 0 || y < 0) continue;
        if (count[x][y] > best || (count[x][y] == best && (x < a || (x == a && y < b))))
            best = count[x][y], a = x, b = y;
    }
    for (i = 0; i + 1 < v->n; i++)
        if (v->ids[i] >= 0 && v->ids[i + 1] >= 0) count[v->ids[i]][v->ids[i + 1]] = 0;
    if (best < min_count) return 0;
    text = (char *)calloc(1, strlen(v->texts[a]) + strlen(v->texts[b]) + 1);
    strcat(strcpy(text, v->texts[a]), v->texts[b]);
    for (id = 0; id < v->n_tokens && strcmp(v->texts[id], text); id++) {
    }
    if (id < v->n_tokens) free(text);
    else v->texts[v->n_tokens++] = text;
    for (i = 0; i < v->n_merges && (v->left[i] != a || v->right[i] != b); i++) {
    }
    if (i == v->n_merges) v->left[i] = a, v->right[v->n_merges++] = b;
    for (i = n = 0; i < v->n; n++) {
        int both = i + 1 < v->n && v->ids[i] == a && v->ids[i + 1] == b;
        v->ids[n] = both ? id : v->ids[i];
        i += both ? 2 : 1;
    }
    v->n = n;
    return 1;
}

/* Trains both ways and compares the merges, then the ids that the tokenizer gives with those that
 * the naive trainer ended with. */
static void naive_compare(const char *text, size_t bytes, sm_vocab_params p) {
    static naive v;
    static unsigned char byte_texts[2 * SM__MAX_TRAINED_BYTES + 2];
    int i, n = 0, k;
    int32_t *ids = (int32_t *)malloc((2 * bytes + 2) * sizeof *ids);
    sm_vocab *vocab = bpe_train(&p, text, bytes);
    sm_model *m = vocab ? bpe_model(vocab) : NULL;
    sm_tokenizer *t = m ? tokenizer_make(m, bytes) : NULL;
    if (!t) return;
    naive_start(&v, text, bytes, p.pre ? p.pre : "gpt-2");
    while (v.n_tokens < p.n_vocab && naive_round(&v, p.min_count ? p.min_count : 2)) {
    }
    CHECK(vocab->n_tokens == v.n_tokens && vocab->n_merges == v.n_merges);
    for (i = 0; i < v.n_merges && i < vocab->n_merges && !check.errors; i++) {
        const char *space = strchr(vocab->merges[i] + 1, ' ');
        sm__str s;
        s.p = vocab->merges[i];
        if (!CHECK(space != NULL)) break;
        s.n = (size_t)(space - s.p);
        k = sm__bytes_decode(m->vocab.tables, s, byte_texts);
        CHECK(k == (int)strlen(v.texts[v.left[i]]) && !memcmp(byte_texts, v.texts[v.left[i]],
                                                              (size_t)k));
        s.p = space + 1;
        s.n = strlen(s.p);
        k = sm__bytes_decode(m->vocab.tables, s, byte_texts);
        CHECK(k == (int)strlen(v.texts[v.right[i]]) && !memcmp(byte_texts, v.texts[v.right[i]],
                                                               (size_t)k));
    }
    CHECK_STATUS(sm_tokenize(t, text, bytes, SM_TEXT_BYTES, ids, (int)(2 * bytes + 2), &n), SM_OK);
    if (v.n_merges == v.n_tokens - 256) { /* no text was merged in two ways */
        for (i = k = 0; i < v.n; i++)
            if (v.ids[i] >= 0 && k < n && !CHECK(ids[k++] == v.ids[i])) break;
        CHECK(k == n);
    }
    naive_end(&v);
    sm_tokenizer_destroy(t);
    sm_model_close(m);
    sm_vocab_destroy(vocab);
    free(ids);
}

static void bpe_equals_naive(void) {
    static const char *const letters[] = {"ab", "a ", "aab b", "abc \n", "the quick'll 12,.",
                                          "\xC3\xA9\xE2\x82\xAC a"};
    static const char *const pres[] = {NULL, "llama-bpe", "smollm"};
    char text[600];
    int round, i;
    for (round = 0; round < 150 && !check.errors; round++) {
        const char *from = letters[round % 6];
        int n = 2 + random_below(round < 30 ? 20 : 598);
        sm_vocab_params p = sm_vocab_default();
        for (i = 0; i < n; i++) text[i] = from[random_below((int)strlen(from))];
        for (i = 0; i < n && i < 6; i++) text[i] = from[0]; /* one pair at least */
        p.pre = pres[round % 3];
        p.n_vocab = 257 + random_below(300);
        p.min_count = 1 + random_below(3);
        p.max_token_bytes = 1024;
        if (n < 12) p.min_count = 1;
        naive_compare(text, (size_t)n, p);
    }
}

static void bpe_equals_naive_on_a_play(void) {
    size_t bytes;
    char *text = (char *)file_read(data_path("text/tinyshakespeare.txt"), &bytes);
    sm_vocab_params p = sm_vocab_default();
    if (!text) return;
    p.n_vocab = 400;
    naive_compare(text, sm__min_size(bytes, NAIVE_TEXT), p);
    free(text);
}

/* --- texts and speed -------------------------------------------------------------------------- */

static void bpe_all_bytes_come_back(void) {
    char text[4096];
    sm_vocab_params p = sm_vocab_default();
    sm_vocab *v;
    sm_model *m;
    sm_tokenizer *t;
    int i, k;
    for (i = 0; i < 4096; i++) text[i] = (char)(i < 512 ? i : random_below(256));
    p.n_vocab = 300;
    v = bpe_train(&p, text, sizeof text);
    m = v ? bpe_model(v) : NULL;
    if (!m) return;
    t = tokenizer_make(m, sizeof text);
    for (i = 0; i < 256; i++) {
        char two[2];
        two[0] = (char)i;
        for (k = 0; k < 256; k++) {
            two[1] = (char)k;
            check_lossless(t, two, 2);
        }
    }
    for (i = 0; i + 512 <= 4096; i += 512) check_lossless(t, text + i, 512);
    sm_tokenizer_destroy(t);
    sm_model_close(m);
    sm_vocab_destroy(v);
}

static void bpe_of_a_play(void) {
    size_t bytes;
    char *text = (char *)file_read(data_path("text/tinyshakespeare.txt"), &bytes);
    sm_vocab_params p = sm_vocab_default();
    sm_vocab *v, *again;
    sm_model *m;
    sm_tokenizer *t;
    uint64_t start = sm__now_ns();
    int n;
    if (!text) return;
    p.n_vocab = 4096;
    v = bpe_train(&p, text, bytes);
    printf("(%.2f s) ", (double)(sm__now_ns() - start) * 1e-9);
    again = bpe_train(&p, text, bytes);
    m = v ? bpe_model(v) : NULL;
    if (m && again) {
        CHECK(v->n_tokens == 4096 && bpe_same(v, again));
        t = tokenizer_make(m, bytes);
        n = round_trip(t, text, bytes);
        printf("(%.2f bytes a token) ", (double)bytes / n);
        CHECK((double)bytes / n > 3.0);
        sm_tokenizer_destroy(t);
    }
    sm_model_close(m);
    sm_vocab_destroy(v);
    sm_vocab_destroy(again);
    free(text);
}

/* A word of one letter, and a word of two at random: the time must not grow with the square
 * of the length. */
static void bpe_long_words(void) {
    size_t n = 400000, i;
    char *text = (char *)malloc(n);
    sm_vocab_params p = sm_vocab_default();
    sm_vocab *v;
    p.n_vocab = 512;
    p.max_token_bytes = 1024;
    memset(text, 'a', n);
    v = bpe_train(&p, text, n);
    CHECK(v && v->n_merges >= 9);
    sm_vocab_destroy(v);
    for (i = 0; i < n; i++) text[i] = (char)('a' + random_below(2));
    v = bpe_train(&p, text, n);
    CHECK(v && v->n_tokens == 512);
    sm_vocab_destroy(v);
    free(text);
}

/* --- characters ------------------------------------------------------------------------------- */

static void bpe_characters(void) {
    static const char text[] = "na\xC3\xAFve \xE2\x82\xAC" "5, \xE2\x82\xAC" "7 na "
                               "\xF0\x9F\x98\x80\n";
    size_t bytes;
    char *play = (char *)file_read(data_path("text/tinyshakespeare.txt"), &bytes);
    sm_vocab_params p = sm_vocab_default();
    sm_vocab *v;
    sm_model *m;
    sm_tokenizer *t;
    p.characters = 1;
    if (play) {
        v = bpe_train(&p, play, bytes);
        CHECK(v && v->n_tokens == 65 && v->n_merges == 0); /* nanoGPT's 65 */
        sm_vocab_destroy(v);
        free(play);
    }
    v = bpe_train(&p, text, sizeof text - 1);
    m = v ? bpe_model(v) : NULL;
    if (!m) return;
    t = tokenizer_make(m, 100);
    CHECK(round_trip(t, text, sizeof text - 1) == 18);
    check_lossless(t, "5 \xE2\x82\xAC", 5);
    /* The bytes: \n space , 5 7 a e n v, 2 of i-diaeresis, 3 and 4 of the others, one of which
     * (0x82) no other has; then what merges make: 1 + 2 + 3. */
    CHECK(v->n_merges == 6);
    sm_vocab_destroy(v);
    sm_tokenizer_destroy(t);
    sm_model_close(m);
}

/* --- failures --------------------------------------------------------------------------------- */

static void bpe_refused(const sm_vocab_params *p, const char *text, size_t bytes, sm_status want,
                        const char *words) {
    sm_vocab *v = (sm_vocab *)&check;
    sm_error error;
    error.text[0] = 0;
    CHECK_STATUS(sm_vocab_train(p, text, bytes, &v, &error), want);
    CHECK(v == NULL && error.status == want);
    if (!strstr(error.text, words)) FAIL("\"%s\" does not say \"%s\"", error.text, words);
}

static void bpe_bad_arguments(void) {
    static const char *specials[] = {"<s>", "<s>"};
    static char huge[600];
    sm_vocab_params p = sm_vocab_default(), q;
    sm_vocab *v = NULL;
    sm_model *m = NULL;
    bpe_refused(&p, NULL, 0, SM_ERR_ARG, "empty");
    bpe_refused(&p, "text", 0, SM_ERR_ARG, "empty");
    bpe_refused(&p, "a", 1, SM_ERR_ARG, "too little text");
    bpe_refused(&p, "abcdefg", 7, SM_ERR_ARG, "2 times");
    bpe_refused(NULL, "a", 1, SM_ERR_ARG, "params");
    CHECK_STATUS(sm_vocab_train(&p, "a", 1, NULL, NULL), SM_ERR_ARG);
    q = p, q.n_vocab = 255;
    bpe_refused(&q, "aaaa", 4, SM_ERR_ARG, "n_vocab is 255");
    q.n_vocab = 257, q.specials = specials, q.n_specials = 2;
    bpe_refused(&q, "aaaa", 4, SM_ERR_ARG, "258 to");
    q.n_vocab = 300;
    bpe_refused(&q, "aaaa", 4, SM_ERR_ARG, "twice");
    bpe_refused(&q, "<s><s>", 6, SM_ERR_ARG, "nothing but special");
    specials[1] = "";
    bpe_refused(&q, "aaaa", 4, SM_ERR_ARG, "token 1 is empty");
    memset(huge, 'x', sizeof huge - 1);
    specials[1] = huge;
    bpe_refused(&q, "aaaa", 4, SM_ERR_ARG, "token 1 is too long");
    specials[1] = "b";
    bpe_refused(&q, "aaaa", 4, SM_ERR_ARG, "ordinary");
    q.n_specials = 1, q.bos = "<t>";
    bpe_refused(&q, "aaaa", 4, SM_ERR_ARG, "bos");
    q.bos = NULL, q.n_specials = -1;
    bpe_refused(&q, "aaaa", 4, SM_ERR_ARG, "-1 special");
    q = p, q.pre = "nothing";
    bpe_refused(&q, "aaaa", 4, SM_ERR_UNSUPPORTED, "pre");
    q = p, q.max_token_bytes = 1025;
    bpe_refused(&q, "aaaa", 4, SM_ERR_ARG, "1025");
    q = p, q.allocator.alloc = heap_alloc;
    bpe_refused(&q, "aaaa", 4, SM_ERR_ARG, "half");
    CHECK_STATUS(sm_vocab_open(NULL, NULL, &m, NULL), SM_ERR_ARG);
    CHECK_STATUS(sm_vocab_open(v, NULL, NULL, NULL), SM_ERR_ARG);
    q = p, q.n_vocab = 256; /* the bytes alone: nothing is to be merged */
    CHECK_STATUS(sm_vocab_train(&q, "a", 1, &v, NULL), SM_OK);
    CHECK(v && v->n_tokens == 256 && v->n_merges == 0);
    sm_vocab_destroy(v);
    sm_vocab_destroy(NULL);
}

static int bpe_cancel_at(void *user, int n_tokens, int n_vocab) {
    int *left = (int *)user;
    CHECK(n_tokens >= 0 && n_tokens <= n_vocab && n_vocab == 4096);
    return --*left == 0;
}

static void bpe_cancels(void) {
    static char text[6000];
    sm_vocab_params p = sm_vocab_default();
    sm_vocab *v = NULL;
    int i, k, left = 0;
    for (i = 0; i < 6000; i++) text[i] = "abcdefgh "[random_below(9)];
    p.progress = bpe_cancel_at;
    p.progress_user = &left;
    p.allocator = heap_allocator();
    for (k = 1; k < 100; k++) {
        left = k;
        if (sm_vocab_train(&p, text, sizeof text, &v, NULL) == SM_OK) break;
        CHECK(v == NULL && left == 0 && heap.held == 0);
    }
    CHECK(k > 3 && k < 100);
    sm_vocab_destroy(v);
}

/* Each allocation fails once; enough distinct words that their table grows. */
static void bpe_failed_allocations(void) {
    static char text[60000];
    sm_vocab_params p = sm_vocab_default();
    sm_vocab *v = NULL;
    sm_model *m = NULL;
    sm_status status = SM_ERR_NOMEM;
    uint32_t k;
    int i;
    for (i = 0; i < 60000; i++) text[i] = "abcdefghijkl  "[random_below(14)];
    p.n_vocab = 320;
    p.allocator = heap_allocator();
    for (k = 1; k < 100 && status; k++) {
        heap_fail(k);
        status = sm_vocab_train(&p, text, sizeof text, &v, NULL);
        heap_fail(0);
        if (!status) break;
        CHECK_STATUS(status, SM_ERR_NOMEM);
        CHECK(v == NULL && heap.held == 0);
    }
    CHECK(!status && k > 6); /* two tables, which grow, the block, the result */
    for (k = 1, status = SM_ERR_NOMEM; v && k < 100 && status; k++) {
        uint32_t held = heap.held;
        heap_fail(k);
        status = sm_vocab_open(v, &p.allocator, &m, NULL);
        heap_fail(0);
        if (!status) break;
        CHECK_STATUS(status, SM_ERR_NOMEM);
        CHECK(m == NULL && heap.held == held);
    }
    CHECK(!status && k > 5);
    sm_model_close(m);
    sm_vocab_destroy(v);
}
#undef G

static const test tests_bpe[] = {
    {"bpe: low, lower, newest, widest", bpe_classic_example},
    {"bpe: runs of one letter merge from the left", bpe_runs_of_one_letter},
    {"bpe: special tokens cut the text and get the last ids", bpe_special_tokens},
    {"bpe: ends that are none", bpe_ends_that_are_none},
    {"bpe: equals counting anew before each merge", bpe_equals_naive},
    {"bpe: equals counting anew on a play", bpe_equals_naive_on_a_play},
    {"bpe: all bytes come back", bpe_all_bytes_come_back},
    {"bpe: 4,096 tokens of a play, twice the same", bpe_of_a_play},
    {"bpe: long words take no square of their length", bpe_long_words},
    {"bpe: characters", bpe_characters},
    {"bpe: bad arguments are refused", bpe_bad_arguments},
    {"bpe: progress cancels", bpe_cancels},
    {"bpe: every failed allocation is clean", bpe_failed_allocations},
};

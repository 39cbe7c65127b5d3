/* test_tokenizer.c - text to ids and back: llama.cpp's known answers, round trips, text and
 * vocabularies that mean harm, UTF-8 against the standard's tables, and every limit. */

/* --- models with a vocabulary ----------------------------------------------------------------- */

/* A vocabulary of the shared data in memory of the counting allocator; NULL = skipped, failed. */
static sm_model *vocab_open(const char *name) {
    sm_model_params p = sm_model_default();
    sm_model *m = NULL;
    sm_error error;
    p.file.path = data_path(name);
    if (!p.file.path) return NULL;
    p.vocab_only = 1;
    p.allocator = heap_allocator();
    if (sm_model_open(&p, &m, &error)) FAIL("%s: %s", name, error.text);
    return m;
}

/* --- small steps ------------------------------------------------------------------------------ */

/* Text to ids as text: "1 15043 ". */
static const char *ids_of(sm_tokenizer *t, const char *text, size_t bytes, int flags) {
    static char out[32768];
    int32_t ids[4096];
    int n = 0, i;
    size_t used = 0;
    CHECK_STATUS(sm_tokenize(t, text, bytes, flags, ids, 4096, &n), SM_OK);
    for (i = 0; i < n && used + 16 < sizeof out; i++)
        used += (size_t)snprintf(out + used, 16, "%d ", (int)ids[i]);
    out[used] = 0;
    return out;
}

static const char *ids_of_text(sm_tokenizer *t, const char *text, int flags) {
    return ids_of(t, text, strlen(text), flags);
}

/* The ids of one text with a vocabulary made by hand. */
static const char *toy_ids_of(toy *y, const char *text) {
    sm_model *m = toy_model(y);
    sm_tokenizer *t = m ? tokenizer_make(m, 64) : NULL;
    const char *ids = t ? ids_of_text(t, text, 0) : "no tokenizer";
    sm_tokenizer_destroy(t);
    sm_model_close(m);
    return ids;
}

static uint64_t round_trip_hash; /* of the last round trip's ids */

/* Encodes, decodes, and compares; returns the number of ids. */
static int round_trip(sm_tokenizer *t, const char *text, size_t bytes) {
    size_t n_text = 0;
    int n = 0;
    int32_t *ids = (int32_t *)malloc((2 * bytes + 2) * sizeof *ids);
    char *back = (char *)malloc(bytes + 1);
    CHECK_STATUS(sm_tokenize(t, text, bytes, 0, ids, (int)(2 * bytes + 2), &n), SM_OK);
    CHECK_STATUS(sm_detokenize(t->model, ids, n, 0, back, bytes + 1, &n_text), SM_OK);
    if (n_text != bytes || memcmp(back, text, bytes) != 0)
        FAIL("%lu bytes of text came back as %lu others", (unsigned long)bytes,
             (unsigned long)n_text);
    round_trip_hash = hash_bytes(ids, (size_t)n * sizeof *ids);
    free(ids);
    free(back);
    return n;
}

/* The raw texts of the ids of a text, one after another, are the text (with SPM's space in front):
 * nothing is lost, whatever the bytes. */
static void check_lossless(sm_tokenizer *t, const char *text, size_t bytes) {
    int32_t ids[2048];
    char joined[1024];
    size_t used = 0, n_piece;
    int n = 0, i, front = t->model->vocab.tables->space_prefix && bytes;
    if (!CHECK_STATUS(sm_tokenize(t, text, bytes, SM_TEXT_BYTES, ids, 2048, &n), SM_OK)) return;
    for (i = 0; i < n; i++) {
        const char *piece = sm_token_text(t->model, ids[i], &n_piece);
        if (!CHECK(piece && used + n_piece <= sizeof joined)) return;
        memcpy(joined + used, piece, n_piece);
        used += n_piece;
    }
    CHECK(used == bytes + (size_t)front && memcmp(joined + front, text, bytes) == 0);
    CHECK(!front || joined[0] == ' ');
}

/* --- known answers ---------------------------------------------------------------------------- */

static void known_ids(const char *name) {
    static const char part[] = "\n__ggml_vocab_test__\n";
    char path[128], *in, *out, *next;
    size_t n_in, n_out;
    int cases = 0;
    sm_model *m = vocab_open(name);
    sm_tokenizer *t;
    if (!m) return;
    t = tokenizer_make(m, 4096);
    snprintf(path, sizeof path, "%s.inp", name);
    in = (char *)file_read(data_path(path), &n_in);
    snprintf(path, sizeof path, "%s.out", name);
    out = (char *)file_read(data_path(path), &n_out);
    if (CHECK(t && in && out)) {
        char *text = in, *line = out;
        for (; (next = strstr(text, part)) != NULL; text = next + strlen(part), cases++) {
            char *end = strchr(line, '\n'), want[4096];
            if (!CHECK(end && end - line < 4000)) break;
            *end = 0;
            snprintf(want, sizeof want, "%s ", *line ? line + 1 : ""); /* " 1 2" to "1 2 " */
            CHECK_STR(ids_of(t, text, (size_t)(next - text), 0), *line ? want : "");
            round_trip(t, text, (size_t)(next - text));
            line = end + 1;
        }
        CHECK(cases == 46 && *text == 0 && *line == 0);
    }
    free(in);
    free(out);
    sm_tokenizer_destroy(t);
    sm_model_close(m);
}

static void known_ids_llama_spm(void) { known_ids("tokenizers/ggml-vocab-llama-spm.gguf"); }
static void known_ids_phi_3(void) { known_ids("tokenizers/ggml-vocab-phi-3.gguf"); }
static void known_ids_gpt_2(void) { known_ids("tokenizers/ggml-vocab-gpt-2.gguf"); }
static void known_ids_llama_bpe(void) { known_ids("tokenizers/ggml-vocab-llama-bpe.gguf"); }
static void known_ids_qwen2(void) { known_ids("tokenizers/ggml-vocab-qwen2.gguf"); }

/* The string value that follows a key in a JSON text, unescaped (\n and \" are all it has). */
static size_t json_text(const char *json, char *out, size_t max) {
    const char *s = strstr(json, "\"text\": \"");
    size_t n = 0;
    if (!s) return 0;
    for (s += 9; *s && *s != '"' && n + 1 < max; s++) {
        if (*s == '\\') s++;
        out[n++] = s[0] == 'n' && s[-1] == '\\' ? '\n' : *s;
    }
    out[n] = 0;
    return n;
}

static int json_ids(const char *json, int32_t *ids, int max) {
    const char *s = strstr(json, "\"ids\": [");
    char *end;
    int n = 0;
    if (!s) return 0;
    for (s += 8; n < max; s = end + 1) {
        ids[n++] = (int32_t)strtol(s, &end, 10);
        end += strspn(end, " \n");
        if (*end != ',') break;
    }
    return n;
}

/* The known texts of stories260K come from its known ids; its prompt gives the first of them. */
static void check_stories(const sm_model *m, const char *json) {
    sm_tokenizer *t = tokenizer_make(m, 1024);
    const char *empty = strstr(json, "\"empty\":"), *zoo = strstr(json, "\"zoo\":");
    int32_t ids[256], first[8];
    char want[2048], got[2048];
    size_t n_want, n_got = 0;
    int i, n, n_first = 0;
    if (!CHECK(t && empty && zoo)) return;
    for (i = 0; i < 2; i++) {
        n_want = json_text(i ? zoo : empty, want, sizeof want);
        n = json_ids(i ? zoo : empty, ids, 256);
        CHECK(n_want > 100 && n > 50 && ids[0] == 1);
        CHECK_STATUS(sm_detokenize(m, ids, n, 0, got, sizeof got, &n_got), SM_OK);
        CHECK(n_got == n_want);
        CHECK_STR(got, want);
    }
    CHECK_STATUS(sm_tokenize(t, "Zoo", 3, SM_TEXT_BOS, first, 8, &n_first), SM_OK);
    CHECK(n_first >= 2 && n_first < 8 && memcmp(first, ids, (size_t)n_first * sizeof *ids) == 0);
    round_trip(t, want, n_want);
    sm_tokenizer_destroy(t);
}

static void stories_texts(void) {
    sm_model_params p = sm_model_default();
    sm_model *m = vocab_open("models/stories260K/stories260K.gguf"), *bin = NULL;
    sm_error error;
    size_t bytes;
    char *json = (char *)file_read(data_path("models/stories260K/expected.json"), &bytes);
    p.file.path = data_path("models/stories260K/stories260K.bin");
    p.tokenizer.path = data_path("models/stories260K/tok512.bin");
    p.allocator = heap_allocator();
    if (m && json) check_stories(m, json);
    if (p.file.path && p.tokenizer.path && json) {
        if (sm_model_open(&p, &bin, &error)) FAIL("%s", error.text);
        else check_stories(bin, json); /* the same pieces with plain spaces */
    }
    free(json);
    sm_model_close(m);
    sm_model_close(bin);
}

/* --- round trips ------------------------------------------------------------------------------ */

static const char *const vocab_names[] = {
    "tokenizers/ggml-vocab-llama-spm.gguf", "tokenizers/ggml-vocab-phi-3.gguf",
    "tokenizers/ggml-vocab-gpt-2.gguf",     "tokenizers/ggml-vocab-llama-bpe.gguf",
    "tokenizers/ggml-vocab-qwen2.gguf",
};
#define N_VOCABS (int)(sizeof vocab_names / sizeof *vocab_names)

/* The ids of whole texts, as number and hash: they equal those of independent programs (gpt-2:
 * tiktoken; the others: the algorithms in plain Python with the regex module), id by id. */
static const struct {
    int n_plays, n_wiki;
    uint64_t plays, wiki;
} whole_texts[] = {
    {368633, 339369, 0xf8e5eec868d0ecb2u, 0x06bd1d79c494ad92u},
    {368633, 339369, 0xf8e5eec868d0ecb2u, 0x06bd1d79c494ad92u},
    {338025, 295877, 0xe22fcd868ca90167u, 0x60f61036d90566afu},
    {301768, 299667, 0x9872323539695389u, 0x23b891e07d1c81ddu},
    {301829, 309009, 0xa0ce432d8a5d8350u, 0xb787468cbd05ca2fu},
};

static void texts_come_back(void) {
    size_t n_plays, n_wiki;
    char *plays = (char *)file_read(data_path("text/tinyshakespeare.txt"), &n_plays);
    char *wiki = (char *)file_read(data_path("text/wikitext2-test.txt"), &n_wiki);
    int i;
    for (i = 0; i < N_VOCABS && plays && wiki; i++) {
        sm_model *m = vocab_open(vocab_names[i]);
        sm_tokenizer *t = m ? tokenizer_make(m, n_wiki) : NULL;
        if (t) {
            CHECK(round_trip(t, plays, n_plays) == whole_texts[i].n_plays);
            CHECK(round_trip_hash == whole_texts[i].plays);
            CHECK(round_trip(t, wiki, n_wiki) == whole_texts[i].n_wiki);
            CHECK(round_trip_hash == whole_texts[i].wiki);
        }
        sm_tokenizer_destroy(t);
        sm_model_close(m);
    }
    free(plays);
    free(wiki);
}

/* SPM merges word by word when no token has a space inside; the whole text at once is the truth. */
static void words_equal_the_whole(void) {
    size_t n;
    char *wiki = (char *)file_read(data_path("text/wikitext2-test.txt"), &n);
    sm_model *m = vocab_open("tokenizers/ggml-vocab-llama-spm.gguf");
    int32_t *ids = (int32_t *)malloc(2 * 60000 * sizeof *ids);
    int n_words = 0, n_whole = 0;
    if (m && wiki && ids && CHECK(n > 30000)) {
        sm_tokenizer *t = tokenizer_make(m, 30000);
        CHECK(!m->vocab.tables->space_inside);
        CHECK_STATUS(sm_tokenize(t, wiki, 30000, 0, ids, 60000, &n_words), SM_OK);
        m->vocab.tables->space_inside = 1;
        CHECK_STATUS(sm_tokenize(t, wiki, 30000, 0, ids + 60000, 60000, &n_whole), SM_OK);
        CHECK(n_words == n_whole && n_words > 5000);
        CHECK(memcmp(ids, ids + 60000, (size_t)n_words * sizeof *ids) == 0);
        sm_tokenizer_destroy(t);
    }
    free(ids);
    free(wiki);
    sm_model_close(m);
}

/* 64 KB of the same: pairs that all tie, one word without end. Quadratic steps would take minutes
 * (4e9 merges); n log n takes tens of milliseconds. */
static void repeats_are_quick(void) {
    static const char *const units[] = {"a",    " ",  "\xF0\x9F\x98\x80", "ab",
                                        "\n",   "1",  "\xE2\x96\x81",     "\xFF",
                                        "' ",   "<s>", "<|im_start|>"};
    const size_t bytes = 65536;
    char *text = (char *)malloc(bytes);
    int i;
    size_t u, at;
    for (i = 0; i < N_VOCABS; i++) {
        sm_model *m = vocab_open(vocab_names[i]);
        sm_tokenizer *t = m ? tokenizer_make(m, 3 * bytes) : NULL;
        for (u = 0; t && u < sizeof units / sizeof *units; u++) {
            size_t n = strlen(units[u]), used = bytes / n * n;
            uint64_t start = sm__now_ns();
            int count = 0, again = 0;
            for (at = 0; at < used; at++) text[at] = units[u][at % n];
            CHECK_STATUS(sm_tokenize(t, text, used, 0, NULL, 0, &count), SM_OK);
            CHECK_STATUS(sm_tokenize(t, text, used, SM_TEXT_SPECIAL, NULL, 0, &again), SM_OK);
            CHECK(count > 0 && again > 0);
            CHECK(sm__now_ns() - start < 10000000000u);
            if (units[u][0] != '\xE2' && units[u][0] != '\xFF') round_trip(t, text, used);
        }
        sm_tokenizer_destroy(t);
        sm_model_close(m);
    }
    free(text);
}

/* --- UTF-8 ------------------------------------------------------------------------------------ */

/* Table 3-7 of the Unicode standard: ranges of the bytes of well-formed sequences. */
static const unsigned char well_formed[9][8] = {
    {0x00, 0x7F},
    {0xC2, 0xDF, 0x80, 0xBF},
    {0xE0, 0xE0, 0xA0, 0xBF, 0x80, 0xBF},
    {0xE1, 0xEC, 0x80, 0xBF, 0x80, 0xBF},
    {0xED, 0xED, 0x80, 0x9F, 0x80, 0xBF},
    {0xEE, 0xEF, 0x80, 0xBF, 0x80, 0xBF},
    {0xF0, 0xF0, 0x90, 0xBF, 0x80, 0xBF, 0x80, 0xBF},
    {0xF1, 0xF3, 0x80, 0xBF, 0x80, 0xBF, 0x80, 0xBF},
    {0xF4, 0xF4, 0x80, 0x8F, 0x80, 0xBF, 0x80, 0xBF},
};

/* What sm__utf8_read should return, from the table. */
static int utf8_expected(const unsigned char *s, int n) {
    int row, i, length;
    for (row = 0; row < 9; row++) {
        const unsigned char *r = well_formed[row];
        if (s[0] < r[0] || s[0] > r[1]) continue;
        length = row == 0 ? 1 : row == 1 ? 2 : row < 6 ? 3 : 4;
        for (i = 1; i < length; i++) {
            if (i == n) return 0;
            if (s[i] < r[2 * i] || s[i] > r[2 * i + 1]) return -i;
        }
        return length;
    }
    return -1;
}

static void utf8_follows_the_table(void) {
    static const unsigned char edges[] = {0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0,
                                          0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC,
                                          0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5,
                                          0xF8, 0xFE, 0xFF};
    guard g = guard_make(4);
    uint32_t code, i, count = sizeof edges;
    int n, bad = 0;
    for (i = 0; i < count * count * count * count; i++)
        for (n = 1; n <= 4; n++) {
            unsigned char *s = g.end - n, bytes[4]; /* the byte after the last one traps */
            bytes[0] = edges[i % count];
            bytes[1] = edges[i / count % count];
            bytes[2] = edges[i / count / count % count];
            bytes[3] = edges[i / count / count / count];
            memcpy(s, bytes, (size_t)n);
            bad += sm__utf8_read(s, (size_t)n, &code) != utf8_expected(bytes, n);
        }
    CHECK(bad == 0);
    guard_free(&g);
}

static void utf8_reads_every_character(void) {
    uint32_t c, code;
    int bad = 0;
    for (c = 0; c < 0x110000; c++) {
        unsigned char s[4];
        int n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
        if (n == 1) s[0] = (unsigned char)c;
        else s[0] = (unsigned char)((0xF00u >> n & 0xFF) | c >> 6 * (n - 1));
        if (n > 1) s[n - 1] = (unsigned char)(0x80 | (c & 63));
        if (n > 2) s[n - 2] = (unsigned char)(0x80 | (c >> 6 & 63));
        if (n > 3) s[n - 3] = (unsigned char)(0x80 | (c >> 12 & 63));
        if (c >= 0xD800 && c < 0xE000) bad += sm__utf8_read(s, 3, &code) != -1;
        else bad += sm__utf8_read(s, (size_t)n, &code) != n || code != c;
    }
    CHECK(bad == 0);
}

static void classes_of_characters(void) {
    uint32_t i, at = 0x80, letters = 0, numbers = 0, spaces = 0, lower = 0, parts = 0, a, b;
    for (i = 0; i < SM__CHAR_RUNS; i++) { /* the index and the end belong to the runs */
        if (i % SM__CHAR_STEP == 0) CHECK(sm__char_index[i / SM__CHAR_STEP] == at);
        CHECK((sm__char_runs[i] & 15) <= SM__CHAR_PAIRS && sm__char_runs[i] >> 4);
        at += (uint32_t)sm__char_runs[i] >> 4;
    }
    CHECK(at == SM__CHARS_END);
    for (i = 0; i < 0x110000; i++) {
        int kind = sm__char_class(i);
        letters += (kind & SM__CHAR_LETTER) != 0;
        numbers += kind == SM__CHAR_NUMBER;
        spaces += kind == SM__CHAR_SPACE;
        lower += sm__char_lower(i) != i;
        parts += sm__char_parts(i, &a, &b) != 0;
    }
    CHECK(spaces == 25); /* White_Space of PropList.txt has 25 characters since Unicode 6.3 */
    CHECK(letters == 136726 && numbers == 1831);
    CHECK(lower == 1488 && parts == 2061 + 11172);
    CHECK(sm__char_class('_') == SM__CHAR_PUNCT && sm__char_class('$') == SM__CHAR_SYMBOL);
    CHECK(sm__char_class(0x4E00) == SM__CHAR_UNCASED && sm__char_class(0xBD) == SM__CHAR_NUMBER);
    CHECK(sm__char_class(0x301) == SM__CHAR_ACCENT && sm__char_class(0x3000) == SM__CHAR_SPACE);
    CHECK(sm__char_class(0x1F600) == SM__CHAR_SYMBOL && sm__char_class(0x10FFFF) == SM__CHAR_OTHER);
    CHECK(sm__char_class(0x100) == SM__CHAR_UPPER && sm__char_class(0x101) == SM__CHAR_LOWER);
    CHECK(sm__char_class(0x200B) == SM__CHAR_CONTROL && sm__char_class(0x903) == SM__CHAR_SPACING);
    CHECK(sm__char_lower(0x410) == 0x430 && sm__char_lower(0x10A0) == 0x2D00);
    CHECK(sm__char_parts(0x1F82, &a, &b) && a == 0x1F02 && b == 0x345);
    CHECK(sm__char_parts(0xD55C, &a, &b) && a == 0xD558 && b == 0x11AB);
    CHECK(sm__char_parts(0xD558, &a, &b) && a == 0x1112 && b == 0x1161);
    CHECK(sm__char_parts(0x212B, &a, &b) && a == 0xC5 && b == 0);
}

/* --- words ------------------------------------------------------------------------------------ */

/* The words of a text with '|' between them. */
static const char *words_of(const char *pre_name, const char *text) {
    static char out[512];
    const sm__pre *pre = NULL;
    size_t i, at = 0, used = 0, n = strlen(text), length;
    sm__cutter cutter;
    for (i = 0; i < sizeof sm__pres / sizeof *sm__pres; i++)
        if (strcmp(sm__pres[i].name, pre_name) == 0) pre = &sm__pres[i];
    if (!CHECK(pre)) return "";
    cutter = sm__cutter_make(sm__rules[pre->rule]);
    for (; at < n; at += length) {
        length = sm__word_next(&cutter, (const unsigned char *)text + at, n - at);
        if (!CHECK(length > 0 && length <= n - at)) return "";
        if (at) out[used++] = '|';
        memcpy(out + used, text + at, length);
        used += length;
    }
    out[used] = 0;
    return out;
}

/* What the regular expressions give (Python's regex module agrees on 70319 texts). */
static void words_of_each_pre(void) {
#define ETE "\xC3\xA9t\xC3\xA9" /* e acute, t, e acute */
#define HALF "\xC2\xBD"         /* one half: a number */
#define WIDE "\xE3\x80\x80"     /* U+3000: a space */
    static const char text[] = "I'll pay  $12345.5 (" ETE ")\n\n It'S  1" HALF WIDE;
    CHECK_STR(words_of("gpt-2", text),
              "I|'ll| pay| | $|12345|.|5| (|" ETE "|)|\n\n| It|'|S| | 1" HALF "|" WIDE);
    CHECK_STR(words_of("llama-bpe", text),
              "I|'ll| pay| | $|123|45|.|5| (|" ETE "|)\n\n| It|'S| | |1" HALF "|" WIDE);
    CHECK_STR(words_of("qwen2", text),
              "I|'ll| pay| | $|1|2|3|4|5|.|5| (|" ETE "|)\n\n| It|'S| | |1|" HALF "|" WIDE);
    CHECK_STR(words_of("smollm", text),
              "I|'ll| pay| | $|1|2|3|4|5|.|5| (|" ETE "|)|\n\n| It|'|S|  |1|" HALF "|" WIDE);
    CHECK_STR(words_of("default", text),
              "I|'|ll| pay|  |$|123|45|.|5| |(|" ETE "|)|\n\n| It|'|S| | |1" HALF "|" WIDE);
    CHECK_STR(words_of("gpt-2", "a\xFF\xE2\x82 b"), "a|\xFF\xE2\x82| b");
}

/* --- special tokens --------------------------------------------------------------------------- */

static void special_tokens_of_files(void) {
    sm_model *spm = vocab_open(vocab_names[0]), *qwen = vocab_open(vocab_names[4]);
    sm_model *llama = vocab_open(vocab_names[3]), *gpt = vocab_open(vocab_names[2]);
    sm_tokenizer *t;
    if (spm) { /* a space goes in front of what follows a special token, too */
        t = tokenizer_make(spm, 256);
        CHECK_STR(ids_of_text(t, "a<s>b</s>", SM_TEXT_SPECIAL), "263 1 289 2 ");
        CHECK_STR(ids_of_text(t, "<s>", 0), "529 29879 29958 "); /* text stays text */
        CHECK_STR(ids_of_text(t, "<0x41><unk>", 0), "529 29900 29916 29946 29896 5299 2960 29958 ");
        CHECK_STR(ids_of_text(t, "Hello", SM_TEXT_BOS), "1 15043 ");
        CHECK_STR(ids_of_text(t, "", SM_TEXT_BOS), "1 ");
        CHECK_STR(ids_of_text(t, "", 0), "");
        CHECK(sm_token_is_end(spm, 2) && !sm_token_is_end(spm, 1) && !sm_token_is_end(spm, 15043));
        CHECK(!sm_token_is_end(spm, -1) && !sm_token_is_end(spm, 32000));
        sm_tokenizer_destroy(t);
    }
    if (qwen) {
        t = tokenizer_make(qwen, 256);
        CHECK_STR(ids_of_text(t, "<|im_start|>hi<|im_end|>\n", SM_TEXT_SPECIAL | SM_TEXT_BOS),
                  "151644 6023 151645 198 "); /* Qwen has no BOS */
        CHECK_STR(ids_of_text(t, "<|im_end|>", 0), "27 91 318 6213 91 29 ");
        CHECK(sm_token_is_end(qwen, 151645) && sm_token_is_end(qwen, 151643));
        CHECK(!sm_token_is_end(qwen, 151644));
        sm_tokenizer_destroy(t);
    }
    if (llama) {
        t = tokenizer_make(llama, 256);
        CHECK_STR(ids_of_text(t, "Hello<|eot_id|>", SM_TEXT_SPECIAL | SM_TEXT_BOS),
                  "128000 9906 128009 ");
        CHECK(sm_token_is_end(llama, 128001) && sm_token_is_end(llama, 128009));
        sm_tokenizer_destroy(t);
    }
    if (gpt) {
        t = tokenizer_make(gpt, 256);
        CHECK_STR(ids_of_text(t, "Hello<|endoftext|>", SM_TEXT_SPECIAL | SM_TEXT_BOS),
                  "15496 50256 ");
        sm_tokenizer_destroy(t);
    }
    sm_model_close(spm);
    sm_model_close(qwen);
    sm_model_close(llama);
    sm_model_close(gpt);
}

/* The longest at the leftmost place; user-defined ones always, the others on request. */
static void special_tokens_match_longest(void) {
    toy *y = toy_new(SM__VOCAB_BPE);
    sm_model *m;
    sm_tokenizer *t;
    toy_bytes(y);
    toy_add(y, "<a>", SM__TOKEN_CONTROL, 0);    /* 256 */
    toy_add(y, "<a><b>", SM__TOKEN_CONTROL, 0); /* 257 */
    toy_add(y, "<a", SM__TOKEN_USER, 0);        /* 258 */
    toy_add(y, "<a", SM__TOKEN_CONTROL, 0);     /* 259: the same text; the user's stays */
    toy_add(y, "><", SM__TOKEN_USER, 0);        /* 260 */
    toy_add(y, "\xFF\xFE", SM__TOKEN_USER, 0);  /* 261: any bytes */
    toy_add(y, "?", SM__TOKEN_UNKNOWN, 0);      /* 262 */
    m = toy_model(y);
    t = m ? tokenizer_make(m, 64) : NULL;
    if (t) {
        CHECK_STR(ids_of_text(t, "<a><b><a>", SM_TEXT_SPECIAL), "257 256 ");
        CHECK_STR(ids_of_text(t, "<a><b", SM_TEXT_SPECIAL), "256 60 98 ");
        CHECK_STR(ids_of_text(t, "<a><b>", 0), "258 260 98 62 ");
        CHECK_STR(ids_of_text(t, "<a", SM_TEXT_SPECIAL), "258 ");
        CHECK_STR(ids_of_text(t, "<", SM_TEXT_SPECIAL), "60 ");
        CHECK_STR(ids_of_text(t, "\xFF\xFE\xFF", SM_TEXT_BYTES), "261 255 ");
        CHECK_STR(ids_of_text(t, "?", 0), "63 ");
        CHECK_STR(ids_of_text(t, "?", SM_TEXT_SPECIAL), "262 ");
    }
    sm_tokenizer_destroy(t);
    sm_model_close(m);
    free(y);
}

/* --- vocabularies by hand --------------------------------------------------------------------- */

static void spm_by_hand(void) {
    toy *y = toy_new(SM__VOCAB_SPM);
    sm_model *m;
    sm_tokenizer *t;
    size_t n = 0;
    toy_add(y, "<unk>", SM__TOKEN_UNKNOWN, 0);       /* 0 */
    toy_add(y, "\xE2\x96\x81", SM__TOKEN_NORMAL, -9); /* 1 */
    toy_add(y, "a", SM__TOKEN_NORMAL, -8);           /* 2 */
    toy_add(y, "b", SM__TOKEN_NORMAL, -7);           /* 3 */
    toy_add(y, "ab", SM__TOKEN_NORMAL, -2);          /* 4 */
    toy_add(y, "ba", SM__TOKEN_NORMAL, -2);          /* 5: a tie goes to the left */
    toy_add(y, "aba", SM__TOKEN_NORMAL, -1);         /* 6 */
    toy_add(y, "ab", SM__TOKEN_NORMAL, 5);           /* 7: a duplicate; the lowest id stays */
    toy_add(y, "", SM__TOKEN_NORMAL, 9);             /* 8: never matched */
    toy_add(y, "<0x63>", SM__TOKEN_BYTE, 0);         /* 9: the only byte */
    toy_add(y, "bb", SM__TOKEN_NORMAL, (float)NAN);  /* 10: the worst score */
    toy_add(y, "bbb", SM__TOKEN_NORMAL, -INFINITY);  /* 11 */
    m = toy_model(y);
    t = m ? tokenizer_make(m, 64) : NULL;
    if (t) {
        CHECK_STR(ids_of_text(t, "ab", 0), "1 4 ");
        CHECK_STR(ids_of_text(t, "baba", 0), "1 5 5 ");  /* ba first, then aba has no pair */
        CHECK_STR(ids_of_text(t, "aab", 0), "1 2 4 ");
        CHECK_STR(ids_of_text(t, "ab a", 0), "1 4 1 2 ");
        CHECK_STR(ids_of_text(t, "bbba", 0), "1 10 5 "); /* ba before the NaN, which still merges */
        CHECK_STR(ids_of_text(t, "bbb", 0), "1 11 ");    /* bb, then bbb at -inf */
        CHECK_STR(ids_of_text(t, "c", 0), "1 9 ");
        CHECK_STR(ids_of_text(t, "d\xC3\xA9z", 0), "1 0 0 0 "); /* unknown: one a character */
        CHECK_STR(ids_of_text(t, "\xE2\x96\x81" "a", 0), "1 1 2 "); /* U+2581 is a space */
        CHECK(m->vocab.unk == 0);
        CHECK_STR(sm_token_text(m, 1, &n) ? "text" : "none", "text");
        CHECK(n == 1 && *sm_token_text(m, 1, NULL) == ' ');
        CHECK(sm_token_text(m, 9, &n) && n == 1 && *sm_token_text(m, 9, NULL) == 'c');
        CHECK(sm_token_text(m, 8, &n) && n == 0);
        CHECK(!sm_token_text(m, 12, &n) && !sm_token_text(m, -1, &n));
        CHECK(!sm_token_text(NULL, 0, &n));
    }
    sm_tokenizer_destroy(t);
    sm_model_close(m);
    y->v.add_space_prefix = 0;
    m = toy_model(y);
    t = m ? tokenizer_make(m, 64) : NULL;
    if (t) CHECK_STR(ids_of_text(t, "ab", SM_TEXT_BOS), "4 "); /* no prefix, and no BOS to add */
    sm_tokenizer_destroy(t);
    sm_model_close(m);
    free(y);
}

static void bpe_by_hand(void) {
    toy *y = toy_new(SM__VOCAB_BPE);
    sm_model *m;
    sm_tokenizer *t;
    toy_bytes(y);
    toy_add(y, "ab", SM__TOKEN_NORMAL, 0);         /* 256 */
    toy_add(y, "abc", SM__TOKEN_NORMAL, 0);        /* 257 */
    toy_add(y, "bc", SM__TOKEN_NORMAL, 0);         /* 258 */
    toy_add(y, "\xC4\xA0" "a", SM__TOKEN_NORMAL, 0); /* 259: " a" */
    toy_add(y, "aa", SM__TOKEN_NORMAL, 0);         /* 260 */
    toy_merge(y, "b c");
    toy_merge(y, "a b");
    toy_merge(y, "a bc");
    toy_merge(y, "a a");
    toy_merge(y, "\xC4\xA0 a");
    toy_merge(y, "a a"); /* a duplicate: its first rank stays */
    m = toy_model(y);
    t = m ? tokenizer_make(m, 64) : NULL;
    if (t) {
        CHECK_STR(ids_of_text(t, "abc", 0), "257 "); /* b c, then a bc */
        CHECK_STR(ids_of_text(t, "abab", 0), "256 256 ");
        CHECK_STR(ids_of_text(t, "aaa", 0), "260 97 "); /* a tie goes to the left */
        CHECK_STR(ids_of_text(t, " aa", 0), "32 260 ");
        CHECK_STR(ids_of_text(t, " a", 0), "259 ");
        CHECK_STR(ids_of_text(t, "\xC3\xA9", 0), "195 169 ");
        CHECK(m->vocab.tables->pre == &sm__pres[1]);
    }
    sm_tokenizer_destroy(t);
    sm_model_close(m);
    free(y);
}

/* A vocabulary without some bytes: the unknown id, or nothing. */
static void bpe_without_bytes(void) {
    toy *y = toy_new(SM__VOCAB_BPE);
    toy_add(y, "a", SM__TOKEN_NORMAL, 0);
    toy_add(y, "<unk>", SM__TOKEN_UNKNOWN, 0);
    CHECK_STR(toy_ids_of(y, "abba"), "0 1 1 0 ");
    y->kinds[1] = SM__TOKEN_NORMAL;
    CHECK_STR(toy_ids_of(y, "abba"), "0 0 ");
    free(y);
}

/* --- text that means harm --------------------------------------------------------------------- */

static void any_bytes_are_kept(void) {
    int i, k, n;
    for (i = 0; i < N_VOCABS; i++) {
        sm_model *m = vocab_open(vocab_names[i]);
        sm_tokenizer *t = m ? tokenizer_make(m, 256) : NULL;
        for (k = 0; t && k < 256; k++) {
            char s[4];
            s[0] = (char)k, s[1] = 'x', s[2] = (char)k, s[3] = (char)k;
            for (n = 1; n <= 4; n++) check_lossless(t, s, (size_t)n);
        }
        for (k = 0; t && k < 2000; k++) {
            static const char *const parts[] = {
                "a", " ", "\n", "1", "'s", "\xF0\x9F\x98\x80", "\xF0\x9F\x98", "\xED\xA0\x80",
                "\xC0\xAF", "\xE0\x80\xAF", "\xF4\x90\x80\x80", "\xC3\xA9", "\x80", "\xFF", "Hello",
            };
            char s[200];
            for (n = 0; n < 190;) {
                const char *p = parts[random_below(sizeof parts / sizeof *parts)];
                if (random_below(4) == 0) s[n++] = (char)random_below(256);
                memcpy(s + n, p, strlen(p));
                n += (int)strlen(p);
                if (random_below(20) == 0) break;
            }
            check_lossless(t, s, (size_t)n);
        }
        sm_tokenizer_destroy(t);
        sm_model_close(m);
    }
}

/* Nothing is read beyond the text. */
static void text_may_end_at_a_page(void) {
    sm_model *m = vocab_open(vocab_names[4]), *spm = vocab_open(vocab_names[0]);
    guard g = guard_make(4096);
    static const char text[] = "Hello <|im_start|> \xF0\x9F\x98\x80'll 12 <|im_end|>'r\xE2\x96\x81";
    size_t n;
    if (m && spm) {
        sm_tokenizer *t = tokenizer_make(m, 4096), *u = tokenizer_make(spm, 4096);
        for (n = 0; n < sizeof text; n++) {
            char *s = (char *)g.end - n;
            int count;
            memcpy(s, text, n);
            CHECK_STATUS(sm_tokenize(t, s, n, SM_TEXT_SPECIAL, NULL, 0, &count), SM_OK);
            CHECK_STATUS(sm_tokenize(u, s, n, SM_TEXT_SPECIAL, NULL, 0, &count), SM_OK);
        }
        sm_tokenizer_destroy(t);
        sm_tokenizer_destroy(u);
    }
    guard_free(&g);
    sm_model_close(m);
    sm_model_close(spm);
}

/* --- limits ----------------------------------------------------------------------------------- */

static void full_is_counted(void) {
    sm_model *m = vocab_open(vocab_names[0]);
    sm_tokenizer *t;
    int32_t ids[8];
    char text[32];
    int n = -1, max;
    size_t bytes = 99;
    if (!m) return;
    t = tokenizer_make(m, 12);
    for (max = 0; max < 8; max++) { /* " Hello world" has 2 ids */
        memset(ids, 0x77, sizeof ids);
        CHECK_STATUS(sm_tokenize(t, "Hello world!", 12, SM_TEXT_BOS, ids, max, &n),
                     max < 4 ? SM_ERR_FULL : SM_OK);
        CHECK(n == 4);
        CHECK(max >= 8 || ids[max < 4 ? max : 4] == 0x77777777); /* nothing beyond max */
        CHECK(max == 0 || ids[0] == 1);
    }
    CHECK_STATUS(sm_tokenize(t, "Hello world!", 12, 0, NULL, 0, &n), SM_OK);
    CHECK(n == 3);
    CHECK_STATUS(sm_tokenize(t, "Hello world!!", 13, 0, ids, 8, &n), SM_ERR_FULL); /* workspace */
    CHECK(n == 0);
    CHECK_STATUS(sm_tokenize(t, "x", 1, 0, ids, 8, NULL), SM_OK);
    CHECK_STATUS(sm_tokenize(t, NULL, 0, 0, ids, 8, &n), SM_OK);
    CHECK(n == 0);
    CHECK_STATUS(sm_tokenize(t, NULL, 1, 0, ids, 8, &n), SM_ERR_ARG);
    CHECK_STATUS(sm_tokenize(t, "x", 1, 0, NULL, 1, &n), SM_ERR_ARG);
    CHECK_STATUS(sm_tokenize(t, "x", 1, 0, ids, -1, &n), SM_ERR_ARG);
    CHECK_STATUS(sm_tokenize(NULL, "x", 1, 0, ids, 8, &n), SM_ERR_ARG);
    CHECK_STATUS(sm_tokenize(t, "Hello world!", 12, SM_TEXT_BOS, ids, 8, &n), SM_OK);
    for (max = 0; max < 20; max++) {
        memset(text, 0x77, sizeof text);
        CHECK_STATUS(sm_detokenize(m, ids, n, 0, text, (size_t)max, &bytes),
                     max <= 12 ? SM_ERR_FULL : SM_OK);
        CHECK(bytes == 12 && text[max] == 0x77);
        if (!max) continue;
        CHECK(strlen(text) < (size_t)max && strncmp(text, "Hello world!", strlen(text)) == 0);
    }
    CHECK_STATUS(sm_detokenize(m, ids, n, 0, NULL, 0, &bytes), SM_OK);
    CHECK(bytes == 12);
    CHECK_STATUS(sm_detokenize(m, ids, n, SM_TEXT_RAW, text, sizeof text, &bytes), SM_OK);
    CHECK_STR(text, "<s> Hello world!");
    ids[1] = 32000;
    CHECK_STATUS(sm_detokenize(m, ids, n, 0, text, sizeof text, &bytes), SM_ERR_ARG);
    CHECK_STATUS(sm_detokenize(m, ids, -1, 0, text, sizeof text, &bytes), SM_ERR_ARG);
    CHECK_STATUS(sm_detokenize(m, NULL, 1, 0, text, sizeof text, &bytes), SM_ERR_ARG);
    CHECK_STATUS(sm_detokenize(m, NULL, 0, 0, text, sizeof text, &bytes), SM_OK);
    CHECK(text[0] == 0 && bytes == 0);
    sm_tokenizer_destroy(t);
    sm_model_close(m);
}

static void create_checks_its_arguments(void) {
    sm_model *m = vocab_open("models/stories260K/stories260K.gguf");
    sm_allocator half = {NULL, NULL, NULL};
    sm_tokenizer *t = NULL;
    sm_error error;
    sm_model bare;
    void *memory;
    size_t bytes;
    if (!m) return;
    half.alloc = heap_alloc;
    memset(&bare, 0, sizeof bare);
    CHECK_STATUS(sm_tokenizer_create(m, 16, NULL, NULL, &error), SM_ERR_ARG);
    CHECK_STATUS(sm_tokenizer_create(NULL, 16, NULL, &t, &error), SM_ERR_ARG);
    CHECK_STATUS(sm_tokenizer_create(m, 16, &half, &t, &error), SM_ERR_ARG);
    CHECK_STATUS(sm_tokenizer_create(&bare, 16, NULL, &t, &error), SM_ERR_UNSUPPORTED);
    CHECK_STATUS(sm_tokenizer_create(m, (size_t)-1, NULL, &t, &error), SM_ERR_ARG);
    CHECK_STATUS(sm_tokenizer_create(m, SM__MAX_TEXT + 1, NULL, &t, NULL), SM_ERR_ARG);
    CHECK(t == NULL && sm__tokenizer_bytes(&bare, 16) == 0);
    sm_tokenizer_destroy(NULL);
    CHECK_STATUS(sm_tokenizer_create(m, 0, NULL, &t, &error), SM_OK); /* malloc */
    CHECK_STR(ids_of_text(t, "", 0), "");
    CHECK_STATUS(sm_tokenize(t, "x", 1, 0, NULL, 0, NULL), SM_ERR_FULL);
    sm_tokenizer_destroy(t);
    bytes = sm__tokenizer_bytes(m, 1000); /* in somebody's memory, as contexts do */
    CHECK(bytes >= 51000 && bytes <= 57000);
    memory = malloc(bytes + 64);
    t = sm__tokenizer_place(m, 1000, sm__align_pointer(memory));
    CHECK(round_trip(t, "Once upon a time", 16) > 3);
    sm_tokenizer_destroy(t); /* not its to free */
    CHECK(round_trip(t, "Once upon a time", 16) > 3);
    free(memory);
    sm_model_close(m);
}

static void no_heap_after_creation(void) {
    sm_model *m = vocab_open(vocab_names[2]);
    sm_tokenizer *t = m ? tokenizer_make(m, 256) : NULL;
    int32_t ids[256];
    char text[256];
    int i, n = 0;
    size_t bytes;
    uint32_t before, after;
    if (!t) return;
    before = heap_calls() + heap.calls;
    for (i = 0; i < 100; i++) {
        sm_tokenize(t, "Hello world, 12345 <|endoftext|>", 32, SM_TEXT_SPECIAL, ids, 256, &n);
        sm_detokenize(m, ids, n, SM_TEXT_RAW, text, sizeof text, &bytes);
    }
    after = heap_calls() + heap.calls;
    CHECK(before == after && n > 4);
    sm_tokenizer_destroy(t);
    sm_model_close(m);
}

/* --- the decoder ------------------------------------------------------------------------------ */

/* Bytes as tokens of a vocabulary of bytes through the streaming decoder, each push into exactly
 * the room that it needs. Returns the length. */
static size_t stream(const sm_model *m, const int32_t *ids, int n, char *out, size_t max) {
    sm_decoder d;
    size_t used = 0, bytes;
    int i;
    sm_decoder_init(&d);
    for (i = 0; i < n; i++) {
        size_t room = max - used;
        sm_decoder before = d;
        CHECK_STATUS(sm_decoder_push(&d, m, ids[i], 0, out + used, room, &bytes), SM_OK);
        if (bytes) { /* one byte less: nothing happens */
            sm_decoder again = before;
            size_t none = 9;
            CHECK_STATUS(sm_decoder_push(&again, m, ids[i], 0, out + used, bytes - 1, &none),
                         SM_ERR_FULL);
            CHECK(none == 0 && memcmp(&again, &before, sizeof again) == 0);
            CHECK_STATUS(sm_decoder_push(&again, m, ids[i], 0, out + used, bytes, &none), SM_OK);
        }
        used += bytes;
    }
    CHECK(d.n_tail == 0 || sm_decoder_flush(&d, out + used, 2) == 0); /* too small: later */
    used += sm_decoder_flush(&d, out + used, max - used);
    CHECK(d.n_tail == 0 && sm_decoder_flush(&d, out, max) == 0);
    return used;
}

/* The examples of the Unicode standard, tables 3-8 to 3-11, and the ends of texts. '?' = U+FFFD. */
static void bad_bytes_become_fffd(void) {
    static const struct {
        const char *bytes, *want;
    } cases[] = {
        {"\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64", "a???b?c??d"},
        {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", "????????A"},
        {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", "????????A"},
        {"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", "?????A??B"},
        {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", "????A"},
        {"x\xF0\x9F\x98", "x?"},
        {"x\xE2", "x?"},
        {"\xE2\xE2\xE2\x82\xAC", "??\xE2\x82\xAC"},
    };
    toy *y = toy_new(SM__VOCAB_BPE);
    sm_model *m;
    size_t c, i, n, used;
    toy_bytes(y);
    m = toy_model(y);
    for (c = 0; m && c < sizeof cases / sizeof *cases; c++) {
        char want[64], got[64], whole[64];
        int32_t ids[32];
        for (i = used = 0; cases[c].want[i]; i++) {
            if (cases[c].want[i] == '?') memcpy(want + used, "\xEF\xBF\xBD", 3), used += 3;
            else want[used++] = cases[c].want[i];
        }
        want[used] = 0;
        n = strlen(cases[c].bytes);
        for (i = 0; i < n; i++) ids[i] = (unsigned char)cases[c].bytes[i];
        got[stream(m, ids, (int)n, got, 60)] = 0;
        CHECK_STR(got, want);
        CHECK_STATUS(sm_detokenize(m, ids, (int)n, 0, whole, sizeof whole, &used), SM_OK);
        CHECK_STR(whole, want);
    }
    sm_model_close(m);
    free(y);
}

/* Bytes cut into two tokens at every place give what they give as one token. */
static void every_split_decodes_alike(void) {
    int round, k;
    for (round = 0; round < 60; round++) {
        char text[24], want[100], got[100];
        toy *y = toy_new(SM__VOCAB_SPM);
        sm_model *m;
        sm_decoder d;
        size_t n_want, bytes;
        int n = 1 + random_below(20);
        for (k = 0; k < n; k++) {
            static const char some[] = "\xF0\x9F\x98\x80\xE2\x82\xAC\xC3\xA9 ab"
                                       "\xED\xA0\xF4\x90\x80\xFF";
            text[k] = random_below(3) ? some[random_below((int)sizeof some - 1)]
                                      : (char)random_below(256);
        }
        toy_add_n(y, text, (size_t)n, SM__TOKEN_NORMAL, 0);
        for (k = 0; k <= n; k++) {
            toy_add_n(y, text, (size_t)k, SM__TOKEN_NORMAL, 0);
            toy_add_n(y, text + k, (size_t)(n - k), SM__TOKEN_NORMAL, 0);
        }
        y->v.add_space_prefix = round & 1;
        y->v.plain_spaces = round >> 1 & 1;
        m = toy_model(y);
        for (k = -1; m && k <= n; k++) {
            int32_t ids[2];
            ids[0] = k < 0 ? 0 : 1 + 2 * k;
            ids[1] = 2 + 2 * k;
            if (k < 0) {
                CHECK_STATUS(sm_detokenize(m, ids, 1, 0, want, sizeof want, &n_want), SM_OK);
                bytes = n_want;
            } else bytes = stream(m, ids, 2, got, sizeof got);
            if (k >= 0) CHECK(bytes == n_want && memcmp(got, want, bytes) == 0);
        }
        sm_decoder_init(&d); /* the room that the header promises is enough */
        if (m) CHECK_STATUS(sm_decoder_push(&d, m, 0, 0, got, 3 * (size_t)n + 12, &bytes), SM_OK);
        sm_model_close(m);
        free(y);
    }
}

static void pieces_are_whole_characters(void) {
    static const char text[] = "caf\xC3\xA9 \xF0\x9F\xA6\x99\xF0\x9F\x98\xB6\xE2\x80\x8D "
                               "\xE1\x9E\x80\xE1\x9E\xB6\xE1\x9E\x93\xE6\x88\x91";
    int i, k;
    for (i = 0; i < N_VOCABS; i++) {
        sm_model *m = vocab_open(vocab_names[i]);
        sm_tokenizer *t = m ? tokenizer_make(m, 256) : NULL;
        int32_t ids[256];
        int n = 0;
        sm_decoder d;
        char all[256];
        size_t used = 0, bytes;
        if (!t) continue;
        CHECK_STATUS(sm_tokenize(t, text, sizeof text - 1, SM_TEXT_BOS, ids, 256, &n), SM_OK);
        sm_decoder_init(&d);
        for (k = 0; k < n; k++) {
            size_t at = used;
            uint32_t code;
            CHECK_STATUS(sm_decoder_push(&d, m, ids[k], 0, all + used, 256 - used, &bytes), SM_OK);
            for (used += bytes; at < used;) {
                int length = sm__utf8_read((unsigned char *)all + at, used - at, &code);
                if (!CHECK(length > 0)) break;
                at += (size_t)length;
            }
        }
        CHECK(used == sizeof text - 1 && memcmp(all, text, used) == 0);
        sm_tokenizer_destroy(t);
        sm_model_close(m);
    }
}

static void the_first_space_is_dropped_once(void) {
    toy *y = toy_new(SM__VOCAB_SPM);
    sm_model *m;
    static const int32_t ids[] = {0, 3, 1, 1, 2, 0, 1, 2};
    char text[32];
    size_t bytes;
    toy_add(y, "<s>", SM__TOKEN_CONTROL, 0);                 /* 0 */
    toy_add(y, "\xE2\x96\x81", SM__TOKEN_NORMAL, 0);         /* 1 */
    toy_add(y, "\xE2\x96\x81" "b", SM__TOKEN_NORMAL, 0);     /* 2 */
    toy_add(y, "", SM__TOKEN_NORMAL, 0);                     /* 3 */
    m = toy_model(y);
    if (m) {
        CHECK_STATUS(sm_detokenize(m, ids, 8, 0, text, sizeof text, &bytes), SM_OK);
        CHECK_STR(text, "  b  b");
        CHECK_STATUS(sm_detokenize(m, ids, 8, SM_TEXT_RAW, text, sizeof text, &bytes), SM_OK);
        CHECK_STR(text, "<s>   b<s>  b");
    }
    sm_model_close(m);
    y->v.add_space_prefix = 0;
    m = toy_model(y);
    if (m) {
        CHECK_STATUS(sm_detokenize(m, ids, 8, 0, text, sizeof text, &bytes), SM_OK);
        CHECK_STR(text, "   b  b");
    }
    sm_model_close(m);
    free(y);
}

/* --- vocabularies that mean harm -------------------------------------------------------------- */

/* Opening must fail with this status and a message that has this word. */
static void check_refused(toy *y, sm_status status, const char *word) {
    sm_model *m = NULL;
    sm_error error;
    memset(&error, 0, sizeof error);
    CHECK_STATUS(toy_open(y, &m, &error), status);
    if (!strstr(error.text, word)) FAIL("\"%s\" does not say \"%s\"", error.text, word);
    sm_model_close(m);
}

static void bad_tokens_are_refused(void) {
    static const char *const bytes[] = {"<0x-1>", "<0x1>",  "<0x123>", "<0xG0>", "0x41",  "<0x41",
                                        "",       "<0X41>", "<0x 1>",  "<0x4 >", "<0x41>>"};
    toy *y = toy_new(SM__VOCAB_SPM);
    char *huge = (char *)malloc(SM__MAX_TOKEN_BYTES + 1);
    sm_model *m;
    size_t i;
    memset(huge, 'h', SM__MAX_TOKEN_BYTES + 1);
    check_refused(y, SM_ERR_FORMAT, "0 tokens");
    toy_add(y, "a", SM__TOKEN_NORMAL, 0);
    y->v.n = SM__MAX_VOCAB + 1;
    {
        sm_model bare; /* too many to copy: the check alone */
        sm_error error;
        memset(&bare, 0, sizeof bare);
        bare.vocab = y->v;
        bare.vocab.kind = SM__VOCAB_SPM;
        bare.vocab.tokens = y->tokens;
        CHECK_STATUS(sm__vocab_build(&bare, &error), SM_ERR_FORMAT);
        bare.vocab.n = -1;
        CHECK_STATUS(sm__vocab_build(&bare, &error), SM_ERR_FORMAT);
        bare.vocab.n = 1;
        bare.vocab.kind = 7;
        CHECK_STATUS(sm__vocab_build(&bare, &error), SM_ERR_UNSUPPORTED);
        bare.vocab.kind = SM__VOCAB_NONE;
        CHECK_STATUS(sm__vocab_build(&bare, &error), SM_OK);
        CHECK(!bare.vocab.tables);
    }
    y->v.n = 1;
    toy_add(y, "", SM__TOKEN_BYTE, 0);
    for (i = 0; i < sizeof bytes / sizeof *bytes; i++) {
        y->tokens[1].p = bytes[i];
        y->tokens[1].n = strlen(bytes[i]);
        check_refused(y, SM_ERR_FORMAT, "byte token 1");
    }
    y->tokens[1].p = huge;
    y->tokens[1].n = SM__MAX_TOKEN_BYTES + 1;
    y->kinds[1] = SM__TOKEN_NORMAL;
    check_refused(y, SM_ERR_FORMAT, "token 1 has more than");
    y->tokens[1].n = (size_t)-1; /* length truncation: CVE-2025-49847 */
    check_refused(y, SM_ERR_FORMAT, "token 1 has more than");
    y->tokens[1].n = SM__MAX_SPECIAL_BYTES + 1;
    y->kinds[1] = SM__TOKEN_CONTROL;
    check_refused(y, SM_ERR_FORMAT, "special token 1");
    y->tokens[1].n = SM__MAX_TOKEN_BYTES;
    y->kinds[1] = SM__TOKEN_NORMAL;
    m = toy_model(y);
    CHECK(m && m->vocab.max_token_bytes == SM__MAX_TOKEN_BYTES);
    sm_model_close(m);
    free(huge);
    free(y);
}

static void bad_ids_are_refused(void) {
    int i;
    for (i = 0; i < 10; i++) {
        static const char *const names[] = {"bos", "eos", "eot", "unknown", "padding"};
        toy *y = toy_new(SM__VOCAB_SPM);
        int32_t bad = i & 1 ? 1 : -2;
        toy_add(y, "a", SM__TOKEN_NORMAL, 0);
        if (i / 2 == 0) y->v.bos = bad;
        if (i / 2 == 1) y->v.eos = bad;
        if (i / 2 == 2) y->v.eot = bad;
        if (i / 2 == 3) y->v.unk = bad;
        if (i / 2 == 4) y->v.pad = bad;
        check_refused(y, SM_ERR_FORMAT, names[i / 2]);
        free(y);
    }
}

static void bad_merges_are_refused(void) {
    static const char *const lines[] = {"a",   "",    " ",   "a ",     " b",         "ab",   "a  b",
                                        "a z", "z b", "b a", "a \x80", "a \xC5\x84", "a\n b",
                                        "a b c"};
    char *huge = (char *)malloc(2 * SM__MAX_TOKEN_BYTES);
    toy *y = toy_new(SM__VOCAB_BPE);
    size_t i;
    memset(huge, 'a', 2 * SM__MAX_TOKEN_BYTES);
    huge[SM__MAX_TOKEN_BYTES] = ' ';
    toy_add(y, "a", SM__TOKEN_NORMAL, 0);
    toy_add(y, "b", SM__TOKEN_NORMAL, 0);
    toy_add(y, "ab", SM__TOKEN_NORMAL, 0);
    toy_add(y, "z", SM__TOKEN_CONTROL, 0); /* text cannot become it */
    toy_merge(y, "a b");
    for (i = 0; i < sizeof lines / sizeof *lines; i++) {
        y->v.n_merges = 1;
        toy_merge(y, lines[i]);
        check_refused(y, SM_ERR_FORMAT, "merge 1");
    }
    y->merges[1].p = huge;
    y->merges[1].n = 2 * SM__MAX_TOKEN_BYTES;
    check_refused(y, SM_ERR_FORMAT, "merge 1");
    y->merges[1].n = (size_t)-1;
    check_refused(y, SM_ERR_FORMAT, "merge 1");
    free(huge);
    free(y);
}

static void unknown_pre_tokenizers_are_refused(void) {
    toy *y = toy_new(SM__VOCAB_BPE);
    sm_model *m;
    toy_bytes(y);
    y->v.pre.p = "gemma7\n-next";
    y->v.pre.n = 12;
    check_refused(y, SM_ERR_UNSUPPORTED, "\"gemma7?-next\"");
    y->v.given_pre = "qwen2"; /* what the caller says comes first */
    m = toy_model(y);
    CHECK(m && strcmp(m->vocab.tables->pre->name, "qwen2") == 0);
    sm_model_close(m);
    y->v.given_pre = "no such";
    check_refused(y, SM_ERR_UNSUPPORTED, "\"no?such\"");
    y->v.given_pre = NULL;
    y->v.pre.n = 0; /* none: llama.cpp's default, with a line in the log */
    m = toy_model(y);
    CHECK(m && strcmp(m->vocab.tables->pre->name, "default") == 0);
    sm_model_close(m);
    free(y);
}

/* Texts that are made to meet in the hash table are refused, not searched for ever. */
static void colliding_texts_are_refused(void) {
    toy *y = toy_new(SM__VOCAB_SPM);
    sm_model *m = NULL;
    sm_error error;
    uint32_t i;
    char (*texts)[8] = y->text;
    for (i = 0; y->v.n < 640; i++) {
        char s[8];
        snprintf(s, sizeof s, "%x", (unsigned)i);
        if ((sm__hash_bytes((unsigned char *)s, strlen(s)) & 1023) != 5) continue;
        strcpy(texts[y->v.n], s);
        toy_add(y, texts[y->v.n], SM__TOKEN_NORMAL, 0);
    }
    check_refused(y, SM_ERR_FORMAT, "collides");
    y->v.n = 500;
    CHECK_STATUS(toy_open(y, &m, &error), SM_OK);
    sm_model_close(m);
    free(y);
}

/* Duplicates in masses, empty tokens, special tokens that are beginnings of each other. */
static void odd_vocabularies_work(void) {
    static char deep[SM__MAX_SPECIAL_BYTES];
    toy *y = toy_new(SM__VOCAB_SPM);
    sm_model *m;
    sm_tokenizer *t;
    int i, n = 0;
    memset(deep, 'a', sizeof deep);
    toy_bytes(y);
    for (i = 0; i < 100; i++) toy_add(y, "same", i & 1 ? SM__TOKEN_USER : SM__TOKEN_CONTROL, 0);
    for (i = 0; i < 100; i++) toy_add(y, "", i & 1 ? SM__TOKEN_CONTROL : SM__TOKEN_NORMAL, 0);
    for (i = 0; i < 180; i++) toy_add_n(y, deep, 512 - (size_t)i, SM__TOKEN_CONTROL, 0);
    y->v.eos = 256;
    m = toy_model(y);
    t = m ? tokenizer_make(m, 65536) : NULL;
    if (t) {
        char *text = (char *)malloc(65536);
        CHECK_STR(ids_of_text(t, "same", SM_TEXT_SPECIAL), "257 ");
        CHECK(m->vocab.tables->n_specials == 181 && sm_token_is_end(m, 256));
        memset(text, 'a', 65536);
        CHECK_STATUS(sm_tokenize(t, text, 65536, SM_TEXT_SPECIAL, NULL, 0, &n), SM_OK);
        CHECK(n == 128);
        free(text);
    }
    sm_tokenizer_destroy(t);
    sm_model_close(m);
    y->v.n = 1; /* no kinds, no scores */
    y->tokens[0].p = "a";
    y->tokens[0].n = 1;
    {
        sm_model bare;
        sm_allocator a = heap_allocator();
        memset(&bare, 0, sizeof bare);
        bare.heap = sm__heap_make(&a);
        bare.vocab = y->v;
        bare.vocab.kind = SM__VOCAB_SPM;
        bare.vocab.eos = -1;
        bare.vocab.tokens = y->tokens;
        CHECK_STATUS(sm__vocab_build(&bare, NULL), SM_OK);
        CHECK(bare.vocab.kinds && bare.vocab.kinds[0] == SM__TOKEN_NORMAL);
        while (bare.n_chunks) sm__heap_free(&bare.heap, bare.chunks[--bare.n_chunks]);
        sm__heap_free(&bare.heap, bare.chunks);
    }
    free(y);
}

/* Each allocation fails once: SM_ERR_NOMEM, and nothing is kept (the runner counts the blocks). */
static void every_failed_allocation_is_clean(void) {
    int kind;
    for (kind = SM__VOCAB_SPM; kind <= SM__VOCAB_UGM; kind++) {
        toy *y = toy_new(kind);
        sm_allocator a = heap_allocator();
        sm_model *m = NULL;
        sm_tokenizer *t = NULL;
        sm_status status = SM_ERR_NOMEM;
        uint32_t k;
        toy_bytes(y);
        toy_add(y, "ab", SM__TOKEN_NORMAL, 0);
        toy_add(y, "<s>", SM__TOKEN_CONTROL, 0);
        toy_merge(y, "a b");
        for (k = 1; k < 100 && status; k++) {
            uint32_t held = heap.held;
            sm_error error;
            heap_fail(k);
            status = toy_open(y, &m, &error);
            heap_fail(0);
            if (!status) break;
            CHECK_STATUS(status, SM_ERR_NOMEM);
            CHECK(heap.held == held);
        }
        CHECK(!status && k > 9);
        heap_fail(1);
        CHECK_STATUS(sm_tokenizer_create(m, 64, &a, &t, NULL), SM_ERR_NOMEM);
        CHECK(t == NULL);
        heap_fail(0);
        CHECK_STATUS(sm_tokenizer_create(m, 64, &a, &t, NULL), SM_OK);
        sm_tokenizer_destroy(t);
        sm_model_close(m);
        free(y);
    }
}

static const test tests_tokenizer[] = {
    {"tokenizer: llama-spm gives llama.cpp's ids", known_ids_llama_spm},
    {"tokenizer: phi-3 gives llama.cpp's ids", known_ids_phi_3},
    {"tokenizer: gpt-2 gives llama.cpp's ids", known_ids_gpt_2},
    {"tokenizer: llama-bpe gives llama.cpp's ids", known_ids_llama_bpe},
    {"tokenizer: qwen2 gives llama.cpp's ids", known_ids_qwen2},
    {"tokenizer: stories260K's ids are its texts, in both formats", stories_texts},
    {"tokenizer: whole texts come back", texts_come_back},
    {"tokenizer: SPM word by word is SPM of the whole", words_equal_the_whole},
    {"tokenizer: endless repeats take n log n", repeats_are_quick},
    {"tokenizer: UTF-8 follows the standard's table", utf8_follows_the_table},
    {"tokenizer: every character is read, no surrogate is", utf8_reads_every_character},
    {"tokenizer: classes of characters", classes_of_characters},
    {"tokenizer: words of each pre-tokenizer", words_of_each_pre},
    {"tokenizer: special tokens of real vocabularies", special_tokens_of_files},
    {"tokenizer: special tokens match longest, leftmost", special_tokens_match_longest},
    {"tokenizer: SPM by hand", spm_by_hand},
    {"tokenizer: BPE by hand", bpe_by_hand},
    {"tokenizer: BPE without some bytes", bpe_without_bytes},
    {"tokenizer: any bytes are kept", any_bytes_are_kept},
    {"tokenizer: nothing is read beyond the text", text_may_end_at_a_page},
    {"tokenizer: full is counted, nothing is written beyond", full_is_counted},
    {"tokenizer: create checks its arguments", create_checks_its_arguments},
    {"tokenizer: no heap call after creation", no_heap_after_creation},
    {"tokenizer: bad bytes become U+FFFD by maximal subparts", bad_bytes_become_fffd},
    {"tokenizer: every split decodes alike", every_split_decodes_alike},
    {"tokenizer: pieces are whole characters", pieces_are_whole_characters},
    {"tokenizer: the first space is dropped once", the_first_space_is_dropped_once},
    {"tokenizer: bad tokens are refused", bad_tokens_are_refused},
    {"tokenizer: special ids out of range are refused", bad_ids_are_refused},
    {"tokenizer: bad merges are refused, by number", bad_merges_are_refused},
    {"tokenizer: unknown pre-tokenizers are refused, by name", unknown_pre_tokenizers_are_refused},
    {"tokenizer: colliding texts are refused", colliding_texts_are_refused},
    {"tokenizer: odd vocabularies work", odd_vocabularies_work},
    {"tokenizer: every failed allocation is clean", every_failed_allocation_is_clean},
};

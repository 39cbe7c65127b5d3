/* test_words.c - WordPiece, Unigram, normal forms, tokenizer.json and tiktoken by hand; every rule
 * of the pre-tokenizers' table on texts that mean harm. (llama.cpp's and Hugging Face's answers on
 * random texts are compared by tokens.sh and hf_ids.sh.) */

/* --- WordPiece -------------------------------------------------------------------------------- */

static toy *toy_wordpiece(void) {
    static const char *const pieces[] = {"un",  "##able", "##aff", "e",   "!",
                                         "caf", "##e",    "hot",   "##el"};
    toy *y = toy_new(SM__VOCAB_WPM);
    size_t i;
    toy_add(y, "[PAD]", SM__TOKEN_CONTROL, 0);
    toy_add(y, "[UNK]", SM__TOKEN_UNKNOWN, 0);
    toy_add(y, "[CLS]", SM__TOKEN_CONTROL, 0);
    toy_add(y, "[SEP]", SM__TOKEN_CONTROL, 0);
    for (i = 0; i < sizeof pieces / sizeof *pieces; i++) { /* 4 .. 12, as GGUF has them */
        const char *p = pieces[i];
        if (p[0] == '#') p += 2;
        else p = (const char *)memcpy(y->text[y->v.n], "\xE2\x96\x81", 3);
        if (p == y->text[y->v.n]) strcpy(y->text[y->v.n] + 3, pieces[i]);
        toy_add(y, p, SM__TOKEN_NORMAL, 0);
    }
    toy_add(y, "\xE2\x96\x81\xE4\xB8\x80", SM__TOKEN_NORMAL, 0); /* 13: U+4E00 */
    y->v.bos = 2, y->v.sep = 3, y->v.unk = 1;
    y->v.text_flags = SM__TEXT_CLEAN | SM__TEXT_HAN | SM__TEXT_LOWER | SM__TEXT_STRIP;
    return y;
}

static void wordpiece_by_hand(void) {
    toy *y = toy_wordpiece();
    sm_model *m = toy_model(y);
    sm_tokenizer *t = m ? tokenizer_make(m, 64) : NULL;
    if (t) {
        CHECK_STR(ids_of_text(t, "unaffable", 0), "4 6 5 ");
        CHECK_STR(ids_of_text(t, "  UNAFFABLE! e", SM_TEXT_BOS), "2 4 6 5 8 7 3 ");
        CHECK_STR(ids_of_text(t, "unaffabl", 0), "1 "); /* all of a word, or nothing of it */
        CHECK_STR(ids_of_text(t, "caf\xC3\xA9 cafe\xCC\x81 H\xC3\x94tel", 0), "9 10 9 10 11 12 ");
        CHECK_STR(ids_of_text(t, "un\xE4\xB8\x80un", 0), "4 13 4 "); /* alone */
        CHECK_STR(ids_of_text(t, "u\x01n\xE2\x80\x8B \xFF" "e\xE3\x80\x80!", 0), "4 7 8 ");
        CHECK_STR(ids_of_text(t, "[SEP]", SM_TEXT_SPECIAL), "3 ");
        CHECK_STR(ids_of_text(t, "", SM_TEXT_BOS), "2 3 ");
        CHECK_STR(ids_of_text(t, "", 0), "");
        CHECK(round_trip(t, "unaffable hotel ! e", 19) == 7);
        CHECK_STATUS(sm_tokenize(t, "un", 2, 0, NULL, 0, NULL), SM_OK);
    }
    sm_tokenizer_destroy(t);
    sm_model_close(m);
    y->v.text_flags = SM__TEXT_CLEAN; /* case and accents count, Chinese characters do not */
    m = toy_model(y);
    t = m ? tokenizer_make(m, 64) : NULL;
    if (t) {
        CHECK_STR(ids_of_text(t, "UN un", 0), "1 4 ");
        CHECK_STR(ids_of_text(t, "caf\xC3\xA9", 0), "1 ");
        CHECK_STR(ids_of_text(t, "un\xE4\xB8\x80", 0), "1 ");
    }
    sm_tokenizer_destroy(t);
    sm_model_close(m);
    free(y);
}

/* --- Unigram ---------------------------------------------------------------------------------- */

/* Units of a charsmap that knows "A" (becomes "aa"); U+00C4, "BC" and "D" before U+00C4 (become
 * "a"). */
static size_t tiny_charsmap(uint8_t *out) {
    static const char text[] = "aa\0a";
    uint32_t units[512];
    int i;
    memset(units, 0, sizeof units);
    units[0] = 1u << 10;                                /* root: children at 1 ^ byte */
    units[1 ^ 'A'] = 'A' | 1u << 8 | 2u << 10;          /* leaf: its value at 1 ^ 'A' ^ 2 */
    units[1 ^ 'A' ^ 2] = 1u << 31;                      /* text 0 */
    units[1 ^ 0xC3] = 0xC3 | 256u << 10;                /* children at 1 ^ 0xC3 ^ 256 ^ byte */
    units[1 ^ 0xC3 ^ 256 ^ 0x84] = 0x84 | 1u << 8 | 1u << 10;
    units[1 ^ 0xC3 ^ 256 ^ 0x84 ^ 1] = 1u << 31 | 3;    /* text 3 */
    units[1 ^ 'B'] = 'B' | 128u << 10;
    units[1 ^ 'B' ^ 128 ^ 'C'] = 'C' | 1u << 8 | 1u << 10;
    units[1 ^ 'B' ^ 128 ^ 'C' ^ 1] = 1u << 31 | 3;
    units[1 ^ 'D'] = 'D' | 256u << 10;
    units[1 ^ 'D' ^ 256 ^ 0xC3] = 0xC3; /* children at 390 ^ byte */
    units[1 ^ 'D' ^ 256 ^ 0xC3 ^ 0x84] = 0x84 | 1u << 8 | 1u << 10;
    units[1 ^ 'D' ^ 256 ^ 0xC3 ^ 0x84 ^ 1] = 1u << 31 | 3;
    sm__set32(out, sizeof units);
    for (i = 0; i < 512; i++) sm__set32(out + 4 + 4 * i, units[i]);
    memcpy(out + 4 + sizeof units, text, sizeof text);
    return 4 + sizeof units + sizeof text;
}

static toy *toy_unigram(void) {
    toy *y = toy_new(SM__VOCAB_UGM);
    toy_add(y, "<unk>", SM__TOKEN_UNKNOWN, 0);
    toy_add(y, "</s>", SM__TOKEN_CONTROL, 0);
    toy_add(y, "\xE2\x96\x81", SM__TOKEN_NORMAL, -3);    /* 2 */
    toy_add(y, "a", SM__TOKEN_NORMAL, -2);               /* 3 */
    toy_add(y, "aa", SM__TOKEN_NORMAL, -3.5f);           /* 4 */
    toy_add(y, "\xE2\x96\x81" "a", SM__TOKEN_NORMAL, -4); /* 5 */
    toy_add(y, "b", SM__TOKEN_NORMAL, -5);               /* 6 */
    toy_add(y, "aab", SM__TOKEN_NORMAL, -8.4f);          /* 7 */
    toy_add(y, "<u>", SM__TOKEN_USER, 0);                /* 8 */
    y->v.unk = 0, y->v.eos = 1;
    y->v.add_space_prefix = 1;
    y->v.text_flags = SM__TEXT_MERGE;
    return y;
}

static void unigram_by_hand(void) {
    static uint8_t map[4096];
    toy *y = toy_unigram();
    sm_model *m = toy_model(y);
    sm_tokenizer *t = m ? tokenizer_make(m, 64) : NULL;
    if (t) {
        CHECK_STR(ids_of_text(t, "a", 0), "5 ");        /* -4, not -3 - 2 */
        CHECK_STR(ids_of_text(t, "aa", 0), "5 3 ");     /* -6, not -3 - 3.5 */
        CHECK_STR(ids_of_text(t, "aaa", 0), "5 4 ");    /* -7.5 */
        CHECK_STR(ids_of_text(t, "aab", 0), "5 3 6 ");  /* -11, not -3 - 8.4 */
        CHECK_STR(ids_of_text(t, "  a  b ", SM_TEXT_BOS), "5 2 6 1 "); /* spaces merge; </s> */
        CHECK_STR(ids_of_text(t, "xyza", 0), "2 0 3 "); /* unknown once */
        CHECK_STR(ids_of_text(t, "a<u>a", 0), "5 8 5 ");
        CHECK_STR(ids_of_text(t, "a</s>", SM_TEXT_SPECIAL), "5 1 ");
        CHECK_STR(ids_of_text(t, "\xFF", 0), "2 0 ");
        CHECK_STR(ids_of_text(t, "", 0), "");
        CHECK(round_trip(t, "aab a aaa", 9) == 6);
    }
    sm_tokenizer_destroy(t);
    sm_model_close(m);
    y->v.charsmap.p = (const char *)map;
    y->v.charsmap.n = tiny_charsmap(map);
    m = toy_model(y);
    t = m ? tokenizer_make(m, 64) : NULL;
    if (t) {
        CHECK_STR(ids_of_text(t, "A", 0), "5 3 ");
        CHECK_STR(ids_of_text(t, "\xC3\x84\xC3\x85", 0), "5 0 "); /* U+00C5 is not in it */
        CHECK_STR(ids_of_text(t, "AbA", 0), "5 3 6 4 ");
        CHECK_STR(ids_of_text(t, "BC", 0), "5 ");            /* two ASCII characters */
        CHECK_STR(ids_of_text(t, "D\xC3\x84", 0), "5 ");     /* one, and another */
        CHECK_STR(ids_of_text(t, "abBCb", 0), "5 6 3 6 ");
    }
    sm_tokenizer_destroy(t);
    sm_model_close(m);
    toy_add(y, "bA!", SM__TOKEN_USER, 0); /* what begins so is left as it is */
    CHECK_STR(toy_ids_of(y, "bA"), "2 6 0 ");
    free(y);
}

/* Word by word gives the ids of the whole only while sums are exact; and unknown ids of words that
 * were cut beforehand do not fuse. */
static void unigram_words(void) {
    const double halves[] = {-1, -2.5, 0}, thirds[] = {-1.0 / 3, -2}, big[] = {-1, -1e300};
    toy *y = toy_new(SM__VOCAB_UGM);
    sm_model *m;
    sm_tokenizer *t;
    CHECK((double)sm__exact_sums(halves, 3, -12.5) == 9007199254740992.0 / 2 / 12.5 ||
          sm__exact_sums(halves, 3, -12.5) == 1000000000u);
    CHECK(sm__exact_sums(thirds, 2, -12) < 2 && sm__exact_sums(big, 2, -12) == 0);
    CHECK(sm__exact_sums(halves, 3, -4503599627370496.0) == 1);
    toy_add(y, "<unk>", SM__TOKEN_UNKNOWN, 0);
    toy_add(y, "\xE2\x96\x81" "b", SM__TOKEN_NORMAL, -4503599627370496.0f); /* 2^52 */
    toy_add(y, "\xE2\x96\x81" "x", SM__TOKEN_NORMAL, -0.4f);
    toy_add(y, "y", SM__TOKEN_NORMAL, -0.4f);
    toy_add(y, "\xE2\x96\x81" "xy", SM__TOKEN_NORMAL, -0.6f);
    y->v.unk = 0, y->v.add_space_prefix = 1;
    m = toy_model(y);
    t = m ? tokenizer_make(m, 64) : NULL;
    if (t) {
        CHECK_STR(ids_of_text(t, "xy", 0), "4 ");
        CHECK_STR(ids_of_text(t, "b xy", 0), "1 2 3 "); /* 2^52 + 0.4 is 2^52 */
        CHECK_STR(ids_of_text(t, "xy q q", 0), "4 0 ");
    }
    sm_tokenizer_destroy(t);
    sm_model_close(m);
    y->v.text_flags = SM__TEXT_HF | SM__TEXT_SPLITS;
    y->v.splits.front = SM__FRONT_MISSING;
    y->v.splits.mark = sm__str_of("\xE2\x96\x81");
    y->v.splits.cuts[0].how = SM__CUT_PATTERN;
    y->v.splits.parts[0] = SM__PART_AFTER;
    y->v.splits.patterns[0].from = sm__str_of(" ");
    y->v.splits.n = 1;
    m = toy_model(y);
    t = m ? tokenizer_make(m, 64) : NULL;
    if (t) {
        CHECK_STR(ids_of_text(t, "xy q q", 0), "4 0 0 ");
        CHECK_STR(ids_of_text(t, "\xE2\x96\x81xy xy", 0), "4 4 "); /* it has its space */
        CHECK_STR(ids_of_text(t, " xy", 0), "4 ");
    }
    sm_tokenizer_destroy(t);
    sm_model_close(m);
    free(y);
}

/* The best way through all of a text, by trying every token at every place; spaces stand for
 * U+2581. Of ways that are as good, the one that was found first. */
static void best_way(const toy *y, const char *text, size_t n, char *out) {
    double best[80], unknown = 1e30, weight;
    int ids[80], way[80], steps = 0, last = -1, i;
    size_t from[80], at, end, length;
    for (i = 0; i <= (int)n; i++) best[i] = i ? -1e300 : 0, ids[i] = 0, from[i] = 0;
    for (i = 0; i < y->v.n; i++)
        if (y->kinds[i] == SM__TOKEN_NORMAL && y->scores[i] < unknown) unknown = y->scores[i];
    for (at = 0; at < n; at += length) {
        int single = 0;
        length = (unsigned char)text[at] < 128 ? 1 : 2;
        for (end = at + 1; end <= n; end++)
            for (i = 1; i < y->v.n; i++) {
                const char *s = y->text[i];
                size_t bytes = strlen(s);
                if (bytes != end - at || memcmp(s, text + at, bytes) != 0) continue;
                single |= bytes == length;
                weight = best[at] + (double)y->scores[i];
                if (weight > best[end]) best[end] = weight, ids[end] = i, from[end] = at;
                break;
            }
        end = at + length;
        weight = best[at] + (double)((float)unknown - 10.0f);
        if (!single && weight > best[end]) best[end] = weight, ids[end] = 0, from[end] = at;
    }
    for (at = n; at > 0; at = from[at]) way[steps++] = ids[at];
    for (*out = 0; steps > 0; last = way[steps])
        if (way[--steps] || last) out += snprintf(out, 16, "%d ", way[steps]);
}

static const char *const way_letters[] = {"a", "b", "c", "d", "\xC3\xA9", "\xC3\xAA", " ", " "};

/* Some tokens of such letters; with `apart` a space can only begin one. Half of them have scores
 * that tie. */
static toy *toy_ways(int n, int apart, int ties) {
    static char pieces[640][24]; /* with U+2581 */
    toy *y = toy_new(SM__VOCAB_UGM);
    const char *p;
    int i, k;
    toy_add(y, "<unk>", SM__TOKEN_UNKNOWN, 0);
    for (i = 1; i < n; i++) {
        char *s = y->text[i], *piece = pieces[i];
        for (k = random_below(4); k >= 0 && strlen(s) < 6; k--)
            strcat(s, way_letters[random_below(apart && *s ? 6 : 8)]);
        for (p = s; *p; p++) {
            if (*p == ' ') piece = (char *)memcpy(piece, "\xE2\x96\x81", 3) + 3;
            else *piece++ = *p;
        }
        *piece = 0;
        toy_add(y, pieces[i], SM__TOKEN_NORMAL,
                ties ? -0.125f * (float)random_below(40) : -5 + 4 * random_float());
    }
    y->v.unk = 0;
    return y;
}

static void unigram_finds_the_best_way(void) {
    char text[80], want[640];
    int round, i, k;
    for (round = 0; round < 60; round++) {
        toy *y = toy_ways(20 + 10 * (round & 31), round & 1, round & 2);
        sm_model *m = toy_model(y);
        sm_tokenizer *t = m ? tokenizer_make(m, 80) : NULL;
        if (m && round > 3) CHECK(m->vocab.tables->space_inside == !(round & 1));
        for (k = 0; t && k < 40; k++) {
            for (*text = 0, i = random_below(24); i >= 0; i--)
                strcat(text, way_letters[random_below(8)]);
            best_way(y, text, strlen(text), want);
            CHECK_STR(ids_of_text(t, text, 0), want);
        }
        sm_tokenizer_destroy(t);
        sm_model_close(m);
        free(y);
    }
}

/* A charsmap that was made for harm: every place in it is checked, and a text that grows out of the
 * room is an error. */
static void charsmaps_mean_harm(void) {
    static uint8_t map[4096], bad[4096];
    size_t n = tiny_charsmap(map), k;
    toy *y = toy_unigram();
    sm_error error;
    sm_model *m;
    int round, i;
    y->v.charsmap.p = (const char *)bad;
    for (round = 0; round < 400; round++) {
        memcpy(bad, map, n);
        for (i = random_below(30); i >= 0; i--)
            bad[4 + random_below((int)n - 5)] = (uint8_t)random_below(256);
        y->v.charsmap.n = n;
        m = toy_model(y);
        if (m) {
            sm_tokenizer *t = tokenizer_make(m, 64);
            char text[64];
            int32_t ids[400];
            int count;
            for (k = 0; k < 64; k++) {
                int any = random_below(256);
                text[k] = (char)(any & 1 ? "A\xC3\x84 a"[random_below(5)] : any);
            }
            i = sm_tokenize(t, text, 64, 0, ids, 400, &count);
            CHECK(i == SM_OK || (i == SM_ERR_FULL && count == 0));
            sm_tokenizer_destroy(t);
        }
        sm_model_close(m);
    }
    for (k = 0; k < 8; k++) {
        static const size_t sizes[] = {1, 4, 5, 8, 2051, 2052};
        memcpy(bad, map, n);
        y->v.charsmap.n = k < 6 ? sizes[k] : n;
        if (k == 6) sm__set32(bad, 2049);        /* half a unit */
        if (k == 7) bad[n - 1] = 'x';            /* a text without an end */
        CHECK_STATUS(toy_open(y, &m, &error), SM_ERR_FORMAT);
        CHECK(strstr(error.text, "charsmap") != NULL);
    }
    free(y);
}

/* SPM with fused unknown ids: what is kept of a word does not depend on the words beside it. */
static void unknown_ids_fuse_across_words(void) {
    toy *y = toy_new(SM__VOCAB_SPM);
    sm_model *m;
    sm_tokenizer *t;
    toy_add(y, "<unk>", SM__TOKEN_UNKNOWN, 0);
    toy_add(y, "a", SM__TOKEN_NORMAL, -1);
    y->v.unk = 0;
    y->v.add_space_prefix = 0;
    y->v.fuse_unknown = 1;
    m = toy_model(y);
    t = m ? tokenizer_make(m, 64) : NULL;
    if (t) {
        CHECK_STR(ids_of_text(t, "xx ya", 0), "0 1 ");
        CHECK_STR(ids_of_text(t, "a ya a", 0), "1 0 1 0 1 ");
        CHECK_STR(ids_of_text(t, "xx ya a", 0), "0 1 0 1 ");
        CHECK_STR(ids_of_text(t, "a ya x ya", 0), "1 0 1 0 1 ");
    }
    sm_tokenizer_destroy(t);
    sm_model_close(m);
    free(y);
}

/* A space that has no token is the bytes of U+2581. */
static void spaces_without_a_token(void) {
    toy *y = toy_new(SM__VOCAB_SPM);
    toy_bytes(y);
    y->v.add_space_prefix = 0;
    CHECK_STR(toy_ids_of(y, "a b"), "97 226 150 129 98 ");
    free(y);
}

/* --- Normal forms ----------------------------------------------------------------------------- */

static void form_c_is_the_standards(void) {
    static const char *const cases[][2] = {
        {"plain", "plain"},
        {"e\xCC\x81", "\xC3\xA9"},
        {"\xE2\x84\xAB", "\xC3\x85"},                             /* Angstrom */
        {"\xE1\xB8\x8A\xCC\xA3", "\xE1\xB8\x8C\xCC\x87"},         /* 1E0A 0323: 1E0C 0307 */
        {"D\xCC\x87\xCC\xA3", "\xE1\xB8\x8C\xCC\x87"},            /* marks change places */
        {"\xCD\x84", "\xCC\x88\xCC\x81"},                         /* 0344 never composes */
        {"\xE0\xA5\x98", "\xE0\xA4\x95\xE0\xA4\xBC"},             /* 0958 neither */
        {"\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8", "\xEA\xB0\x81"}, /* Hangul */
        {"\xEA\xB0\x80\xE1\x86\xA8", "\xEA\xB0\x81"},
        {"\xEF\xA4\x80", "\xE8\xB1\x88"},                         /* F900: 8C48 */
        {"a\xCC\x96\xCC\x81\xCC\x96", "\xC3\xA1\xCC\x96\xCC\x96"},
        {"a\xCC\x85\xCC\x81", "a\xCC\x85\xCC\x81"},           /* the first is in the way */
        {"\xCC\x81" "a", "\xCC\x81" "a"},
    };
    toy *y = toy_new(SM__VOCAB_BPE);
    sm_model *m;
    sm_tokenizer *t;
    size_t c, k;
    toy_bytes(y);
    y->v.text_flags = SM__TEXT_HF;
    y->v.edits[0].how = SM__EDIT_FORM;
    y->v.edits[0].flags = SM__FORM_COMPOSED;
    y->v.n_edits = 1;
    m = toy_model(y);
    t = m ? tokenizer_make(m, 1 << 16) : NULL;
    for (c = 0; t && c < sizeof cases / sizeof *cases; c++) {
        int32_t ids[64];
        int n = 0;
        size_t want = strlen(cases[c][1]);
        CHECK_STATUS(sm_tokenize(t, cases[c][0], strlen(cases[c][0]), 0, ids, 64, &n), SM_OK);
        for (k = 0; k < want && k < (size_t)n && ids[k] == (unsigned char)cases[c][1][k]; k++) {
        }
        if ((size_t)n != want || k != want) FAIL("case %d", (int)c);
    }
    if (t) { /* a starter with 30,000 marks that all change places */
        char *text = (char *)malloc(1 << 16);
        int32_t *ids = (int32_t *)malloc((1 << 16) * sizeof *ids);
        int n = 0;
        uint64_t start = sm__now_ns();
        for (k = 0; k < 1 << 16; k += 2) memcpy(text + k, k & 2 ? "\xCC\x96" : "\xCC\x81", 2);
        CHECK_STATUS(sm_tokenize(t, text, 1 << 16, 0, ids, 1 << 16, &n), SM_OK);
        CHECK(n == 1 << 16 && ids[1] == 0x96 && ids[n - 1] == 0x81);
        CHECK(sm__now_ns() - start < 5000000000u);
        free(ids);
        free(text);
    }
    sm_tokenizer_destroy(t);
    t = m ? tokenizer_make(m, 3) : NULL; /* 3 bytes become 6 */
    if (t) {
        int n = 9;
        CHECK_STATUS(sm_tokenize(t, "\xE0\xA5\x98", 3, 0, NULL, 0, &n), SM_ERR_FULL);
        CHECK(n == 0);
    }
    sm_tokenizer_destroy(t);
    sm_model_close(m);
    free(y);
}

/* --- The rules of the pre-tokenizers' table --------------------------------------------------- */

static void rules_by_hand(void) {
    CHECK_STR(words_of("gpt-4o", "camelCase XMLHttp don't\n/ 12345"),
              "camel|Case| XMLHttp| don't|\n|/| |123|45");
    CHECK_STR(words_of("o200k", "\xC3\x89" "col\xC3\x89 e\xCC\x81t"),
              "\xC3\x89" "col|\xC3\x89| e\xCC\x81t");
    CHECK_STR(words_of("gpt-4o", "\xC3\x89" "ABC"), "\xC3\x89|ABC"); /* of both cases there */
    CHECK_STR(words_of("deepseek-v3", "a.b 1234 \xE4\xB8\x80x!\n\n"),
              "a|.b| |123|4| |\xE4\xB8\x80|x|!\n\n");
    CHECK_STR(words_of("superbpe", "ab 1234567 x"), "ab |1|234|567| x");
    CHECK_STR(words_of("afmoe", "ab1234567"), "ab|1|234|567");
    CHECK_STR(words_of("jais-2", "a       b"), "a|    |  | b");
    CHECK_STR(words_of("bloom", "Hi there, you"), "Hi| there|,| you");
    CHECK_STR(words_of("exaone-moe", "one two 3 x"), "one two| |3| x");
    CHECK_STR(words_of("seed-coder", "a!\n"), "a|!|\n");
    CHECK_STR(words_of("falcon", "ab`c 12345"), "ab|`|c| |123|45");
    CHECK_STR(words_of("deepseek-llm", "ab 12  "), "ab| |12|  ");
    CHECK_STR(words_of("chameleon", "<sentinel:12>IMGIMGABZ    x"), /* signs are cut again */
              "<|sentinel|:|1|2|>|IMGIMGABZ|    |x");
    CHECK_STR(words_of("kimi-k2", "a\xE4\xB8\x80\xE4\xB8\x81" "b's"),
              "a|\xE4\xB8\x80\xE4\xB8\x81|b's");
    CHECK_STR(words_of("ufakzeka", "it's"), "it|'s");
    CHECK_STR(words_of("laguna", "a\n\n b"), "a|\n\n| b");
}

/* Much of the same, by every rule: one that looks at all that comes again and again would take
 * seconds for each text. */
static void rules_take_linear_time(void) {
    static const char *const units[] = {"a", " ", "\n", "1", "!", "[", "A", "aB", "'s", " a", "1 ",
                                        "<sentinel:1", "IMGIMGA", "\xCC\x81", "\xE4\xB8\x80",
                                        "\xFF", "  \n", "\xE3\x80\x80", "12\xC2\xBD", "\x01"};
    const size_t bytes = 1 << 15;
    unsigned char *text = (unsigned char *)malloc(bytes);
    size_t u, rule, at, length;
    uint64_t start = sm__now_ns();
    for (u = 0; text && u < sizeof units / sizeof *units; u++) {
        size_t n = strlen(units[u]), used = bytes / n * n;
        for (at = 0; at < used; at++) text[at] = (unsigned char)units[u][at % n];
        for (rule = 0; rule < sizeof sm__rules / sizeof *sm__rules; rule++) {
            sm__pre pre;
            sm__cutter k;
            memset(&pre, 0, sizeof pre);
            pre.rule = (uint8_t)rule;
            k = sm__cutter_make(sm__rules[pre.rule]);
            for (at = 0; at < used; at += length) {
                length = sm__word_next(&k, text + at, used - at);
                if (!length || length > used - at) {
                    FAIL("rule %d, unit %d, at %d", (int)rule, (int)u, (int)at);
                    length = used;
                }
            }
        }
        if (!CHECK(sm__now_ns() - start < 30000000000u)) break;
    }
    free(text);
}

/* 1 MB that is one word, within the planned workspace. */
static void a_megabyte_is_one_word(void) {
    static const char *const files[] = {"tokenizers/ggml-vocab-llama-spm.gguf",
                                        "tokenizers/ggml-vocab-gpt-2.gguf"};
    const size_t bytes = 1 << 20;
    char *text = (char *)malloc(bytes);
    int i;
    for (i = 0; i < 2; i++) {
        sm_model *m = vocab_open(files[i]);
        sm_tokenizer *t = m ? tokenizer_make(m, bytes) : NULL;
        uint64_t start = sm__now_ns();
        uint32_t calls = heap.calls;
        int n = 0;
        if (t) {
            memset(text, i ? '(' : 'a', bytes);
            CHECK_STATUS(sm_tokenize(t, text, bytes, 0, NULL, 0, &n), SM_OK);
            CHECK(n > 1000 && heap.calls == calls);
            CHECK(sm__now_ns() - start < 20000000000u);
        }
        sm_tokenizer_destroy(t);
        sm_model_close(m);
    }
    free(text);
}

/* --- tokenizer.json and tiktoken -------------------------------------------------------------- */

/* The ids of a text by a vocabulary in memory. */
static const char *words_ids(const char *file, const char *pre, const char *text) {
    sm_model *m = NULL;
    sm_error error;
    const char *ids = "";
    if (words_open(file, pre, &m, &error)) FAIL("%s", error.text);
    else {
        sm_tokenizer *t = tokenizer_make(m, 100);
        ids = ids_of_text(t, text, SM_TEXT_BOS | SM_TEXT_SPECIAL);
        sm_tokenizer_destroy(t);
    }
    sm_model_close(m);
    return ids;
}

static void json_wordpiece_and_unigram(void) {
    static const char bert[] =
        "{\"added_tokens\":[{\"id\":0,\"content\":\"[UNK]\",\"special\":true},"
        "{\"id\":1,\"content\":\"[CLS]\",\"special\":true},"
        "{\"id\":2,\"content\":\"[SEP]\",\"special\":true}],"
        "\"normalizer\":{\"type\":\"BertNormalizer\",\"clean_text\":true,"
        "\"handle_chinese_chars\":true,\"strip_accents\":null,\"lowercase\":true},"
        "\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},"
        "\"post_processor\":{\"type\":\"BertProcessing\",\"sep\":[\"[SEP]\",2],"
        "\"cls\":[\"[CLS]\",1]},"
        "\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"[UNK]\","
        "\"continuing_subword_prefix\":\"##\",\"max_input_chars_per_word\":6,\"vocab\":"
        "{\"[UNK]\":0,\"[CLS]\":1,\"[SEP]\":2,\"un\":3,\"##aff\":4,\"##s\":5,\"caf\\u00e9\":6,"
        "\"cafe\":7,\"\\u1112\":8,\"##\\u1161\":9}}}";
    static const char unigram[] =
        "{\"added_tokens\":[{\"id\":0,\"content\":\"<s>\",\"special\":true,\"rstrip\":true}],"
        "\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\\u2581\","
        "\"prepend_scheme\":\"first\"},\"model\":{\"type\":\"Unigram\",\"unk_id\":1,\"vocab\":"
        "[[\"<s>\",0],[\"<unk>\",0],[\"\\u2581\",-2],[\"a\",-1],[\"\\u2581a\",-2.5],[\"b\",-4]]}}";
    static const char *const bad[][2] = {
        {"{\"normalizer\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"Unigram\"}}", "ByteLevel"},
        {"{\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"?\"},"
         "\"model\":{\"type\":\"Unigram\"}}", "Precompiled"},
        {"{\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\\u2581\"},"
         "\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\"]]}}", "token 0"},
        {"{\"model\":{\"type\":\"Fuzzy\"}}", "Fuzzy"},
    };
    sm_model *m = NULL;
    sm_error error;
    size_t i;
    CHECK_STR(words_ids(bert, NULL, "Unaffs"), "1 3 4 5 2 ");
    CHECK_STR(words_ids(bert, NULL, "unaffss un"), "1 0 3 2 "); /* 7 characters */
    CHECK_STR(words_ids(bert, NULL, "CAF\xC3\x89"), "1 7 2 ");
    CHECK_STR(words_ids(bert, NULL, "\xED\x95\x98"), "1 8 9 2 "); /* U+D558 in its parts */
    CHECK_STR(words_ids(bert, NULL, "un[SEP]un"), "1 3 2 3 2 ");
    CHECK_STR(words_ids(unigram, NULL, "aa b"), "4 3 2 5 ");
    CHECK_STR(words_ids(unigram, NULL, "<s> a"), "0 3 "); /* not the beginning: no space */
    CHECK_STR(words_ids(unigram, NULL, "axx"), "4 1 ");
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK(words_open(bad[i][0], NULL, &m, &error) < 0 && !m);
        if (!strstr(error.text, bad[i][1])) FAIL("%s", error.text);
    }
}

/* Rules of tokenizer.ggml.pre whose merges are of characters. Of bytes there are those of U+00E9
 * and the first of U+FFFD. */
static void merges_of_characters(void) {
    static const char *const tokens[] = {"<b>", "a", "\xE2\x96\x81", "\n", "\n\n", "a\n", "aa",
                                         "<0xC3>", "<0xA9>", " ", ("\xE2\x96\x81" "a"), "<0xEF>",
                                         "\n\n\n"};
    static const char *const merges[] = {"a \n", "a a", "\n \n", "\xE2\x96\x81 a"};
    static const char *const cases[][3] = {
        {"gemma4", "aa\n", "0 6 3 "}, {"gemma4", "a a", "0 1 10 "},
        {"gemma4", "a\n\na", "0 1 4 1 "},
        {"gemma4", "\xC3\xA9", "0 7 8 "}, {"gemma4", "a\xFF", "0 1 11 "},
        {"gemma4", "\n\n\n", "0 12 "}, {"gemma4", "\n\n\n\n", "0 4 4 "}, {"gemma4", "", "0 "},
        {"granite-embed-multi-311m", "aa\n a", "0 6 3 10 "},
        {"sarvam-moe", "\n\n\n", "4 3 "}, {"sarvam-moe", "a\n\na", "1 4 1 "},
        {"sarvam-moe", "aa a", "6 10 "},
        {"whitespace", "aa\na a", "6 3 1 9 1 "}, {"whitespace", "a\xE3\x80\x80", "1 "},
    };
    int32_t kinds[13] = {3, 1, 1, 1, 1, 1, 1, 6, 6, 1, 1, 6, 1};
    size_t i, k;
    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        sm_model_params p = sm_model_default();
        gguf_builder g = gguf_make(3);
        sm_model *m = NULL;
        sm_error error;
        uint8_t *file;
        gguf_key_str(&g, "general.architecture", "llama");
        gguf_key_str(&g, "tokenizer.ggml.model", i == 1 ? "gemma4" : "gpt2");
        if (i != 1) gguf_key_str(&g, "tokenizer.ggml.pre", cases[i][0]);
        gguf_key_strings(&g, "tokenizer.ggml.tokens", 13);
        for (k = 0; k < 13; k++) gguf_string(&g, &g.meta, tokens[k], strlen(tokens[k]));
        gguf_key_strings(&g, "tokenizer.ggml.merges", 4);
        for (k = 0; k < 4; k++) gguf_string(&g, &g.meta, merges[k], strlen(merges[k]));
        gguf_key_array(&g, "tokenizer.ggml.token_type", SM__GGUF_I32, kinds, 13);
        gguf_key_u32(&g, "tokenizer.ggml.bos_token_id", 0);
        file = gguf_finish(&g, &p.file.bytes);
        p.file.data = file;
        p.vocab_only = 1;
        p.allocator = heap_allocator();
        if (sm_model_open(&p, &m, &error)) FAIL("%s", error.text);
        else {
            sm_tokenizer *t = tokenizer_make(m, 64);
            CHECK_STR(ids_of_text(t, cases[i][1], SM_TEXT_BOS), cases[i][2]);
            sm_tokenizer_destroy(t);
        }
        sm_model_close(m);
        free(file);
    }
}

/* A vocabulary of nothing but bytes, with a normalizer; "" = refused. */
static const char *normalized(const char *normalizer, const char *text) {
    static char file[16384], out[256];
    size_t used;
    sm_model *m = NULL;
    sm_error error;
    int i, n = 0;
    int32_t ids[256];
    used = (size_t)snprintf(file, sizeof file, "{\"normalizer\":{\"type\":\"Sequence\","
                            "\"normalizers\":[%s]},\"model\":{\"type\":\"BPE\","
                            "\"byte_fallback\":true,\"merges\":[],\"vocab\":{", normalizer);
    for (i = 0; i < 256; i++)
        used += (size_t)snprintf(file + used, 32, "%s\"<0x%02X>\":%d", i ? "," : "",
                                 (unsigned)i, i);
    strcpy(file + used, "}}}");
    out[0] = 0;
    if (words_open(file, NULL, &m, &error) == SM_OK) {
        sm_tokenizer *t = tokenizer_make(m, 64);
        CHECK_STATUS(sm_tokenize(t, text, strlen(text), 0, ids, 255, &n), SM_OK);
        for (i = 0; i < n; i++) out[i] = (char)ids[i];
        out[n] = 0;
        sm_tokenizer_destroy(t);
    }
    sm_model_close(m);
    return out;
}

#define STEP(type) "{\"type\":\"" type "\"}"
#define REPLACE(kind, pattern, content) \
    "{\"type\":\"Replace\",\"pattern\":{\"" kind "\":\"" pattern "\"},\"content\":\"" content "\"}"

/* What becomes of the matches of a split, and of what lies between them; a word is a token. */
static void behaviors_by_hand(void) {
    static const char *const cases[][3] = {
        {"Removed", "1 2 3 ", "4 4 4 4 "},         {"Isolated", "1 4 4 2 4 3 4 ", "1 4 4 2 4 3 4 "},
        {"MergedWithPrevious", "6 4 7 8 ", "1 4 9 10 4 "},
        {"MergedWithNext", "1 4 9 10 4 ", "6 4 7 8 "},
        {"Contiguous", "1 5 2 4 3 4 ", "1 5 2 4 3 4 "},
    };
    char file[1024];
    sm_model *m = NULL;
    sm_error error;
    int i, invert;
    for (i = 0; i < 6; i++)
        for (invert = 0; invert < 2; invert++) {
            snprintf(file, sizeof file, "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":"
                     "{\"String\":\"-\"},\"behavior\":\"%s\",\"invert\":%s},\"model\":{\"type\":"
                     "\"WordLevel\",\"unk_token\":\"u\",\"vocab\":{\"u\":0,\"a\":1,\"b\":2,"
                     "\"c\":3,\"-\":4,\"--\":5,\"a-\":6,\"b-\":7,\"c-\":8,\"-b\":9,\"-c\":10}}}",
                     i < 5 ? cases[i][0] : "removed", invert ? "true" : "false");
            if (i < 5) CHECK_STR(words_ids(file, NULL, "a--b-c-"), cases[i][1 + invert]);
            else CHECK_STATUS(words_open(file, NULL, &m, &error), SM_ERR_UNSUPPORTED);
        }
}

/* The way into words: what is known, and what has to be refused. */
static void pretokenizers_by_hand(void) {
    static const char byte_level[] = "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}";
    static const char digits[] = "{\"type\":\"Digits\",\"individual_digits\":true}";
    static const char front[] = "{\"type\":\"ByteLevel\",\"add_prefix_space\":true}";
    static const char meta[] = "{\"type\":\"Metaspace\",\"replacement\":\"\\u2581\",\"split\":";
    static const char marks[] = "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},"
                                "\"content\":\"\\u2581\"}";
    static const char gemma[] = "{\"type\":\"Split\",\"pattern\":{\"String\":\" \"},"
                                "\"behavior\":\"MergedWithPrevious\",\"invert\":false}";
    static const char tail[] = "],\"vocab\":{\"a\":0,\"\xC4\xA0\":1,\"\\u2581\":2,\"\\u2581a\":3,"
                               "\"\\u2581\\u2581\":4,\"a\\u2581\":5,\"1\":6,\"11\":7}}}";
    static const char plain[] = "\"1 1\"", marked[] = "\"\\u2581 \\u2581\",\"a \\u2581\","
                                                     "\"\\u2581 a\"";
    const char *const cases[][6] = { /* normalizer, steps, merges, text, ids */
        {"null", digits, byte_level, plain, "11 a", "6 6 1 0 "},
        {"null", byte_level, "", plain, "11 a", "7 1 0 "},
        {"null", front, "", plain, "a", "1 0 "},
        {"null", front, "", plain, " a", "1 0 "},
        {"null", meta, "false}", marked, "  a", "4 0 "},
        {"null", meta, "true}", marked, "  a", "2 3 "},
        {"null", meta, "true}", marked, "a a", "3 3 "},
        {"null", meta, "false}", marked, "a a", "2 5 0 "},
        {marks, gemma, "", marked, "a  a", "0 4 0 "},
        {"null", gemma, "", marked, "a", "0 "},
        {"null", byte_level, digits, plain, "a", ""},
        {"null", digits, front, plain, "11 a", "1 6 1 6 1 0 "},
        {"null", gemma, byte_level, plain, "11 a a", "7 1 0 1 0 "},
        {"null", STEP("UnicodeScripts"), "", plain, "a", ""},
        {"null", STEP("Split"), byte_level, plain, "a", ""},
    };
    char file[2048];
    size_t i;
    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *const *c = cases[i];
        sm_model *m = NULL;
        sm_error error;
        snprintf(file, sizeof file, "{\"normalizer\":%s,\"pre_tokenizer\":{\"type\":\"Sequence\","
                 "\"pretokenizers\":[%s%s%s]},\"model\":{\"type\":\"BPE\",\"merges\":[%s%s", c[0],
                 c[1], c[2][0] == '{' ? "," : "", c[2], c[3], tail);
        if (*c[5]) CHECK_STR(words_ids(file, NULL, c[4]), c[5]);
        else CHECK_STATUS(words_open(file, NULL, &m, &error), SM_ERR_UNSUPPORTED);
        sm_model_close(m);
    }
}

static void normalizers_by_hand(void) {
    static const char *const cases[][3] = {
        {STEP("NFKD"), "\xEF\xAC\x81 \xC2\xBD", "fi 1\xE2\x81\x84" "2"},      /* fi, 1/2 */
        {STEP("NFKD"), "\xE1\xBA\x9B\xCC\xA3", "s\xCC\xA3\xCC\x87"},          /* 1E9B 0323 */
        {STEP("NFKC"), "\xE1\xBA\x9B\xCC\xA3", "\xE1\xB9\xA9"},               /* 1E69 */
        {STEP("NFKC"), "\xEF\xBC\xA1\xEF\xBD\xB6\xEF\xBE\x9E", "A\xE3\x82\xAC"}, /* 30AC */
        {STEP("NFKC"), "\xE3\x8B\xBF\xF0\x9D\x9F\xBF", "\xE3\x8B\xBF" "9"}, /* 32FF came too late */
        {STEP("NFD"), "\xC3\xA9\xEF\xAC\x81\xEA\xB0\x81", "e\xCC\x81\xEF\xAC\x81"
         "\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8"},
        {STEP("NFC"), "e\xCC\x81\xF0\x91\xA4\xB5\xF0\x91\xA4\xB0",
         "\xC3\xA9\xF0\x91\xA4\xB5\xF0\x91\xA4\xB0"},                         /* 11935 11930 */
        {STEP("NFD") "," STEP("StripAccents"), "\xC3\xA9\xE0\xA4\xBE\xE0\xA3\x93", "e\xE0\xA3\x93"},
        {STEP("NFD"), "a\xCC\x81\xE1\xAA\xBF", "a\xCC\x81\xE1\xAA\xBF"}, /* 1ABF stays there */
        {STEP("Lowercase"), "\xC4\xB0" "A\xCE\xA3\xE1\xBA\x9E\xEA\x9F\x8B",
         "i\xCC\x87" "a\xCF\x83\xC3\x9F\xC9\xA4"},                            /* 0130 .. A7CB */
        {STEP("Nmt"), "a\x01\t\xE2\x80\x8B" "b\xC2\x8F\xEF\xBB\xBF", "a  b "},
        {"{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":true}",
         "\xE3\x80\x80 a b\n ", "a b"},
        {"{\"type\":\"Strip\",\"strip_right\":false}", " a ", "a "},
        {"{\"type\":\"Strip\",\"strip_left\":false}", " a ", " a"},
        {"{\"type\":\"Strip\"}", " \n ", ""},
        {REPLACE("String", "``", "\\\""), "```a``", "\"`a\""},
        {REPLACE("Regex", "\\\\s+", " "), "a \n\xE3\x80\x80" "b", "a b"},
        {REPLACE("Regex", " {2,}", " "), "a  b c   ", "a b c "},
        {REPLACE("Regex", "a{2,3}", "x"), "aaaaab", "xxb"},
        {REPLACE("Regex", "a{2}", "x"), "aaab", "xab"},
        {REPLACE("Regex", "[a-c\\\\]]", ""), "abcd]", "d"},
        {REPLACE("String", "aaaaaaaaaa", ""), "aaaaaaaaaaa", "a"},
        {STEP("NFC"), "a\xFF" "e\xCC\x81", "a\xEF\xBF\xBD\xC3\xA9"}, /* what is no UTF-8 */
        {STEP("Prepend"), "a", ""}, /* refused from here on */
        {REPLACE("Regex", "a|b", ""), "a", ""}, {REPLACE("Regex", "[^a]", ""), "a", ""},
        {REPLACE("Regex", "a*", ""), "a", ""}, {REPLACE("Regex", "[a", ""), "a", ""},
        {REPLACE("Regex", "\\\\d", ""), "a", ""}, {REPLACE("Regex", "a{0,}", ""), "a", ""},
        {REPLACE("Regex", "a{2", ""), "a", ""}, {REPLACE("Regex", "", ""), "a", ""},
        {REPLACE("String", "", "b"), "a", ""}, {REPLACE("Regex", "[c-a]", ""), "a", ""},
        {REPLACE("Regex", "a{3,2}", ""), "a", ""}, {STEP("ByteLevel"), "a", ""},
    };
    size_t i;
    for (i = 0; i < sizeof cases / sizeof *cases; i++)
        CHECK_STR(normalized(cases[i][0], cases[i][1]), cases[i][2]);
}

static void tiktoken_by_hand(void) {
    /* a b c " " ab bc abc(no merge of a, bc or ab, c is listed; texts decide) " a" */
    static const char file[] = "YQ== 0\nYg== 1\nYw== 2\nIA== 3\nYWI= 4\nYmM= 5\r\nYWJj 6\nIGE= 7\n";
    static const char *const bad[] = {"YQ== 0\nYQ=", "YQ== 0\nYg== x\n", "YQ== 0\n?? 1\n",
                                      "YQ== 0\nYg== 0\n", "YQ== 99999999999\n"};
    sm_model *m = NULL;
    sm_error error;
    size_t i;
    CHECK_STR(words_ids(file, "gpt-2", "abc"), "6 "); /* the word is a token */
    CHECK_STR(words_ids(file, "gpt-2", "abcab bca"), "6 4 3 5 0 ");
    CHECK_STR(words_ids(file, "gpt-2", "bcbc a"), "5 5 7 ");
    CHECK_STR(words_ids(file, "gpt-2", "axb"), "0 1 "); /* no byte, no unknown id: dropped */
    CHECK_STATUS(words_open(file, NULL, &m, &error), SM_ERR_ARG);
    CHECK_STATUS(words_open(file, "never", &m, &error), SM_ERR_UNSUPPORTED);
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_STATUS(words_open(bad[i], "gpt-2", &m, &error), SM_ERR_FORMAT);
        CHECK(strstr(error.text, "line") != NULL && !m);
    }
    CHECK_STATUS(words_open(file, "gpt-2", &m, &error), SM_OK);
    CHECK_STR(m ? sm_model_get_info(m)->tokenizer : "", "bpe");
    sm_model_close(m);
}

/* --- Decoding --------------------------------------------------------------------------------- */

/* Random ids of every kind of vocabulary: what is streamed is whole characters, always. */
static void any_ids_stream_whole_characters(void) {
    int i, k;
    for (i = 0; i < N_VOCABS + 4; i++) {
        toy *y = i == N_VOCABS     ? toy_wordpiece()
                 : i == N_VOCABS + 1 ? toy_unigram()
                 : i >= N_VOCABS     ? toy_new(i == N_VOCABS + 2 ? SM__VOCAB_BPE : SM__VOCAB_SPM)
                                     : NULL;
        sm_model *m;
        sm_decoder d;
        if (i < N_VOCABS && i % 3) continue; /* some are enough */
        if (i >= N_VOCABS + 2) toy_bytes(y);
        if (i == N_VOCABS + 3) toy_add(y, "\xF0\x9F", SM__TOKEN_NORMAL, 0);
        m = y ? toy_model(y) : vocab_open(vocab_names[i]);
        sm_decoder_init(&d);
        for (k = 0; m && k < 3000; k++) {
            char out[4096];
            size_t bytes = 0;
            int32_t id = random_below(m->vocab.n);
            sm_status status = sm_decoder_push(&d, m, id, k & SM_TEXT_RAW, out, sizeof out, &bytes);
            if (!CHECK(status == SM_OK)) break;
            if (!CHECK(sm__utf8_ok((const unsigned char *)out, bytes))) break;
        }
        sm_model_close(m);
        free(y);
    }
}

#define DECODERS(list) "{\"type\":\"Sequence\",\"decoders\":[" list "]}"
#define LLAMA_MARKS REPLACE("String", "\\u2581", " ") "," STEP("ByteFallback") "," STEP("Fuse") \
    ",{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}"

/* Decoders of tokenizer.json, at once and as a stream; NULL = refused. What a stream shows of a
 * broken row of bytes is what is whole of it, so such a row comes with its own text. */
static void decoders_by_hand(void) {
    static const char *const cases[][4] = {
        {"null", "2 2 3", "a a b", NULL},
        {"null", "0 2 1 3", "a u b", NULL}, /* 0 is special, 1 is the unknown one that is not */
        {"null", "99 2", "a", NULL},        /* an id of no token, as the model has more */
        {DECODERS(""), "2 3", "ab", NULL},
        {"{\"type\":\"Metaspace\",\"replacement\":\"\\u2581\",\"prepend_scheme\":\"always\"}",
         "4 4", "ab a b", NULL}, /* all marks of the first go */
        {"{\"type\":\"Metaspace\",\"replacement\":\"\\u2581\",\"prepend_scheme\":\"never\"}", "4 4",
         " a b a b", NULL},
        {"{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":true}", "5 2 5 6 2", "##c ac. a",
         NULL},
        {"{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":false}", "2 6", "a .", NULL},
        {"{\"type\":\"BPEDecoder\",\"suffix\":\"</w>\"}", "7 2 7", "b ab", NULL},
        {DECODERS(LLAMA_MARKS), "4 9 10 2", "a b\xC3\xA9" "a", NULL},
        {DECODERS(LLAMA_MARKS), "2 9 2", "a\xEF\xBF\xBD" "a", NULL},
        {DECODERS(LLAMA_MARKS), "9 10 9", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD",
         "\xC3\xA9\xEF\xBF\xBD"},
        {DECODERS(LLAMA_MARKS), "8 2", "a", NULL},
        {"{\"type\":\"Strip\",\"content\":\"a\",\"start\":1,\"stop\":1}", "4 11 3",
         "\xE2\x96\x81" "a\xE2\x96\x81" "bb", NULL},
        {"{\"type\":\"CTC\"}", "", NULL, NULL},
        {DECODERS(STEP("Fuse") "," REPLACE("String", "a", "b")), "", NULL, NULL},
        {DECODERS(STEP("ByteFallback") ",{\"type\":\"WordPiece\",\"prefix\":\"##\"}"), "", NULL,
         NULL},
        {"{\"type\":\"BPEDecoder\",\"suffix\":\"\\u2581\"}", "", NULL, NULL}, /* in token 4 */
        {DECODERS(STEP("Fuse") ",{\"type\":\"Strip\",\"content\":\" \",\"start\":0,\"stop\":1}"),
         "", NULL, NULL},
    };
    char file[2048], text[256], stream[256];
    size_t i, n, bytes;
    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        sm_model *m = NULL;
        sm_error error;
        sm_decoder d;
        int32_t ids[16];
        int n_ids = 0, k;
        const char *s = cases[i][1];
        snprintf(file, sizeof file, "{\"added_tokens\":[{\"id\":0,\"content\":\"s\","
                 "\"special\":true},{\"id\":99,\"content\":\"z\"},{\"id\":11,\"content\":\"aa\"}],"
                 "\"decoder\":%s,\"model\":{\"type\":\"WordLevel\",\"unk_token\":\"u\","
                 "\"vocab\":{\"s\":0,\"u\":1,"
                 "\"a\":2,\"b\":3,\"\\u2581a\\u2581b\":4,\"##c\":5,\".\":6,\"b</w>\":7,"
                 "\"<0x20>\":8,"
                 "\"<0xC3>\":9,\"<0xA9>\":10,\"aa\":11}}}", cases[i][0]);
        if (words_open(file, NULL, &m, &error)) {
            if (cases[i][2] || error.status != SM_ERR_UNSUPPORTED)
                FAIL("%d: %s", (int)i, error.text);
            continue;
        }
        for (; *s; s += *s == ' ') {
            char *end;
            ids[n_ids++] = (int32_t)strtol(s, &end, 10);
            s = end;
        }
        if (ids[0] == 99) ids[0] = 98;
        CHECK(cases[i][2] != NULL);
        CHECK_STATUS(sm_detokenize(m, ids, n_ids, 0, text, sizeof text, &bytes), SM_OK);
        CHECK_STR(text, cases[i][2] ? cases[i][2] : "refused");
        sm_decoder_init(&d);
        for (k = 0, n = 0; k < n_ids; k++, n += bytes)
            CHECK_STATUS(sm_decoder_push(&d, m, ids[k], 0, stream + n, 128, &bytes), SM_OK);
        n += sm_decoder_flush(&d, stream + n, 16);
        stream[n] = 0;
        CHECK_STR(stream, cases[i][3] ? cases[i][3] : text);
        sm_model_close(m);
    }
}

/* Marks of what goes on a word and ends it; words that are tokens; what has no token. */
static void options_of_merges(void) {
    static const char *const cases[][3] = {
        {"\"end_of_word_suffix\":\"$\",\"merges\":[\"a b$\"]", "ab aab a", "3 0 3 "},
        {"\"end_of_word_suffix\":\"$\",\"unk_token\":\"u\",\"merges\":[\"a b$\"]", "abb", "0 1 2 "},
        {"\"continuing_subword_prefix\":\"@\",\"merges\":[\"a @b\"]", "abab bab", "4 6 5 1 6 5 "},
        {"\"ignore_merges\":true,\"merges\":[]", "abc", "7 "},
        {"\"ignore_merges\":false,\"merges\":[\"a b\"]", "a?b abc", "4 4 "}, /* left out */
        {"\"unk_token\":\"u\",\"merges\":[\"a b\"]", "a??b", "0 8 8 1 "},
        {"\"unk_token\":\"u\",\"fuse_unk\":true,\"merges\":[\"a b\"]", "a??b?", "0 8 1 8 "},
    };
    char file[1024];
    size_t i;
    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(file, sizeof file, "{\"pre_tokenizer\":{\"type\":\"WhitespaceSplit\"},\"model\":{"
                 "\"type\":\"BPE\",%s,\"vocab\":{\"a\":0,\"b\":1,\"b$\":2,\"ab$\":3,\"ab\":4,"
                 "\"@b\":5,\"@a\":6,\"abc\":7,\"u\":8}}}", cases[i][0]);
        CHECK_STR(words_ids(file, NULL, cases[i][1]), cases[i][2]);
    }
}

/* Added tokens in text as it is, and in normalized text; whole words only; with white space. */
static void added_tokens_by_hand(void) {
    static const char head[] = "{\"normalizer\":{\"type\":\"Lowercase\"},\"pre_tokenizer\":"
                               "{\"type\":\"WhitespaceSplit\"},\"added_tokens\":[{\"id\":9,";
    static const char tail[] = "],\"model\":{\"type\":\"WordLevel\",\"unk_token\":\"u\","
                               "\"vocab\":{\"u\":0,\"a\":1,\"b\":2,\"abb\":3}}}";
    static const char *const cases[][3] = {
        {"\"content\":\"AB\"}", "ab ABb a", "0 9 2 1 "}, /* as it is */
        {"\"content\":\"AB\",\"normalized\":true}", "ab ABb a", "9 9 2 1 "},
        {"\"content\":\"AB\",\"normalized\":true,\"single_word\":true}", "ab ABb Ab-a", "9 3 9 0 "},
        {"\"content\":\"B\",\"single_word\":true}", "_B B\xC3\xA9 B", "0 0 9 "},
        {"\"content\":\"B\",\"special\":true,\"normalized\":true},{\"id\":8,\"content\":\"Bb\"}",
         "bBbb", "9 8 9 "}, /* first those in the text as it is */
    };
    char file[1024];
    size_t i;
    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(file, sizeof file, "%s%s%s", head, cases[i][0], tail);
        CHECK_STR(words_ids(file, NULL, cases[i][1]), cases[i][2]);
    }
}

/* What is marked as no control token is none in normalized text either. */
static void marks_count_in_normalized_text(void) {
    static const char file[] =
        "{\"normalizer\":{\"type\":\"Lowercase\"},\"added_tokens\":[{\"id\":1,\"content\":\"<S>\","
        "\"special\":true,\"normalized\":true}],\"model\":{\"type\":\"WordLevel\","
        "\"unk_token\":\"u\",\"vocab\":{\"u\":0}}}";
    static const uint8_t marks[3] = {0, 1, 0};
    sm_model *m = NULL;
    sm_tokenizer *t = NULL;
    sm_error error;
    if (words_open(file, NULL, &m, &error)) FAIL("%s", error.text);
    else t = tokenizer_make(m, 32);
    if (t) {
        CHECK_STR(ids_of_text(t, "<s>", SM_TEXT_SPECIAL), "1 ");
        CHECK_STR(ids_of_text(t, "<s>", 0), "0 ");
        t->marks = marks;
        CHECK_STR(ids_of_text(t, "<s>", SM_TEXT_SPECIAL), "0 ");
    }
    sm_tokenizer_destroy(t);
    sm_model_close(m);
}

static void special_tokens_take_spaces_along(void) {
    static const uint8_t strips[] = {0, SM__STRIP_RIGHT, SM__STRIP_LEFT};
    int hf;
    for (hf = 0; hf < 2; hf++) {
        toy *y = toy_new(SM__VOCAB_BPE);
        sm_model *m;
        sm_tokenizer *t;
        uint8_t all[300];
        toy_bytes(y);
        toy_add(y, "<k>", SM__TOKEN_USER, 0); /* 256 */
        toy_add(y, "<r>", SM__TOKEN_USER, 0);
        toy_add(y, "<l>", SM__TOKEN_USER, 0);
        memset(all, 0, sizeof all);
        memcpy(all + 256, strips, 3);
        y->v.strips = all;
        y->v.text_flags = hf ? SM__TEXT_HF : 0;
        m = toy_model(y);
        t = m ? tokenizer_make(m, 64) : NULL;
        if (t) {
            CHECK_STR(ids_of_text(t, " <k> ", 0), "32 256 32 ");
            CHECK_STR(ids_of_text(t, " <r> \n\ta", 0), "32 257 97 ");
            CHECK_STR(ids_of_text(t, "a \n<l> ", 0), "97 258 32 ");
            CHECK_STR(ids_of_text(t, "<r>\xC2\xA0<l>", 0), hf ? "257 258 " : "257 194 160 258 ");
            CHECK_STR(ids_of_text(t, "  <l>", 0), "258 ");
        }
        sm_tokenizer_destroy(t);
        sm_model_close(m);
        free(y);
    }
}

static const test tests_words[] = {
    {"words: WordPiece by hand", wordpiece_by_hand},
    {"words: Unigram by hand", unigram_by_hand},
    {"words: Unigram finds the best way", unigram_finds_the_best_way},
    {"words: Unigram word by word", unigram_words},
    {"words: charsmaps that mean harm", charsmaps_mean_harm},
    {"words: unknown ids fuse across words", unknown_ids_fuse_across_words},
    {"words: spaces without a token", spaces_without_a_token},
    {"words: Form C is the standard's", form_c_is_the_standards},
    {"words: rules of pre-tokenizers by hand", rules_by_hand},
    {"words: every rule takes linear time", rules_take_linear_time},
    {"words: a megabyte can be one word", a_megabyte_is_one_word},
    {"words: tokenizer.json of WordPiece and Unigram", json_wordpiece_and_unigram},
    {"words: merges of characters", merges_of_characters},
    {"words: normalizers by hand", normalizers_by_hand},
    {"words: behaviors of splits by hand", behaviors_by_hand},
    {"words: pre-tokenizers by hand", pretokenizers_by_hand},
    {"words: tiktoken by hand", tiktoken_by_hand},
    {"words: any ids stream whole characters", any_ids_stream_whole_characters},
    {"words: options of merges", options_of_merges},
    {"words: added tokens by hand", added_tokens_by_hand},
    {"words: marks count in normalized text", marks_count_in_normalized_text},
    {"words: decoders by hand", decoders_by_hand},
    {"words: special tokens take white space along", special_tokens_take_spaces_along},
};

/* test_grammar.c - constrained output. llama.cpp's strings that grammars must take or refuse, by
 * the matcher and by masks; hostile grammars; masks against every token tried alone; generation
 * that says what its grammar allows, whatever the threads, without a heap call. Included by
 * test.c. */
#include "runs.h"

typedef struct grammar_bed {
    sm_trie *trie;
    sm_model *model;
    void *memory;
    sm_matcher *matcher;
} grammar_bed;

static sm_grammar *grammar_of(int kind, const char *text, size_t bytes, sm_error *error) {
    sm_grammar_params p = sm_grammar_default();
    sm_grammar *g = NULL;
    p.kind = kind;
    p.text = text;
    p.bytes = bytes;
    p.allocator = heap_allocator();
    memset(error, 0, sizeof *error);
    CHECK((sm_grammar_create(&p, &g, error) == SM_OK) == (g != NULL));
    return g;
}

/* A vocabulary of bytes and some words: the model that runs.h's generations use has one. */
static int grammar_open(grammar_bed *bed, size_t bytes) {
    sm_model_params p = sm_model_default();
    sm_allocator a = heap_allocator();
    sm_error error;
    memset(bed, 0, sizeof *bed);
    p.file.path = data_path("models/stories260K/stories260K.gguf");
    if (!p.file.path) return 0;
    if (sm_model_open(&p, &bed->model, &error)) return FAIL("%s", error.text), 0;
    if (sm_trie_create(bed->model, &a, &bed->trie, &error)) return FAIL("%s", error.text), 0;
    bed->memory = malloc(bytes);
    bed->matcher = sm_matcher_init(bed->memory, bytes, bed->trie);
    return CHECK(bed->matcher != NULL);
}

static void grammar_close(grammar_bed *bed) {
    free(bed->memory);
    sm_trie_destroy(bed->trie);
    sm_model_close(bed->model);
}

/* 1 = the whole text is taken, 0 = it is not, -1 = something else went wrong. */
static int grammar_takes(sm_matcher *m, const sm_grammar *g, const char *text, size_t n) {
    sm_status status = sm_matcher_start(m, g);
    if (status != SM_OK) return -1;
    status = sm_matcher_accept_bytes(m, text, n);
    if (status == SM_OK) return sm_matcher_is_complete(m) != 0;
    return status == SM_ERR_ARG ? 0 : -1;
}

/* --- known answers ---------------------------------------------------------------------------- */

static int grammar_strings(grammar_bed *bed, sm__json at, const sm_grammar *g, const char *list,
                           int want) {
    sm__json strings;
    sm__str s;
    int n = 0;
    if (!sm__json_find(at, list, &strings)) return 0;
    for (sm__json_enter(&strings, '['); sm__json_item(&strings); n++) {
        char text[512];
        size_t bytes;
        if (!sm__json_string(&strings, &s)) return 0;
        bytes = sm__json_text(s, text, sizeof text);
        if (!CHECK(bytes < sizeof text)) continue;
        if (grammar_takes(bed->matcher, g, text, bytes) != want) FAIL("%s: %s", list, text);
    }
    return n;
}

static void grammar_llama_cpp_strings(void) {
    size_t bytes;
    uint8_t *file = file_read(data_path("grammar/grammar_integration.json"), &bytes);
    char text[4096];
    grammar_bed bed;
    sm_error error;
    sm__json list, grammar;
    sm__str s;
    int n = 0;
    if (!file || !grammar_open(&bed, 1 << 21)) return;
    if (!CHECK(sm__json_find(sm__json_make(file, bytes), "gbnf", &list))) return;
    for (sm__json_enter(&list, '['); sm__json_item(&list); sm__json_skip(&list)) {
        sm_grammar *g;
        if (!sm__json_find(list, "grammar", &grammar) || !sm__json_string(&grammar, &s)) break;
        sm__json_text(s, text, sizeof text);
        g = grammar_of(SM_GRAMMAR_GBNF, text, 0, &error);
        if (!CHECK_STR(error.text, "")) continue;
        n += grammar_strings(&bed, list, g, "passing", 1);
        n += grammar_strings(&bed, list, g, "failing", 0);
        sm_grammar_destroy(g);
    }
    CHECK(n == 48);
    grammar_close(&bed);
    free(file);
}

static void grammar_small_ones(void) {
    static const struct {
        int kind;
        const char *grammar, *yes, *no; /* texts, parted by '~' */
    } cases[] = {
        {SM_GRAMMAR_GBNF, "root ::= \"a\"{2,3} # two\n", "aa~aaa", "~a~aaaa"},
        {SM_GRAMMAR_GBNF, "root ::= \"(\" root \")\" | \"x\"", "x~(x)~(((x)))", "~(x~x)~()"},
        {SM_GRAMMAR_GBNF, "root ::= \"x\" root \"a\" | \"x\" root \"b\" | \"c\"\n",
         "c~xca~xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxcabababababbbababbabababababbabababb", "xc~xcc"},
        {SM_GRAMMAR_GBNF, "root ::= a b\na ::= \"x\"?\nb ::= \"y\"* | (\n\"z\"\n)", "~x~xyy~z~xz",
         "zz~yx"},
        {SM_GRAMMAR_GBNF, "root ::= [^\"\\n-\\r\\]]+ \"\\x41\\u00e9\\U0001F600\"",
         "xA\xC3\xA9\xF0\x9F\x98\x80", "]A\xC3\xA9\xF0\x9F\x98\x80~xA\xC3\xA9"},
        {SM_GRAMMAR_GBNF, "root ::= (((([^x]*){0,99}){0,99}){0,99}){0,99}", "~abc~\xE2\x82\xAC",
         "x~\x80~\xED\xA0\x80~\xC0\x80"},
        {SM_GRAMMAR_GBNF, "root ::= \"a\"{5000,6000}", "", "aaaa"},
        {SM_GRAMMAR_REGEX, "[a-c]+\\d{2}", "a12~cba99", "a1~12~a123"},
        {SM_GRAMMAR_REGEX, "[b-d]{0,2}[a-d\u20ac]*x", "x~bx~bcdabcx~\xE2\x82\xACx", "bex~xx"},
        {SM_GRAMMAR_REGEX, "[b-e]{0,2}[b-d]*x", "x~bx~eex~ebbcx", "eeex~bbex~ax"},
        {SM_GRAMMAR_REGEX, "(b\u20ac){0,2}(b[\u20a0-\u20af])*x", "x~b\xE2\x82\xACx", "bbx~bx"},
        {SM_GRAMMAR_REGEX, "[b-d]{1,2}[a-d]*x", "bx~cdabcx", "x~ax~"},
        {SM_GRAMMAR_REGEX, "[b-d]{0,2}[a-d]{0,3}x", "x~bbaaax", "bbaaaax"},
        {SM_GRAMMAR_JSON_SCHEMA, "{\"type\":\"integer\",\"minimum\":-5,\"maximum\":12}",
         "-5~0~12", "-6~13~1.5~x"},
    };
    grammar_bed bed;
    sm_error error;
    size_t i;
    if (!grammar_open(&bed, 1 << 21)) return;
    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        sm_grammar *g = grammar_of(cases[i].kind, cases[i].grammar, 0, &error);
        const char *p = cases[i].yes, *end;
        int want = 1;
        if (!CHECK_STR(error.text, "")) continue;
        for (; want >= 0; p = cases[i].no, want--) {
            if (i == 6 && want) continue;
            for (;; p = end + 1) {
                end = strchr(p, '~');
                if (!end) end = p + strlen(p);
                if (grammar_takes(bed.matcher, g, p, (size_t)(end - p)) != want)
                    FAIL("%s: %.*s", cases[i].grammar, (int)(end - p), p);
                if (!*end) break;
            }
        }
        sm_grammar_destroy(g);
    }
    grammar_close(&bed);
}

/* --- refusals --------------------------------------------------------------------------------- */

static void grammar_refuses_by_name(void) {
    static const struct {
        const char *text, *error;
        sm_status status;
    } cases[] = {
        {"root ::= a", "grammar: line 1, column 10: there is no rule a", SM_ERR_FORMAT},
        {"a ::= \"x\"", "grammar: line 1, column 10: there is no rule root", SM_ERR_FORMAT},
        {"root ::= \"x\"\nroot ::= \"y\"",
         "grammar: line 2, column 1: a second definition of root", SM_ERR_FORMAT},
        {"root ::= e\ne ::= e \"+\" t | t\nt ::= \"x\"",
         "grammar: line 1, column 10: left recursion of e", SM_ERR_UNSUPPORTED},
        {"root ::= w root | \"x\"\nw ::= \" \"*",
         "grammar: line 1, column 1: left recursion of root", SM_ERR_UNSUPPORTED},
        {"root ::= \"a\" root", "grammar: it matches no text", SM_ERR_ARG},
        {"root ::= \"a\"{,2}", "grammar: line 1, column 14: a number is missing", SM_ERR_FORMAT},
        {"root ::= \"a\"{3,2}",
         "grammar: line 1, column 18: a repetition's end is below its begin", SM_ERR_FORMAT},
        {"root ::= (\"a\"", "grammar: line 1, column 14: a ) is missing", SM_ERR_FORMAT},
        {"root ::= \"a", "grammar: line 1, column 12: the text ends inside a literal or class",
         SM_ERR_FORMAT},
        {"root ::= <[1000]>", "grammar: line 1, column 10: tokens by number or name",
         SM_ERR_UNSUPPORTED},
        {"root ::= \"\\q\"", "grammar: line 1, column 12: an unknown escape", SM_ERR_FORMAT},
        {"root ::= [b-a]", "grammar: line 1, column 14: a range ends before it begins",
         SM_ERR_FORMAT},
        {"root \"a\"", "grammar: line 1, column 6: ::= is missing", SM_ERR_FORMAT},
        {"root ::= \"a\" * * )", "grammar: line 1, column 18: this begins nothing", SM_ERR_FORMAT},
    };
    size_t i;
    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        sm_error error;
        sm_grammar *g = grammar_of(SM_GRAMMAR_GBNF, cases[i].text, 0, &error);
        CHECK_STR(error.text, cases[i].error);
        CHECK_STATUS(error.status, cases[i].status);
        sm_grammar_destroy(g);
    }
}

/* What made others run out of stack, time or memory: here it compiles or is refused. */
static void grammar_survives_hostile_ones(void) {
    enum { N = 60000, ROOM = 2 * N * 16 };
    char *text = (char *)malloc(ROOM);
    sm_grammar_params p = sm_grammar_default();
    sm_error error;
    sm_grammar *g;
    size_t n;
    int i;
    if (!text) return;
    p.max_bytes = 65536;
    strcpy(text, "root ::= "); /* parentheses in parentheses */
    n = strlen(text);
    memset(text + n, '(', N);
    memset(text + n + N, ')', N);
    g = grammar_of(SM_GRAMMAR_GBNF, text, n + 2 * N, &error);
    CHECK(g || error.status == SM_ERR_FULL);
    sm_grammar_destroy(g);
    g = grammar_of(SM_GRAMMAR_GBNF, text, n + N, &error);
    CHECK(!g);
    for (i = 0, n = 9; i < N / 8; i++) text[n++] = '('; /* ((( ) *) *) * */
    memcpy(text + n, "\"a\"", 3);
    for (i = 0, n += 3; i < N / 8; i++) text[n++] = ')', text[n++] = '*';
    g = grammar_of(SM_GRAMMAR_GBNF, text, n, &error);
    CHECK(g || error.status == SM_ERR_FULL);
    sm_grammar_destroy(g);
    for (i = 0, n = 0; i < N / 4; i++) /* a chain of rules */
        n += (size_t)sprintf(text + n, i ? "r%d ::= r%d\n" : "root ::= r%d\n", i ? i : 1, i + 1);
    n += (size_t)sprintf(text + n, "r%d ::= \"x\"\n", N / 4);
    g = grammar_of(SM_GRAMMAR_GBNF, text, n, &error);
    CHECK(g || error.status == SM_ERR_FULL);
    sm_grammar_destroy(g);
    for (i = 0, n = 9; i < N; i++) text[n++] = i % 2 ? '|' : '.';
    memcpy(text, "root ::= ", 9);
    g = grammar_of(SM_GRAMMAR_GBNF, text, n, &error);
    CHECK(g || error.status == SM_ERR_FULL);
    sm_grammar_destroy(g);
    for (i = 0; i < 1000; i++) { /* any bytes of a grammar's alphabet */
        static const char letters[] = "ro:=()[]{}|*+?.\"\\^-,1 \nx#";
        memcpy(text, "root ::= ", 9);
        for (n = 9; n < 40; n++) text[n] = letters[random_below((int)sizeof letters - 1)];
        p.text = text;
        p.bytes = n;
        if (sm_grammar_create(&p, &g, &error) == SM_OK) sm_grammar_destroy(g);
    }
    free(text);
}

/* --- masks ------------------------------------------------------------------------------------ */

static const char grammar_json[] =
    "root ::= object\n"
    "value ::= object | array | string | number | \"true\" | \"false\" | \"null\"\n"
    "object ::= \"{\" ws ( string \":\" ws value (\",\" ws string \":\" ws value)* )? \"}\"\n"
    "array ::= \"[\" ws ( value (\",\" ws value)* )? \"]\"\n"
    "string ::= \"\\\"\" ([^\"\\\\\\x7F\\x00-\\x1F] | \"\\\\\" ([\"\\\\bfnrt] | \"u\" "
    "[0-9a-fA-F]{4}))* \"\\\"\"\nnumber ::= \"-\"? [0-9]+ (\".\" [0-9]+)?\nws ::= | \" \"\n";

/* Each bit of a mask is what the bytes of its token alone say. */
static void grammar_masks_are_the_tokens_that_fit(void) {
    static const struct {
        int kind;
        const char *grammar, *text;
    } cases[] = {
        {SM_GRAMMAR_GBNF, grammar_json, "{\"a\": [1,-2.5,\"x\\u00e9\"],\"b\":{}}"},
        {SM_GRAMMAR_REGEX, "[a-z]{1,20} (the|and) .*", "lily and tim"},
        {SM_GRAMMAR_JSON_SCHEMA,
         "{\"properties\":{\"name\":{\"type\":\"string\",\"maxLength\":9},\"n\":{\"enum\":[1,2]}},"
         "\"required\":[\"n\"],\"additionalProperties\":{\"type\":\"boolean\"},"
         "\"type\":\"object\"}",
         "{\"name\": \"there\", \"nam\": true, \"n\": 2}"},
    };
    uint32_t mask[32];
    grammar_bed bed;
    sm_error error;
    size_t i, at;
    int id, wrong = 0;
    if (!grammar_open(&bed, 1 << 21)) return;
    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        sm_grammar *g = grammar_of(cases[i].kind, cases[i].grammar, 0, &error);
        if (!CHECK_STR(error.text, "")) continue;
        sm_matcher_start(bed.matcher, g);
        for (at = 0; at <= strlen(cases[i].text); at++) {
            sm__gb *b = &bed.matcher->b;
            CHECK_STATUS(sm_matcher_mask(bed.matcher, mask), SM_OK);
            for (id = 0; id < bed.trie->n_vocab; id++) {
                size_t n, k;
                const char *text = sm_token_text(bed.model, id, &n);
                uint32_t state = bed.matcher->state;
                int fits, bit = (int)(mask[id >> 5] >> (id & 31) & 1);
                for (k = 0; k < n && state; k++) state = sm__gb_step(b, state, (uint8_t)text[k]);
                fits = state && n && bed.model->vocab.kinds[id] != SM__TOKEN_CONTROL &&
                       bed.model->vocab.kinds[id] != SM__TOKEN_UNKNOWN;
                if (sm_token_is_end(bed.model, id)) fits = sm_matcher_is_complete(bed.matcher) != 0;
                wrong += fits != bit;
            }
            if (cases[i].text[at])
                CHECK_STATUS(sm_matcher_accept_bytes(bed.matcher, cases[i].text + at, 1), SM_OK);
        }
        CHECK(sm_matcher_is_complete(bed.matcher));
        sm_grammar_destroy(g);
    }
    if (wrong) FAIL("%d bits", wrong);
    grammar_close(&bed);
}

/* A long text in little memory: states that are not needed go, and nothing else changes. */
static void grammar_matcher_sweeps(void) {
    grammar_bed bed;
    sm_error error;
    sm_grammar *g;
    uint32_t mask[32], most = 0;
    int i, k;
    if (!grammar_open(&bed, 320 << 10)) return;
    g = grammar_of(SM_GRAMMAR_GBNF, grammar_json, 0, &error);
    CHECK_STATUS(sm_matcher_start(bed.matcher, g), SM_OK);
    sm_matcher_accept_bytes(bed.matcher, "{\"k\":", 5);
    for (i = 0; i < 60; i++) {
        for (k = 0; k < i; k++) CHECK_STATUS(sm_matcher_accept_bytes(bed.matcher, "[", 1), SM_OK);
        CHECK_STATUS(sm_matcher_mask(bed.matcher, mask), SM_OK);
        CHECK_STATUS(sm_matcher_accept_bytes(bed.matcher, "{\"x\":1}", 7), SM_OK);
        for (k = 0; k < i; k++) {
            CHECK_STATUS(sm_matcher_accept_bytes(bed.matcher, "]", 1), SM_OK);
            if (k % 7 == 0) CHECK_STATUS(sm_matcher_mask(bed.matcher, mask), SM_OK);
        }
        CHECK_STATUS(sm_matcher_accept_bytes(bed.matcher, "]", 1), SM_ERR_ARG);
        CHECK_STATUS(sm_matcher_accept_bytes(bed.matcher, ",\"k\":", 5), SM_OK);
        if (bed.matcher->b.n_nodes > most) most = bed.matcher->b.n_nodes;
        else most |= 0x80000000u; /* it swept */
    }
    CHECK(most & 0x80000000u);
    CHECK_STATUS(sm_matcher_accept_bytes(bed.matcher, "1}", 2), SM_OK);
    CHECK(sm_matcher_is_complete(bed.matcher) == 2);
    sm_grammar_destroy(g);
    grammar_close(&bed);
}

/* The states that one mask makes: what is said twice (any text before and behind a pattern) and what
 * has no text (a key that no pattern has) is seen at once, not followed to its end. */
static void grammar_masks_make_few_states(void) {
    static const struct {
        const char *schema, *text;
        uint32_t most;
    } cases[] = {
        {"{\"patternProperties\":{\"[A-Za-z0-9-_.:]{1,255}\":{\"type\":\"string\"}}}", "{\"c", 300},
        {"{\"properties\":{\"t\":{\"type\":\"string\",\"format\":\"date-time\"}}}", "{\"t", 500},
    };
    uint32_t mask[32], before;
    grammar_bed bed;
    sm_error error;
    size_t i;
    if (!grammar_open(&bed, 1 << 22)) return;
    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        sm_grammar *g = grammar_of(SM_GRAMMAR_JSON_SCHEMA, cases[i].schema, 0, &error);
        if (!CHECK_STR(error.text, "")) continue;
        CHECK_STATUS(sm_matcher_start(bed.matcher, g), SM_OK);
        before = bed.matcher->b.n_nodes;
        CHECK_STATUS(sm_matcher_accept_bytes(bed.matcher, cases[i].text, strlen(cases[i].text)),
                     SM_OK);
        CHECK_STATUS(sm_matcher_mask(bed.matcher, mask), SM_OK);
        if (bed.matcher->b.n_nodes - before > cases[i].most)
            FAIL("%s: %u states", cases[i].schema, (unsigned)(bed.matcher->b.n_nodes - before));
        sm_grammar_destroy(g);
    }
    grammar_close(&bed);
}

/* --- generation ------------------------------------------------------------------------------- */

typedef struct grammar_text {
    char text[2048];
    size_t n;
} grammar_text;

static int grammar_keep(void *user, const char *piece, size_t bytes) {
    grammar_text *t = (grammar_text *)user;
    if (t->n + bytes >= sizeof t->text) return 1;
    memcpy(t->text + t->n, piece, bytes);
    t->n += bytes;
    t->text[t->n] = 0;
    return 0;
}

static const char grammar_schema[] =
    "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\",\"maxLength\":12},"
    "\"age\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":120},\"tags\":{\"type\":\"array\","
    "\"items\":{\"enum\":[\"a\",\"b\"]},\"maxItems\":3}},\"required\":[\"name\",\"age\"],"
    "\"additionalProperties\":false}";

/* A trained model says nothing else than the schema allows; two threads say the same as one; the
 * passes are fewer than the tokens, for what must come is not asked for. */
static void grammar_generation_keeps_it(void) {
    grammar_bed bed;
    sm_error error;
    sm_grammar *g;
    sm_gen_params p = sm_gen_default();
    sm_ctx *ctx[2] = {NULL, NULL};
    static grammar_text text[2];
    uint64_t passes;
    int seed, i, tokens = 0;
    if (!grammar_open(&bed, 1 << 21)) return;
    g = grammar_of(SM_GRAMMAR_JSON_SCHEMA, grammar_schema, 0, &error);
    for (i = 0; i < 2; i++) {
        sm_ctx_params cp = sm_ctx_default();
        cp.n_threads = i + 1;
        cp.trie = bed.trie;
        cp.max_grammar_bytes = 1 << 21;
        ctx[i] = run_ctx(bed.model, &cp);
    }
    p.prompt = "Once upon a time";
    p.grammar = g;
    p.max_tokens = 300;
    p.sampler.temperature = 1.2f;
    for (seed = 0; seed < 4 && ctx[0] && ctx[1]; seed++) {
        p.sampler.seed = (uint64_t)seed;
        for (i = 0; i < 2; i++) {
            sm_gen_stats stats;
            text[i].n = 0;
            CHECK_STATUS(sm_generate(ctx[i], &p, grammar_keep, &text[i], &stats), SM_OK);
            if (!stats.complete || stats.finish != SM_FINISH_END) FAIL("%s", text[i].text);
            if (!i) tokens += stats.new_tokens;
        }
        CHECK_STR(text[1].text, text[0].text);
        if (grammar_takes(bed.matcher, g, text[0].text, text[0].n) != 1) FAIL("%s", text[0].text);
    }
    passes = sm_ctx_get_stats(ctx[0]).passes;
    CHECK(passes < (uint64_t)tokens);
    CHECK(sm_ctx_get_stats(ctx[0]).heap_calls == 1);
    sm_ctx_destroy(ctx[0]);
    sm_ctx_destroy(ctx[1]);
    sm_grammar_destroy(g);
    grammar_close(&bed);
}

static void grammar_choices_and_arguments(void) {
    static const char *const choices[] = {"yes", "no", "not now"};
    sm_grammar_params p = sm_grammar_default();
    sm_grammar *g = NULL;
    grammar_bed bed;
    sm_error error;
    char small[256];
    p.kind = SM_GRAMMAR_CHOICES;
    CHECK_STATUS(sm_grammar_create(&p, &g, &error), SM_ERR_ARG);
    p.choices = choices;
    CHECK_STATUS(sm_grammar_create(&p, &g, &error), SM_ERR_ARG); /* nothing may be said */
    p.n_choices = 3;
    p.max_bytes = 1000;
    CHECK_STATUS(sm_grammar_create(&p, &g, &error), SM_ERR_FULL);
    p.max_bytes = 65536;
    CHECK_STATUS(sm_grammar_create(&p, &g, &error), SM_OK);
    if (g && grammar_open(&bed, 1 << 20)) {
        CHECK(sm_matcher_init(small, sizeof small, bed.trie) == NULL);
        CHECK(grammar_takes(bed.matcher, g, "yes", 3) == 1);
        CHECK(sm_matcher_is_complete(bed.matcher) == 2);
        CHECK(grammar_takes(bed.matcher, g, "no", 2) == 1);
        CHECK(sm_matcher_is_complete(bed.matcher) == 1);
        CHECK(grammar_takes(bed.matcher, g, "not", 3) == 0);
        CHECK(grammar_takes(bed.matcher, g, "no", 2) == 1);
        CHECK_STATUS(sm_matcher_accept_bytes(bed.matcher, "pe", 2), SM_ERR_ARG);
        CHECK_STATUS(sm_matcher_accept_bytes(bed.matcher, "t now", 5), SM_OK); /* after "no" */
        grammar_close(&bed);
    }
    sm_grammar_destroy(g);
    sm_grammar_destroy(NULL);
    sm_trie_destroy(NULL);
}

static const test tests_grammar[] = {
    {"grammar: llama.cpp's strings are taken and refused", grammar_llama_cpp_strings},
    {"grammar: small ones", grammar_small_ones},
    {"grammar: refusals name place and rule", grammar_refuses_by_name},
    {"grammar: hostile ones compile or are refused", grammar_survives_hostile_ones},
    {"grammar: a mask is the tokens that fit", grammar_masks_are_the_tokens_that_fit},
    {"grammar: a small matcher sweeps", grammar_matcher_sweeps},
    {"grammar: a mask makes few states", grammar_masks_make_few_states},
    {"grammar: a generation keeps to its schema", grammar_generation_keeps_it},
    {"grammar: choices and arguments", grammar_choices_and_arguments},
};

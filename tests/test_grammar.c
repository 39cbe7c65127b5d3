/* test_grammar.c - constrained output. llama.cpp's strings that grammars must take or refuse, by
 * the matcher and by masks; hostile grammars; masks against every token tried alone; generation
 * that says what its grammar allows, whatever the threads, without a heap call. Included by
 * test.c. */
#include <time.h>

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
    p.max_bytes = 1 << 20;
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

/* A random text of a grammar, without the spaces between JSON's tokens, of which schemas allow
 * less; 0 = it became too long, or is no JSON. */
static size_t grammar_say(grammar_bed *bed, const sm_grammar *g, char *text, size_t max) {
    sm__gb *b = &bed->matcher->b;
    uint32_t state, turn;
    size_t n = 0;
    int quoted = 0, escaped = 0;
    if (!CHECK(sm_matcher_start(bed->matcher, g) == SM_OK)) return 0;
    state = bed->matcher->state;
    for (turn = 0; turn < 4000 && n + 1 < max && b->error.status == SM_OK; turn++) {
        const sm__garc *arc;
        uint8_t byte;
        if (!sm__gb_row(b, state)) break;
        if (sm__gb_has(b, state, SM__G_NULLABLE) && (!b->nodes[state].n_row || !random_below(4)))
            return n;
        arc = &b->arcs[b->nodes[state].row - 1 + (uint32_t)random_below(b->nodes[state].n_row)];
        byte = (uint8_t)(arc->low + random_below(arc->high - arc->low + 1));
        state = arc->to;
        if (quoted && byte < ' ') return 0;
        if (quoted || (byte != ' ' && byte != '\n' && byte != '\t')) text[n++] = (char)byte;
        if (byte == '"' && !escaped) quoted = !quoted;
        escaped = quoted && byte == '\\' && !escaped;
    }
    return 0;
}

/* llama.cpp's grammars for schemas all compile, and what they say is valid by the schema; but for
 * -0 and \\u, which a schema here does not write, and for what is not JSON, which they allow. */
static void grammar_llama_cpp_schemas(void) {
    size_t bytes, n;
    uint8_t *file = file_read(data_path("grammar/json_schema_to_gbnf.json"), &bytes);
    static char gbnf[16384], schema[4096], text[1024];
    grammar_bed bed;
    sm_error error;
    sm__json list, at, json;
    sm__str s;
    int said = 0, cases = 0, refused = 0, i;
    if (!file || !grammar_open(&bed, 1 << 21)) return;
    if (!CHECK(sm__json_find(sm__json_make(file, bytes), "cases", &list))) return;
    for (sm__json_enter(&list, '['); sm__json_item(&list); sm__json_skip(&list), cases++) {
        sm_grammar *g, *js;
        int good = sm__str_is(sm__json_find_string(list, "status"), "SUCCESS");
        if (!sm__json_find(list, "schema", &at) || !sm__json_string(&at, &s)) break;
        CHECK(sm__json_text(s, schema, sizeof schema) < sizeof schema);
        js = grammar_of(SM_GRAMMAR_JSON_SCHEMA, schema, 0, &error);
        if (!good) CHECK(!js);
        refused += !js;
        if (!good || !sm__json_find(list, "expected_gbnf", &at) || !sm__json_string(&at, &s))
            continue;
        CHECK(sm__json_text(s, gbnf, sizeof gbnf) < sizeof gbnf);
        g = grammar_of(SM_GRAMMAR_GBNF, gbnf, 0, &error);
        CHECK_STR(error.text, "");
        for (i = strstr(schema, "format") ? 20 : 0; g && js && i < 20; i += 2) { /* February 31 */
            n = grammar_say(&bed, g, text, sizeof text - 1);
            text[n] = 0;
            json = sm__json_make(text, n);
            sm__json_skip(&json);
            if (!n || json.bad || json.p < json.end || strstr(text, "-0") || strstr(text, "\\u"))
                continue;
            said++;
            if (grammar_takes(bed.matcher, js, text, n) != 1) FAIL("%s: %s", schema, text);
        }
        sm_grammar_destroy(g);
        sm_grammar_destroy(js);
    }
    printf("(%d cases, %d refused, %d texts) ", cases, refused, said);
    CHECK(cases == 73 && refused == 5 && said > 400); /* two are none; three: bad prefixItems */
    grammar_close(&bed);
    free(file);
}

/* llama.cpp's parser tests. Its limit of 2,000 repetitions is not ours: four of its six bad
 * grammars are good ones here. */
static void grammar_llama_cpp_parser(void) {
    size_t bytes;
    uint8_t *file = file_read(data_path("grammar/gbnf_parser.json"), &bytes);
    static const char *const lists[] = {"must_parse", "must_fail"};
    char text[1024];
    sm_error error;
    sm__json list, grammar;
    sm__str s;
    int k, n[2] = {0, 0}, good[2] = {0, 0};
    if (!file) return;
    for (k = 0; k < 2; k++) {
        if (!CHECK(sm__json_find(sm__json_make(file, bytes), lists[k], &list))) return;
        for (sm__json_enter(&list, '['); sm__json_item(&list); sm__json_skip(&list), n[k]++) {
            sm_grammar *g;
            if (!sm__json_find(list, "grammar", &grammar) || !sm__json_string(&grammar, &s)) break;
            sm__json_text(s, text, sizeof text);
            g = grammar_of(SM_GRAMMAR_GBNF, text, 0, &error);
            good[k] += g != NULL;
            if (!g && !k) FAIL("%s: %s", text, error.text);
            if (!g && k) CHECK(strstr(error.text, "line 2, column 22: a number is missing"));
            sm_grammar_destroy(g);
        }
    }
    CHECK(n[0] == 17 && good[0] == 17 && n[1] == 6 && good[1] == 4);
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
        {SM_GRAMMAR_GBNF, "root ::= e\ne ::= e [-+] t | t\nt ::= t \"*\" f | f\nf ::= [0-9] | "
         "\"(\" e \")\"", "1~1+2*3~(1-2)*3*(4)+5", "~+1~1+~1*(2~1)"},
        {SM_GRAMMAR_GBNF, "root ::= w root | \"x\"\nw ::= \" \"*", "x~ x~   x", "~ ~xx~x "},
        {SM_GRAMMAR_GBNF, "root ::= root root | \"x\" |", "~x~xxx", "y~xxy"},
        {SM_GRAMMAR_GBNF, "root ::= (root \"a\"){2} | \"b\"", "b~baba~babaaba", "ba~bab~bababa"},
        {SM_GRAMMAR_GBNF, "root ::= \"x\"{0,2} root \"a\" | \"b\"", "b~ba~xba~xxba~xxxxbaa",
         "xb~xxxba"},
        {SM_GRAMMAR_GBNF, "root ::= (a \"y\")+ \"z\"?\na ::= b \"1\" | \"a\"\n"
         "b ::= (a | b) \"2\" | c\nc ::= root? a", "ay~a1yz~a21y~aya1yz~aya2221y", "a~1y~a2y~ya"},
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

/* Random rules of two letters, most of which begin with one another or may be empty, against the
 * definition: what a rule can say of a text's parts, found by trying until nothing is new. */
static void grammar_turns_left_recursion_round(void) {
    enum { RULES = 4, WAYS = 3, PARTS = 3, N = 4 };
    int ways[RULES][WAYS], says[RULES][WAYS][PARTS], round, rule, way, part, word, n, i, right = 0;
    grammar_bed bed;
    if (!grammar_open(&bed, 220 << 10)) return;
    for (round = 0; round < 120; round++) {
        char text[512] = "";
        sm_error error;
        sm_grammar *g;
        for (rule = 0; rule < RULES; rule++) {
            if (rule) sprintf(text + strlen(text), "r%d ::= ", rule);
            else strcpy(text, "root ::= ");
            for (way = 0; way < WAYS; way++) {
                ways[rule][way] = random_below(PARTS + 1);
                for (part = 0; part < ways[rule][way]; part++) {
                    int x = says[rule][way][part] = random_below(RULES + 2);
                    if (x >= RULES) sprintf(text + strlen(text), "\"%c\" ", 'a' + x - RULES);
                    else if (x) sprintf(text + strlen(text), "r%d ", x);
                    else strcat(text, "root ");
                }
                strcat(text, way + 1 < WAYS ? "| " : "\"\"\n");
            }
        }
        g = grammar_of(SM_GRAMMAR_GBNF, text, 0, &error);
        if (!g && error.status != SM_ERR_ARG) FAIL("%s%s", text, error.text);
        for (n = 0; n <= N; n++)
            for (word = 0; word < 1 << n; word++) {
                static char can[RULES + 2][N + 1][N + 1]; /* say the letters from .. to */
                char letters[N + 1];
                int changed = 1, from, to, wants;
                memset(can, 0, sizeof can);
                for (i = 0; i < n; i++) {
                    letters[i] = (char)('a' + (word >> i & 1));
                    can[RULES + (word >> i & 1)][i][i + 1] = 1;
                }
                while (changed)
                    for (changed = 0, rule = 0; rule < RULES; rule++)
                        for (way = 0; way < WAYS; way++)
                            for (from = 0; from <= n; from++) {
                                unsigned ends = 1u << from, next;
                                for (part = 0; part < ways[rule][way]; part++, ends = next)
                                    for (i = 0, next = 0; i <= n; i++)
                                        for (to = i; to <= n && (ends >> i & 1); to++)
                                            if (can[says[rule][way][part]][i][to])
                                                next |= 1u << to;
                                for (to = from; to <= n; to++)
                                    if ((ends >> to & 1) && !can[rule][from][to])
                                        can[rule][from][to] = 1, changed = 1;
                            }
                wants = can[0][0][n];
                right += wants;
                if ((g ? grammar_takes(bed.matcher, g, letters, (size_t)n) : 0) != wants)
                    FAIL("%s%.*s: not %d", text, n, letters, wants);
            }
        sm_grammar_destroy(g);
    }
    CHECK(right > 400);
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
        {"root ::= root \"a\"", "grammar: it matches no text", SM_ERR_ARG},
        {"root ::= \"a\" root", "grammar: it matches no text", SM_ERR_ARG},
        {"root ::= \"a\"{,2}", "grammar: line 1, column 14: a number is missing", SM_ERR_FORMAT},
        {"root ::= \"a\"{3,2}",
         "grammar: line 1, column 18: a repetition's end is below its begin", SM_ERR_FORMAT},
        {"root ::= (\"a\"", "grammar: line 1, column 14: a ) is missing", SM_ERR_FORMAT},
        {"root ::= \"a", "grammar: line 1, column 12: the text ends inside a literal or class",
         SM_ERR_FORMAT},
        {"root ::= <think>", "grammar: line 1, column 10: without params.model there is no token "
         "<think>", SM_ERR_UNSUPPORTED},
        {"root ::= !<[16777216]>", "grammar: line 1, column 11: there is no token <[16777216]>",
         SM_ERR_FORMAT},
        {"root ::= <[1]", "grammar: line 1, column 14: a > is missing", SM_ERR_FORMAT},
        {"root ::= <[1>", "grammar: line 1, column 13: a ] is missing", SM_ERR_FORMAT},
        {"root ::= !\"a\"", "grammar: line 1, column 11: a < is missing", SM_ERR_FORMAT},
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

/* head, n times open, middle, n times close, tail; '~' in open and close is the number of the turn,
 * '@' the next one. Allocates. */
static char *grammar_spell(const char *head, const char *open, const char *middle,
                           const char *close, const char *tail, int n, size_t *bytes) {
    const char *parts[5], *c;
    char *text = (char *)malloc(strlen(head) + strlen(middle) + strlen(tail) + 1 +
                                (size_t)n * (strlen(open) + strlen(close) + 16));
    int part, i;
    parts[0] = head, parts[1] = open, parts[2] = middle, parts[3] = close, parts[4] = tail;
    for (part = 0, *bytes = 0; text && part < 5; part++)
        for (i = 0; i < (part % 2 ? n : 1); i++)
            for (c = parts[part]; *c; c++)
                if (part % 2 && (*c == '~' || *c == '@'))
                    *bytes += (size_t)sprintf(text + *bytes, "%d", i + (*c == '@'));
                else text[(*bytes)++] = *c;
    return text;
}

/* Says something under a grammar: of what a mask allows, at random; every answer is a status that
 * the call may have, and in the end there is nothing more to say. */
static void grammar_babble(grammar_bed *bed, const sm_grammar *g, const char *name) {
    uint32_t mask[32];
    int turn, id, i;
    sm_status status = sm_matcher_start(bed->matcher, g);
    if (status == SM_ERR_FULL) return;
    for (turn = 0; turn < 12 && status == SM_OK; turn++) {
        status = sm_matcher_mask(bed->matcher, mask);
        if (status != SM_OK) break;
        id = random_below(512);
        for (i = 0; i < 512 && !(mask[id >> 5] >> (id & 31) & 1); i++) id = (id + 1) % 512;
        if (i == 512) FAIL("%s: a dead end", name);
        if (sm_token_is_end(bed->model, id)) CHECK(sm_matcher_is_complete(bed->matcher));
        status = sm_matcher_accept(bed->matcher, id);
    }
    if (status != SM_OK && status != SM_ERR_FULL) FAIL("%s: %s", name, sm_status_text(status));
}

/* What made others run out of stack, time or memory, or read beyond a table: here it compiles or
 * is refused, and what compiles can be spoken. The numbers are llama.cpp's issues. */
static void grammar_survives_hostile_ones(void) {
    enum { GBNF = SM_GRAMMAR_GBNF, SCHEMA = SM_GRAMMAR_JSON_SCHEMA, REGEX = SM_GRAMMAR_REGEX };
    static const struct {
        const char *name;
        int kind, n;
        const char *head, *open, *middle, *close, *tail;
    } cases[] = {
        {"#18988: 60,000 parentheses", GBNF, 60000, "root ::= ", "(", "", ")", ""},
        {"#18988: some parentheses", GBNF, 2000, "root ::= ", "(", "\"a\"", ")", ""},
        {"#18988: never closed", GBNF, 60000, "root ::= ", "(", "", "", ""},
        {"#18993: ( )* in ( )*", GBNF, 60000, "root ::= ", "(", " ", ")*", " \"x\""},
        {"#18993: some ( )*", GBNF, 2000, "root ::= ", "(", " ", ")* ", " \"x\""},
        {"#18993: (a)* in ( )*", GBNF, 7500, "root ::= ", "(", "\"a\"", ")*", ""},
        {"#18993: (a b)* in ( b)*", GBNF, 2000, "root ::= ", "(", "\"a\"", " \"b\")*", ""},
        {"#18993: (a?)+", GBNF, 2000, "root ::= ", "(", "\"a\"?", ")+", ""},
        {"#26600: a chain of rules", GBNF, 60000, "root ::= r0\n", "r~ ::= r@\n",
         "r60000 ::= \"x\"", "", ""},
        {"#26600: a shorter one", GBNF, 5000, "root ::= r0\n", "r~ ::= r@\n", "r5000 ::= \"x\"", "",
         ""},
        {"#26600: of groups and rules", GBNF, 2000, "root ::= r0\n", "r~ ::= (r@ \"y\")?\n",
         "r2000 ::= \"x\"", "", ""},
        {"#26602: a chain that comes back", GBNF, 5000, "root ::= r0\n", "r~ ::= r@\n",
         "r5000 ::= r0", "", ""},
        {"#26602: and says nothing", GBNF, 5000, "root ::= r0\n", "r~ ::= \"a\"? r@\n",
         "r5000 ::= r0", "", ""},
        {"#18990: root is behind the others", GBNF, 5000, "", "r~ ::= \"x\"\n", "root ::= r77", "",
         ""},
        {"#18990: root is called, not there", GBNF, 1, "a ::= root", "", "", "", ""},
        {"#18990: no rule at all", GBNF, 1, "# nothing", "", "", "", ""},
        {"repetitions of repetitions", GBNF, 200, "root ::= ", "(", "\"a\"", "){0,99}", ""},
        {"repetitions without end", GBNF, 1, "root ::= \"a\"{99999999}", "", "", "", ""},
        {"a number that overflows", GBNF, 1, "root ::= \"a\"{4294967297}", "", "", "", ""},
        {"a number of many digits", GBNF, 60000, "root ::= \"a\"{", "9", "", "", "}"},
        {"alternatives", GBNF, 30000, "root ::= .", "|.", "", "", ""},
        {"alternatives, all different", GBNF, 5000, "root ::= \"x\"", "|\"~\"", "", "", ""},
        {"the same, over and over", GBNF, 6000, "root ::= \"x\"", "|\"~\"", "", "|\"~\"", ""},
        {"texts that begin alike", GBNF, 3000, "root ::= \"x\"", "|(\"a\" \"~\")", "", "", ""},
        {"all may be left out", GBNF, 2000, "root ::= ", "\"~\"? ", "", "", ""},
        {"the same may be left out", GBNF, 2000, "root ::= ", "[a-z]? ", "", "", ""},
        {"rules that double", GBNF, 60, "root ::= r0\n", "r~ ::= r@ r@\n", "r60 ::= \"x\"", "", ""},
        {"and may be left out", GBNF, 60, "root ::= r0\n", "r~ ::= r@? r@?\n", "r60 ::= \"x\"", "",
         ""},
        {"ways beyond number", GBNF, 1, "root ::= \"a\" root root | \"a\" | \"a\" root", "", "", "",
         ""},
        {"counts of counts", GBNF, 1, "root ::= (\"a\"?){999} (\"a\"{0,500}){500}", "", "", "", ""},
        {"what was 5,000 letters ago", GBNF, 1, "root ::= [ab]* \"a\" [ab]{5000}", "", "", "", ""},
        {"a large class", GBNF, 30000, "root ::= [", "\\u0100-\\uD000", "", "", "]"},
        {"classes", GBNF, 3000, "root ::= ", "[^\\u0100-\\u0200x] ", "", "", ""},
        {"names", GBNF, 30000, "root ::= \"x\"\n", "rule-~ ::= \"x\"\n", "", "", ""},
        {"a long text", GBNF, 60000, "root ::= \"", "0123456789", "", "", "\""},
        {"lines", GBNF, 60000, "root ::= \"x\"", "\n#", "", "\n", "?"},
        {"zeros", GBNF, 1, "root ::= \"\\x00\\x00\" [\\x00-\\x01]", "", "", "", ""},
        {"nothing but the empty text", GBNF, 1, "root ::= \"\"", "", "", "", ""},
        {"#25283: items in items", SCHEMA, 20000, "", "{\"items\":", "{}", "}", ""},
        {"#25283: some of them", SCHEMA, 50, "", "{\"items\":", "{}", "}", ""},
        {"#25283: allOf in allOf", SCHEMA, 20000, "", "{\"allOf\":[", "{}", "]}", ""},
        {"#25283: anyOf in anyOf", SCHEMA, 50, "", "{\"anyOf\":[{},", "{}", "]}", ""},
        {"#25283: not in not", SCHEMA, 20000, "", "{\"not\":", "{}", "}", ""},
        {"#25283: properties", SCHEMA, 5000, "", "{\"properties\":{\"a\":", "{}", "}}", ""},
        {"#25283: references", SCHEMA, 2000, "{\"$ref\":\"#/$defs/0\",\"$defs\":{\"x\":{}",
         ",\"~\":{\"$ref\":\"#/$defs/@\"}", "", "", "}}"},
        {"#25283: brackets", SCHEMA, 60000, "", "[", "", "]", ""},
        {"a schema that is itself", SCHEMA, 1, "{\"$ref\":\"#\"}", "", "", "", ""},
        {"patterns of groups", REGEX, 10000, "", "(", "a", ")*", ""},
        {"some groups", REGEX, 40, "", "(", "a", ")*", ""},
        {"some counted groups", REGEX, 40, "", "(", "a", "){0,99}", ""},
        {"any text, over and over", REGEX, 3000, "", ".*", "a", "", ""},
        {"letters, over and over", REGEX, 3000, "", "[a-z]?", "", "[a-z]", ""},
    };
    sm_grammar_params p = sm_grammar_default();
    grammar_bed bed;
    sm_error error;
    size_t i, n, most = sizeof cases / sizeof *cases;
    if (!grammar_open(&bed, 1 << 20)) most = 0;
    for (i = 0; i < most; i++) {
        char *text = grammar_spell(cases[i].head, cases[i].open, cases[i].middle, cases[i].close,
                                   cases[i].tail, cases[i].n, &n);
        double start = (double)clock();
        sm_grammar *g = NULL;
        if (!text) continue;
        p.kind = cases[i].kind;
        p.text = text;
        p.bytes = n;
        p.max_bytes = 1 << 20;
        if (sm_grammar_create(&p, &g, &error) != SM_OK && error.status != SM_ERR_FULL &&
            error.status != SM_ERR_FORMAT && error.status != SM_ERR_UNSUPPORTED &&
            error.status != SM_ERR_ARG)
            FAIL("%s: %s", cases[i].name, error.text);
        if (!strcmp(cases[i].name, "the same, over and over"))
            CHECK_STR(error.text, "grammar: no room for so much work: give it more bytes");
        if (g) grammar_babble(&bed, g, cases[i].name);
        if ((double)clock() - start > 3.0 * CLOCKS_PER_SEC) FAIL("%s: slow", cases[i].name);
        sm_grammar_destroy(g);
        free(text);
    }
    if (most) grammar_close(&bed);
}

/* Any bytes of a grammar's alphabet. */
static void grammar_survives_noise(void) {
    static const char letters[] = "ro:=()[]{}|*+?.\"\\^-,1 \nx#<>!";
    char text[40];
    sm_grammar_params p = sm_grammar_default();
    sm_error error;
    sm_grammar *g;
    int i, n;
    p.max_bytes = 65536;
    for (i = 0; i < 1000; i++) {
        memcpy(text, "root ::= ", 9);
        for (n = 9; n < 40; n++) text[n] = letters[random_below((int)sizeof letters - 1)];
        p.text = text;
        p.bytes = (size_t)n;
        if (sm_grammar_create(&p, &g, &error) == SM_OK) sm_grammar_destroy(g);
        else CHECK(error.text[0] != 0);
    }
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
                fits = sm_matcher_accept(bed.matcher, id) == SM_OK;
                wrong += fits != bit || sm_matcher_rollback(bed.matcher, fits) != SM_OK;
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

/* Tokens by number or name: those and no text; all but one; an end is none; what must come does. */
static void grammar_has_tokens(void) {
    static const struct {
        const char *grammar;
        int32_t ids[6];
        int count[6]; /* of ids that the mask has before each of them, and at the end */
    } cases[] = {
        {"root ::= <[300]> \"a\" <s>? <[5]>", {300, 412, 1, 5}, {1, 2, 2, 1, 1}},
        {"root ::= <[300]>", {300}, {1, 1}},
        {"root ::= !<[300]> !<s> !<[0]>", {1, 300, 511}, {510, 510, 510, 1}},
        {"root ::= !<[511]>", {510}, {510, 1}},
        {"root ::= (\"a\" | <[412]>) \"b\" | <[412]> <[1]>", {412, 1}, {2, 3, 1}},
    };
    sm_grammar_params p = sm_grammar_default();
    sm_grammar *g = NULL;
    grammar_bed bed;
    sm_error error;
    uint32_t mask[16], k;
    sm_tokenizer *t = NULL;
    int32_t forced[8];
    size_t i;
    int n, count;
    if (!grammar_open(&bed, 1 << 20)) return;
    CHECK(bed.trie->n_vocab == 512 && sm_token_is_end(bed.model, 2));
    CHECK_STATUS(sm_tokenizer_create(bed.model, 1024, NULL, &t, &error), SM_OK);
    p.model = bed.model;
    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        p.text = cases[i].grammar;
        CHECK_STATUS(sm_grammar_create(&p, &g, &error), SM_OK);
        CHECK_STATUS(sm_matcher_start(bed.matcher, g), SM_OK);
        for (n = 0;; n++) {
            int32_t id = cases[i].ids[n];
            CHECK_STATUS(sm_matcher_mask(bed.matcher, mask), SM_OK);
            for (k = 0, count = 0; k < 512; k++) count += (int)(mask[k >> 5] >> (k & 31) & 1);
            if (count != cases[i].count[n]) FAIL("%s: %d ids at %d", cases[i].grammar, count, n);
            if (count == 1 && !(mask[0] >> 2 & 1)) {
                CHECK(sm_matcher_forced(bed.matcher, t, NULL, 0, forced, 8) == 1);
                CHECK(forced[0] == id);
            }
            if (!id || !(mask[id >> 5] >> (id & 31) & 1)) break;
            CHECK_STATUS(sm_matcher_accept(bed.matcher, id), SM_OK);
        }
        CHECK_STATUS(sm_matcher_start(bed.matcher, g), SM_OK); /* text is no token */
        CHECK_STATUS(sm_matcher_accept_bytes(bed.matcher, "\xff\0\1\x2c", 4), SM_ERR_ARG);
        sm_grammar_destroy(g);
    }
    p.text = "root ::= <nothing>";
    CHECK_STATUS(sm_grammar_create(&p, &g, &error), SM_ERR_FORMAT);
    CHECK_STR(error.text, "grammar: line 1, column 10: there is no token <nothing>");
    p.text = "root ::= <[512]>";
    CHECK_STATUS(sm_grammar_create(&p, &g, &error), SM_ERR_FORMAT);
    p.text = "root ::= \"a\" <[2]>";
    CHECK_STATUS(sm_grammar_create(&p, &g, &error), SM_ERR_UNSUPPORTED);
    CHECK_STR(error.text, "grammar: line 1, column 14: a generation ends with, and no grammar "
                          "says, <[2]>");
    sm_tokenizer_destroy(t);
    grammar_close(&bed);
}

/* Whether a matcher is where a new one is after ids [n]. */
static int grammar_is_at(sm_matcher *m, sm_matcher *fresh, const sm_grammar *g, const int32_t *ids,
                         int n) {
    uint32_t one[16], other[16];
    int i;
    sm_matcher_start(fresh, g);
    for (i = 0; i < n; i++) CHECK_STATUS(sm_matcher_accept(fresh, ids[i]), SM_OK);
    CHECK_STATUS(sm_matcher_mask(m, one), SM_OK);
    CHECK_STATUS(sm_matcher_mask(fresh, other), SM_OK);
    return !memcmp(one, other, sizeof one) &&
           sm_matcher_is_complete(m) == sm_matcher_is_complete(fresh);
}

/* Forth and back at random, with copies and in little memory: always where a new matcher is after
 * the same ids. */
static void grammar_goes_back(void) {
    enum { N = 400 };
    static int32_t ids[N];
    grammar_bed bed;
    sm_error error;
    sm_grammar *g;
    sm_matcher *other, *copy;
    void *memory[2];
    size_t bytes = 160 << 10;
    uint32_t mask[16], nodes = 0;
    int turn, n = 0, k, id, taken = 0, sweeps = 0;
    if (!grammar_open(&bed, bytes)) return;
    g = grammar_of(SM_GRAMMAR_GBNF, "root ::= [a-m] root \"x\" | [n-z ] root \"y\" | \".\"", 0,
                   &error);
    memory[0] = malloc(bytes), memory[1] = malloc(bytes);
    other = sm_matcher_init(memory[0], bytes, bed.trie);
    copy = sm_matcher_init(memory[1], bytes, bed.trie);
    CHECK_STATUS(sm_matcher_copy(copy, other), SM_ERR_ARG); /* nothing was begun */
    CHECK_STATUS(sm_matcher_start(bed.matcher, g), SM_OK);
    CHECK_STATUS(sm_matcher_rollback(bed.matcher, 1), SM_ERR_ARG);
    for (turn = 0; turn < 400; turn++) {
        for (k = random_below(20); k > 0 && n < N; k--) {
            CHECK_STATUS(sm_matcher_mask(bed.matcher, mask), SM_OK);
            for (id = random_below(512); !(mask[id >> 5] >> (id & 31) & 1);) id = (id + 1) % 512;
            if (sm_token_is_end(bed.model, id)) break;
            CHECK_STATUS(sm_matcher_accept(bed.matcher, id), SM_OK);
            CHECK_STATUS(sm_matcher_accept(bed.matcher, 0), SM_ERR_ARG); /* does not count */
            ids[n++] = id;
        }
        sweeps += bed.matcher->b.n_nodes < nodes;
        nodes = bed.matcher->b.n_nodes;
        k = random_below(n < 20 ? n + 1 : 20);
        if (sm_matcher_rollback(bed.matcher, k) == SM_OK) n -= k, taken += k;
        if (turn % 4 == 0) { /* go on with a copy, which can go back, too */
            sm_matcher *swap = bed.matcher;
            CHECK_STATUS(sm_matcher_copy(copy, bed.matcher), SM_OK);
            bed.matcher = copy;
            copy = swap;
        }
        if (turn % 8 == 0 && !CHECK(grammar_is_at(bed.matcher, other, g, ids, n))) break;
    }
    CHECK(taken > 1000 && sweeps > 50);
    sm_grammar_destroy(g);
    g = grammar_of(SM_GRAMMAR_REGEX, "a{0,5000}", 0, &error);
    for (n = 0; n < 300; n += 9) { /* somewhere a long text finds too little room at first */
        char text[200];
        memset(text, 'a', sizeof text);
        sm_matcher_start(bed.matcher, g);
        for (k = 0; k < n; k++) CHECK_STATUS(sm_matcher_accept_bytes(bed.matcher, "a", 1), SM_OK);
        CHECK_STATUS(sm_matcher_accept_bytes(bed.matcher, text, sizeof text), SM_OK);
    }
    sm_grammar_destroy(g);
    g = grammar_of(SM_GRAMMAR_REGEX, "a*", 0, &error);
    sm_matcher_start(bed.matcher, g);
    for (k = 0; k < 300; k++) CHECK_STATUS(sm_matcher_accept_bytes(bed.matcher, "a", 1), SM_OK);
    CHECK_STATUS(sm_matcher_rollback(bed.matcher, SMALLMIND_MAX_ROLLBACK + 1), SM_ERR_ARG);
    CHECK_STATUS(sm_matcher_rollback(bed.matcher, -1), SM_ERR_ARG);
    CHECK_STATUS(sm_matcher_rollback(bed.matcher, SMALLMIND_MAX_ROLLBACK), SM_OK);
    CHECK_STATUS(sm_matcher_rollback(bed.matcher, 1), SM_ERR_ARG);
    sm_grammar_destroy(g);
    free(memory[0]), free(memory[1]);
    grammar_close(&bed);
}

/* Ids that must follow are the tokenizer's own: said one after the other, with the others chosen as
 * in the tokenized text, they make that text's ids. */
static void grammar_forces_the_tokenizers_ids(void) {
    static const char *const files[] = {"models/stories260K/stories260K.gguf",
                                        "tokenizers/ggml-vocab-gpt-2.gguf",
                                        "tokenizers/ggml-vocab-llama-spm.gguf"};
    static const struct {
        int kind;
        const char *grammar, *text;
    } cases[] = {
        {SM_GRAMMAR_JSON_SCHEMA,
         "{\"type\":\"object\",\"properties\":{\"firstName\":{\"type\":\"string\"},\"age\":{"
         "\"type\":\"integer\"},\"favouriteColour\":{\"enum\":[\"turquoise\",\"aubergine\"]}},"
         "\"required\":[\"firstName\",\"age\",\"favouriteColour\"],"
         "\"additionalProperties\":false}",
         "{\"firstName\": \"Tim\", \"age\": 7, \"favouriteColour\": \"aubergine\"}"},
        {SM_GRAMMAR_GBNF,
         "root ::= \"The capital of France is \" [A-Z] [a-z]+ \", and its river is the \" [A-Z] "
         "[a-z]+ \".\\n\\nThat is all.\"",
         "The capital of France is Paris, and its river is the Seine.\n\nThat is all."},
        {SM_GRAMMAR_GBNF, "root ::= \"na\\u00efve \\u4e16\\u754c \" [0-9]+ \" \\U0001F600 lily!\"",
         "na\xc3\xafve \xe4\xb8\x96\xe7\x95\x8c 12 \xf0\x9f\x98\x80 lily!"},
        {SM_GRAMMAR_REGEX, "abc(def)?ghi[x-z] the end of it", "abcghiy the end of it"},
    };
    int32_t ids[200], forced[64];
    size_t f, i, bytes = 1 << 21;
    int n, at, k, count, all = 0, total = 0;
    for (f = 0; f < sizeof files / sizeof *files; f++) {
        sm_model_params mp = sm_model_default();
        sm_tokenizer *t = NULL;
        grammar_bed bed;
        sm_error error;
        memset(&bed, 0, sizeof bed);
        mp.file.path = data_path(files[f]);
        mp.vocab_only = 1;
        if (!mp.file.path || !CHECK(!sm_model_open(&mp, &bed.model, &error))) continue;
        CHECK_STATUS(sm_trie_create(bed.model, NULL, &bed.trie, &error), SM_OK);
        CHECK_STATUS(sm_tokenizer_create(bed.model, 4096, NULL, &t, &error), SM_OK);
        bed.memory = malloc(bytes);
        bed.matcher = sm_matcher_init(bed.memory, bytes, bed.trie);
        for (i = 0; i < sizeof cases / sizeof *cases; i++) {
            sm_grammar *g = grammar_of(cases[i].kind, cases[i].grammar, 0, &error);
            char text[300] = "\n";
            strcat(text, cases[i].text); /* behind a line end, as behind a prompt */
            CHECK_STATUS(sm_tokenize(t, text, strlen(text), 0, ids, 200, &n), SM_OK);
            for (k = 0, at = 0; k < 1; at++) { /* over the line end */
                size_t length;
                const char *s = sm_token_text(bed.model, ids[at], &length);
                k = s && length == 1 && *s == '\n';
            }
            sm_matcher_start(bed.matcher, g);
            for (total += n - at; at < n; at += count) {
                count = sm_matcher_forced(bed.matcher, t, ids, at, forced, 64);
                all += count;
                for (k = 0; k < count; k++)
                    if (at + k >= n || forced[k] != ids[at + k])
                        FAIL("%s: %s: id %d is %d", files[f], cases[i].text, at + k, forced[k]);
                if (!count) count = 1;
                for (k = 0; k < count && at + k < n; k++)
                    CHECK_STATUS(sm_matcher_accept(bed.matcher, ids[at + k]), SM_OK);
            }
            CHECK(sm_matcher_is_complete(bed.matcher));
            sm_grammar_destroy(g);
        }
        sm_tokenizer_destroy(t);
        grammar_close(&bed);
    }
    printf("(%d of %d ids) ", all, total);
}

/* Where a tokenizer changes a text, its ids are none of that text's. */
static void grammar_forces_no_other_text(void) {
    static const char file[] =
        "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Lowercase\"},"
        "{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":true}]},"
        "\"decoder\":{\"type\":\"Fuse\"},\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,"
        "\"merges\":[\"a b\"],\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\" \":3,\"A\":4,\"B\":5}}}";
    static const struct {
        const char *text;
        int n;
    } cases[] = {{"ab", 1}, {"aab", 2}, {"Ab", 0}, {" ab", 0}, {"a b", 3}, {"ab ", 0}, {"abB", 0},
                 {"(ab)?", 0}, {"a(b)?", 0}, {"b(a)?", 1}};
    sm_model *m = NULL;
    sm_trie *trie = NULL;
    sm_tokenizer *t = NULL;
    sm_error error;
    size_t i, bytes = 200 << 10;
    void *memory = malloc(bytes);
    if (words_open(file, NULL, &m, &error)) FAIL("%s", error.text);
    else if (!CHECK(!sm_trie_create(m, NULL, &trie, &error))) sm_model_close(m), m = NULL;
    if (m) CHECK_STATUS(sm_tokenizer_create(m, 100, NULL, &t, &error), SM_OK);
    for (i = 0; i < sizeof cases / sizeof *cases && t; i++) {
        int32_t ids[8];
        int n;
        sm_matcher *matcher = sm_matcher_init(memory, bytes, trie);
        sm_grammar *g = grammar_of(SM_GRAMMAR_REGEX, cases[i].text, 0, &error);
        CHECK_STATUS(sm_matcher_start(matcher, g), SM_OK);
        n = sm_matcher_forced(matcher, t, NULL, 0, ids, 8);
        if (n != cases[i].n) FAIL("%s: %d ids", cases[i].text, n);
        sm_grammar_destroy(g);
    }
    sm_tokenizer_destroy(t);
    sm_trie_destroy(trie);
    sm_model_close(m);
    free(memory);
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

/* The states that one mask makes: what is said twice (any text before and behind a pattern) and
 * what has no text (a key that no pattern has) is seen at once, not followed to its end. */
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

/* A text that is all forced, and longer than what one pass takes: what the model has to choose in
 * between may be other tokens of the same text. */
static void grammar_generation_says_a_long_text(void) {
    static const char letters[] = "abcdefghijklmnop qrstuvwxyz";
    static grammar_text said;
    char text[201];
    const char *choice = text;
    grammar_bed bed;
    sm_error error;
    sm_ctx_params cp = sm_ctx_default();
    sm_grammar_params gp = sm_grammar_default();
    sm_gen_params p = sm_gen_default();
    sm_gen_stats stats;
    sm_grammar *g = NULL;
    sm_ctx *ctx;
    int i;
    if (!grammar_open(&bed, 1 << 20)) return;
    for (i = 0; i < 200; i++) text[i] = letters[i * i % 131 % 27];
    text[i] = 0;
    gp.kind = SM_GRAMMAR_CHOICES;
    gp.choices = &choice;
    gp.n_choices = 1;
    CHECK_STATUS(sm_grammar_create(&gp, &g, &error), SM_OK);
    cp.trie = bed.trie;
    cp.n_ctx = 512;
    cp.max_grammar_bytes = 1 << 20;
    ctx = run_ctx(bed.model, &cp);
    p.prompt = "Once upon a time";
    p.grammar = g;
    said.n = 0;
    if (ctx && g) CHECK_STATUS(sm_generate(ctx, &p, grammar_keep, &said, &stats), SM_OK);
    CHECK_STR(said.text, text);
    if (ctx) CHECK(sm_ctx_get_stats(ctx).passes < 8);
    sm_ctx_destroy(ctx);
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
    {"grammar: llama.cpp's parser tests", grammar_llama_cpp_parser},
    {"grammar: what llama.cpp's grammars of schemas say is valid", grammar_llama_cpp_schemas},
    {"grammar: small ones", grammar_small_ones},
    {"grammar: left recursion is turned round", grammar_turns_left_recursion_round},
    {"grammar: refusals name place and rule", grammar_refuses_by_name},
    {"grammar: hostile ones compile or are refused", grammar_survives_hostile_ones},
    {"grammar: noise compiles or is refused", grammar_survives_noise},
    {"grammar: a mask is the tokens that fit", grammar_masks_are_the_tokens_that_fit},
    {"grammar: tokens by number and name", grammar_has_tokens},
    {"grammar: a matcher goes back and is copied", grammar_goes_back},
    {"grammar: what must follow is the tokenizer's", grammar_forces_the_tokenizers_ids},
    {"grammar: a changed text is not forced", grammar_forces_no_other_text},
    {"grammar: a small matcher sweeps", grammar_matcher_sweeps},
    {"grammar: a mask makes few states", grammar_masks_make_few_states},
    {"grammar: a generation keeps to its schema", grammar_generation_keeps_it},
    {"grammar: a generation says a long text", grammar_generation_says_a_long_text},
    {"grammar: choices and arguments", grammar_choices_and_arguments},
};

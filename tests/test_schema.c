/* test_schema.c - JSON Schema: JSON texts, regular expressions, and schemas whose valid and invalid
 * instances others wrote down. Included by test.c. */
#ifndef _WIN32
#include <dirent.h>
#endif

/* --- a schema, compiled ----------------------------------------------------------------------- */

typedef struct schema_test {
    sm__gb b;
    sm__schema js;
    uint32_t start;
    void *nodes, *work;
    size_t work_bytes;
} schema_test;

static schema_test *schema_make(uint32_t nodes) {
    schema_test *t = (schema_test *)calloc(1, sizeof *t);
    sm__arena a = {NULL, 0, 0};
    sm__gb_layout(&a, &t->b, nodes);
    t->nodes = malloc(a.used + SM__ALIGN);
    a.base = sm__align_pointer(t->nodes);
    a.used = 0;
    sm__gb_layout(&a, &t->b, nodes);
    return t;
}

static void schema_free(schema_test *t) {
    free(t->nodes);
    free(t->work);
    free(t);
}

/* formats_off: format is an annotation. */
static sm_status schema_compile(schema_test *t, const char *text, size_t n, int formats_off) {
    sm__arena a = {NULL, 0, 0};
    uint32_t culprit, root;
    sm__gb_init(&t->b);
    sm__js_layout(&a, &t->js, text, n);
    if (a.used > t->work_bytes) {
        free(t->work);
        t->work_bytes = a.used;
        t->work = malloc(a.used + SM__ALIGN);
    }
    a.base = sm__align_pointer(t->work);
    a.used = 0;
    sm__js_layout(&a, &t->js, text, n);
    t->js.formats_off = formats_off;
    root = sm__js_compile(&t->js, &t->b, text, n);
    if (t->b.error.status == SM_OK) t->start = sm__gb_finish(&t->b, root, &culprit);
    return t->b.error.status;
}

static int schema_accepts(schema_test *t, const char *text, size_t n) {
    uint32_t state = t->start;
    size_t i;
    for (i = 0; i < n && state; i++) state = sm__gb_step(&t->b, state, (unsigned char)text[i]);
    return state && sm__gb_has(&t->b, state, SM__G_NULLABLE);
}

/* --- JSON files ------------------------------------------------------------------------------- */

typedef struct json_file {
    char *text;
    sm__tree t;
} json_file;

/* 0 = it is not there, or no JSON. */
static int json_parse(json_file *f, char *text, size_t n) {
    memset(f, 0, sizeof *f);
    f->text = text;
    if (!text) return 0;
    f->t.room = sm__tree_room((const unsigned char *)text, n);
    f->t.v = (sm__tree_node *)calloc(f->t.room, sizeof *f->t.v);
    f->t.text = (char *)malloc(n + 1);
    return sm__tree_read(&f->t, (const unsigned char *)text, n) == 0;
}
static int json_open(json_file *f, const char *path) {
    size_t n = 0;
    char *text = (char *)file_read(path, &n);
    return json_parse(f, text, n);
}
static void json_close(json_file *f) {
    free(f->text);
    free(f->t.v);
    free(f->t.text);
}

static uint32_t json_get(const json_file *f, uint32_t node, const char *key) {
    return sm__tree_get(&f->t, node, sm__str_of(key));
}

/* A growing text, written as Python's json.dumps does it by default, but for non-ASCII characters,
 * which stand as themselves: so the harness of MaskBench feeds its instances. */
typedef struct json_buffer {
    char *p;
    size_t n, room;
} json_buffer;

static void json_put(json_buffer *to, const char *s, size_t n) {
    while (to->n + n + 1 > to->room) {
        to->room = to->room ? 2 * to->room : 4096;
        to->p = (char *)realloc(to->p, to->room);
    }
    memcpy(to->p + to->n, s, n);
    to->n += n;
    to->p[to->n] = 0;
}

static void json_string(json_buffer *to, sm__str s) {
    static const char from[] = "\"\\\b\f\n\r\t", short_form[] = "\"\\bfnrt";
    size_t i;
    json_put(to, "\"", 1);
    for (i = 0; i < s.n; i++) {
        char c = s.p[i], escape[8];
        const char *at = c ? strchr(from, c) : NULL;
        if (at) {
            escape[0] = '\\';
            escape[1] = short_form[at - from];
            json_put(to, escape, 2);
        } else if ((unsigned char)c < 32) {
            sprintf(escape, "\\u%04x", (unsigned)c);
            json_put(to, escape, 6);
        } else {
            json_put(to, &c, 1);
        }
    }
    json_put(to, "\"", 1);
}

static void json_write(json_buffer *to, const json_file *f, uint32_t node) {
    const sm__tree_node *v = &f->t.v[node];
    uint32_t i;
    switch (v->kind) {
    case 'n': json_put(to, "null", 4); return;
    case 't': json_put(to, "true", 4); return;
    case 'f': json_put(to, "false", 5); return;
    case '0': json_put(to, v->text.p, v->text.n); return;
    case '"': json_string(to, v->text); return;
    }
    json_put(to, &v->kind, 1);
    for (i = v->first; i; i = f->t.v[i].next) {
        if (i != v->first) json_put(to, ", ", 2);
        if (v->kind == '{') {
            json_string(to, f->t.v[i].key);
            json_put(to, ": ", 2);
        }
        json_write(to, f, i);
    }
    json_put(to, v->kind == '{' ? "}" : "]", 1);
}

/* --- known answers ---------------------------------------------------------------------------- */

typedef struct schema_score {
    int schemas, compiled, instances;
    json_buffer schema, instance;
} schema_score;

/* A schema with its tests: no valid instance refused, no invalid one accepted. */
static void schema_judge(schema_test *t, schema_score *score, const char *where,
                         const json_file *f, uint32_t group, int formats_off) {
    uint32_t i, list = json_get(f, group, "tests");
    sm_status status;
    score->schema.n = 0;
    json_write(&score->schema, f, json_get(f, group, "schema"));
    score->schemas++;
    status = schema_compile(t, score->schema.p, score->schema.n, formats_off);
    if (status) {
        CHECK(status == SM_ERR_UNSUPPORTED || status == SM_ERR_FORMAT || status == SM_ERR_ARG ||
              status == SM_ERR_FULL);
        CHECK(t->b.error.text[0] != 0);
        return;
    }
    score->compiled++;
    for (i = list ? f->t.v[list].first : 0; i; i = f->t.v[i].next) {
        int valid = f->t.v[json_get(f, i, "valid")].kind == 't';
        score->instance.n = 0;
        json_write(&score->instance, f, json_get(f, i, "data"));
        score->instances++;
        if (schema_accepts(t, score->instance.p, score->instance.n) != valid)
            FAIL("%s: %s %s: %.200s", where, score->schema.p, valid ? "refuses" : "accepts",
                 score->instance.p);
    }
}

static void schema_score_free(schema_score *score) {
    free(score->schema.p);
    free(score->instance.p);
}

/* MaskBench (Geng et al. 2025, arXiv:2501.10868), the parts that are here: a line each. */
static void schema_maskbench(void) {
    static const char *const files[] = {"json/maskbench/Github_trivial.jsonl",
                                        "json/maskbench/Glaiveai2K-300.jsonl"};
    schema_test *t = schema_make(1 << 17);
    schema_score score;
    int k;
    memset(&score, 0, sizeof score);
    for (k = 0; k < 2; k++) {
        size_t bytes = 0;
        char *text = (char *)file_read(data_path(files[k]), &bytes), *line, *end;
        for (line = text; text && line < text + bytes; line = end + 1) {
            json_file f;
            char *copy;
            end = (char *)memchr(line, '\n', (size_t)(text + bytes - line));
            if (!end) end = text + bytes;
            if (end == line) continue;
            copy = (char *)malloc((size_t)(end - line));
            memcpy(copy, line, (size_t)(end - line));
            if (CHECK(json_parse(&f, copy, (size_t)(end - line))))
                schema_judge(t, &score, f.t.v[json_get(&f, 1, "file")].text.p, &f, 1, 0);
            json_close(&f);
        }
        free(text);
    }
    if (score.schemas) {
        printf("(%d of %d schemas compile, %d instances) ", score.compiled, score.schemas,
               score.instances);
        CHECK(score.compiled >= 707);
    }
    schema_score_free(&score);
    schema_free(t);
}

#ifndef _WIN32
#define SCHEMA_SUITE "json/JSON-Schema-Test-Suite/draft2020-12"

static void schema_suite_file(schema_test *t, schema_score *score, const char *folder,
                              const char *name) {
    char path[1024];
    json_file f;
    uint32_t i;
    /* In the main part format is an annotation; the optional one wants it to be asked. */
    int formats_off = strcmp(name, "format.json") == 0;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (CHECK(json_open(&f, path)))
        for (i = f.t.v[1].first; i; i = f.t.v[i].next) {
            sm__str about = f.t.v[json_get(&f, i, "description")].text;
            /* hostname: whether what follows xn-- is Punycode is not looked at */
            if (strstr(about.p, "punycode")) continue;
            schema_judge(t, score, name, &f, i, formats_off);
        }
    json_close(&f);
}

static void schema_suite(void) {
    static const char *const folders[] = {SCHEMA_SUITE, SCHEMA_SUITE "/optional",
                                          SCHEMA_SUITE "/optional/format"};
    schema_test *t;
    schema_score score;
    int k;
    if (!data_path(SCHEMA_SUITE "/type.json")) return;
    memset(&score, 0, sizeof score);
    t = schema_make(1 << 17);
    for (k = 0; k < 3; k++) {
        char folder[512];
        struct dirent *entry;
        DIR *dir;
        snprintf(folder, sizeof folder, "%s", data_path(folders[k]));
        dir = opendir(folder);
        while (dir && (entry = readdir(dir)) != NULL)
            if (strstr(entry->d_name, ".json"))
                schema_suite_file(t, &score, folder, entry->d_name);
        if (CHECK(dir != NULL)) closedir(dir);
    }
    printf("(%d of %d schemas compile, %d instances) ", score.compiled, score.schemas,
           score.instances);
    CHECK(score.compiled >= 391);
    schema_score_free(&score);
    schema_free(t);
}

/* JSONTestSuite (Seriot 2016): y_ must be read, n_ must not, i_ may be either. */
static void schema_json_suite(void) {
    char folder[512];
    struct dirent *entry;
    DIR *dir;
    int n = 0;
    if (!data_path("json/JSONTestSuite/LICENSE")) return;
    snprintf(folder, sizeof folder, "%s", data_path("json/JSONTestSuite/test_parsing"));
    dir = opendir(folder);
    while (dir && (entry = readdir(dir)) != NULL) {
        char path[1024];
        json_file f;
        int ok;
        if (!strstr(entry->d_name, ".json")) continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        ok = json_open(&f, path);
        if (entry->d_name[0] == 'y' || entry->d_name[0] == 'n') {
            n++;
            if (ok != (entry->d_name[0] == 'y'))
                FAIL("%s %s", entry->d_name, ok ? "was read" : "was not read");
        }
        json_close(&f);
    }
    if (CHECK(dir != NULL)) closedir(dir);
    printf("(%d files) ", n);
    CHECK(n > 200);
}
#else
static void schema_suite(void) { SKIP("no readdir here"); }
static void schema_json_suite(void) { SKIP("no readdir here"); }
#endif

/* The strings that llama.cpp's integration tests give to its schemas. What it refuses beyond the
 * draft is left out: integers of more than 16 digits, members in another order than that of
 * `properties`, and values that are no arrays for a schema that does not say "type". */
static int schema_llama_own(sm__str s) {
    return (s.n > 16 && strspn(s.p, "0123456789") == s.n) ||
           !strcmp(s.p, "{ \"street_type\": \"Avenue\", \"number\": 1600 }") ||
           !strcmp(s.p, "1");
}

static void schema_llama_strings(void) {
    const char *path = data_path("grammar/grammar_integration.json");
    json_file f;
    schema_test *t;
    uint32_t i, list, k;
    int n = 0, schemas = 0, compiled = 0;
    if (!path) return;
    t = schema_make(1 << 17);
    if (!CHECK(json_open(&f, path))) return;
    list = json_get(&f, 1, "schemas");
    for (i = list ? f.t.v[list].first : 0; i; i = f.t.v[i].next) {
        sm__str schema = f.t.v[json_get(&f, i, "schema")].text;
        int pass;
        schemas++;
        if (schema_compile(t, schema.p, schema.n, 0)) {
            printf("(%s) ", t->b.error.text);
            continue;
        }
        compiled++;
        for (pass = 0; pass < 2; pass++) {
            uint32_t strings = json_get(&f, i, pass ? "passing" : "failing");
            for (k = strings ? f.t.v[strings].first : 0; k; k = f.t.v[k].next, n++) {
                sm__str s = f.t.v[k].text;
                if (!pass && schema_llama_own(s)) continue;
                if (schema_accepts(t, s.p, s.n) != pass)
                    FAIL("%.*s %s %s", (int)schema.n, schema.p, pass ? "refuses" : "accepts", s.p);
            }
        }
    }
    printf("(%d of %d schemas compile, %d strings) ", compiled, schemas, n);
    CHECK(compiled == 16); /* uniqueItems of any strings is not regular */
    json_close(&f);
    schema_free(t);
}

/* --- by hand ---------------------------------------------------------------------------------- */

typedef struct schema_case {
    const char *schema;
    const char *yes[6], *no[6];
} schema_case;

static void schema_cases(const schema_case *cases, int n) {
    schema_test *t = schema_make(1 << 17);
    int i, k;
    for (i = 0; i < n; i++) {
        const schema_case *c = &cases[i];
        if (schema_compile(t, c->schema, strlen(c->schema), 0)) {
            FAIL("%s: %s", c->schema, t->b.error.text);
            continue;
        }
        for (k = 0; k < 6; k++) {
            if (c->yes[k] && !schema_accepts(t, c->yes[k], strlen(c->yes[k])))
                FAIL("%s refuses %s", c->schema, c->yes[k]);
            if (c->no[k] && schema_accepts(t, c->no[k], strlen(c->no[k])))
                FAIL("%s accepts %s", c->schema, c->no[k]);
        }
    }
    schema_free(t);
}

/* Anchors may stand anywhere; characters that JSON escapes are matched by their escapes. */
static void schema_patterns(void) {
    static const schema_case cases[] = {
        {"{\"type\": \"string\", \"pattern\": \"^a|b$\"}",
         {"\"ax\"", "\"xb\""}, {"\"xa\"", "\"bx\""}},
        {"{\"type\": \"string\", \"pattern\": \"a$b|c$(d|)\"}",
         {"\"c\""}, {"\"ab\"", "\"a\"", "\"cd\""}},
        {"{\"type\": \"string\", \"pattern\": \"^[^a]$\"}",
         {"\"\\u001F\"", "\"\\u001f\"", "\"\\u000B\""}, {"\"a\"", "\"\\u002f\"", "\"\\u00\""}},
        {"{\"type\": \"string\", \"pattern\": \"x(^|y)z\"}", {"\"xyz\"", "\"-xyz-\""}, {"\"xz\""}},
        {"{\"type\": \"string\", \"pattern\": \"^(a|b$|^c)d?$\"}",
         {"\"ad\"", "\"b\"", "\"c\"", "\"cd\""}, {"\"bd\"", "\"acd\""}},
        {"{\"type\": \"string\", \"pattern\": \"(^a){2}|^$\"}", {"\"\""}, {"\"aa\"", "\"a\""}},
        {"{\"type\": \"string\", \"pattern\": \"^[^\\\\n\\\"]\\\\\\\\$\"}",
         {"\"a\\\\\"", "\"\\t\\\\\""}, {"\"\\n\\\\\"", "\"\\\"\\\\\"", "\"a\\\""}},
        {"{\"type\": \"string\", \"pattern\": \"^\\\\u{1F600}{2}[\\\\uD83D\\\\uDE00x]$\"}",
         {"\"\xF0\x9F\x98\x80\xF0\x9F\x98\x80x\""}, {"\"\xF0\x9F\x98\x80x\""}},
        {"{\"type\": \"string\", \"pattern\": \"^(?:ab+?){2,}(?<n>c)*$\"}",
         {"\"ababbcc\""}, {"\"abc\""}},
        {"{\"type\": \"string\", \"pattern\": \"^\\\\p{Ll}\\\\P{L}[\\\\w-]$\"}",
         {"\"\xC3\xA9-_\"", "\"a1-\""}, {"\"A1-\"", "\"aa-\""}},
        {"{\"type\": \"string\", \"pattern\": \"^(?!ab|.*x$)(?=.*[0-9]).{2,3}$\"}",
         {"\"1a\"", "\"ax1\"", "\"a1\""}, {"\"ab1\"", "\"1x\"", "\"aa\"", "\"1\"", "\"a1bc\""}},
        {"{\"type\": \"string\", \"pattern\": \"a(?!b)|(?=cd$)\"}",
         {"\"aba\"", "\"xcd\"", "\"ac\""}, {"\"ab\"", "\"cde\"", "\"\""}},
        {"{\"type\": \"string\", \"maxLength\": 2, \"minLength\": 2, \"pattern\": \"^.\"}",
         {"\"a\\n\"", "\"\xC3\xA9\xC3\xA9\""}, {"\"a\"", "\"abc\"", "\"\\na\""}},
    };
    schema_cases(cases, (int)(sizeof cases / sizeof *cases));
}

static void schema_numbers(void) {
    static const schema_case cases[] = {
        {"{\"type\": \"integer\", \"minimum\": -12, \"exclusiveMaximum\": 105}",
         {"-12", "0", "104", "7.0", "99"}, {"-13", "105", "-120", "1.5", "007", "-0"}},
        {"{\"type\": \"number\", \"minimum\": 0.25, \"maximum\": 1e3}",
         {"0.25", "0.250", "0.3", "1000", "999.99", "1000.0"},
         {"0.2", "0.249", "1000.01", "-1", "0.", "1e+16"}},
        {"{\"exclusiveMinimum\": 0}",
         {"0.001", "1e-07", "1e300", "12"}, {"0", "-0", "0.0", "-1e-07"}},
        {"{\"maximum\": -1.5e-20}",
         {"-1.5e-20", "-1", "-2e-20", "-1e+30"}, {"-1.4e-20", "0", "-1e-21"}},
        {"{\"type\": \"number\", \"multipleOf\": 0.25}",
         {"0", "1.5", "-3.75", "2.250"}, {"1.3", "0.2"}},
        {"{\"type\": \"integer\", \"multipleOf\": 20}",
         {"0", "40", "1020", "-20"}, {"4", "30", "10"}},
        {"{\"multipleOf\": 12}", {"0", "-12", "144", "36.0", "1000000008"}, {"4", "6", "14", "13"}},
        {"{\"multipleOf\": 7}", {"0", "-0.0", "7.0", "-14", "700000007", "1001"},
         {"1", "7.7", "15", "07", "7.", "1e16"}},
        {"{\"multipleOf\": 0.07}", {"0.7", "0.07", "-0.0", "7.140", "21", "0.14"},
         {"0.1", "0.071", "0.", "00.07", "1", "0.0007"}},
        {"{\"multipleOf\": 3600, \"minimum\": 4000, \"maximum\": 11000}",
         {"7200", "10800", "7200.0"}, {"3600", "14400", "5000", "720"}},
        {"{\"multipleOf\": 10}", {"0", "20", "-70.0"}, {"5", "1.0000000000000001e+16"}},
        {"{\"multipleOf\": 0.5}", {"1e+16", "0.5", "12.0"}, {"0.25", "1e-05"}},
        {"{\"multipleOf\": 0.3}", {"0.3", "-1.2", "3", "999.9"}, {"0.1", "1.1", "0.33", "1e+16"}},
        {"{\"enum\": [100, -2.50, 0]}", {"100", "100.0", "-2.5", "0"}, {"10", "1000", "2.5", "1"}},
        {"{\"enum\": [3e-7, 4e20, 5e-12]}",
         {"3e-07", "3e-7", "4E20", "4e+020", "5.0e-12", "0.00000030"},
         {"3e-77", "3e-0", "4e2", "4e200", "5e-1", "-3e-7"}},
        {"{\"enum\": [12, -2.5, 1e-5, 123, 1.25, 0.00001]}",
         {"12.00", "-2.50", "1.250", "1e-05", "0.00001", "123"},
         {"12.5", "-2", "1.2", "1", "2.5", "1230"}},
    };
    schema_cases(cases, (int)(sizeof cases / sizeof *cases));
}

static void schema_objects(void) {
    static const schema_case cases[] = {
        {"{\"properties\": {\"a\": {\"type\": \"null\"}, \"b\": true}, \"required\": [\"b\"],"
         " \"type\": \"object\"}",
         {"{\"b\": 1}", "{\"b\":1,\"a\":null}", "{\"x\": [], \"b\": {}, \"a\": null}",
          "{\n  \"b\": 1\n}"},
         {"{}", "{\"b\": 1, \"a\": 0}", "{\"b\": 1, \"b\": 2}", "{\"b\" : 1}", "{\"b\": 1,}"}},
        {"{\"type\": \"object\", \"oneOf\": [{\"required\": [\"a\"]}, {\"required\": [\"b\"]}]}",
         {"{\"a\": 1}", "{\"b\": 1, \"c\": 2}"}, {"{}", "{\"a\": 1, \"b\": 2}", "{\"c\": 1}"}},
        {"{\"$ref\": \"#/$defs/t\", \"$defs\": {\"t\": {\"type\": \"object\", \"properties\":"
         " {\"next\": {\"$ref\": \"#/$defs/t\"}}, \"additionalProperties\": false}}}",
         {"{}", "{\"next\": {\"next\": {}}}"}, {"{\"next\": 1}", "{\"next\": {\"x\": {}}}"}},
        {"{\"type\": \"object\", \"patternProperties\": {\"^x\": {\"type\": \"null\"}},"
         " \"properties\": {\"xy\": {\"enum\": [null, 1]}}, \"additionalProperties\": false,"
         " \"propertyNames\": {\"maxLength\": 3}}",
         {"{\"x\": null}", "{\"xy\": null, \"xz\": null}"},
         {"{\"xy\": 1}", "{\"xxxx\": null}", "{\"a\": null}"}},
        {"{\"type\": \"array\", \"uniqueItems\": true, \"items\": {\"enum\": [\"a\", 1, "
         "1.0, null]}}",
         {"[]", "[1, \"a\", null]"}, {"[1, 1]", "[1, 1.0]", "[2]"}},
        {"{\"type\": \"array\", \"prefixItems\": [{\"type\": \"null\"}], "
         "\"contains\": {\"const\": 1},"
         " \"minContains\": 2, \"maxItems\": 4}",
         {"[null, 1, 1]", "[null, 1, 2, 1]"}, {"[null, 1]", "[1, 1]", "[null, 1, 1, 1, 1]"}},
        {"{\"const\": {\"a\": [1, {\"b\": null}]}}",
         {"{\"a\": [1, {\"b\": null}]}", "{\"a\":[1.0,{\"b\":null}]}"},
         {"{\"a\": [1]}", "{}", "{\"a\": [1, {\"b\": null}], \"c\": 1}"}},
        /* some member of any name is such, maybe the same for several reasons */
        {"{\"not\": {\"additionalProperties\": {\"type\": \"null\"}}, \"type\": \"object\"}",
         {"{\"a\": 1}", "{\"a\": null, \"b\": {}, \"c\": null}"}, {"{}", "{\"a\": null}"}},
        {"{\"not\": {\"anyOf\": [{\"const\": {}}, {\"patternProperties\": {\"^x\": {\"type\":"
         " \"null\"}}}, {\"propertyNames\": {\"maxLength\": 1}}]}, \"type\": \"object\"}",
         {"{\"xy\": 1}", "{\"x\": 1, \"ab\": null}"},
         {"{}", "{\"x\": 1}", "{\"ab\": 1}", "{\"xy\": null, \"b\": 2}"}},
        {"{\"oneOf\": [{\"properties\": {\"a\": {\"type\": \"null\"}}, \"patternProperties\":"
         " {\"b\": {\"type\": \"string\"}}}, {\"properties\": {\"b\": {\"type\": \"null\"}}}],"
         " \"type\": \"object\"}",
         {"{\"a\": 1}", "{\"b\": null}", "{\"ab\": 1, \"b\": null}", "{\"b\": \"x\"}"},
         {"{}", "{\"a\": null}", "{\"ab\": \"\"}", "{\"a\": 0, \"b\": true}"}},
        {"{\"not\": {\"oneOf\": [{\"type\": [\"string\", \"null\"]}, {\"type\": [\"string\","
         " \"number\"]}]}}",
         {"\"x\"", "true"}, {"null", "1"}},
        {"{\"type\": \"object\", \"if\": {\"required\": [\"a\"]}, \"then\": {\"required\":"
         " [\"b\"]}, \"else\": {\"required\": [\"c\"]}}",
         {"{\"a\": 1, \"b\": 1}", "{\"c\": 1}"}, {"{\"a\": 1}", "{\"b\": 1}", "{}"}},
        {"{\"not\": {\"dependentRequired\": {\"a\": [\"b\", \"c\"]}}, \"type\": \"object\"}",
         {"{\"a\": 1}", "{\"c\": 1, \"a\": 1}"},
         {"{}", "{\"b\": 1}", "{\"a\": 1, \"b\": 1, \"c\": 1}"}},
        {"{\"type\": \"array\", \"items\": {\"type\": \"null\"}, \"minItems\": 2}",
         {"[null, null]", "[null, null, null]"}, {"[]", "[null]", "[null, 1]"}},
        {"{\"type\": \"array\", \"contains\": {\"const\": 1}, \"maxContains\": 1}",
         {"[1]", "[2, 1, 3]"}, {"[]", "[2]", "[1, 1]", "[1, 2, 1.0]"}},
        {"{\"allOf\": [{\"additionalProperties\": {\"type\": \"null\"}}], \"type\": \"object\","
         " \"unevaluatedProperties\": false}",
         {"{}", "{\"a\": null}"}, {"{\"a\": 1}"}},
        {"{\"type\": \"string\", \"format\": \"time\"}",
         {"\"23:59:60Z\"", "\"01:29:60.5+01:30\"", "\"22:29:60-01:30\""},
         {"\"00:29:60+01:30\"", "\"23:59:60+01:00\"", "\"22:59:60Z\"", "\"12:00:61Z\""}},
        {"{\"type\": \"string\", \"format\": \"iri\"}",
         {"\"http://\xC3\xA9/?\xEE\x80\x80\""}, {"\"http://\xEE\x80\x80/\"", "\"\xC3\xA9\""}},
        {"{\"type\": \"array\", \"items\": {\"$recursiveRef\": \"#\"}}",
         {"[]", "[[], [[]]]"}, {"{}", "[1]", "[[{}]]"}},
        /* what a value does not have is no member of it */
        {"{\"const\": {\"a\": 1}, \"properties\": {\"b\": true}}",
         {"{\"a\": 1}"}, {"{}", "{\"a\": 1, \"b\": 1}", "{\"b\": 1}"}},
        {"{\"type\": \"array\", \"uniqueItems\": true, \"minItems\": 2, \"items\": {\"type\":"
         " [\"boolean\", \"null\"]}}",
         {"[true, null]", "[null, false, true]"}, {"[]", "[null]", "[true, true]", "[1, null]"}},
        {"{\"type\": \"array\", \"uniqueItems\": true, \"items\": {\"enum\": [{\"a\": 1}, {},"
         " {\"a\": 2, \"b\": 0}, false]}}",
         {"[{}, {\"a\": 1}, false]", "[{\"b\": 0, \"a\": 2}]"},
         {"[{\"a\": 2, \"b\": 0}, {\"b\": 0, \"a\": 2}]", "[{\"a\": 2}]"}},
        {"{\"uniqueItems\": true, \"items\": {\"const\": \"a\"}}", {"[]", "[\"a\"]"},
         {"[\"a\", \"a\"]"}},
    };
    schema_cases(cases, (int)(sizeof cases / sizeof *cases));
}

/* No text leads where it cannot end: the last byte of each of these is refused. */
static void schema_dead_ends(void) {
    static const struct {
        const char *schema, *text;
    } cases[] = {{"{\"multipleOf\": 0.75}", "1.4"},
                 {"{\"multipleOf\": 0.07}", "7.51"},
                 {"{\"type\": \"integer\", \"maximum\": 99, \"minimum\": 10}", "100"},
                 {"{\"enum\": [\"abc\", \"abd\"]}", "\"abe"},
                 {"{\"type\": \"string\", \"pattern\": \"^ab\", \"not\": {\"const\": \"abc\"},"
                  " \"maxLength\": 3}", "\"abc"},
                 {"{\"type\": \"string\", \"pattern\": \"^a(?!b)\", \"maxLength\": 2}", "\"ab"}};
    schema_test *t = schema_make(1 << 15);
    size_t i, k;
    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t state;
        size_t n = strlen(cases[i].text);
        if (!CHECK_STATUS(schema_compile(t, cases[i].schema, strlen(cases[i].schema), 0), SM_OK))
            continue;
        for (k = 0, state = t->start; k < n; k++) {
            if (!state) FAIL("%s: %s ends at %d", cases[i].schema, cases[i].text, (int)k);
            state = sm__gb_step(&t->b, state, (unsigned char)cases[i].text[k]);
        }
        if (state) FAIL("%s goes on behind %s", cases[i].schema, cases[i].text);
    }
    schema_free(t);
}

/* What is not done exactly is an error that names the place, never an approximation. */
static void schema_refusals(void) {
    static const struct {
        const char *schema, *message;
    } cases[] = {
        {"{\"properties\": {\"a~/b\": {\"pattern\": \"a(?<=b)\"}}}",
         "#/properties/a~0~1b/pattern: a look-behind at byte 4"},
        {"{\"pattern\": \"\\\\bx\"}", "word boundary"},
        {"{\"pattern\": \"(a)\\\\1\"}", "back reference"},
        {"{\"pattern\": \"^((?!a).)*$\"}", "a look-ahead in a group"},
        {"{\"pattern\": \"(?=^a)\"}", "the start of the text in a look-ahead"},
        {"{\"pattern\": \"(?=a)*\"}", "a look-ahead that is repeated"},
        {"{\"pattern\": \"\\\\p{Greek}\"}", "\\p{...}"},
        {"{\"pattern\": \"(a\"}", "( without )"},
        {"{\"pattern\": \"[b-a]\"}", "out of order"},
        {"{\"multipleOf\": 0.123456789}", "#/multipleOf: multipleOf"},
        {"{\"type\": \"array\", \"uniqueItems\": true}", "#/uniqueItems: uniqueItems"},
        {"{\"$ref\": \"http://example.com/x\"}", "not in this text"},
        {"{\"$ref\": \"#/nowhere\"}", "nothing is there"},
        {"{\"$defs\": {\"a\": {\"$id\": \"http://x/a\"}}, \"$recursiveRef\": \"#\"}",
         "$recursiveRef"},
        {"{\"$ref\": \"#\"}", "leads to itself"},
        {"{\"allOf\": [{\"$ref\": \"#/$defs/a\"}], \"$defs\": {\"a\": {\"anyOf\": [{\"$ref\":"
         " \"#/$defs/a\"}, {\"$ref\": \"#\"}]}}}",
         "leads to itself"},
        {"{\"format\": \"idn-hostname\"}", "#/format: this format"},
        {"{\"type\": \"strin\"}", "this is no type"},
        {"{\"type\": [\"null\", 3]}", "#/type/1"},
        {"{\"minLength\": -1}", "#/minLength"},
        {"{\"$schema\": \"http://example.com/mine\"}", "#/$schema: this dialect"},
        {"{\"a\": }", "no JSON at byte 6"},
        /* All that is required makes all of oneOf hold, so nothing is valid. MaskBench has four of
         * this kind (Glaiveai2K, calculate_area). */
        {"{\"oneOf\": [{\"required\": [\"r\"]}, {\"required\": [\"l\", \"w\"]}], \"type\":"
         " \"object\", \"required\": [\"r\", \"l\", \"w\"]}",
         "matches no text"},
        {"{\"oneOf\": [{\"not\": {\"required\": [\"r\"]}, \"required\": [\"l\"]}, {\"required\":"
         " [\"r\"], \"not\": {\"required\": [\"l\"]}}], \"type\": \"object\", \"required\":"
         " [\"l\", \"r\"]}",
         "matches no text"},
        {"\"x\"", "this is no schema"},
        {"{\"properties\": []}", "#/properties: this is no object of schemas"},
    };
    schema_test *t = schema_make(1 << 17);
    size_t i;
    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        sm_status status = schema_compile(t, cases[i].schema, strlen(cases[i].schema), 0);
        if (status == SM_OK || !strstr(t->b.error.text, cases[i].message))
            FAIL("%s: %d, \"%s\" without \"%s\"", cases[i].schema, status, t->b.error.text,
                 cases[i].message);
    }
    schema_free(t);
}

/* Schemas that would blow up are refused, soon and without harm. */
static void schema_hostile(void) {
    static const char *const patterns[] = {"((((a{99}){99}){99}){99}){99}",
                                           "(a|aa|aaa){500}(b|bb){500}$", "(.*a){30}.{30}$",
                                           "(((((((((((((((((a*)*)*)*)*)*)*)*)*)*)*)*)*)*)*)*)*)*"};
    schema_test *t = schema_make(1 << 15);
    json_buffer text = {NULL, 0, 0};
    size_t i;
    for (i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        text.n = 0;
        json_put(&text, "{\"pattern\":\"", 12);
        json_put(&text, patterns[i], strlen(patterns[i]));
        json_put(&text, "\",\"not\":{\"pattern\":\"b\"}}", 24);
        schema_compile(t, text.p, text.n, 0);
        schema_accepts(t, "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaa\"", 30);
    }
    text.n = 0; /* brackets in brackets */
    for (i = 0; i < 100000; i++) json_put(&text, "{\"not\":", 7);
    CHECK_STATUS(schema_compile(t, text.p, text.n, 0), SM_ERR_FORMAT);
    text.n = 0; /* 2^40 cases */
    json_put(&text, "{\"allOf\":[", 10);
    for (i = 0; i < 40; i++) {
        char one[80];
        sprintf(one, "%s{\"anyOf\":[{\"required\":[\"a%d\"]},{\"required\":[\"b%d\"]}]}",
                i ? "," : "", (int)i, (int)i);
        json_put(&text, one, strlen(one));
    }
    json_put(&text, "]}", 2);
    CHECK_STATUS(schema_compile(t, text.p, text.n, 0), SM_ERR_FULL);
    text.n = 0; /* more names than the state holds */
    json_put(&text, "{\"properties\":{", 15);
    for (i = 0; i < 300; i++) {
        char one[32];
        sprintf(one, "%s\"%d\":{}", i ? "," : "", (int)i);
        json_put(&text, one, strlen(one));
    }
    json_put(&text, "}}", 2);
    CHECK_STATUS(schema_compile(t, text.p, text.n, 0), SM_ERR_UNSUPPORTED);
    free(text.p);
    schema_free(t);
}

/* Thousands of values are a tree of what they begin and end with. */
static void schema_large_enums(void) {
    static const char *const syllables[] = {"ka", "to", "mi", "ra", "ne", "lo", "shi", "bu", "ter",
                                            "and", "\\\"", "\\u001f", "\xC3\xA9", "\xC3\xA8"};
    schema_test *t = schema_make(sm__gb_fit((size_t)4 << 20)); /* what sm_grammar_create has */
    json_buffer schema = {NULL, 0, 0};
    static char values[5000][48];
    int i, k, numbers, n;
    json_put(&schema, "{\"oneOf\":[", 10);
    for (i = 0; i < 400; i++) {
        n = sprintf(values[i], "%s{\"const\":\"v%d\"}", i ? "," : "", i * i);
        json_put(&schema, values[i], (size_t)n);
    }
    json_put(&schema, "]}", 2);
    if (CHECK_STATUS(schema_compile(t, schema.p, schema.n, 0), SM_OK))
        CHECK(schema_accepts(t, "\"v169\"", 6) && !schema_accepts(t, "\"v170\"", 6));
    for (numbers = 0; numbers < 2; numbers++) {
        schema.n = 0;
        json_put(&schema, "{\"enum\":[", 9);
        for (i = 0; i < 5000; i++) {
            int number = (int)random_u64() % 1000000;
            if (numbers) n = sprintf(values[i], number % 3 ? "%d" : "%d.25", number);
            else {
                n = sprintf(values[i], "\"%d", i * (int)9973 % 5000);
                for (k = 0; k < 3 + i % 4; k++)
                    n += sprintf(values[i] + n, "%s", syllables[random_u64() % 14]);
                n += sprintf(values[i] + n, "\"");
            }
            json_put(&schema, i ? "," : "", i != 0);
            json_put(&schema, values[i], (size_t)n);
        }
        json_put(&schema, "]}", 2);
        if (!CHECK_STATUS(schema_compile(t, schema.p, schema.n, 0), SM_OK)) continue;
        for (i = 0; i < 5000; i += 97) {
            size_t length = strlen(values[i]);
            CHECK(schema_accepts(t, values[i], length));
            CHECK(!schema_accepts(t, values[i], length - 1) || numbers);
            values[i][length - 1] = numbers ? 'x' : 'k';
            values[i][length] = '"';
            CHECK(!schema_accepts(t, values[i], length + 1));
        }
    }
    free(schema.p);
    schema_free(t);
}

static const test tests_schema[] = {
    {"schema: JSON is read as JSONTestSuite says", schema_json_suite},
    {"schema: patterns, anchors, escapes", schema_patterns},
    {"schema: ranges and multiples of numbers", schema_numbers},
    {"schema: objects and arrays", schema_objects},
    {"schema: no dead ends", schema_dead_ends},
    {"schema: 5,000 values in the memory of a default grammar", schema_large_enums},
    {"schema: what is not exact is refused by name", schema_refusals},
    {"schema: hostile ones are refused", schema_hostile},
    {"schema: llama.cpp's accepted and refused strings", schema_llama_strings},
    {"schema: the test suite of draft 2020-12", schema_suite},
    {"schema: MaskBench", schema_maskbench},
};

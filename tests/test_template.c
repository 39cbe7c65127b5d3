/* test_template.c - chat templates: what each construct gives (jinja2's answers, as
 * tests/templates.sh compares them by the thousand), errors with their place, limits, hostile
 * templates, marks. Included by test.c. */

static sm_template *template_make(const char *source, sm_error *error) {
    sm_template_params p = sm_template_default();
    sm_template *t = NULL;
    p.source = source;
    p.max_text = 4096;
    p.max_values = 8192;
    p.max_steps = 200000;
    error->status = SM_OK;
    error->text[0] = 0;
    sm_template_create(NULL, &p, &t, error);
    return t;
}

/* The rendering, or the error's text. Valid until the next call. */
static const char *template_text(const char *source, const char *messages, const char *extra) {
    static char out[4200];
    sm_render_params p = sm_render_default();
    sm_error error;
    sm_template *t = template_make(source, &error);
    const char *text = error.text;
    p.messages_json = messages;
    p.extra_json = extra;
    p.now = 1753500000;
    if (t && sm_template_render(t, &p, &text, NULL, &error)) text = error.text;
    memset(out, 0, sizeof out);
    memcpy(out, text, sm__min_size(strlen(text), sizeof out - 1));
    sm_template_destroy(t);
    return out;
}

typedef struct template_case {
    const char *source, *want;
} template_case;

static void template_cases(const template_case *c, size_t n) {
    static const char messages[] =
        "[{\"role\":\"user\",\"content\":\" Hi \"},{\"role\":\"assistant\",\"content\":\"Yo\"}]";
    static const char extra[] =
        "{\"n\":3,\"f\":2.5,\"s\":\"caf\\u00e9 Z\\u00fcrich\",\"l\":[3,1,2],"
        "\"d\":{\"b\":1,\"a\":[true,null,\"x\"]},\"w\":\"a b  c\"}";
    size_t i;
    for (i = 0; i < n; i++) {
        const char *got = template_text(c[i].source, messages, extra);
        if (strcmp(got, c[i].want) != 0)
            check_fail(__FILE__, __LINE__, "%s gives \"%s\", not \"%s\"", c[i].source, got,
                       c[i].want);
    }
}
#define TEMPLATE_CASES(c) template_cases(c, sizeof c / sizeof *c)

static void template_expressions(void) {
    static const template_case cases[] = {
        {"{{ 1 + 2 * 3 - -4 }} {{ 7 // -2 }} {{ -7 % 3 }} {{ 2 ** 3 ** 2 }} {{ 7 / 2 }}",
         "11 -4 2 64 3.5"},
        {"{{ 1 < 2 < 3 }} {{ 3 > 2 > 2 }} {{ 1 == 1.0 }} {{ 'a' < 'b' }} {{ not 1 in l }}",
         "True False True True False"},
        {"{{ 0 or 'x' }} {{ 1 and [] }} {{ none or n }} {{ f and s[0] }}", "x [] 3 c"},
        {"{{ 'a' if n > 2 else 'b' if n else 'c' }}|{{ 'x' if false }}|", "a||"},
        {"{{ (1,) }} {{ () }} {{ 1, 'b' }} {{ {'k': [1, {'z': none}]} }}",
         "(1,) () (1, 'b') {'k': [1, {'z': None}]}"},
        {"{{ \"it's\" ~ 'a' 'b' ~ 1 ~ none }} {{ '\\x41\\u00e9\\n\\q' }}",
         "it'sab1None A\xc3\xa9\n\\q"},
        {"{{ s[3] }} {{ s[-3:] }} {{ s[::-1] }} {{ l[1:] }} {{ l[-1] }} {{ l[9] }}|{{ s[1:7:2] }}",
         "\xc3\xa9 ich hcir\xc3\xbcZ \xc3\xa9"
         "fac [1, 2] 2 |a\xc3\xa9Z"},
        {"{{ d.a[2] }} {{ d['b'] }} {{ d.c is defined }} {{ nope }}|{{ nope.x is defined }}",
         "template, line 1, column 67: this is undefined: nope"},
        {"{{ 1e3 }} {{ 0.1 }} {{ 1e-5 }} {{ 1e16 }} {{ 100.0 }} {{ -0.0 }}",
         "1000.0 0.1 1e-05 1e+16 100.0 -0.0"},
        {"{{ -f|abs }} {{ 'ab' * 2 }} {{ [1] * 2 + [n] }} {{ '%s-%d%%' % ('a', 4) }}",
         "2.5 abab [1, 1, 3] a-4%"},
        {"{{ n is odd }} {{ n is divisibleby 3 }} {{ n is not none }} {{ n is eq 3 and 1 is string "
         "}}",
         "True True True False"},
        {"{{ {}}}{{ '}}' }}{{- 'x' -}}  {{+ 1 }}", "{}}}x1"},
        {"{{ [1, 2] < [1, 3] }} {{ [2] > [1, 9] }} {{ [1] < [1, 0] }} {{ [[1]] == [[1]] }} "
         "{{ {'a': [1]} == {'a': [2]} }}",
         "True True True True False"},
        {"{{ 2 * 3 ** 2 }} {{ 3 < 2 < 5 }} {{ l[-9:2] }} {{ l[1:-5:-1] }} {{ range(9)[1::3]|list "
         "}}",
         "18 False [3, 1] [1, 3] [1, 4, 7]"},
        {"{{ {'a': 1, 'b': 2, 'a': 3} }} {{ dict({'a': 1}, a=2, b=3) }}",
         "{'a': 3, 'b': 2} {'a': 2, 'b': 3}"},
    };
    TEMPLATE_CASES(cases);
}

static void template_filters(void) {
    static const template_case cases[] = {
        {"{{ ' x '|trim }}{{ 'xxaxx'.strip('x') }}{{ ' q'.lstrip() }}{{ 'q\\u3000'.rstrip() }}",
         "xaqq"},
        {"{{ s|upper }} {{ s|lower|capitalize }} {{ 'a-b (c d'|title }} {{ \"they're\".title() }}",
         "CAF\xc3\x89 Z\xc3\x9cRICH Caf\xc3\xa9 z\xc3\xbcrich A-B (C D They'Re"},
        {"{{ l|sort }} {{ l|sort(reverse=true)|join('-') }} {{ l|min }}{{ l|max }}{{ l|sum }}",
         "[1, 2, 3] 3-2-1 136"},
        {"{{ d|tojson }} {{ s|tojson }} {{ {'a': 'x\"\\n\\u2028'}|tojson(indent=2) }}",
         "{\"b\": 1, \"a\": [true, null, \"x\"]} \"caf\xc3\xa9 Z\xc3\xbcrich\" "
         "{\n  \"a\": \"x\\\"\\n\xe2\x80\xa8\"\n}"},
        {"{{ d|tojson(sort_keys=true, separators=(',', ':')) }} {{ s|tojson(ensure_ascii=true) }}",
         "{\"a\":[true,null,\"x\"],\"b\":1} \"caf\\u00e9 Z\\u00fcrich\""},
        {"{{ w.split() }} {{ w.split(' ') }} {{ w.split(' ', 1) }} {{ w.rsplit(' ', 1) }}",
         "['a', 'b', 'c'] ['a', 'b', '', 'c'] ['a', 'b  c'] ['a b ', 'c']"},
        {"{{ messages|map(attribute='role')|join(',') }} {{ messages|selectattr('role', 'eq', "
         "'user')"
         "|map(attribute='content')|list }}",
         "user,assistant [' Hi ']"},
        {"{{ [1, 2, 3, 4]|select('odd')|list }} {{ [0, 1]|reject|list }} {{ ['a', 'A']|unique|list "
         "}}",
         "[1, 3] [0] ['a']"},
        {"{% for k, v in d|dictsort %}{{ k }}={{ v }};{% endfor %}{{ d|items|list }}",
         "a=[True, None, 'x'];b=1;[('b', 1), ('a', [True, None, 'x'])]"},
        {"{{ nope|default('x') }}{{ ''|default('y', true) }}{{ ''|d('z') }}{{ l|first }}{{ l|last "
         "}}",
         "xy32"},
        {"{{ '12'|int + 1 }} {{ '3.7'|int }} {{ 'x'|int(9) }} {{ '2.5'|float }} {{ 2.5|round }}",
         "13 3 9 2.5 2.0"},
        {"{{ 'a\\nb\\n\\nc'|indent(2) }}|{{ 'aXbX'|replace('X', '-', 1) }}|{{ 'ab'.replace('', "
         "'.') }}",
         "a\n  b\n\n  c|a-bX|.a.b."},
        {"{{ '<&>'|e }} {{ '{}-{a}-{{}}'.format(1, a='z') }} {{ l|length }} {{ 'caf\\u00e9'|length "
         "}}",
         "&lt;&amp;&gt; 1-z-{} 3 4"},
        {"{{ 'abc'.find('c') }} {{ 'abcb'.count('b') }} {{ 'abc'.startswith(('x', 'a')) }} "
         "{{ 'a.txt'.removesuffix('.txt') }} {{ 'a\\nb'.splitlines() }}",
         "2 2 True a ['a', 'b']"},
        {"{{ strftime_now('%d %B %Y %a %-d %j %H:%M') }}", "26 July 2025 Sat 26 207 03:20"},
        {"{{ ['b', 'A', 'B', 'a']|sort|join }} {{ ['b', 'A', 'B', 'a']|sort(reverse=true)|join }}",
         "AabB bBAa"},
        {"{{ '\\U0001f600'|tojson(ensure_ascii=true) }} {{ 'a\\x07b'|tojson }} {{ ['\\x07\\u2028'] "
         "}}",
         "\"\\ud83d\\ude00\" \"a\\u0007b\" ['\\x07\\u2028']"},
        {"{{ 3|round(0, 'common') }} {{ -2.5|round }} {{ 2.1|round(method='ceil') }} {{ -0.4|round "
         "}}",
         "3 -2.0 3.0 -0.0"},
        {"{{ 'x1y'.title() }} {{ 'ab'|upper is upper }} {{ '1'.isupper() }} {{ ''.isdigit() }}",
         "X1Y True False False"},
        {"{{ d.items() is sequence }} {{ l|map('string') is iterable }} {{ range is callable }} "
         "{{ nope is callable }} {{ 1.0 is integer }} {{ true is integer }}",
         "False True True True False False"},
        {"{{ d.get('b') }}{{ d.get('q') }}{{ d.get('q', 7) }}{{ d.keys()|list }}{{ range(5, 1, "
         "-2)|list }}",
         "1None7['b', 'a'][5, 3]"},
    };
    TEMPLATE_CASES(cases);
}

static void template_statements(void) {
    static const template_case cases[] = {
        {"{% for m in messages %}{{ loop.index }}{{ loop.first }}{{ loop.last }}{{ m.role[0] }};"
         "{% endfor %}",
         "1TrueFalseu;2FalseTruea;"},
        {"{% for x in l if x > 1 %}{{ x }}{{ loop.length }}{{ loop.previtem }},{% else %}none{% "
         "endfor %}"
         "{% for x in [] %}{% else %}empty{% endfor %}",
         "32,223,empty"},
        {"{% for k, v in d.items() %}{{ k }}{% endfor %}{% for c in 'h\\u00e9' %}{{ c }}.{% endfor "
         "%}",
         "bah.\xc3\xa9."},
        {"{% set x = 1 %}{% for i in l %}{% set x = x + i %}{{ x }},{% endfor %}{{ x }}",
         "4,2,3,1"},
        {"{% set ns = namespace(a=1) %}{% for i in l %}{% set ns.a = ns.a + i %}{% endfor %}{{ "
         "ns.a }}",
         "7"},
        {"{% macro m(a, b='x', c=a) %}[{{ a }}{{ b }}{{ c }}]{% endmacro %}{{ m(1) }}{{ m(1, c=2) "
         "}}"
         "{{ m(b=3, a=4) }}{{ m() }}",
         "[1x1][1x2][434][x]"},
        {"{% macro f(n) %}{% if n %}{{ n }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}",
         "54321"},
        {"{% for i in range(9) %}{% if i == 1 %}{% continue %}{% elif i == 4 %}{% break %}{% endif "
         "%}"
         "{{ i }}{% endfor %}",
         "023"},
        {"{% set b %} x {{ n }} {% endset %}{{ b|length }}{% filter upper|trim %} q {% endfilter "
         "%}",
         "5Q"},
        {"{% set a, b = 1, 2 %}{{ b }}{% with a = 5, c = a %}{{ a }}{{ c }}{% set b = 9 %}{% "
         "endwith %}"
         "{{ a }}{{ b }}",
         "25112"},
        {"a\n  {% if true %}\n  b\n  {%- endif %}\n\n c {# x #}\nd {%- raw %} {{ x }} {% endraw "
         "%}\n",
         "a\n  b\n c d {{ x }} "},
        {"{% generation %}{{ n }}{% endgeneration %}{{ loop is defined }}", "3False"},
        {"{% for i in l %}{% with a = i %}{% if i == 1 %}{% continue %}{% endif %}{% set b = a %}"
         "{{ a }}{{ b }}{% endwith %}{{ b is defined }}{% endfor %}{{ a is defined }}",
         "33False22FalseFalse"},
        {"{% for i in l %}{{ q is defined }}{% set q = i %}{% with a = i %}{% continue %}{% "
         "endwith %}"
         "{% endfor %}",
         "FalseFalseFalse"},
        {"{% for i in [1, 2] %}{% macro m() %}{{ i }}{% endmacro %}{{ m() }}{% endfor %}", "12"},
        {"{% raw %}\n a\n {% endraw %}\nb{% raw -%} x {%- endraw -%} y", "\n a\nbxy"},
        {"{% for i in [1, 2] %}{% for j in 'ab' %}{{ loop.cycle('x', 'y') }}{% endfor %}"
         "{{ loop.changed(1) }}{% endfor %}",
         "xyTruexyFalse"},
    };
    TEMPLATE_CASES(cases);
}

static void template_errors_say_where(void) {
    static const template_case cases[] = {
        {"a\n b {{ x y }}", "template, line 2, column 9: unexpected y"},
        {"{% if 1 %}", "template, line 1, column 4: a block that does not end"},
        {"{% include 'x' %}", "template, line 1, column 4: the tag include"},
        {"{% call f() %}{% endcall %}", "template, line 1, column 4: the tag call"},
        {"{% for x in l recursive %}{% endfor %}", "template, line 1, column 15: recursive loops"},
        {"\n{{ 1|groupby('x') }}", "template, line 2, column 6: the filter groupby"},
        {"{{ 1 is weird }}", "template, line 1, column 9: the test weird"},
        {"{{ l.append(1) }}", "template, line 1, column 6: Python's attribute append"},
        {"{{ ''.__class__ }}", "template, line 1, column 7: Python's attribute __class__"},
        {"{{ 1 + 'a' }}", "template, line 1, column 6: this operator does not take str"},
        {"{{ 1 // 0 }}", "template, line 1, column 6: division by zero"},
        {"{{ 9223372036854775807 + 1 }}", "template, line 1, column 24: an integer beyond 64 bits"},
        {"{{ 0.1 + 0.2 }}",
         "template, line 1, column 1: a float of more than 15 digits, or beyond 1e22"},
        {"{{ '\\u0149'|upper }}", "template, line 1, column 13: the case of an unusual letter"},
        {"{{ raise_exception('Only ' ~ n ~ '!') }}", "the template says: Only 3!"},
        {"{% set g = l|map('string') %}{{ g|list }}{{ g|list }}",
         "template, line 1, column 47: a generator is read twice"},
        {"{{ (1|safe) + 'x' }}", "template, line 1, column 13: Markup in an operation"},
        {"{{ lipsum() }}", "template, line 1, column 4: the function lipsum"},
        {"{{ d.items }}", "template, line 1, column 6: Python's attribute items"},
        {"{{ [1|map('map')] }}", "template, line 1, column 7: not iterable: int"},
        {"{{ 'a", "template, line 1, column 4: a string that does not end"},
        {"{{ (1] }}", "template, line 1, column 6: unexpected ]"},
        {"{{ 1|sort(attribute=) }}", "template, line 1, column 21: unexpected )"},
        {"{% set ns = namespace(f=1) %}{% for i in l %}{% macro m() %}{{ i }}{% endmacro %}"
         "{% set ns.f = m %}{% endfor %}{{ ns.f() }}",
         "template, line 1, column 118: a macro called outside of the block that it is in"},
        {"{% set ns = namespace(x=1) %}{% for i in l if i > ns.x %}{% set ns.x = i %}{% endfor %}",
         "template, line 1, column 74: a namespace that the loop's own filter reads is changed"},
        {"{% for i in l %}{{ n }}{% endfor %}{% set n = 4 %}",
         "template, line 1, column 49: set behind a block that has read it: n"},
        {"{{ a_name_that_is_longer_than_there_are_rows_of_filters_and_tests_() }}",
         "template, line 1, column 4: this is undefined: "
         "a_name_that_is_longer_than_there_are_rows_of_filters_and_tests_"},
        {"{{ 'abc'.index('x') }}", "template, line 1, column 10: index(): not found"},
        {"{{ [[1]]|map('map', 'string') }}",
         "template, line 1, column 10: map, select and reject in one another"},
        {"{{ '{0}{}'.format(1, 2) }}", "template, line 1, column 12: a field of a format:"},
        {"{{ dict(a=1, b=) }}", "template, line 1, column 16: unexpected )"},
    };
    TEMPLATE_CASES(cases);
}

/* Whatever a template does, it ends soon, with an error. */
static void template_limits_hold(void) {
    static const char *const hostile[] = {
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(999) %}{% for b in range(999) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for a in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% "
        "endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for a in range(99) %}{% set ns.x = ns.x + ns.x %}{% "
        "endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ 'x' * 99999999999 }}",
        "{{ [1] * 99999999999 }}",
        "{{ ('a' * 4000) ~ ('b' * 4000) }}{{ 'c' * 4000 }}",
        "{{ range(100001) }}",
        "{% set ns = namespace(x=[]) %}{% for a in range(99) %}{% set ns.x = [ns.x] %}{% endfor %}"
        "{{ ns.x|tojson }}",
        "{% set ns = namespace(x=[]) %}{% for a in range(99) %}{% set ns.x = [ns.x] %}{% endfor %}"
        "{{ ns.x == [ns.x] or ns.x == ns.x }}",
        "{% set ns = namespace(x='') %}{% for a in range(999) %}{% set ns.x = 'x' ~ ns.x %}{% "
        "endfor %}",
        "{{ ('ab' * 2000).replace('a', 'bbbbbbbbbb').replace('b', 'cccccccccc') }}",
        "{% for a in range(99) %}{{ '' if ('a' * 9999)|length }}{% endfor %}",
        "{% for a in range(99) %}{{ '' if (' ' * 9999)|trim|length }}{% endfor %}",
        "{% set s = 'a' * 9999 %}{% for a in range(99) %}{% if s.isalpha() %}{% endif %}{% endfor "
        "%}",
    };
    char deep[512];
    sm_error error;
    size_t i;
    for (i = 0; i < sizeof hostile / sizeof *hostile; i++) {
        sm_template *t = template_make(hostile[i], &error);
        sm_render_params p = sm_render_default();
        const char *text;
        if (!CHECK(t)) continue;
        if (sm_template_render(t, &p, &text, NULL, &error) != SM_ERR_FULL)
            check_fail(__FILE__, __LINE__, "not stopped: %s", hostile[i]);
        CHECK(text == NULL);
        sm_template_destroy(t);
    }
    for (i = 0; i < 3; i++) { /* a hundred brackets, minus signs, blocks */
        static const char *const part[] = {"(", "-", "{%if 1%}"};
        size_t k, n = strlen(part[i]), at = 0;
        if (i < 2) memcpy(deep, "{{", 2), at = 2;
        for (k = 0; k < 60 + 10 * (i < 2); k++, at += n) memcpy(deep + at, part[i], n);
        deep[at] = 0;
        CHECK(template_make(deep, &error) == NULL);
        CHECK_STATUS(error.status, i < 2 ? SM_ERR_FULL : SM_ERR_FORMAT);
    }
}

/* Bytes of messages are marked, wherever they go; bytes of the template are not. */
static void template_marks_what_came_from_messages(void) {
    static const char source[] =
        "<a>{% set x = messages[0].content %}{{ x }}{{ x|trim|upper }}{{ x[1:3] ~ '<b>' }}"
        "{{ x|tojson }}{{ x.split('|')|join('<c>') }}{{ [x] }}{{ x|length }}{{ x|replace('i', "
        "'<d>') }}"
        "{% set y %}-{{ x }}-{% endset %}{{ y }}{{ y|first }}{{ messages[0].role }}{{ x|e|string "
        "}}";
    static const sm_message m = {"user", " i|\"<", NULL};
    sm_render_params p = sm_render_default();
    sm_error error;
    sm_template *t = template_make(source, &error);
    const char *text = NULL;
    char marked[256];
    size_t i, bytes = 0;
    p.messages = &m;
    p.n_messages = 1;
    if (!CHECK(t) || !CHECK_STATUS(sm_template_render(t, &p, &text, &bytes, &error), SM_OK)) return;
    for (i = 0; i < bytes; i++) marked[i] = t->out.marks[i] ? text[i] : '_';
    marked[bytes] = 0;
    CHECK_STR(
        text,
        "<a> i|\"<I|\"<i|<b>\" i|\\\"<\" i<c>\"<[' i|\"<']5 <d>|\"<- i|\"<--user i|&#34;&lt;");
    CHECK_STR(marked,
              "___ i|\"<I|\"<i|____ i|\\\"<_ i___\"<__ i|\"<___ ___|\"<_ i|\"<__user i|&#34;&lt;");
    sm_template_destroy(t);
}

static void template_takes_messages(void) {
    static const char source[] = "{% for m in messages %}{{ m|tojson }}\n{% endfor %}{{ tools }}"
                                 "{{ documents is none }}{{ add_generation_prompt }}{{ x }}"
                                 "{{ strftime_now is defined }}";
    static const sm_message m[] = {
        {"system", "s\n", NULL},
        {"assistant", NULL, "{\"tool_calls\": [{\"id\": 1}]}"},
        {NULL, NULL, "{\"role\": \"tool\", \"content\": [1.50, -0, \"\\ud83d\\ude00\"]}"},
        {"user", "q", "{\"role\": \"x\", \"name\": \"\\u00e9\", \"name\": 2}"}};
    sm_render_params p = sm_render_default();
    sm_error error;
    sm_template *t = template_make(source, &error);
    const char *text = NULL;
    p.messages = m;
    p.n_messages = 4;
    p.extra_json = "{\"x\": \"y\", \"add_generation_prompt\": 0}";
    if (!CHECK(t)) return;
    CHECK_STATUS(sm_template_render(t, &p, &text, NULL, &error), SM_OK);
    CHECK_STR(text, "{\"role\": \"system\", \"content\": \"s\\n\"}\n"
                    "{\"role\": \"assistant\", \"tool_calls\": [{\"id\": 1}]}\n"
                    "{\"role\": \"tool\", \"content\": [1.5, 0, \"\xf0\x9f\x98\x80\"]}\n"
                    "{\"role\": \"user\", \"content\": \"q\", \"name\": 2}\nNoneTrue0yFalse");
    p.tools_json = "[1, 2";
    CHECK_STATUS(sm_template_render(t, &p, &text, NULL, &error), SM_ERR_ARG);
    CHECK_STR(error.text, "tools: bad JSON at byte 5");
    p.tools_json = "\"\\ud83d\"";
    CHECK_STATUS(sm_template_render(t, &p, &text, NULL, &error), SM_ERR_FORMAT);
    p.tools_json = "123456789012345678901234567890";
    CHECK_STATUS(sm_template_render(t, &p, &text, NULL, &error), SM_ERR_UNSUPPORTED);
    p.tools_json = NULL;
    p.messages_json = "[{\"role\": \"u\xff\"}]";
    CHECK_STATUS(sm_template_render(t, &p, &text, NULL, &error), SM_ERR_FORMAT);
    p.messages_json = NULL;
    p.n_messages = -1;
    CHECK_STATUS(sm_template_render(t, &p, &text, NULL, &error), SM_ERR_ARG);
    sm_template_destroy(t);
}

static void template_refuses_bad_arguments(void) {
    sm_template_params p = sm_template_default();
    sm_template *t;
    sm_error error;
    CHECK_STATUS(sm_template_create(NULL, NULL, &t, &error), SM_ERR_UNSUPPORTED);
    p.source = "\xff";
    CHECK_STATUS(sm_template_create(NULL, &p, &t, &error), SM_ERR_FORMAT);
    p.source = NULL;
    p.name = "no such";
    CHECK_STATUS(sm_template_create(NULL, &p, &t, &error), SM_ERR_UNSUPPORTED);
    CHECK(t == NULL);
}

static const test tests_template[] = {
    {"template: expressions are Python's", template_expressions},
    {"template: filters and methods", template_filters},
    {"template: statements and white space", template_statements},
    {"template: errors say where and what", template_errors_say_where},
    {"template: limits stop what is hostile", template_limits_hold},
    {"template: bytes of messages are marked", template_marks_what_came_from_messages},
    {"template: messages, JSON and bad JSON", template_takes_messages},
    {"template: bad arguments", template_refuses_bad_arguments},
};

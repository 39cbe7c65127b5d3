/* A template, a NUL, and what it gets as JSON. It must end, within its limits, in a text or an
 * error; whatever is rendered twice is the same.
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined tests/fuzz_template.c -o fuzz_template
 *     ./fuzz_template -max_len=4096 CORPUS                                 (or: make fuzz) */
#include "fuzz.h"

static size_t fuzz_example(uint8_t *data, size_t max, unsigned number) {
    static const char *const sources[] = {
        "{% for m in messages %}<|{{ m.role }}|>{{ m['content']|trim }}{% endfor %}",
        "{%- set ns = namespace(a=1, b='') -%}{% for i in range(3) if i is odd %}{% set ns.a = "
        "ns.a "
        "+ i %}{{ loop.index }}{% break %}{% else %}x{% endfor %}{{ ns.a ~ ns.b }}",
        "{% macro m(a, b=[1, {'k': a}]) %}{{ a|tojson(indent=2) }}{{ b[1:][0].k }}{% endmacro %}"
        "{{ m('x' if messages else 2, b=messages) }}{{ m(b=1, a=-2 ** 3 // 4) }}",
        "{% set x %}{{ messages|map(attribute='role')|join(', ')|upper }}{% endset %}{{ x[::-1] }}"
        "{{ x.split('S')|sort|list }}{{ '%s {}' % x }}{{ 'a{}b'.format(x|length) }}",
        "{%- if messages[0].content is string and 'a' in messages[0].content or 1 < 2 <= 3 -%}\n  "
        "{{- messages[-1].content.replace('a', 'bb').strip('\\n ').title() -}}\n{% elif x %}{% "
        "endif %}",
        "{% with a = 1 %}{% filter upper %}{{ a }}{% raw %}{{ b }}{% endraw %}{% endfilter %}"
        "{% endwith %}{# c #}{{ messages[0]|dictsort|first|last|default('z')|e|int(3)|round }}"};
    static const char messages[] =
        "[{\"role\": \"user\", \"content\": \" a\\u00e9\\n\"}, {\"role\": "
        "\"tool\", \"content\": [1, 2.5, null, {\"k\": []}]}]";
    const char *s = sources[number % 6];
    size_t n = strlen(s) + 1;
    if (n + sizeof messages > max) return 0;
    memcpy(data, s, n);
    memcpy(data + n, messages, sizeof messages);
    return n + sizeof messages - 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    sm_template_params tp = sm_template_default();
    sm_render_params rp = sm_render_default();
    const uint8_t *end = n ? (const uint8_t *)memchr(data, 0, n) : NULL;
    char *source = (char *)malloc(n + 1), *messages, first[2048];
    sm_template *t = NULL;
    const char *text = NULL;
    size_t bytes = 0, before;
    int i;
    if (!source) return 0;
    memcpy(source, data, n);
    source[n] = 0;
    messages = end ? source + (end - data) + 1 : NULL;
    tp.source = source;
    tp.max_text = 2048;
    tp.max_values = 2048;
    tp.max_steps = 100000;
    rp.messages_json = messages && *messages ? messages : NULL;
    rp.now = 1753500000;
    if (!sm_template_create(NULL, &tp, &t, NULL)) {
        for (i = 0; i < 2; i++) {
            before = bytes;
            if (sm_template_render(t, &rp, &text, &bytes, NULL)) break;
            if (i && (before != bytes || memcmp(first, text, bytes) != 0)) abort();
            memcpy(first, text, bytes);
        }
        sm_template_destroy(t);
    }
    free(source);
    return 0;
}

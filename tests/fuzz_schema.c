/* A schema, a zero byte, and an instance: clang -g -O1 -fsanitize=fuzzer,address,undefined
 * tests/fuzz_schema.c -o fuzz_schema -lpthread && ./fuzz_schema -max_len=2048    (or: make fuzz) */
#include "fuzz.h"

static size_t fuzz_example(uint8_t *data, size_t max, unsigned number) {
    static const char *const schemas[] = {
        "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\",\"minimum\":-3}},"
        "\"required\":[\"a\"],\"additionalProperties\":false}",
        "{\"type\":\"array\",\"items\":{\"$ref\":\"#\"},\"contains\":{\"const\":[]},"
        "\"maxItems\":4}",
        "{\"type\":\"string\",\"pattern\":\"^(a|[^b-d\\\\w]){2,3}$\",\"maxLength\":9}",
        "{\"oneOf\":[{\"enum\":[1,\"x\",{\"a\":null}]},{\"not\":{\"type\":\"object\"}}]}",
        "{\"type\":\"string\",\"format\":\"date-time\"}",
        "{\"anyOf\":[{\"multipleOf\":0.25},{\"patternProperties\":{\"^x\":{\"type\":\"null\"}},"
        "\"unevaluatedProperties\":false,\"dependentRequired\":{\"x\":[\"y\"]}}]}"};
    const char *s = schemas[number % (sizeof schemas / sizeof *schemas)];
    size_t n = strlen(s) < max ? strlen(s) : max;
    memcpy(data, s, n);
    return n;
}

static void *fuzz_memory, *fuzz_work;
static size_t fuzz_work_bytes;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static sm__gb b;
    static sm__schema js;
    const uint8_t *zero = n ? (const uint8_t *)memchr(data, 0, n) : NULL;
    size_t i, length = zero ? (size_t)(zero - data) : n;
    sm__arena a = {NULL, 0, 0};
    uint32_t state, culprit;
    if (!fuzz_memory) {
        sm__gb_layout(&a, &b, 1 << 15);
        fuzz_memory = malloc(a.used + SM__ALIGN);
        a.base = sm__align_pointer(fuzz_memory);
        a.used = 0;
        sm__gb_layout(&a, &b, 1 << 15);
    }
    sm__gb_init(&b);
    a.base = NULL;
    a.used = 0;
    sm__js_layout(&a, &js, (const char *)data, length);
    if (a.used > fuzz_work_bytes) {
        free(fuzz_work);
        fuzz_work = malloc((fuzz_work_bytes = a.used) + SM__ALIGN);
    }
    a.base = sm__align_pointer(fuzz_work);
    a.used = 0;
    sm__js_layout(&a, &js, (const char *)data, length);
    state = sm__js_compile(&js, &b, (const char *)data, length);
    if (b.error.status == SM_OK) state = sm__gb_finish(&b, state, &culprit);
    if (b.error.status != SM_OK) return 0;
    for (i = length + 1; i < n && state; i++) state = sm__gb_step(&b, state, data[i]);
    return 0;
}

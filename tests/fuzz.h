/* fuzz.h - what the fuzz targets share: the implementation, a reader of all that an open model
 * shows, and a mutator that begins anew from a good example now and then: a file that is right in
 * many places at once is hard to find by chance. A target defines fuzz_example, and runs by
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined tests/fuzz_X.c -o fuzz_X -lpthread &&
 *     ./fuzz_X -max_len=65536 CORPUS                                        (or: make fuzz) */
#include <stdio.h>
#include <stdlib.h>
#define SMALLMIND_IMPLEMENTATION
#include "../smallmind.h"

/* A good input into data [max], one of several by its number; its length. */
static size_t fuzz_example(uint8_t *data, size_t max, unsigned number);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
size_t LLVMFuzzerMutate(uint8_t *data, size_t n, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n, size_t max, unsigned seed);

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n, size_t max, unsigned seed) {
    if (n < 8 || seed % 16 == 0) {
        n = fuzz_example(data, max, seed / 32);
        if (seed & 16) return n;
    }
    return LLVMFuzzerMutate(data, n, max);
}

/* Opens what params tell, and looks at the ends of every tensor. */
SM__UNUSED static void fuzz_open(const sm_model_params *params) {
    sm_model *m = NULL;
    sm_error error;
    sm_tensor t;
    const volatile uint8_t *p;
    int i;
    if (sm_model_open(params, &m, &error)) return;
    for (i = 0; sm_model_tensor(m, i, &t) == SM_OK; i++)
        if (t.bytes) p = (const volatile uint8_t *)t.data, (void)p[0], (void)p[t.bytes - 1];
    sm_model_close(m);
}

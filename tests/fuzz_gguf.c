/* clang -g -O1 -fsanitize=fuzzer,address,undefined tests/fuzz_gguf.c -o fuzz_gguf -lpthread &&
 * ./fuzz_gguf -max_len=65536 CORPUS ../shared/data/gguf-bad         (or: make fuzz) */
#define SMALLMIND_IMPLEMENTATION
#include "../smallmind.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    sm_model_params p = sm_model_default();
    sm_model *m = NULL;
    sm_error error;
    sm_tensor t;
    char key[64], text[64];
    volatile uint8_t sink = 0;
    int i;
    p.vocab_only = n & 1;
    p.file.data = n ? data : NULL;
    p.file.bytes = n;
    if (sm_model_open(&p, &m, &error)) return 0;
    for (i = 0; sm_model_meta_at(m, i, key, sizeof key); i++)
        sm_model_meta(m, key, text, sizeof text);
    for (i = 0; sm_model_tensor(m, i, &t) == SM_OK; i++)
        if (t.bytes) sink ^= ((const uint8_t *)t.data)[0] ^ ((const uint8_t *)t.data)[t.bytes - 1];
    sm_model_close(m);
    (void)sink;
    return 0;
}

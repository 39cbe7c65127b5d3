/* clang -g -O1 -fsanitize=fuzzer,address,undefined tests/fuzz_safetensors.c -o fuzz_safetensors \
 *     -lpthread && ./fuzz_safetensors -max_len=65536 CORPUS         (or: make fuzz)
 * Input: one byte with the length of the config, the config, then the model file; without a '{' at
 * its ninth byte that is a llama2.c file, and the config is its tokenizer. */
#define SMALLMIND_IMPLEMENTATION
#include "../smallmind.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    sm_model_params p = sm_model_default();
    sm_model *m = NULL;
    sm_error error;
    sm_tensor t;
    volatile uint8_t sink = 0;
    size_t config = n ? data[0] : 0;
    int i;
    if (n < 2 + config) return 0;
    p.config.data = p.tokenizer.data = config ? data + 1 : NULL;
    p.config.bytes = p.tokenizer.bytes = config;
    p.file.data = data + 1 + config;
    p.file.bytes = n - 1 - config;
    if (p.file.bytes > 8 && data[1 + config + 8] == '{') p.tokenizer.data = NULL;
    if (sm_model_open(&p, &m, &error)) return 0;
    for (i = 0; sm_model_tensor(m, i, &t) == SM_OK; i++)
        if (t.bytes) sink ^= ((const uint8_t *)t.data)[0] ^ ((const uint8_t *)t.data)[t.bytes - 1];
    sm_model_close(m);
    return 0;
}

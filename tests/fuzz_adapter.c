/* LoRA adapters: GGUF files that are computed with, and merged, by a small model. See fuzz.h. */
#include "fuzz.h"

#include "build_gguf.h"

static sm_model *fuzz_base(void) {
    sm_model_params mp = sm_model_default();
    sm_model *m = NULL;
    size_t n;
    gguf_model_params p = gguf_model_default("llama", SM_TYPE_F32);
    p.vocab = GGUF_NO_VOCAB;
    p.n_vocab = 5;
    p.n_embd = 32;
    p.n_layers = 1;
    p.n_heads = 2;
    p.n_kv_heads = 1;
    p.head_dim = 16;
    p.n_ff = 32;
    mp.file.data = gguf_model(&p, &n); /* it stays */
    mp.file.bytes = n;
    if (sm_model_open(&mp, &m, NULL)) abort();
    return m;
}

static size_t fuzz_example(uint8_t *data, size_t max, unsigned number) {
    static const char *const stems[] = {"attn_q", "attn_k", "ffn_down"};
    static const uint64_t outputs[] = {32, 16, 32};
    gguf_builder g = gguf_make(3);
    unsigned i, type = number & 1 ? SM_TYPE_F16 : SM_TYPE_F32, rank = 1 + number % 3;
    uint8_t *file;
    size_t n;
    gguf_key_str(&g, "general.architecture", "llama");
    gguf_key_str(&g, "general.type", "adapter");
    gguf_key_str(&g, "adapter.type", "lora");
    gguf_key_f32(&g, "adapter.lora.alpha", 2.0f);
    for (i = 0; i < 3; i++) {
        char name[64];
        uint64_t a[2], b[2], at;
        float zeros[96] = {0.0f};
        a[0] = 32, a[1] = b[0] = rank, b[1] = outputs[i];
        sprintf(name, "blk.0.%s.weight.lora_a", stems[i]);
        at = gguf_align(&g);
        gguf_bytes(&g.data, zeros, (size_t)(a[0] * a[1]) * (type ? 2 : 4));
        gguf_entry(&g, name, 2, a, type, at);
        name[strlen(name) - 1] = 'b';
        at = gguf_align(&g);
        gguf_bytes(&g.data, zeros, (size_t)(b[0] * b[1]) * (type ? 2 : 4));
        gguf_entry(&g, name, 2, b, type, at);
    }
    file = gguf_finish(&g, &n);
    if (n <= max) memcpy(data, file, n);
    free(file);
    return n <= max ? n : 0;
}

static int fuzz_write(void *user, const void *bytes, size_t n) { return !user || !bytes || !n; }

/* Opened, set and computed with; merged. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static sm_model *m;
    static sm_ctx *ctx;
    sm_model_params mp = sm_model_default();
    sm_ctx_params cp = sm_ctx_default();
    sm_quantize_params p = sm_quantize_default();
    sm_adapter *adapter = NULL;
    sm_batch batch;
    int32_t token = 1;
    sm_error error;
    cp.n_threads = 1;
    cp.max_lora_rank = 4;
    if (!m) m = fuzz_base();
    if (!ctx && sm_ctx_create(m, &cp, &ctx, &error)) abort();
    memset(&batch, 0, sizeof batch);
    batch.n = 1;
    batch.tokens = &token;
    mp.file.data = p.adapter.data = n ? data : NULL;
    mp.file.bytes = p.adapter.bytes = n;
    p.type = SM_TYPE_Q8_0;
    p.out.write = fuzz_write;
    p.out.user = m;
    if (sm_adapter_open(m, &mp, &adapter, &error)) return 0;
    if (sm_ctx_set_adapter(ctx, adapter, 0.5f) == SM_OK) {
        if (sm_eval(ctx, &batch) > 0) abort();
        if (sm_ctx_set_adapter(ctx, NULL, 1.0f)) abort();
        sm_seq_release(ctx, 0);
    }
    if (sm_quantize(m, &p, &error) > 0) abort();
    sm_adapter_close(adapter);
    return 0;
}
